"""Whether a denoiser does what captions ask, as read by a detector that knows the world; and sheets to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retake.synthetic import clips, detector, grammar
from retake.synthetic.grammar import Subject
from retake.synthetic.steadiness import flicker, sameness, sharpness

Image = NDArray[np.uint8]


def asked(count: int, seed: int) -> list[Subject]:
    """Subjects to ask for: everything said but the ground, every direction as often, none at rest."""
    rng = np.random.default_rng([seed, 16])
    return [
        Subject(
            shape=grammar.SHAPES[n % len(grammar.SHAPES)],
            hue=str(rng.choice(list(grammar.HUES))),
            texture=str(rng.choice(grammar.TEXTURES)),
            direction=grammar.DIRECTIONS[(n // len(grammar.SHAPES)) % len(grammar.DIRECTIONS)],
            speed=str(rng.choice(grammar.SPEEDS)),
        )
        for n in range(count)
    ]


def asked_to_rest(count: int, seed: int) -> list[Subject]:
    """The subjects of `asked`, resting."""
    return [replace(subject, direction="resting", speed="") for subject in asked(count, seed)]


def asked_pairs(count: int, seed: int) -> list[tuple[Subject, Subject]]:
    """Two subjects each, of two hues, that go two ways."""
    rng, made = np.random.default_rng([seed, 26]), []
    for n, one in enumerate(asked(count, seed)):
        away = grammar.DIRECTIONS[(grammar.DIRECTIONS.index(str(one.direction)) + int(rng.integers(2, 7))) % 8]
        hue = str(rng.choice([hue for hue in grammar.HUES if hue != one.hue]))
        made.append((one, replace(one, shape=grammar.SHAPES[(n + 1) % 4], hue=hue, direction=away)))
    return made


@dataclass(frozen=True)
class Scores:
    """Shares of clips that show what was asked, of frames that show the object, and speeds (pixels a frame).

    same: correlation of the object from frame to frame, its motion removed. sharp: variance of the Laplacian, in
    squared levels of 255. flicker: of the background, in levels of 255.
    """

    clips: int
    hue: float
    shape: float
    direction: float
    present: float
    speed: tuple[float, float, float]
    same: float
    sharp: float
    flicker: float

    def row(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        low, middle, high = self.speed
        return (
            f"{self.clips} clips: hue {self.hue:.0%}, shape {self.shape:.0%}, direction {self.direction:.0%} "
            f"(chance 12 %), object in {self.present:.0%} of frames, {self.same:.2f} the same, "
            f"speed {low:.2f} / {middle:.2f} / {high:.2f}, sharp {self.sharp:.0f}, flicker {self.flicker:.1f}"
        )


def score(made: Image, subjects: Sequence[Subject]) -> Scores:
    """Scores of clips [N, F, H, W, 3] that were made for N subjects. speed: quartiles over the clips."""
    seen = [detector.read(clip) for clip in made]
    speeds = np.quantile([s.speed for s in seen], (0.25, 0.5, 0.75))
    return Scores(
        len(seen),
        float(np.mean([s.hue == a.hue for s, a in zip(seen, subjects, strict=True)])),
        float(np.mean([s.shape == a.shape for s, a in zip(seen, subjects, strict=True)])),
        float(np.mean([s.direction == a.direction for s, a in zip(seen, subjects, strict=True)])),
        float(np.mean([s.present for s in seen])),
        (float(speeds[0]), float(speeds[1]), float(speeds[2])),
        mean_of_known([sameness(clip, one.centres) for clip, one in zip(made, seen, strict=True)]),
        float(np.mean([sharpness(clip) for clip in made])),
        mean_of_known([flicker(clip, one.centres) for clip, one in zip(made, seen, strict=True)]),
    )


def mean_of_known(values: Sequence[float]) -> float:
    """NaN where none is known, as the flicker of stills."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def both_right(made: Image, pairs: Sequence[tuple[Subject, Subject]]) -> float:
    """Share of clips in which each of two objects, told apart by hue, goes its way."""
    return float(
        np.mean(
            [
                all(detector.read(clip, subject.hue).direction == subject.direction for subject in pair)
                for clip, pair in zip(made, pairs, strict=True)
            ]
        )
    )


def speeds(made: Image, subjects: Sequence[Subject]) -> dict[str, float]:
    """Median speed of the clips (pixels a frame) that ask for each pace: slowly, "" and quickly, or "resting"."""
    by: dict[str, list[float]] = {}
    for clip, subject in zip(made, subjects, strict=True):
        pace = "resting" if subject.direction == "resting" else subject.speed
        by.setdefault(pace, []).append(detector.read(clip).speed)
    return {pace: float(np.median(found)) for pace, found in by.items()}


def rendered(subjects: Sequence[Subject], seed: int, limits: clips.Limits) -> Image:
    """What the world itself makes of subjects: the scores of these are the most that a model can have."""
    rng = np.random.default_rng([seed, 17])
    return np.stack([clips.render(clips.scene_of(s, seed + n, rng, limits)) for n, s in enumerate(subjects)])


def sheet(made: Image, every: int = 2) -> Image:
    """A row a clip, every second frame of it: uint8 [N * H, F / every * W, 3]."""
    return np.concatenate([np.concatenate(list(clip[::every]), 1) for clip in made], 0)
