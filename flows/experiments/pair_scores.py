"""A result beside the clip that it should be: for clips that are one of a pair of the sprite world.

    psnr_target, ssim_target   of whole frames                                                dB, -1..1   higher
    psnr_moved                 where a sprite that was to move is in the source or the target, dB         higher
                               everywhere where the camera was to move
    psnr_rest                  elsewhere                                                       dB         higher
    likeness_target            100 x mean over frames of cos(E(result), E(target)), E a CLIP's vector of      higher
                               a whole frame, where one is given; read it beside the source's own

PSNR is that of the mean squared error over all frames: some frames of a pair are the same in both clips.

Points whose places are known are looked for in the result: the patch around each, of the pixels that lie on the same
surface, as the target shows it, stands where its mean squared difference is least, anywhere in the frame. Points whose
patch the target itself has elsewhere, too, are left out. (A tracker started in the result would follow whatever stands
at its start.)

    edit_epe        mean distance of points that were to move from where they should be, px                    lower
    edit_length     mean distance of those that the source shows, too, from where they should be, there, px
    follow_ratio    1 - their distance / edit_length: 1 as told, about 0 the source's motion                    higher
    copied          whether they lie nearer to their places in the source than to the target's, 0 or 1          lower
    bystander_epe   mean distance of points that were not to move from where they should be, px                 lower

A point was to move on a frame where its places in both clips are more than a pixel apart; it was not to move where that
is so on no frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retake.metrics.common.sample import ImagesAndTexts, cosine
from retake.metrics.common.values import mean, unit
from retake.metrics.region import psnr, ssim_map
from retake.synthetic.world import BACKGROUND, World

DESCRIPTIONS = {
    "psnr_target": ("PSNR to the exact render of the edited motion, dB", "higher"),
    "ssim_target": ("SSIM to the exact render of the edited motion", "higher"),
    "psnr_moved": ("PSNR to it where sprites that were to move are or were, dB", "higher"),
    "psnr_rest": ("PSNR to it elsewhere, dB", "higher"),
    "likeness_target": ("100 x cosine of CLIP's vectors of whole frames and of the exact render's", "higher"),
    "edit_epe": ("mean distance of points that were to move from where they should be, px", "lower"),
    "edit_length": ("mean distance of those that the source shows, there, from where they should be, px", ""),
    "follow_ratio": ("1 - their distance / edit_length: 1 is as told, about 0 is the source's motion", "higher"),
    "copied": ("share whose points lie nearer to their places in the source than in the target", "lower"),
    "bystander_epe": ("mean distance of points that were not to move from where they should be, px", "lower"),
}
RADIUS = 6  # px of a patch, to each side
LEAST = 24  # pixels of a patch that lie on its surface
OTHER = 1e-2  # mean squared difference, values 0..1, that a patch has elsewhere at least: twice what autoencoders lose
NEAR = 3  # px within which a patch is at its own place
MOVES = 1.0  # px


def scores(
    pair: Any, shown: Iterable[NDArray[np.uint8]], clip: ImagesAndTexts | None = None
) -> dict[str, float | None]:
    """Scores of a result, frames uint8 [H, W, 3] of the pair's size; None where there is none. clip: what
    `likeness_target` is to."""
    source, target = World(pair.source), World(pair.target)
    (to, seen), (at, shows) = pair.tracks()
    stays = (np.hypot(*(to - at).transpose(2, 0, 1)) <= MOVES).all(0)
    errors: dict[str, list[NDArray[Any]]] = {name: [] for name in ("psnr_target", "psnr_moved", "psnr_rest")}
    structure: list[float] = []
    alike: list[float] = []
    found: list[tuple[NDArray[Any], ...]] = []
    for t, frame in enumerate(shown):
        right = target.frame(t)
        here, there = unit(frame), unit(right)
        error = np.square(here - there).mean(-1)
        moved = where_moved(pair, source, target, t)
        for name, part in (("psnr_target", error.ravel()), ("psnr_moved", error[moved]), ("psnr_rest", error[~moved])):
            errors[name].append(part)
        structure.append(float(ssim_map(frame, right).mean()))
        if clip is not None:
            alike.append(100 * cosine(*clip.images(np.stack([frame, right]))))
        found.append(places(here, there, target.surfaces(t), pair.surfaces, to[t], at[t], seen[t], shows[t], stays))
    pooled = {name: kept(psnr(mean(np.concatenate(parts)))) for name, parts in errors.items()}
    whole = {"ssim_target": kept(mean(structure)), "likeness_target": kept(mean(alike))}
    return {**pooled, **whole, **of_points(found)}


def kept(value: float) -> float | None:
    return value if math.isfinite(value) else None


def where_moved(pair: Any, source: World, target: World, t: int) -> NDArray[np.bool_]:
    """Where what was to move stands in either clip, bool [H, W]; everywhere where the camera was to."""
    ours, theirs = source.surfaces(t), target.surfaces(t)
    if BACKGROUND in pair.edited:
        return np.ones(ours.shape, bool)
    return np.isin(ours, pair.edited) | np.isin(theirs, pair.edited)


def places(
    frame: NDArray[np.float32],
    right: NDArray[np.float32],
    top: NDArray[np.int16],
    surfaces: NDArray[np.int16],
    to: NDArray[np.float32],
    at: NDArray[np.float32],
    seen: NDArray[np.bool_],
    shows: NDArray[np.bool_],
    stays: NDArray[np.bool_],
) -> tuple[NDArray[Any], ...]:
    """(distance to the target's place, to the source's, between both, px; whether the source shows the point; whether
    it is to stay), float [n] each, of the points that can be told from what is around them."""
    rows = []
    for point in np.flatnonzero(seen):
        if (patch := patch_of(right, top, surfaces[point], to[point])) is None:
            continue
        corner, colours, mask = patch
        own = differences(right, colours, mask)
        y, x = np.mgrid[: own.shape[0], : own.shape[1]]
        far = np.maximum(abs(x - corner[0]), abs(y - corner[1])) > NEAR
        if not far.any() or own[far].min() < OTHER:
            continue
        best = differences(frame, colours, mask)
        row, column = np.unravel_index(int(best.argmin()), best.shape)
        there = to[point] + np.array([column, row]) - corner
        apart = [np.hypot(*(a - b)) for a, b in ((there, to[point]), (there, at[point]), (to[point], at[point]))]
        rows.append([*apart, float(shows[point]), float(stays[point])])
    table = np.array(rows, np.float64).reshape(-1, 5)
    return tuple(table.T)


def patch_of(
    right: NDArray[np.float32], top: NDArray[np.int16], surface: int, place: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]] | None:
    """A point's patch: its corner (x, y), colours float32 [h, w, 3] in 0..1, and which of its pixels lie on the
    surface, float32 [h, w]; None where too few do, or it reaches out of the frame."""
    x, y = np.rint(place).astype(int) - RADIUS
    side = 2 * RADIUS + 1
    if min(x, y) < 0 or x + side > right.shape[1] or y + side > right.shape[0]:
        return None
    mask = (top[y : y + side, x : x + side] == surface).astype(np.float32)
    if mask.sum() < LEAST:
        return None
    return np.array([x, y]), right[y : y + side, x : x + side], mask


def differences(
    frame: NDArray[np.float32], colours: NDArray[np.float32], mask: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mean squared difference of a patch with a frame at every place, float32 [H - h + 1, W - w + 1]."""
    import cv2

    weights = np.repeat(mask[..., None], 3, 2)
    return cv2.matchTemplate(frame, np.ascontiguousarray(colours), cv2.TM_SQDIFF, mask=weights) / (3 * mask.sum())


def of_points(found: list[tuple[NDArray[Any], ...]]) -> dict[str, float | None]:
    """Scores of the points of all frames."""
    error, copy, length, shows, stays = (np.concatenate(parts) for parts in zip(*found, strict=True))
    moves = length > MOVES
    both = moves & (shows > 0)
    epe, edit = mean(error[both]), mean(length[both])
    told = {
        "edit_epe": mean(error[moves]),
        "edit_length": edit,
        "follow_ratio": 1 - epe / edit if both.any() else math.nan,
        "copied": float(mean(copy[both]) < epe) if both.any() else math.nan,
        "bystander_epe": mean(error[stays > 0]),
    }
    return {name: kept(value) for name, value in told.items()}
