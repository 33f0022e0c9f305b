"""What a stage that would run is likely to take: time and disk as it took before, memory and operations as computed.

Time is never guessed: it is the median of the most similar results in the store, by their frames, size and steps, or
unknown: one run on a busy machine does not set it. Memory and operations of a diffusion model come from its real
configuration (retake/diffusion/cost/predict.py). Nothing heavy is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

from retake.clip import Clip, select_indices
from retake.diffusion.control_branch import NOTHING
from retake.diffusion.cost.predict import Predicted, predicted, window
from retake.diffusion.model import Modelled
from retake.lookup import lookup
from retake.recipe import Recipe, differences, digest
from retake.store import Record, Store
from retake.synthetic.panning import WAYS
from tasks.frames import working_size

LOOKED_AT = 200  # records of a stage, the latest first
MEDIAN_OF = 5  # of these, the most similar
OF_A_MODEL = ("latents", "inversion", "motion_channels", "interpretation", "edit")
STEPS, OVERLAP = 50, 4  # of a method that does not say


# What the time of a stage goes by, beside frames: the size of the source, or that at which stages work. A stage that is
# not named goes by neither: the page's tiles have one size, and a diffusion model works at its own.
BY_SIZE = {
    "frames": "source",
    "decode": "source",
    **dict.fromkeys(("optical_flow", "depth", "masks", "region", "tracks", "edit", "metrics"), "working"),
}


@dataclass(frozen=True)
class Extent:
    """How much a clip is: its frames, its source's and its working pixels a frame; None where it is not known."""

    frames: int | None = None
    source: int | None = None
    working: int | None = None

    def pixels(self, stage: str, params: Mapping[str, Any]) -> int | None:
        """Those by which a stage's time goes, None where it goes by none."""
        by = BY_SIZE.get(stage)
        return None if by is None or params.get("model") else getattr(self, by)


@dataclass
class Known:
    """What earlier forecasts have read of a store: similar results by settings, working pixels by digest of frames."""

    alike: dict[str, list[Record]] = field(default_factory=dict)
    working: dict[str, int] | None = None


@dataclass(frozen=True)
class Forecast:
    """seconds and bytes (on disk): medians of the most similar results, scaled to this clip. memory (bytes on the
    device, at most) and flops: computed. None where it is not known."""

    seconds: float | None = None
    bytes: int | None = None
    memory: int | None = None
    flops: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "bytes": self.bytes, "memory": self.memory, "flops": self.flops}


def forecast(
    store: Store, recipe: Recipe, params: Any, extent: Extent, steps: int = STEPS, known: Known | None = None
) -> Forecast:
    """What the stage of a recipe would take on a clip of that extent. `steps`: of the inversion, for methods that take
    theirs from it. Inputs of the recipe do not matter, and may be left out. known: for callers that ask for many clips;
    it is added to."""
    needs = of_model(recipe.stage, params, extent.frames, steps)
    memory, flops = (needs.memory, needs.flops) if needs else (None, None)
    known = known or Known()
    alike = digest([recipe.stage, recipe.implementation, recipe.params])
    if alike not in known.alike:
        known.alike[alike] = most_similar(store, recipe)
    if not known.alike[alike]:
        return Forecast(memory=memory, flops=flops)
    if known.working is None:
        known.working = working_pixels(store)
    wanted = extent.pixels(recipe.stage, recipe.params)

    def larger(record: Record) -> float:
        """By how much a frame of this clip is larger."""
        before = extent_of(record, known.working or {}).pixels(recipe.stage, record.recipe["params"])
        return wanted / before if wanted and before else 1.0

    nearest = sorted(known.alike[alike], key=lambda record: abs(math.log(larger(record))))[:MEDIAN_OF]
    some = [scaled(record, recipe, extent.frames, larger(record)) for record in nearest]
    seconds, sizes = zip(*some, strict=True)
    return Forecast(median(seconds), round(median(sizes)), memory, flops)


def scaled(before: Record, recipe: Recipe, frames: int | None, larger: float) -> tuple[float, float]:
    """Seconds and bytes of an earlier result, scaled to so many frames, so much larger, and to the steps of a
    recipe."""
    count = frames_of(before)
    scale = larger * (frames / count if frames and count else 1.0)
    longer = steps_of(recipe.params) / max(steps_of(before.recipe["params"]), 1e-3)
    wider = longer if recipe.stage == "inversion" else 1.0  # it keeps every level
    return before.seconds * scale * longer, before.artifact.bytes * scale * wider


