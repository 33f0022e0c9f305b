"""What the editing network reads of a clip: its mask, the clip without what lies in it, depth and flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from retake.diffusion.backbone import Condition
from retake.diffusion.sampling.windows import Reel, repeated
from retake.errors import ConfigError
from retake.formats import CHUNK, LatentSeries
from retake.imaging.composite import over, pasted
from retake.imaging.flow import resize_flow
from retake.imaging.signed import to_signed
from retake.imaging.soft_mask import filled_box
from retake.methods import Inputs, Patch
from retake.methods.canvas import Soft, edge
from retake.methods.ivediff.targets import Target
from retake.video import resize

if TYPE_CHECKING:
    from retake.diffusion.families.ivediff.adapter import IVEDiff


class MaskedClip:
    """A target's, in scratch files, so that memory does not grow with the clip: mask [F, 1, h, w], masked
    [F, C, h, w], depth [F, D, h, w] and flow [F, 2, h, w], as the network reads them. Pixels are blacked out before
    they are coded, and the mask goes to cells by their nearest pixel, as MimicBrush's network was shown them. shuffled:
    a seed by which flow is that of other frames.

    Raises ConfigError E248 for an object that the masks do not hold, E233 where nothing is masked in any frame."""

    def __init__(
        self,
        latents: LatentSeries,
        backbone: IVEDiff,
        priors: Mapping[str, Any],
        inputs: Inputs,
        target: Target,
        soft: Soft,
        shuffled: int | None = None,
    ) -> None:
        self.frames, self.priors, self.target, self.soft = inputs.frames, priors, target, soft
        self.size = latents.meta["pixels"][1], latents.meta["pixels"][0]
        self.backbone, self.space = backbone, latents.meta["space"]
        count, channels, height, width = (latents.meta[name] for name in ("count", "channels", "height", "width"))
        if self.target.object_id is not None and self.target.object_id not in priors["masks"].ids:
            known = ", ".join(map(str, priors["masks"].ids))
            raise ConfigError(
                "E248", f"the masks hold no object {self.target.object_id}", f"edit.object_id is one of: {known}."
            )
        depths = backbone.config.in_channels - 2 * channels - 1
        layout = {"mask": 1, "masked": channels, "depth": depths, "flow": 2}
        self.reels = {
            name: Reel(inputs.scratch / f"{name}.latents", (count, deep, height, width))
            for name, deep in layout.items()
        }
        self.nearest = self._nearest()
        self.pairs = np.arange(max(count - 1, 1))
        if shuffled is not None:
            np.random.default_rng(shuffled).shuffle(self.pairs)
        seen = False
        for first in range(0, count, CHUNK):
            span = range(first, min(first + CHUNK, count))
            for name, values in self._of(span).items():
                self.reels[name][span.start : span.stop] = values
            seen = seen or any(bool(self.alpha(t).any()) for t in span)
        if not seen:
            raise ConfigError("E233", "nothing is masked in any frame", "Look at the masks: --until masks.")

    def alpha(self, t: int) -> np.ndarray:
        """Opacity of frame t's edit, uint8 [H, W]."""
        one = self.target.object_id
        area = self.priors["region"][t] if one is None else self.priors["masks"].object(t, one)
        if self.target.boxed:
            return edge(filled_box(area), self.soft)
        return edge(area, self.soft, self.priors["region"].opacity(t) if one is None else None)

    def condition(self, picture: Condition, spans: Sequence[range]) -> Condition:
        """What windows are conditioned on: a picture, and what is masked in them."""
        shown = repeated(picture, len(spans))
        read = {name: torch.stack([reel[s.start : s.stop] for s in spans]) for name, reel in self.reels.items()}
        return Condition({**shown.positive, **read}, {**shown.negative, **read})

    def over(self, index: int, patch: Patch) -> Patch:
        """The patch of chunk `index` of 16 frames, laid over those of the targets before."""
        if "before" not in self.priors:
            return patch
        layers = []
        for n, t in enumerate(range(index * CHUNK, min((index + 1) * CHUNK, len(self.frames)))):
            box, rgb, alpha = self.priors["before"][t]
            layers.append(over((tuple(box.tolist()), rgb, alpha), (patch.box, patch.rgb[n], patch.alpha[n])))
        boxes = np.array([box for box, _, alpha in layers if alpha.any()] or [(0, 0, 0, 0)])
        x0, y0, x1, y1 = (*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist())
        rgb = np.zeros((len(layers), y1 - y0, x1 - x0, 3), np.uint8)
        whole = np.zeros(rgb.shape[:3], np.uint8)
        for n, (box, picture, alpha) in enumerate(layers):
            if alpha.any():
                part = n, slice(box[1] - y0, box[3] - y0), slice(box[0] - x0, box[2] - x0)
                rgb[part], whole[part] = picture, alpha
        return Patch((x0, y0, x1, y1), rgb, whole)

    def _source(self, t: int) -> np.ndarray:
        """Frame t, uint8 [H, W, 3], as the targets before left it."""
        if "before" not in self.priors:
            return self.frames[t]
        (x0, y0, x1, y1), rgb, alpha = self.priors["before"][t]
        picture = self.frames[t].copy()
        if x1 > x0:
            pasted(picture, (int(x0), int(y0), int(x1), int(y1)), rgb, alpha)
        return picture

    def _of(self, span: range) -> dict[str, torch.Tensor]:
        hides = [resize(np.where(self.alpha(t) > 0, 255, 0).astype(np.uint8), self.size) > 0 for t in span]
        shown = np.stack(
            [resize(self._source(t), self.size) * ~hide[..., None] for t, hide in zip(span, hides, strict=True)]
        )
        pixels = to_signed(torch.from_numpy(shown)).movedim(-1, 1)
        cells = self.reels["mask"].shape[-2:]
        return {
            "mask": F.interpolate(torch.from_numpy(np.stack(hides)).float()[:, None], cells),
            "masked": self.backbone.encode(pixels[None])[0],
            "depth": self.backbone.depth_features(torch.from_numpy(np.stack([self._depth(t) for t in span]))),
            "flow": torch.stack([self._flow(t) for t in span]),
        }

    def _depth(self, t: int) -> np.ndarray:
        """Depth of frame t at the model's size; zeros tell no shape."""
        if not self.target.keeps_shape:
            return np.zeros(self.size[::-1], np.float32)
        depth = torch.from_numpy(self.priors["depth"][t])[None, None]
        smaller = F.interpolate(depth, self.size[::-1], mode="bilinear", antialias=True, align_corners=False)
        return smaller[0, 0].numpy() / self.nearest

    def _nearest(self) -> float:
        """What depth is divided by."""
        if not self.target.keeps_shape or not self.backbone.depth_in_shares:
            return 1.0
        return max(float(max(self.priors["depth"][t].max() for t in range(len(self.frames)))), 1e-6)

    def _flow(self, t: int) -> torch.Tensor:
        """Flow from frame t to the one before, [2, h, w] in latent cells."""
        if t == 0 or "optical_flow" not in self.priors:
            return torch.zeros(self.reels["flow"].shape[1:])
        flow = resize_flow(self.priors["optical_flow"].backward(int(self.pairs[t - 1])), self.size)
        return self.backbone.to_grid(torch.from_numpy(flow)[None], "flow")[0].movedim(-1, 0)
