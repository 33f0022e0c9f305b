"""How a camera travelled between two frames, out of their optical flow, and which of two surfaces is in front.

A camera that turns and zooms moves every pixel by a field of a few numbers, whatever its depth; one that travels adds
to each pixel a motion along lines through one point (the epipole), in proportion to its inverse depth. So a direction
of travel explains what lies across those lines with the few numbers alone, and what is left along them is parallax.
Longuet-Higgins and Prazdny, "The interpretation of a moving retinal image", Proc. R. Soc. B 208, 1980. The field is
read half way between the two frames: there a roll or zoom of any size is one of these fields, not only a small one.

A plane that fills most of the picture leaves the numbers above open: its slope and the direction of travel can change
places. So a plane's homography is split as a camera of usual focal length, which does not zoom, would have made it
(Faugeras and Lustman, "Motion and structure from motion in a piecewise planar environment", 1988). Of the answers,
those that have the plane in front of the camera remain; what rises from the plane and what lies lower in the picture
choose among these. This says, too, which end is near.

Places are normalised: the middle of the frame is (0, 0), its longer side 1. Flows are float32 [H, W, 2] in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from retake.imaging.flow import warp

POINTS = 1000
TRIALS = 100
REFINED = (0.12, 0.03)  # spread of the trials round the best direction so far
ROUGH = 0.1  # px of residual from which a point counts as explained by something else
FOCAL = 1.1  # of the frame's longer side: between a telephone's camera and its video crop
PLANAR = 0.6  # share of the picture that a plane explains, from which its split is tried
GROUND = 0.5  # of the cost: what a plane that is nearer below is preferred by to one that is nearer above
NEARLY = 0.1  # of the cost: what a plane may explain worse than a camera of any focal length does
SLANTED = 0.1, 0.5  # share of the motion, and px, from which the slope of a plane shows


class Travel(NamedTuple):
    """direction: unit float64 [3], right, down, forward, known up to its sign. turning: float64 [6], the factors of
    `turning_fields`, or [3, 3], the homography of normalised places that the turning alone would be. across: median
    distance in px of the flow from its lines. beyond: px, the 97th percentile of what turning alone, without travel,
    leaves of the flow: where this is small, nothing is known about depth. signed: whether a plane has settled the sign
    of the travel, so that larger nearness is nearer."""

    direction: np.ndarray
    turning: np.ndarray
    across: float
    beyond: float
    signed: bool = False


def estimate(flow: np.ndarray, hidden: np.ndarray) -> Travel | None:
    """The travel that leaves the least flow across its lines, robustly. None where too little is visible.

    hidden: bool [H, W], pixels not to be used. The same input gives the same bytes.
    """
    height, width = hidden.shape
    step = max(1, int(np.sqrt(height * width / POINTS)))
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    seen = ~hidden[rows, columns]
    if seen.sum() < 64:
        return None
    rows, columns = rows[seen], columns[seen]
    moved = flow[rows, columns].astype(np.float64)
    places = _normalised(columns + moved[:, 0] / 2, rows + moved[:, 1] / 2, width, height)
    fields = turning_fields(places)
    trials, best = _half_sphere(TRIALS), (np.inf, Travel(np.zeros(3), np.zeros(6), 0.0, 0.0))
    spread = np.random.default_rng(0).standard_normal((len(REFINED), 24, 3))
    for level in range(len(REFINED) + 1):
        cost, turning, across = _explained(trials, moved, places, fields)
        k = int(cost.argmin())
        if cost[k] < best[0]:
            best = (float(cost[k]), Travel(trials[k], turning[k], float(across[k]), 0.0))
        if level < len(REFINED):
            trials = best[1].direction + REFINED[level] * spread[level]
            trials /= np.linalg.norm(trials, axis=1, keepdims=True)
    plane = _plane(_normalised(columns, rows, width, height), moved, max(width, height))
    if plane is not None and plane[0] < best[0] + NEARLY:
        return plane[1]
    return best[1]._replace(beyond=_left_by_turning(moved, fields))


def lines(direction: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Motion [..., 2] that travel in `direction` [3] gives the points at `places` [..., 2] at inverse depth 1."""
    return direction[2] * places - direction[:2]


