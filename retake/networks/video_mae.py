"""VideoMAE: features of a clip, self-supervised, of which MoAlign learns what is motion.

Tong et al., VideoMAE, NeurIPS 2022 (V2: Wang et al., CVPR 2023), in transformers' VideoMAEModel. A clip may have any
number of tubes and patches: positions are interpolated, as in VideoREPA (from 8 x 14 x 14 to 24 x 10 x 15).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retake.machine.device import device_of
from retake.networks.checkpoint import display_name, load_pretrained, load_tensors, read_config, wrong_weights
from retake.weights.local import require

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WHAT = "a folder of a VideoMAE"
OWN = "model_config"  # of VideoMAE V2's config.json: what its own code is called with
PARTS = {
    "attn.q_bias": "attention.attention.query.bias",
    "attn.v_bias": "attention.attention.value.bias",
    "attn.proj": "attention.output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
"""Parts of a block of VideoMAE V2, by their names in transformers."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Grid(NamedTuple):
    """Tokens of a clip: tubes of frames, rows, columns."""

    time: int
    height: int
    width: int


def load(reference: str, device: str = "auto") -> VideoMAE:
    """VideoMAE from local weights: a catalogue name, a folder, or org/repo that is in the hub's cache. Folders of
    VideoMAE V2 come in a layout of their own, with code, which is not run.

    Raises MachineError E302 when the weights are missing, E304 when the device is, ConfigError E262 when they are not
    a VideoMAE's.
    """
    from transformers import VideoMAEModel

    path = require(reference)
    said = read_config(path, WHAT).get(OWN)
    if isinstance(said, dict):
        model = of_version_2(path, said)
    else:
        model = load_pretrained(VideoMAEModel, path, WHAT)
    return VideoMAE(model, display_name(reference, path), device_of(device))


def of_version_2(path: Path, said: Mapping[str, Any]) -> Any:
    """The encoder of a folder as OpenGVLab publishes VideoMAE V2: its settings `said`, and the tensors of its vision
    transformer. What it lays over the mean of the tokens is left out: features are single tokens. Raises ConfigError
    E262 for anything else."""
    from transformers import VideoMAEConfig, VideoMAEModel

    try:
        if not said.get("use_mean_pooling", True):
            raise ValueError("its last layer is a norm of single tokens, which no published one has")
        config = VideoMAEConfig(
            image_size=said["img_size"],
            patch_size=said["patch_size"],
            num_frames=said["num_frames"],
            tubelet_size=said["tubelet_size"],
            hidden_size=said["embed_dim"],
            num_hidden_layers=said["depth"],
            num_attention_heads=said["num_heads"],
            intermediate_size=round(said["embed_dim"] * said["mlp_ratio"]),
            layer_norm_eps=said.get("layer_norm_eps", 1e-6),
            use_mean_pooling=True,
        )
        model = VideoMAEModel(config)
        model.load_state_dict(dict(renamed(load_tensors(path / "model.safetensors"), config.hidden_size)))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise wrong_weights(path, WHAT, f"as VideoMAE V2: {error}") from error
    return model.float().eval().requires_grad_(False)


def renamed(tensors: Mapping[str, Tensor], width: int) -> Iterator[tuple[str, Tensor]]:
    """Tensors of VideoMAE V2 under the names of transformers' VideoMAEModel."""
    for name, tensor in tensors.items():
        name = name.removeprefix("model.")
        if name.startswith("patch_embed.proj."):
            yield name.replace("patch_embed.proj.", "embeddings.patch_embeddings.projection."), tensor
        elif name.startswith("blocks."):
            _, number, part = name.split(".", 2)
            layer = f"encoder.layer.{number}."
            if part == "attn.qkv.weight":
                for kind, third in zip(("query", "key", "value"), tensor.split(width), strict=True):
                    yield f"{layer}attention.attention.{kind}.weight", third
            elif part in PARTS:  # a bias of its own
                yield layer + PARTS[part], tensor
            else:
                module, _, kind = part.rpartition(".")
                yield f"{layer}{PARTS.get(module, module)}.{kind}", tensor


class VideoMAE:
    """The encoder without masks. tube, patch: frames and pixels a side of a token; width: of its features."""

    def __init__(self, model: Any, name: str, device: torch.device) -> None:
        self.model, self.name, self.device = model.to(device).eval(), f"VideoMAE {name}", device
        self.tube, self.patch = int(model.config.tubelet_size), int(model.config.patch_size)
        self.width = int(model.config.hidden_size)

    def clips(self, frames: NDArray[np.uint8]) -> Tensor:
        """The last layer's tokens float32 [B, time, height, width, D] of clips uint8 RGB [B, F, H, W, 3], whose sides
        and frames are whole tokens."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).float() / 255
        pixels = (pixels - pixels.new_tensor(MEAN)) / pixels.new_tensor(STD)
        with torch.inference_mode():
            return self.encoded(pixels.movedim(-1, 1))

    def on_grid(self, frames: NDArray[np.uint8], rows: int, columns: int) -> Tensor:
        """As `clips`, of clips of any size, resized so that their tokens form so many rows and columns."""
        import torch
        from torch.nn import functional as F

        size = rows * self.patch, columns * self.patch
        if frames.shape[2:4] == size:
            return self.clips(frames)
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).flatten(0, 1).movedim(-1, 1).float()
        shown = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        shown = shown.round().clamp(0, 255).byte().movedim(1, -1).numpy()
        return self.clips(shown.reshape(*frames.shape[:2], *size, 3))

    def encoded(self, pixels: Tensor) -> Tensor:
        """As `clips`, of normalised pixels [B, 3, F, H, W]."""
        embeddings = self.model.embeddings
        tokens = embeddings.patch_embeddings.projection(pixels)  # [B, D, time, height, width]
        grid = Grid(*tokens.shape[2:])
        tokens = tokens.flatten(2).mT + self.positions(grid).to(tokens)
        found = self.model.encoder(tokens).last_hidden_state
        if self.model.layernorm is not None:
            found = self.model.layernorm(found)
        return found.unflatten(1, grid)

    def positions(self, grid: Grid) -> Tensor:
        """The table of positions float32 [1, tokens, D] on a grid, interpolated where it is not the model's own."""
        from torch.nn import functional as F

        table, own = self.model.embeddings.position_embeddings, self.grid()
        if grid == own:
            return table
        table = table.mT.unflatten(-1, own).float()
        return F.interpolate(table, grid, mode="trilinear", align_corners=False).flatten(2).mT

    def grid(self) -> Grid:
        """That the model was trained on."""
        config = self.model.config
        return Grid(config.num_frames // self.tube, *(2 * [config.image_size // self.patch]))
