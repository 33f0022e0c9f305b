"""How well `depth=parallax` orders what is nearer, by kind of motion, in the sprite world, where the order is known.

Clips: the scenes of retake/synthetic/travels.py and two with a body that moves by itself, 320x180, 48 frames, three
seeds each; every figure is a mean over frames and seeds. Flow is `dis` as by default, and the world's own. `rank` is
Spearman's correlation with the true order over pixels drawn equally from every visible layer (400 each), `least` its
smallest value in any frame, `right` the share of pairs of pixels of two layers that are put in the right order.
A frame whose map says "no parallax" (one constant) counts as `silent`, and has no rank. In `turn` and `crowd` depth
cannot be told from motion: there, silence is right. Peers, in the same run: the length of the flow as it is, and the
length of what is left of it after the best homography (RANSAC).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from scipy.stats import spearmanr

from benchmarks.ground_truth import mean
from benchmarks.series import KeptFlow, KeptFrames, true_priors
from retake.imaging.flow import in_bounds, occlusion, warp
from retake.priors.depth import parallax
from retake.priors.optical_flow import dis
from retake.synthetic import World, scene

SCENES = ("sideways", "dolly", "orbit", "turn", "crowd", "drift", "zoom")
SEEDS = (0, 1, 2)
PER_LAYER = 400
PAIRED = 500  # pixels of a frame whose order is compared two by two
KINDS = {
    "sideways": "camera goes sideways",
    "dolly": "camera goes forward",
    "orbit": "camera goes sideways and pans against it",
    "turn": "camera pans, rolls, zooms (must be silent)",
    "crowd": "camera rests, objects move (must be silent)",
    "drift": "camera pans, one object moves by itself",
    "zoom": "camera zooms, one object grows by itself",
}
SMOKE = {"scenes": ("sideways",), "seeds": (0,), "frames": 4}


def run(scenes: Sequence[str] = SCENES, seeds: Sequence[int] = SEEDS, frames: int = 48) -> list[dict[str, Any]]:
    """Rows of two tables; a row is a scene."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in scenes:
        clips = [measure(World(scene(name, seed, frames=frames))) for seed in seeds]
        for table in clips[0]:
            means = {key: mean(clip[table][key] for clip in clips) for key in clips[0][table]}
            rows.setdefault(table, []).append({"table": table, "scene": name, "motion": KINDS.get(name, ""), **means})
    return [row for table in rows.values() for row in table]


def measure(world: World) -> dict[str, dict[str, float]]:
    """Scores of one clip, by table."""
    rgb = [world.frame(t) for t in range(world.frames)]
    frames = KeptFrames(rgb, [t / world.fps for t in range(world.frames)], world.fps)
    pairs = list(dis.pairs(rgb, dis.Params()))
    flow = KeptFlow(pairs, [(hidden(f, b), hidden(b, f)) for f, b in pairs])
    exact = true_priors(world)["optical_flow"]
    ours = score(world, parallax.maps(frames, flow, parallax.Params()))
    true = score(world, parallax.maps(frames, exact, parallax.Params()))
    length = score(world, (np.linalg.norm(f, axis=-1) for f, _ in pairs))
    rest = score(world, (after_homography(f) for f, _ in pairs))
    return {
        "Depth from parallax": {**ours, "true flow: rank": true["rank"], "true flow: right": true["right"]},
        "Depth: rank of parallax and of its peers": {
            "parallax": ours["rank"],
            "length of flow": length["rank"],
            "after a homography": rest["rank"],
        },
    }


def score(world: World, maps: Iterable[np.ndarray]) -> dict[str, float]:
    """Rank, least rank, share of pairs in the right order, share of silent frames, and change between frames."""
    rng, ranks, right, change, silent, count = np.random.default_rng(0), [], [], [], 0, 0
    before: np.ndarray | None = None
    for t, depth in enumerate(maps):
        count += 1
        if before is not None:
            shown = ~world.occlusion(t - 1, t)
            change.append(float(np.abs(warp(depth, world.flow(t - 1, t)) - before)[shown].mean()))
        before = depth
        if np.ptp(depth) < 1e-3:
            silent += 1
            continue
        truth, ours = drawn(world.depth(t), depth, rng)
        ranks.append(float(spearmanr(truth, ours).statistic))
        some = rng.choice(len(truth), min(len(truth), PAIRED), replace=False)
        right.append(ordered(truth[some], ours[some]))
    return {
        "rank": mean(ranks),
        "least": min(ranks, default=float("nan")),
        "right": mean(right),
        "silent": silent / count,
        "change between frames, of 100": mean(change),
    }


def drawn(truth: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As many pixels of every layer that shows enough of them: (true depth, depth)."""
    layers = [np.flatnonzero(truth == value) for value in np.unique(truth)]
    chosen = np.concatenate([rng.choice(at, PER_LAYER) for at in layers if len(at) >= PER_LAYER // 2])
    return truth.ravel()[chosen], depth.ravel()[chosen]


def ordered(truth: np.ndarray, depth: np.ndarray) -> float:
    """Share of pairs of pixels of two layers whose order is right; equal counts half."""
    a, b = np.triu_indices(len(truth), 1)
    differ = truth[a] != truth[b]
    a, b = a[differ], b[differ]
    return float((np.sign(depth[a] - depth[b]) * np.sign(truth[a] - truth[b]) + 1).mean() / 2)


def after_homography(flow: np.ndarray) -> np.ndarray:
    """Length of what a homography of the most pixels leaves of a flow: plane and parallax, without a sign."""
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[4:height:8, 4:width:8]
    here = np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(np.float32)
    there = here + flow[4::8, 4::8].reshape(-1, 2)
    cv2.setRNGSeed(0)
    found, _ = cv2.findHomography(here, there, cv2.RANSAC, 0.5)
    if found is None:
        return np.linalg.norm(flow, axis=-1)
    every = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    moved = cv2.perspectiveTransform(every.reshape(-1, 1, 2), found).reshape(height, width, 2)
    return np.linalg.norm(every + flow - moved, axis=-1)


def hidden(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return occlusion(one, other, boundaries=False) | ~in_bounds(one, 0.5)