def turning_fields(places: np.ndarray) -> np.ndarray:
    """Six motions [..., 6, 2] that tell nothing about depth: shift right and down, turn, zoom, and what a wide angle
    adds to pan and tilt."""
    x, y = places[..., 0], places[..., 1]
    none, one = np.zeros_like(x), np.ones_like(x)
    fields = ((one, none), (none, one), (-y, x), (x, y), (x * x, x * y), (x * y, y * y))
    return np.stack([np.stack(field, axis=-1) for field in fields], axis=-2)


def grid(width: int, height: int) -> np.ndarray:
    """Normalised places [H, W, 2] of all pixels."""
    rows, columns = np.mgrid[:height, :width]
    return _normalised(columns, rows, width, height)


def parallax(flow: np.ndarray, travel: Travel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(nearness [H, W], turned [H, W, 2], along [H, W, 2]): flow ~ turned + nearness * along, all float32.

    `nearness` grows or falls with inverse depth (the sign of the travel is open) and has an unknown offset. Near the
    epipole, where every depth stays in place, it fades into the picture's middle nearness.
    """
    height, width = flow.shape[:2]
    places, longer = grid(width, height), max(width, height)
    if travel.turning.ndim == 2:
        after = _sent(places, travel.turning)
        turned, places = (after - places) * longer, after
    else:
        places = places + flow / (2 * longer)
        turned = np.einsum("hwkc,k->hwc", turning_fields(places), travel.turning)
    along = lines(travel.direction, places)
    rest, square = ((flow - turned) * along).sum(axis=-1), (along**2).sum(axis=-1)
    clear = square > 0.01
    middle = float(np.median(rest[clear] / square[clear])) if clear.any() else 0.0
    nearness = middle + (rest - middle * square) / (square + 0.0025)
    return nearness.astype(np.float32), turned.astype(np.float32), along.astype(np.float32)


def in_front(
    nearness: np.ndarray, flow: np.ndarray, here: np.ndarray, there: np.ndarray, usable: np.ndarray, apart: float
) -> tuple[float, int]:
    """Whether larger `nearness` [H, W] is in front: (verdict -1 to 1, number of collisions it rests on).

    Every usable pixel of the frame `here` goes where `flow` takes it. Where two arrive whose nearness differs by more
    than `apart`, one hides the other: the one that looks like the frame `there`, by colour, is in front. `flow` must be
    known of hidden pixels, too, so it should come from another pair of frames and the travel. here, there: [H, W, 3].
    """
    height, width = nearness.shape
    unlike = np.abs(warp(there, flow) - here.astype(np.float32)).sum(axis=2)
    unlike = cv2.boxFilter(unlike, -1, (3, 3), borderType=cv2.BORDER_REPLICATE)
    x = np.rint(flow[..., 0] + np.arange(width, dtype=np.float32))
    y = np.rint(flow[..., 1] + np.arange(height, dtype=np.float32)[:, None])
    usable = usable & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    cells = (y[usable] * width + x[usable]).astype(np.intp)
    near, cost = nearness[usable], unlike[usable]
    order = np.argsort(near, kind="stable")
    largest, smallest = np.full(height * width, -1), np.full(height * width, -1)
    largest[cells[order]] = order  # the last written stays
    smallest[cells[order[::-1]]] = order[::-1]
    taken = largest >= 0
    upper, lower = largest[taken], smallest[taken]
    collide = near[upper] - near[lower] > apart
    gain = (cost[lower] - cost[upper])[collide]
    total = float(np.abs(gain).sum())
    return (float(gain.sum()) / total if total else 0.0), int(collide.sum())


def likelier(at: int, evidence: Sequence[float], next_: np.ndarray, second: np.ndarray) -> float:
    """Half the log of the odds that sign `at` of a row of signs is + rather than -.

    evidence: the same of every sign by itself. next_, second: how firmly sign k and sign k + 1, k + 2 are the same
    (negative: opposite), [N - 1] each, the last of `second` unused. Exact: sums over all rows of signs.
    """
    signs = np.array([1.0, -1.0])
    totals = []
    for held in signs:
        table = np.zeros((2, 2))  # log of the sum over all signs before, by the last two
        for k, own in enumerate(evidence):
            step = np.where(signs == held, own * signs, -np.inf) if k == at else own * signs
            if k:
                step = step + next_[k - 1] * signs[:, None] * signs
            ahead = step[None] if k else np.broadcast_to(step, (1, 2, 2))
            if k > 1:
                ahead = ahead + second[k - 2] * (signs[:, None] * signs)[:, None]
            table = np.logaddexp.reduce(table[..., None] + ahead, axis=0)
        totals.append(float(np.logaddexp.reduce(table.ravel())))
    return (totals[0] - totals[1]) / 2


def _normalised(x: np.ndarray, y: np.ndarray, width: int, height: int) -> np.ndarray:
    longer = max(width, height)
    return np.stack([(x - (width - 1) / 2) / longer, (y - (height - 1) / 2) / longer], axis=-1)


def _half_sphere(count: int) -> np.ndarray:
    """Unit vectors [count, 3] spread evenly over the half that looks forward."""
    k = np.arange(count) + 0.5
    z, turn = k / count, np.pi * (1 + np.sqrt(5)) * k
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=-1)


def _explained(
    trials: np.ndarray, moved: np.ndarray, places: np.ndarray, fields: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of M directions: robust cost [M], factors of the turning fields [M, 6], median residual [M]."""
    along = trials[:, None, 2:] * places - trials[:, None, :2]
    length = np.linalg.norm(along, axis=-1)
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1) / np.maximum(length, 1e-6)[..., None]
    trust = length / (length + 0.05)  # lines are not defined at the epipole
    seen = across[..., :1] * fields[..., 0] + across[..., 1:] * fields[..., 1]
    wanted = across[..., 0] * moved[:, 0] + across[..., 1] * moved[:, 1]
    ridge = np.diag([1e-4] * 4 + [1e-3] * 2) * len(places)
    weight = trust
    for _ in range(4):
        weighted = seen * weight[..., None]
        normal = weighted.transpose(0, 2, 1) @ seen + ridge
        factors = np.linalg.solve(normal, weighted.transpose(0, 2, 1) @ wanted[..., None])[..., 0]
        rest = np.abs(wanted - (seen @ factors[..., None])[..., 0])
        scale = 1.4826 * np.median(rest[:, ::3], axis=1, keepdims=True) + 0.02
        weight = trust / (1 + (rest / np.minimum(scale, np.median(scale))) ** 2) ** 2
    cost = (trust * np.log1p((rest / ROUGH) ** 2)).sum(axis=1) / trust.sum(axis=1)
    return cost, factors, np.median(rest, axis=1)


