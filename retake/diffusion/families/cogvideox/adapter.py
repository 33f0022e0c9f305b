"""The CogVideoX family: CogVideoX-2B and 5B, and the small video transformers of the same class that ship with Retake.

The parts themselves say which autoencoder and encoders stand beside the transformer. AutoencoderKLCogVideoX
packs four frames into a latent frame; an AutoencoderKL works frame by frame, and the transformer then has one latent
frame a frame. Text comes from T5 or CLIP; where there is an image encoder, the network reads its states after the
text's, in one sequence, and a reference that is not given is zeros.

Source: CogVideoX (Yang et al. 2025).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retake.diffusion import attention, features
from retake.diffusion.backbone import Attention, Backbone, Condition, Grid, Site, Times, finite, times
from retake.diffusion.checkpointing import where_large
from retake.diffusion.control_branch import check_fits
from retake.diffusion.families.cogvideox import transformer, vae
from retake.diffusion.families.common import conditioning, image_vae
from retake.diffusion.families.common.conditioning import joined, prompts, text_states
from retake.diffusion.grid import cells
from retake.diffusion.loading import components
from retake.diffusion.loading.lora_and_ip import merge_lora
from retake.diffusion.loading.offload import Parts
from retake.diffusion.model import Model
from retake.diffusion.schedule import Schedule
from retake.errors import ConfigError
from retake.weights.local import require

KEPT = 4  # grids whose positions are remembered


def refuse(config: Mapping[str, Any]) -> None:
    """Raises ConfigError E279 for the configuration of a transformer of a kind that is not supported."""
    channels = config.get("in_channels")
    if config.get("patch_size_t") is not None or config.get("ofs_embed_dim"):
        raise unsupported("it packs frames into patches, as CogVideoX 1.5 does")
    if config.get("use_learned_positional_embeddings") or config.get("out_channels", channels) != channels:
        raise unsupported("it reads an image beside the latents, as image-to-video does")


def unsupported(why: str) -> ConfigError:
    return ConfigError(
        "E279",
        f"this CogVideoX is not supported: {why}",
        "Take a text-to-video model of the first generation (CogVideoX-2b, -5b) with its own VAE.",
    )


class CogVideoX(Backbone):
    """A CogVideoXTransformer3DModel with its parts: `network`, `vae`, `text_encoder` and `tokenizer`, and perhaps an
    `image_encoder`. frames, height, width: of the clips it works on, in pixels; by default those of its configuration.

    Raises ConfigError E279 for a variant that is not supported: CogVideoX 1.5 (frames in patches), image-to-video
    (learned positions, image latents on the channels), or a VAE of other channels or another stride in time.
    """

    def __init__(
        self,
        parts: Parts,
        schedule: Schedule,
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> None:
        self.parts, self.schedule = parts, schedule
        self.device, self.dtype = parts.device, parts.dtype
        config = parts.look("network").config
        # Without a VAE (in training) the latents' own sizes are all there is: CogVideoX's stride then.
        coder = parts.look("vae") if "vae" in parts else None
        self.causal = type(coder).__name__ == "AutoencoderKLCogVideoX"
        self.space = image_vae.stride(coder) if coder is not None else 8
        self.time = int(config.temporal_compression_ratio)
        self.channels = int(config.in_channels)
        self._supported(config, coder)
        self.frames = frames or config.sample_frames
        self.height = height or config.sample_height * self.space
        self.width = width or config.sample_width * self.space
        self._positions: dict[tuple[int, int, int], transformer.Positions] = {}
        self._branch: Any = None
        if "tokenizer" in parts:  # T5's tokenizer may know no limit of its own
            words = parts.look("tokenizer")
            words.model_max_length = min(words.model_max_length, config.max_text_seq_length)

    def _supported(self, config: Any, coder: Any) -> None:
        channels, frames, why = self.channels, self.time, None
        if coder is not None:
            channels = coder.config.latent_channels
            frames = int(coder.config.temporal_compression_ratio) if self.causal else 1
        refuse(config)
        if config.in_channels != channels:
            why = f"it reads {config.in_channels} channels, and its VAE makes {channels}"
        elif self.time != frames:
            why = f"it counts {self.time} frames a latent frame, and its VAE {frames}"
        if why is not None:
            raise unsupported(why)

    # ---- pixels and latents ------------------------------------------------------------------------------------------

    def grid(self, frames: int, height: int, width: int) -> Grid:
        found = super().grid(frames, height, width)
        patch = self.parts.look("network").config.patch_size
        cells(height, self.space * patch, "pixels of height")
        cells(width, self.space * patch, "pixels of width")
        return found

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        coder = self.parts.need("vae")
        if not self.causal:
            return image_vae.encode(coder, pixels, generator)
        self.grid(pixels.shape[1], *pixels.shape[-2:])
        latents = vae.encode(coder, pixels, generator, self.device)
        return finite(latents, "the VAE's encoder", self.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        coder = self.parts.need("vae")
        if not self.causal:
            return image_vae.decode(coder, latents)
        pixels = vae.decode(coder, latents, self.device)
        return finite(pixels, "the VAE's decoder", self.dtype).clamp(-1, 1)

    # ---- conditioning -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def condition(
        self,
        text: Sequence[str] | None = None,
        image: Tensor | None = None,
        negative: str = "",
        extra: Sequence[str] = (),
    ) -> Condition:
        """States [B, L, D] of text, and where the model has an image encoder, [B, N, D] of images behind them.

        The negative: the prompt `negative`, and no image (zeros).
        """
        if image is not None and not self.reads_images:
            raise ConfigError(
                "E273",
                "this model takes no reference image: it was trained on text alone",
                "Give a prompt alone, or take a model that reads images: model=embedded.",
            )
        said = prompts(text, image)
        positive = self._text(said, extra)
        without = self._text([negative], [negative] * len(extra)).expand(len(said), -1, -1)
        if "image_encoder" in self.parts:
            part = self.parts.look if image is None else self.parts.need
            positive, without = joined(positive, without, part("image_encoder"), image)
        return Condition({"states": positive}, {"states": without})

    def _text(self, said: Sequence[str], extra: Sequence[str]) -> Tensor:
        states = text_states(self.parts.need("text_encoder"), self.parts.look("tokenizer"), said, extra)
        return states.to(self.device, self.dtype)

    @property
    def reads_images(self) -> bool:
        return "image_encoder" in self.parts

    def tokens_of(self, prompt: str, part: str) -> list[int]:
        return conditioning.tokens_of(self.parts.look("tokenizer"), prompt, part)

    # ---- the network -------------------------------------------------------------------------------------------------

    def forward(self, z: Tensor, t: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        network = self.parts.use("network")
        z, text = z.to(self.device, self.dtype), inputs["states"].to(self.device, self.dtype)
        control = inputs["control"].to(self.device, self.dtype) if "control" in inputs else None
        return transformer.evaluate(network, z, t.to(self.device), text, self._places(z), self._branch, control)

    @contextmanager
    def controlled(self, branch: Path, scale: float = 1.0) -> Iterator[None]:
        from retake.diffusion.families.cogvideox.control import ControlBranch

        read = components.of_class(ControlBranch, branch, self.dtype)
        check_fits(read.config, self.parts.look("network").config, str(branch), "this model")
        self._branch = read.to(self.device).requires_grad_(False)
        self._branch.scale = scale
        try:
            yield
        finally:
            self._branch = None

    def _places(self, z: Tensor) -> transformer.Positions:
        """Positions of a grid: worked out once, and kept for the few grids that a run has."""
        grid = (z.shape[1], z.shape[3], z.shape[4])
        if grid not in self._positions:
            if len(self._positions) >= KEPT:
                self._positions.pop(next(iter(self._positions)))
            self._positions[grid] = transformer.positions(self.parts.look("network"), *grid, z.device)
        return self._positions[grid]

    def sites(self) -> Sequence[Site]:
        """What leaves each transformer block, without the text: `transformer_blocks.18`."""
        config = self.parts.look("network").config
        frames, _, height, width = self.grid(self.frames, self.height, self.width)
        inner = config.num_attention_heads * config.attention_head_dim
        grid = Grid(frames, inner, height // config.patch_size, width // config.patch_size)
        return [Site(f"transformer_blocks.{block}", grid) for block in range(config.num_layers)]

    def features(self, z: Tensor, t: Times, condition: Condition, names: Sequence[str]) -> dict[str, Tensor]:
        known = [site.name for site in self.sites()]
        for name in names:
            if name not in known:
                raise features.no_site(name, known)
        if not names:
            return {}
        network = self.parts.use("network")
        t, z = times(t, z).to(self.device), z.to(self.device, self.dtype)
        text = condition.positive["states"].to(self.device, self.dtype)
        wanted = {known.index(name): name for name in names}
        found = transformer.states(network, z, t, text, wanted.keys(), self._places(z))
        return {name: found[block] for block, name in wanted.items()}

    @property
    def motion_site(self) -> str:
        return site(self.parts.look("network").config)

    @property
    def appearance(self) -> str | None:
        return None

    def checkpointed(self) -> AbstractContextManager[None]:
        return where_large(self.parts.look("network"))

    def attention(self, replace: Mapping[str, Attention]) -> AbstractContextManager[None]:
        return attention.replaced(self.parts.look("network"), replace)


def network(model: Model, folders: list[Path], found: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """The transformer of a folder, with the LoRA that the settings name merged in. Raises as loading.load does."""
    denoiser = components.read("transformer", components.find("transformer", *folders) or folders[0], dtype)
    if model.lora is not None:
        from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
        from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler

        nothing: Any = None  # the loader of a pipeline looks at no part but the transformer
        pipeline = CogVideoXPipeline(nothing, nothing, nothing, denoiser, CogVideoXDDIMScheduler())
        merge_lora(pipeline, "transformer", require(model.lora), model.lora_scale)
    return denoiser


def text_width(config: Any) -> int:
    """Width of the text states that the transformer attends to."""
    return config.text_embed_dim


def site(config: Any) -> str:
    """Three fifths of the way through the blocks."""
    return f"transformer_blocks.{3 * config.num_layers // 5}"


Adapter = CogVideoX
