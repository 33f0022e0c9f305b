"""What the two U-Net families share: an image autoencoder, text and image states, and the walk through the blocks.

diffusers' own forward takes one timestep a clip; this walk runs its genuine blocks with one a frame.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from retake.diffusion import attention, features
from retake.diffusion.backbone import Attention, Backbone, Condition, Grid, Site, Times, times
from retake.diffusion.checkpointing import where_large
from retake.diffusion.families.common import conditioning, image_vae
from retake.diffusion.families.common.conditioning import joined, prompts, text_states
from retake.diffusion.loading.offload import Parts
from retake.diffusion.schedule import Schedule
from retake.errors import ConfigError

SITES = ("resnets", "attentions", "motion_modules", "temp_convs", "temp_attentions", "downsamplers", "upsamplers")


class UNet(Backbone):
    """A U-Net over frames. `frames`, `height` and `width` are those of the model's own clip, in pixels.

    parts: `network`, and what is there of `vae`, `text_encoder`, `tokenizer`, `image_encoder`. Raises ConfigError E272
    for more frames than its motion modules know.
    """

    time = 1

    def __init__(self, parts: Parts, schedule: Schedule, frames: int, height: int, width: int) -> None:
        self.parts, self.schedule = parts, schedule
        self.device, self.dtype = parts.device, parts.dtype
        self.frames, self.height, self.width = frames, height, width
        self.channels = self.config.in_channels
        # Without a VAE (in training) the latents' own size is all there is: Stable Diffusion's stride then.
        self.space = image_vae.stride(parts.look("vae")) if "vae" in parts else 8
        self._sites: list[Site] | None = None
        self.check_frames(frames)

    def check_frames(self, count: int) -> None:
        """Raises ConfigError E272 for more frames at once than the motion modules have positions for; without any (the
        image model of `load_coder`) there is no limit."""
        longest = int(self.config.get("motion_max_seq_length", 1 << 30))
        if count > longest:
            raise ConfigError(
                "E272",
                f"{count} frames at once, and the motion modules know {longest}",
                f"Set model.frames to {longest} or less: longer clips go in windows.",
            )

    @property
    def network(self) -> Any:
        """diffusers' own module, wherever it is."""
        return self.parts.look("network")

    @property
    def config(self) -> Any:
        """Its configuration."""
        return self.network.config

    @property
    def joint(self) -> bool:
        """Whether images are read as states beside the text's, in its width, as the embedded models are trained."""
        if "image_encoder" not in self.parts or adapted(self.network):
            return False
        return self.parts.look("image_encoder").config.hidden_size == text_width(self.config)

    # ---- pixels and latents ----------------------------------------------------------------------------------------

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.grid(pixels.shape[1], pixels.shape[3], pixels.shape[4])
        return image_vae.encode(self.parts.need("vae"), pixels, generator)

    def decode(self, latents: Tensor) -> Tensor:
        return image_vae.decode(self.parts.need("vae"), latents)

    # ---- conditioning -----------------------------------------------------------------------------------------------

    def condition(
        self,
        text: Sequence[str] | None = None,
        image: Tensor | None = None,
        negative: str = "",
        extra: Sequence[str] = (),
    ) -> Condition:
        """`states` [B, L, D]: the text's, then, where images are read so, the image's. `image` [B, 1, ...] otherwise:
        what an IP-Adapter projects. Without a text the prompt is "", without an image its states are zeros."""
        said = prompts(text, image)
        if image is not None and not self.reads_images:
            raise ConfigError(
                "E273",
                "this model takes no reference image: it was trained on text alone",
                "Give a prompt alone, or an IP-Adapter for the model: model.image_adapter=...",
            )
        with torch.no_grad():
            encoder, tokenizer = self.parts.need("text_encoder"), self.parts.look("tokenizer")
            states = text_states(encoder, tokenizer, said, extra)
            without = text_states(encoder, tokenizer, [negative], [negative] * len(extra)).expand(len(said), -1, -1)
            if self.joint:
                part = self.parts.look if image is None else self.parts.need
                states, without = joined(states, without, part("image_encoder"), image)
            positive, dropped = {"states": states}, {"states": without}
            if image is not None and not self.joint:
                positive["image"], dropped["image"] = self._embedded(image)
        return Condition(positive, dropped)

    def _embedded(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What an IP-Adapter reads of images, and of none of them (as diffusers' pipelines prepare it)."""
        raise NotImplementedError

    @property
    def reads_images(self) -> bool:
        return self.joint or adapted(self.network)

    def tokens_of(self, prompt: str, part: str) -> list[int]:
        return conditioning.tokens_of(self.parts.look("tokenizer"), prompt, part)

    # ---- the network -----------------------------------------------------------------------------------------------

    def forward(self, z: Tensor, t: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        return walk(self.parts.use("network"), z, t, inputs)

    def sites(self) -> Sequence[Site]:
        if self._sites is None:
            self._sites = sites(self.blank(), *self.grid(self.frames, self.height, self.width))
        return self._sites

    @abstractmethod
    def blank(self) -> nn.Module:
        """The network's configuration on the meta device: shapes, no weights."""

    def features(self, z: Tensor, t: Times, condition: Condition, names: Sequence[str]) -> dict[str, Tensor]:
        network = self.parts.use("network")
        known = places(network)
        for name in names:
            if name not in known:
                raise features.no_site(name, known)
        found = features.read(network, names, lambda: walk(network, z, times(t, z), condition.positive))
        return {name: value.unflatten(0, z.shape[:2]) for name, value in found.items()}

    @property
    def motion_site(self) -> str:
        return site(self.network.config)

    @property
    def appearance(self) -> str | None:
        return "up_blocks.*.attentions.*.transformer_blocks.0.attn1"

    def checkpointed(self) -> AbstractContextManager[None]:
        return where_large(self.network)

    def attention(self, replace: Mapping[str, Attention]) -> AbstractContextManager[None]:
        return attention.replaced(self.network, replace)


def walk(network: Any, z: Tensor, t: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """A motion or 3-D U-Net's output [B, F, C, h, w] for z [B, F, C, h, w], t float32 [B, F], states [B, L, D].

    Frames stand on the batch axis everywhere, so an embedding of each frame's own timestep is all that it takes. Runs
    in the network's dtype, with gradients where they are enabled.
    """
    frames, dtype = z.shape[1], network.conv_in.weight.dtype  # `network.dtype` goes over all weights to say so
    embedded = network.time_embedding(network.time_proj(t.flatten()).to(dtype))
    states: Any = inputs["states"].to(dtype).repeat_interleave(frames, dim=0)
    if adapted(network):
        shown = network.encoder_hid_proj([inputs["image"].to(dtype)]) if "image" in inputs else []
        states = (states, [one.repeat_interleave(frames, dim=0) for one in shown])

    x = network.conv_in(z.flatten(0, 1).to(dtype))
    if hasattr(network, "transformer_in"):
        x = network.transformer_in(x, num_frames=frames, return_dict=False)[0]
    skips = [x]
    for block in network.down_blocks:
        x, left = block(x, embedded, num_frames=frames, **reads(block, states))
        skips += left

    timed = {"num_frames": frames} if hasattr(network.mid_block, "temp_convs") or moving(network.mid_block) else {}
    x = network.mid_block(x, embedded, encoder_hidden_states=states, **timed)

    # Sizes that do not halve evenly come back by the size of the skip that follows.
    uneven = any(size % 2**network.num_upsamplers for size in z.shape[-2:])
    for block in network.up_blocks:
        count = len(block.resnets)
        here, skips = tuple(skips[-count:]), skips[:-count]
        size = skips[-1].shape[-2:] if uneven and skips else None
        more = reads(block, states) | {"num_frames": frames, "upsample_size": size}
        x = block(hidden_states=x, temb=embedded, res_hidden_states_tuple=here, **more)

    if network.conv_norm_out is not None:
        x = network.conv_act(network.conv_norm_out(x))
    return network.conv_out(x).unflatten(0, z.shape[:2])


def reads(block: Any, states: Any) -> dict[str, Any]:
    """The states, for a block that attends to them."""
    return {"encoder_hidden_states": states} if getattr(block, "has_cross_attention", False) else {}


def moving(block: Any) -> bool:
    return hasattr(block, "motion_modules")


def adapted(network: Any) -> bool:
    """Whether an IP-Adapter was loaded into the network."""
    return getattr(network, "encoder_hid_proj", None) is not None


def text_width(config: Any) -> int:
    """Width of the states that the network attends to."""
    width = config.cross_attention_dim
    return width if isinstance(width, int) else width[0]


def site(config: Any) -> str:
    """The last block of the first half of the way up: the second of Stable Diffusion's four (MOFT, sec. 3.3)."""
    return f"up_blocks.{max(0, len(config.block_out_channels) // 2 - 1)}"


def places(network: nn.Module) -> list[str]:
    """Paths of modules that give hidden states [B F, C, h, w]: blocks, and the parts of blocks."""
    found = [name for name in ("conv_in", "transformer_in") if hasattr(network, name)]
    for name, _ in network.named_modules():
        group, _, last = name.rpartition(".")
        within = last.isdecimal() and group.rpartition(".")[2] in SITES and group.count(".") <= 2
        if within or group in ("down_blocks", "up_blocks") or name == "mid_block":
            found.append(name)
    return found


def sites(network: nn.Module, frames: int, channels: int, height: int, width: int) -> list[Site]:
    """Every site of a network on the meta device, with its grid, in the order in which a pass comes by."""
    z = torch.empty(1, frames, channels, height, width, device="meta")
    t = torch.zeros(1, frames, device="meta")
    inputs = {"states": torch.empty(1, 4, text_width(network.config), device="meta")}
    shapes = features.survey(network, places(network), lambda: walk(network, z, t, inputs))
    return [Site(name, Grid(frames, *shape[1:])) for name, shape in shapes.items()]


def blank(build: Callable[[], Any]) -> nn.Module:
    """A network built on the meta device."""
    with torch.device("meta"):
        return build().eval()