def _plane(places: np.ndarray, moved: np.ndarray, longer: int) -> tuple[float, Travel] | None:
    """(cost as that of `_explained`, travel) past a plane that fills most of the picture; None where there is none.

    places: normalised, float64 [P, 2], of the first frame; moved: their motion in px.
    """
    after = places + moved / longer
    whole = _homography(places, after)
    rest = np.linalg.norm(_sent(places, whole) - after, axis=1) * longer
    on = rest < 0.5 + 0.02 * np.median(np.linalg.norm(moved, axis=1))
    if on.mean() < PLANAR:
        return None
    # What no shift, roll and zoom explains, and what no turn of this camera does: without either, no slope is known.
    flat = _sent(places, whole) - places
    fields = turning_fields((places + after) / 2)
    beyond = min(_left_by_turning(flat * longer, fields[:, :4]), _left_by_turning(flat * longer, _rotations(places)))
    if beyond < SLANTED[0] * np.median(np.linalg.norm(moved, axis=1)) + SLANTED[1]:
        return None
    camera = np.diag([FOCAL, FOCAL, 1.0])
    _, turns, travels, normals = cv2.decomposeHomographyMat(whole, camera)
    best: tuple[float, Travel] | None = None
    chosen = np.inf
    rays = np.concatenate([places / FOCAL, np.ones((len(places), 1))], axis=1)
    for turn, gone, normal in zip(turns, travels, normals, strict=True):
        if np.linalg.norm(gone) < 1e-6 or ((rays[on] @ normal) <= 0).mean() > 0.01:
            continue
        direction = -gone[:, 0] * (FOCAL, FOCAL, 1.0)
        direction /= np.linalg.norm(direction)
        turning = camera @ turn @ np.linalg.inv(camera)
        still = _sent(places, turning)
        along = lines(direction, still)
        length = np.linalg.norm(along, axis=1)
        off = (after - still) * longer
        across = np.abs(along[:, 0] * off[:, 1] - along[:, 1] * off[:, 0]) / np.maximum(length, 1e-6)
        trust = length / (length + 0.05)
        cost = float((trust * np.log1p((across / ROUGH) ** 2)).sum() / trust.sum())
        slope = normal[:2, 0] / max(float(np.linalg.norm(normal[:2])), 1e-9)
        if cost - GROUND * slope[1] < chosen:
            chosen = cost - GROUND * slope[1]
            best = cost, Travel(direction, turning, float(np.median(across)), beyond, True)
    return best


