"""IVEDiff as a backbone: it is conditioned on a picture, and on a clip of which something is masked.

A folder holds `unet` (the editing U-Net of pictures), `reference_unet`, `image_projection`, `depth_guider`, and the two
that make it one of clips, `motion_adapter` and `motion_reference`; vae, image_encoder and scheduler as elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_motion_model import UNetMotionModel
from torch import Tensor, nn

from retake.diffusion import features
from retake.diffusion.backbone import Condition, Site, Times, times
from retake.diffusion.families.common.conditioning import clip_pixels, image_states
from retake.diffusion.families.common.unet import UNet, blank, places, site, text_width
from retake.diffusion.families.ivediff.guides import DepthGuider, ImageProjection
from retake.diffusion.families.ivediff.motion_reference import MotionReference, motion_widths
from retake.diffusion.families.ivediff.network import EditingNetwork, sites
from retake.diffusion.families.unet_motion.adapter import motion_adapter
from retake.diffusion.loading import components
from retake.diffusion.loading.offload import Parts
from retake.diffusion.model import Model
from retake.diffusion.schedule import Schedule
from retake.errors import ConfigError

DEPTHS = 4  # channels of depth features, as MimicBrush has them


class IVEDiff(UNet):
    """The editing network with its autoencoder and its image encoder. parts: as `UNet`, without text."""

    def __init__(self, parts: Parts, schedule: Schedule, frames: int, height: int, width: int) -> None:
        super().__init__(parts, schedule, frames, height, width)
        self.channels = self.config.out_channels  # it reads more than latents

    @property
    def joint(self) -> bool:
        return False

    @property
    def reads_images(self) -> bool:
        return True

    # ---- conditioning -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def condition(
        self,
        text: Sequence[str] | None = None,
        image: Tensor | None = None,
        negative: str = "",
        extra: Sequence[str] = (),
    ) -> Condition:
        """What is said of reference pictures `image` [B, 3, S, S]: states, reference and told, as `EditingNetwork`
        reads them; the negative: of no picture. What of the clip is masked is added by whoever asks.

        Raises ConfigError E273 for a text, and for no picture."""
        if image is None or any(text or ()):
            raise ConfigError(
                "E273",
                "this model is told by a picture what to put into a clip, and reads no text",
                "Give edit=ivediff edit.reference=IMAGE; or a model that reads a prompt: model=embedded.",
            )
        shown = image.to(self.device)
        if shown.shape[-2:] != (self.height, self.width):
            size = (self.height, self.width)
            shown = nn.functional.interpolate(shown, size, mode="bilinear", antialias=True, align_corners=False)
        reference = self.encode(shown[:, None])[:, 0]
        states, none = map(self.projected, self.states(image))
        told = torch.ones(len(image), dtype=torch.bool)
        return Condition(
            {"states": states, "reference": reference, "told": told},
            {"states": none, "reference": reference, "told": torch.zeros_like(told)},
        )

    def states(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What the image encoder says of pictures, and of none, [B, N, D] each."""
        encoder = self.parts.need("image_encoder")
        if not self.network.image_projection.config.penultimate:
            return image_states(encoder, image), torch.zeros(len(image), *self.seen, device=self.device)
        pixels = clip_pixels(image.to(self.device), encoder)
        found = [encoder(x, output_hidden_states=True).hidden_states[-2] for x in (pixels, torch.zeros_like(pixels))]
        return found[0], found[1]

    @property
    def seen(self) -> tuple[int, int]:
        """States of a picture: how many, and how wide."""
        config = self.parts.look("image_encoder").config
        return (config.image_size // config.patch_size) ** 2 + 1, config.hidden_size

    def projected(self, states: Tensor) -> Tensor:
        network = self.parts.use("network")
        return network.image_projection(states.to(self.device, network.dtype))

    @torch.no_grad()
    def depth_features(self, depth: Tensor) -> Tensor:
        """What the network reads of depth maps [F, H, W] (relative inverse depth; for a guider that says so in shares
        of the clip's nearest), [F, D, h, w]. A map of zeros tells no shape."""
        network = self.parts.use("network")
        return network.depth_guider(depth[:, None].to(self.device, network.dtype)).float()

    @property
    def depth_in_shares(self) -> bool:
        """Whether depth is given in shares of the clip's nearest."""
        return bool(self.network.depth_guider.config.unit)

    @contextmanager
    def ablated(self, what: str) -> Iterator[None]:
        """Within it, motion modules rest ("frame_wise"), or the motion reference network ("no_reference_motion");
        anything else changes nothing."""
        network = self.network
        network.frame_wise, network.propagates = what == "frame_wise", what != "no_reference_motion"
        try:
            yield
        finally:
            network.frame_wise, network.propagates = False, True

    def tokens_of(self, prompt: str, part: str) -> list[int]:
        raise ConfigError("E294", "this model reads no text", "Leave the prompt out.")

    # ---- the network ------------------------------------------------------------------------------------------------

    def forward(self, z: Tensor, t: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        self.check_frames(z.shape[1])
        if missing := {"mask", "masked", "depth", "flow"} - inputs.keys():
            raise ConfigError(
                "E273",
                f"an editing network reads a masked clip, and was given no {', '.join(sorted(missing))}",
                "Use it with edit=ivediff; other methods take other models (model=embedded).",
            )
        network = self.parts.use("network")
        there = {name: value if name == "told" else value.to(self.device) for name, value in inputs.items()}
        return network(z.to(self.device), t.to(self.device), there)

    def checkpointed(self) -> AbstractContextManager[None]:
        """Nothing is run again: what carries features and tokens is gone by then."""
        return nullcontext()

    def blank(self) -> nn.Module:
        config = dict(self.network.unet.config)
        whole = dict(self.network.reference_unet.config)

        def build() -> Any:
            unet: Any = UNetMotionModel.from_config(config)
            reference: Any = type(self.network.reference_unet).from_config(whole)
            guider = DepthGuider(**plain(self.network.depth_guider))
            made = ImageProjection(**plain(self.network.image_projection))
            return EditingNetwork(
                unet, reference, made, guider, MotionReference(**plain(self.network.motion_reference))
            )

        return blank(build)

    def sites(self) -> Sequence[Site]:
        """Those of the editing U-Net."""
        if self._sites is None:
            from retake.diffusion.backbone import Grid

            network: Any = self.blank()
            grid = self.grid(self.frames, self.height, self.width)
            given = inputs(self, network.device)
            z, t = torch.empty(1, *grid, device="meta"), torch.zeros(1, grid.frames, device="meta")
            shapes = features.survey(network.unet, places(network.unet), lambda: network(z, t, given))
            self._sites = [Site(name, Grid(grid.frames, *shape[1:])) for name, shape in shapes.items()]
        return self._sites

    def features(self, z: Tensor, t: Times, condition: Condition, names: Sequence[str]) -> dict[str, Tensor]:
        unet, known = self.network.unet, places(self.network.unet)
        for name in names:
            if name not in known:
                raise features.no_site(name, known)
        found = features.read(unet, names, lambda: self.forward(z, times(t, z), condition.positive))
        return {name: value.unflatten(0, z.shape[:2]) for name, value in found.items()}


def channels(config: Any) -> int:
    """Of its latents: it reads more."""
    return config.out_channels


def plain(part: Any) -> dict[str, Any]:
    """The arguments that a component was made with."""
    return {name: value for name, value in part.config.items() if not name.startswith("_")}


def inputs(backbone: Any, device: torch.device) -> dict[str, Tensor]:
    """Empty inputs of the network for one clip of the model's own size."""
    f, c, h, w = backbone.grid(backbone.frames, backbone.height, backbone.width)
    depths = backbone.config.in_channels - 2 * c - 1
    shapes = {"mask": (f, 1, h, w), "masked": (f, c, h, w), "depth": (f, depths, h, w), "flow": (f, 2, h, w)}
    shapes |= {"states": (backbone.seen[0], text_width(backbone.config)), "reference": (c, h, w)}
    found = {name: torch.empty(1, *shape, device=device, dtype=backbone.dtype) for name, shape in shapes.items()}
    return found | {"told": torch.ones(1, dtype=torch.bool)}


def network(model: Model, folders: list[Path], found: dict[str, Any], dtype: torch.dtype) -> Any:
    """The editing network that the settings describe. Raises as `loading.load`, and ConfigError E287 for a LoRA."""
    if model.lora is not None:
        raise ConfigError("E287", "models of family=ivediff take no LoRA", "Leave model.lora out.")
    made = {}
    for role in ("unet", "reference_unet"):
        made[role] = components.read(role, folder_of(role, folders), dtype, ("UNet2DConditionModel",))
    for role, kind in OWN.items():
        made[role] = components.of_class(kind, folder_of(role, folders), dtype)
    made["motion_adapter"] = motion_adapter(model, folders, dtype, needed=True)
    made["image_encoder"] = found["image_encoder"]
    try:
        with components.quiet():
            return assembled(made).eval()
    except (ValueError, RuntimeError, IndexError) as error:
        raise components.misfit(folders[0], f"its parts do not fit one another: {error}") from error


OWN: dict[str, Any] = {
    "image_projection": ImageProjection,
    "depth_guider": DepthGuider,
    "motion_reference": MotionReference,
}
"""Components of classes of our own, by their folder."""


def folder_of(role: str, folders: list[Path]) -> Path:
    """Raises ConfigError E281 where no folder has it."""
    if (folder := components.find(role, *folders)) is not None:
        return folder
    raise ConfigError(
        "E281", f"{folders[0]} has no {role}", "Give a folder with all parts of an editing network (docs/ivediff.md)."
    )


def assembled(found: dict[str, Any]) -> Any:
    """The editing network of its components, which are taken from `found` but for the image encoder; those of classes
    of our own are made fresh where they are not there."""
    unet: Any = UNetMotionModel.from_unet2d(found.pop("unet"), found.pop("motion_adapter"))
    reference = found.pop("reference_unet")
    width, seen = text_width(unet.config), found["image_encoder"].config.hidden_size
    projection: Any = found.pop("image_projection", None) or ImageProjection(seen, width)
    guider: Any = found.pop("depth_guider", None) or DepthGuider(DEPTHS)
    motion: Any = found.pop("motion_reference", None) or MotionReference.of(unet)
    reads = 2 * unet.config.out_channels + 1 + guider.config.channels
    for what, one, other in (
        ("motion_reference: widths", list(motion.config.widths), motion_widths(unet)),
        ("unet: channels that it reads", unet.config.in_channels, reads),
        ("image_projection: states", projection.config.image_width, seen),
        ("image_projection: width", projection.config.width, width),
        ("reference_unet: attention", sites(reference), sites(unet)),
    ):
        if one != other:
            raise ValueError(f"{what}, {str(one)[:80]}, and the others' {str(other)[:80]}")
    return EditingNetwork(unet, reference, projection, guider, motion)


Adapter = IVEDiff
__all__ = ["Adapter", "assembled", "channels", "inputs", "network", "site", "text_width"]
