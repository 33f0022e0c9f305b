"""Whether the verdict on masks finds those that are wrong, in the sprite world, where the true masks are known.

Clips: sprites of every shape, hue, texture and ground, 160x160, 24 frames. In each, GrabCut is given six boxes: one
around the sprite; one that holds half of it; one with a corner of it; one of the ground alone; one within it; one three
times as large. The masks' overlap (intersection over union) with the true ones, mean over the frames, says what they
are worth. The weights of retake/health/verdict.py come from sixty other clips of this kind; the last table fits them
anew to these. "left out": verdicts with weights that were fitted in this run to the other clips, five times a fifth.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows import graph
from flows.runners import Local
from flows.settings.compose import settings
from retake.clip import open_clip
from retake.errors import ConfigError
from retake.formats import open_series
from retake.health import verdict as judge
from retake.health.signals import Signals
from retake.health.watch import Watch
from retake.store import Store
from retake.synthetic import clips, grammar
from retake.synthetic.world import World
from retake.video import encode

SIZE, FRAMES, SCENES, FOLDS = 160, 24, 60, 5
SEED = 100
BANDS = {"below 0.5": (0.0, 0.5), "0.5 to 0.9": (0.5, 0.9), "above 0.9": (0.9, 1.01)}
SMOKE = {"scenes": 2, "frames": 3}

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Case:
    """Masks from one box. signals, overlaps: by frame; both empty where GrabCut refused the box."""

    scene: int
    box: str
    signals: tuple[Signals, ...] = ()
    overlaps: tuple[float, ...] = ()

    @property
    def worth(self) -> float:
        return float(np.mean(self.overlaps))


def run(scenes: int = SCENES, frames: int = FRAMES) -> list[dict[str, Any]]:
    """Rows of three tables: by box, by what the masks are worth, the weights."""
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        cases = [case for n in range(scenes) for case in of_scene(n, frames, Path(folder))]
    judged = [case for case in cases if case.signals]
    shipped: dict[Case, str] = {case: judge.verdict(case.signals).word for case in judged}
    left_out = dict(crossed(judged))
    rows: list[dict[str, Any]] = []
    for kind in dict.fromkeys(case.box for case in cases):
        mine = [case for case in judged if case.box == kind]
        rows.append(
            {"table": "Masks from six boxes", "box": kind, "refused": sum(c.box == kind for c in cases) - len(mine)}
            | {"judged": len(mine), "overlap": float(np.mean([c.worth for c in mine])) if mine else None}
            | counted([shipped[case] for case in mine])
        )
    for band, (low, high) in BANDS.items():
        mine = [case for case in judged if low <= case.worth < high]
        words = counted([shipped[case] for case in mine])
        held = Counter(left_out[case] for case in mine)
        rows.append({"table": "By overlap with the truth", "overlap": band, "judged": len(mine), **words})
        rows[-1]["wrong, left out"] = held["wrong"]
    fitted = dict(zip([*judge.WEIGHTS, "bias"], fit(judged), strict=True))
    for name, used in (judge.WEIGHTS | {"bias": judge.BIAS}).items():
        rows.append({"table": "Weights", "signal": name, "used": used, "fitted in this run": float(fitted[name])})
    return rows


def counted(words: list[str]) -> dict[str, int]:
    return {word: words.count(word) for word in ("good", "look", "wrong")}


def of_scene(number: int, frames: int, folder: Path) -> Iterator[Case]:
    """The cases of one clip."""
    rng = np.random.default_rng([SEED, number])
    shape, hue, texture, way, ground = (
        str(rng.choice(list(known)))
        for known in (grammar.SHAPES, grammar.HUES, grammar.TEXTURES, grammar.DIRECTIONS, grammar.GROUNDS)
    )
    subject = grammar.Subject(shape, hue, texture, way, "", ground)
    world = World(clips.scene_of(subject, number, rng, clips.Limits(SIZE, frames)))
    truth = [world.surfaces(t) >= 0 for t in range(frames)]
    clip, store = folder / f"{number}.mp4", Store(folder / f"store{number}", lambda line: None)
    encode(clip, (world.frame(t) for t in range(frames)), 24)
    for kind, box in boxes(truth[0], rng).items():
        try:
            made = graph.edit_graph(Local(store), open_clip(str(clip)), settings([f"masks.box={list(box)}"]), "masks")
        except ConfigError as error:
            if error.code != "E220":
                raise
            yield Case(number, kind)
            continue
        shown, masks, flow = (open_series(store, made[name]) for name in ("frames", "masks", "optical_flow"))
        watch = Watch()
        for t in range(frames):
            watch.add(shown[t], {1: masks[t]}, flow.backward(t - 1) if t else None)
        overlaps = [float((masks[t] & truth[t]).sum() / max(1, (masks[t] | truth[t]).sum())) for t in range(frames)]
        yield Case(number, kind, tuple(watch.signals[1]), tuple(overlaps))


def boxes(mask: NDArray[np.bool_], rng: np.random.Generator) -> dict[str, Box]:
    """Boxes by kind, around and beside a mask bool [H, W] that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, y0, x1, y1 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    w, h = x1 - x0, y1 - y0
    room, (right, down) = 0.08 * max(w, h) + 2, rng.choice([-1, 1], 2)

    def within(a: float, b: float, c: float, d: float) -> Box:
        """In the picture, and at least 8 px a side."""
        left, top = min(max(0, round(a)), SIZE - 8), min(max(0, round(b)), SIZE - 8)
        return left, top, min(SIZE, max(left + 8, round(c))), min(SIZE, max(top + 8, round(d)))

    aside, below = 0.55 * right * w, 0.55 * down * h
    away_x, away_y = (x0 + SIZE / 2) % max(SIZE - w, 1), (y0 + SIZE / 2) % max(SIZE - h, 1)
    return {
        "around the sprite": within(x0 - room, y0 - room, x1 + room, y1 + room),
        "half of it": within(x0 + right * w / 2 - room, y0 - room, x1 + right * w / 2 + room, y1 + room),
        "a corner of it": within(x0 + aside, y0 + below, x1 + aside, y1 + below),
        "the ground": within(away_x, away_y, away_x + w, away_y + h),
        "within it": within(x0 + 0.3 * w, y0 + 0.3 * h, x0 + 0.62 * w, y0 + 0.62 * h),
        "three times as large": within(x0 - 1.1 * w, y0 - 0.9 * h, x1 + 0.9 * w, y1 + 1.1 * h),
    }