def _rotations(places: np.ndarray) -> np.ndarray:
    """Motions [P, 4, 2] that pan, tilt, roll and zoom of a camera of usual focal length give."""
    fields = turning_fields(places)
    wide = fields[:, :2] * FOCAL**2 + fields[:, 4:]
    return np.concatenate([wide, fields[:, 2:4]], axis=1)


def _homography(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Float64 [3, 3] that sends most of `before` [P, 2] to `after` [P, 2], by reweighted least squares."""
    x, y, none, one = before[:, 0], before[:, 1], np.zeros(len(before)), np.ones(len(before))
    rows = [
        np.stack([x, y, one, none, none, none, -x * after[:, 0], -y * after[:, 0]], axis=1),
        np.stack([none, none, none, x, y, one, -x * after[:, 1], -y * after[:, 1]], axis=1),
    ]
    weight, found = one, np.eye(3)
    for _ in range(12):
        normal = sum((row * weight[:, None]).T @ row for row in rows) + 1e-9 * len(before) * np.eye(8)
        wanted = sum((row * weight[:, None]).T @ after[:, c] for c, row in enumerate(rows))
        found = np.append(np.linalg.solve(normal, wanted), 1.0).reshape(3, 3)
        rest = np.linalg.norm(_sent(before, found) - after, axis=1)
        weight = 1 / (1 + (rest / (1.4826 * np.median(rest) + 1e-5)) ** 2) ** 2
    return found


def _sent(places: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """Places [..., 2] after a homography [3, 3]."""
    sent = places @ homography[:, :2].T + homography[:, 2]
    return sent[..., :2] / np.where(np.abs(sent[..., 2:]) < 1e-6, 1e-6, sent[..., 2:])


def _left_by_turning(moved: np.ndarray, fields: np.ndarray) -> float:
    """97th percentile in px of what fields [P, K, 2], fitted robustly, leave of motions [P, 2]."""
    seen = fields.transpose(0, 2, 1)
    weight = np.ones(len(moved))
    rest = np.linalg.norm(moved, axis=1)
    for _ in range(8):
        weighted = seen * weight[:, None, None]
        normal = np.einsum("pck,pcl->kl", weighted, seen) + 1e-6 * len(moved) * np.eye(fields.shape[1])
        factors = np.linalg.solve(normal, np.einsum("pck,pc->k", weighted, moved))
        rest = np.linalg.norm(moved - seen @ factors, axis=1)
        weight = 1 / (1 + (rest / (1.4826 * np.median(rest) + 0.02)) ** 2) ** 2
    return float(np.percentile(rest, 97))
