"""FID and KID: are the result's frames, taken together, distributed like the source's? Lower is better.

    FID = |mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))      means and covariances (N - 1) of Inception features
    KID = MMD^2 with the kernel (f . g / D + 1)^3             unbiased, mean over subsets of frames

These are numbers of a dataset, not of a clip: a clip hands out features, and `score` takes those of many clips. f is
the 2048 values after the last pooling of the Inception network of 2015, resized as TensorFlow did.

Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017; Binkowski et al., Demystifying MMD
GANs, ICLR 2018. FID is biased by the number of frames: compare equal numbers only, and with few frames read KID. Both
barely react to time: a frozen clip scores well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from retake.formats import pack
from retake.machine import device
from retake.machine.device import Device
from retake.metrics.common.sample import Images, Sample
from retake.metrics.common.values import same_size

Features = NDArray[np.float32]

VERSION = 1
NEEDS: tuple[str, ...] = ()
DESCRIPTIONS = {
    "fid": ("Frechet distance of Inception features to the source's, all clips together", "lower"),
    "kid": ("kernel distance of Inception features to the source's, all clips together", "lower"),
    "kid_std": ("its standard deviation over subsets of frames; 0 when all frames fit into one", "lower"),
    "fid_frames": ("frames of the smaller side: FID is biased below some thousands", "higher"),
}
OF_A_DATASET = "a number of a dataset, not of a clip: retake dataset metrics=all"
FEATURES = "features.safetensors"  # "source" and "result", as in Result: what `score` takes from every clip
SUBSETS, SUBSET_SIZE = 100, 1000  # as published for KID


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which network looks, and how KID draws its subsets."""

    name: Literal["fid"] = Field(default="fid", description="the metric's name")
    weights: str = Field(
        default="inception_fid",
        description="Inception of 2015: a catalogue name or a local file",
        json_schema_extra={"weights": ""},
    )
    seed: int = Field(
        default=0,
        ge=0,
        description="seed of KID's subsets, where there are more frames than fit into one",
        json_schema_extra={"inert": "drawn when a dataset is scored; a clip's features do not depend on it"},
    )
    device: Device = Field(default="auto", description="where the network runs", json_schema_extra=device.INERT)


def weights(params: Params) -> dict[str, str]:
    """Role -> reference of the weights that these settings use."""
    return {"inception": params.weights}


def networks(params: Params) -> dict[str, Images]:
    """Role -> network, loaded from local weights. Raises MachineError E302 when they are missing."""
    from retake.networks import inception

    return {"inception": inception.load(params.weights, params.device)}


@dataclass(frozen=True)
class Result:
    """Features of a clip, float32 [T, D] each: 8 kB a frame. They mean something only together with other clips'."""

    source: Features
    result: Features

    def per_frame(self) -> dict[str, dict[int, float]]:
        """Nothing: no frame has an FID."""
        return {}

    def summary(self) -> dict[str, float]:
        """NaN: no clip has one either."""
        return dict.fromkeys(DESCRIPTIONS, math.nan)

    def reasons(self) -> dict[str, str]:
        """Where to get the numbers."""
        return dict.fromkeys(DESCRIPTIONS, OF_A_DATASET)

    def files(self) -> dict[str, bytes]:
        """The features, for `score`."""
        return {FEATURES: pack({"source": self.source, "result": self.result})}


class Metric:
    """Gathers features of a result and of its source."""

    def __init__(self, params: Params, *, inception: Images) -> None:
        self.params, self.inception = params, inception
        self._rows: list[Features] = []

    def networks(self) -> dict[str, str]:
        """Value name -> the network that it comes from."""
        return dict.fromkeys(DESCRIPTIONS, self.inception.name)

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order. Raises MediaError E440 when sizes differ."""
        same_size(source=sample.source, result=sample.result)
        self._rows.append(self.inception.images(np.stack([sample.source, sample.result])))

    def result(self) -> Result:
        """Everything taken so far."""
        both = np.stack(self._rows) if self._rows else np.zeros((0, 2, 0), np.float32)
        return Result(both[:, 0], both[:, 1])


def score(
    source: Features, result: Features, params: Params | None = None
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Values and notes for the frames of a dataset, float32 [N, D] and [M, D].

    The notes say why a value is None, and what a value from few frames is worth. Equal input gives equal numbers: the
    subsets of KID come from `params.seed`.
    """
    smaller, notes = min(len(source), len(result)), {}
    values: dict[str, float | None] = {"fid": None, "kid": None, "kid_std": None, "fid_frames": float(smaller)}
    if smaller < 2:
        return values, dict.fromkeys(("fid", "kid", "kid_std"), f"{smaller} frames: at least 2 are needed")
    width = source.shape[1]
    if smaller <= width:
        notes["fid"] = (
            f"{smaller} frames for {width} features: the covariances are singular and FID is biased. Compare it only "
            "with FIDs of as many frames, and read KID"
        )
    values["fid"] = frechet(source, result)
    values["kid"], values["kid_std"] = kernel(source, result, (params or Params()).seed)
    return values, notes


def frechet(source: Features, result: Features) -> float:
    """FID of two sets of features [N, D] and [M, D] by torchmetrics, in float64. Tiny negative values are rounding."""
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Given(torch.nn.Module):
        num_features = source.shape[1]

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features

    metric = FrechetInceptionDistance(feature=Given())
    metric.update(torch.from_numpy(source.astype(np.float64)), real=True)
    metric.update(torch.from_numpy(result.astype(np.float64)), real=False)
    return max(0.0, float(metric.compute()))


def kernel(source: Features, result: Features, seed: int = 0) -> tuple[float, float]:
    """KID, mean and standard deviation over subsets, of features [N, D] and [M, D].

    Subsets hold min(1000, N, M) frames without repetition; 100 of them, or one where that takes all frames of both.
    """
    import torch
    from torchmetrics.image.kid import poly_mmd

    size = min(SUBSET_SIZE, len(source), len(result))
    subsets = 1 if size == len(source) == len(result) else SUBSETS
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(subsets):
        drawn = (rng.permutation(len(side))[:size] for side in (source, result))
        parts = [torch.from_numpy(side[i].astype(np.float64)) for side, i in zip((source, result), drawn, strict=True)]
        scores.append(float(poly_mmd(parts[0], parts[1])))
    return float(np.mean(scores)), float(np.std(scores))