def crossed(cases: list[Case]) -> Iterator[tuple[Case, judge.Word]]:
    """Every case with the verdict by weights that were fitted without its scene and others of its fold."""
    for fold in range(FOLDS):
        *weights, bias = fit([case for case in cases if case.scene % FOLDS != fold])
        for case in cases:
            if case.scene % FOLDS == fold:
                yield case, judge.verdict(case.signals, dict(zip(judge.WEIGHTS, weights, strict=True)), bias).word


def fit(cases: list[Case]) -> NDArray[np.float64]:
    """Weights and bias of a logistic regression of "overlap below 0.5" against "above 0.9" on frames with a mask, both
    sides counting alike."""
    pairs = [pair for case in cases for pair in zip(case.signals, case.overlaps, strict=True)]
    told = [(one, overlap < 0.5) for one, overlap in pairs if one.area > 0 and not 0.5 <= overlap <= 0.9]
    x = np.array([[*judge.known(one).values(), 1.0] for one, _ in told]).reshape(-1, len(judge.WEIGHTS) + 1)
    y = np.array([wrong for _, wrong in told], float)
    share = min(max(y.mean(), 1e-3), 1 - 1e-3) if len(y) else 0.5
    weight = np.where(y == 1, 0.5 / share, 0.5 / (1 - share)) / max(len(y), 1)
    found, pull = np.zeros(x.shape[1]), np.diag([1e-4] * (x.shape[1] - 1) + [1e-9])
    for _ in range(60):  # Newton's method
        p = 1 / (1 + np.exp(-np.clip(x @ found, -30, 30)))
        slope = x.T @ (weight * (p - y)) + pull @ found
        bend = (x * (weight * p * (1 - p))[:, None]).T @ x + pull
        found = found - np.linalg.solve(bend, slope)
    return found