def working_pixels(store: Store) -> dict[str, int]:
    """Working pixels of the clips that were decoded lately, by digest of their frames."""
    records = islice(store.records("frames"), LOOKED_AT)
    return {one.artifact.digest: one.artifact.meta["width"] * one.artifact.meta["height"] for one in records}


def extent_of(record: Record, working: Mapping[str, int]) -> Extent:
    """The extent of the clip that a result was made of, as far as it says; working: pixels by digest of frames."""
    meta = record.artifact.meta
    own = meta["width"] * meta["height"] if "width" in meta and "height" in meta else None
    if record.recipe["stage"] == "frames" and "source_width" in meta:
        own = meta["source_width"] * meta["source_height"]
    if own is None:
        own = working.get(str(record.recipe["inputs"].get("frames")))
    return Extent(frames_of(record), own, own)


def of_model(stage: str, params: Any, frames: int | None, steps: int) -> Predicted | None:
    """What the diffusion model of a stage needs; None for stages without one, and for models without a table."""
    if not isinstance(params, Modelled) or stage not in OF_A_MODEL:
        return None
    settings: Any = params.settings
    if stage in ("motion_channels", "interpretation"):  # clips of the model's own length, some steps up an inversion
        clips = len(WAYS) * settings.shown(params.model.weights)[1] if stage == "motion_channels" else 1
        return predicted(params.model, "inversion", params.model.frames, steps=clips * (settings.level + 1))
    if not frames:
        return None
    asked, overlap = getattr(settings, "steps", None) or steps, getattr(settings, "overlap", None)
    guidance, queue, gradients, branch = getattr(settings, "guidance", None), None, 0, NOTHING
    if stage == "edit":
        method = lookup("methods", settings.name)
        if hasattr(method, "asked"):
            asked, overlap, guidance, diagonal = method.asked(settings, steps, window(params.model), frames)
            queue = (asked, overlap) if diagonal else None
            gradients = method.gradients(settings, steps) if hasattr(method, "gradients") else 0
            branch = method.branch(settings, params.model) if hasattr(method, "branch") else NOTHING
        elif not hasattr(settings, "strength"):
            return None  # a method that does not say how often it asks its model
    return predicted(
        params.model,
        stage,  # type: ignore[arg-type]
        frames,
        steps=max(1, round(asked * getattr(settings, "strength", 1.0))),
        guidance=1.0 if guidance is None else guidance,
        iterations=getattr(settings, "iterations", 0),
        overlap=OVERLAP if overlap is None else overlap,
        gradients=gradients,
        branch=branch,
        queue=queue,
    )


def most_similar(store: Store, recipe: Recipe) -> list[Record]:
    """Of the latest results of the same stage, implementation and size of model those with the fewest other
    settings."""
    wanted, best, fewest = recipe.ingredients(), list[Record](), None
    for record in islice(store.records(recipe.stage), LOOKED_AT):
        if kind_of(record.recipe) != kind_of(wanted):
            continue
        apart = len(differences(wanted["params"], record.recipe["params"]))
        if fewest is None or apart < fewest:
            best, fewest = [], apart
        if apart == fewest:
            best.append(record)
    return best


def kind_of(ingredients: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be the same for two results to take alike."""
    model = ingredients["params"].get("model") or {}
    name = str(ingredients["implementation"]).partition("@")[0]
    return name, *(model.get(key) for key in ("family", "height", "width", "dtype"))


def frames_of(record: Record) -> int | None:
    meta = record.artifact.meta
    return meta.get("frames") or meta.get("count")


def steps_of(params: Mapping[str, Any]) -> float:
    """Denoising steps in the settings of a record, as far as they say; 1 for stages that make none."""
    settings = params.get("settings") or {}
    if "steps" not in settings:
        return 1
    return (settings["steps"] or STEPS) * settings.get("strength", 1.0)


def extent_before(clip: Clip, params: Any) -> Extent:
    """The extent of what the settings of `frames` pick from a clip, before it is decoded. Raises what is wrong with the
    clip or the selection, as far as the container tells."""
    info = clip.info(params.folder_fps)
    count = sum(1 for _ in select_indices(params.selection(), info.frames, info.fps))
    return Extent(count, info.width * info.height, math.prod(working_size(info.width, info.height, params.short_side)))
