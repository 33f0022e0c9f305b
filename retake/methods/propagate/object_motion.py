"""The motion of one object away from an anchor frame: a robust affine from tracks, optical flow as the residual.

For a frame t and an anchor a, `ObjectMotion` maps a pixel of t to where that point of the object lies on a. The
affine part is fitted to point tracks directly between the two frames as long as enough tracks live, so it does not
drift; what is left (bending, perspective) is chained along the flow, with its own affine part removed, smoothed and
slowly forgotten, because chained flow drifts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from retake.formats import FlowSeries, RegionSeries, TrackSeries
from retake.machine.threads import single_threaded

STEP = 4  # working pixels between the nodes of the residual grid
MIN_POINTS = 8  # fewer common tracks than this: go on from the last frame instead of the anchor
KEEP = 0.4  # also when fewer than this fraction of the base's tracks is left
INLIER = 3.0  # px
NOISE = 0.75  # px of residual that are not believed
FORGET = 0.97  # a frame: how slowly the residual returns to none
Points = tuple[np.ndarray, np.ndarray]  # ids int64 [P], xy float32 [P, 2]


class ObjectMotion:
    """Maps from the frames of `span` to the anchor. Memory: one affine a frame; the residual lies on disk.

    anchor, span: working frame indices; span runs away from the anchor in steps of one, and excludes it.
    residual: 0 uses the affine alone, 1 all of the residual.
    """

    def __init__(
        self,
        anchor: int,
        span: Iterable[int],
        tracks: TrackSeries,
        flow: FlowSeries,
        masks: RegionSeries,
        residual: float,
        scratch: Path,
    ) -> None:
        self.anchor, self.span = anchor, list(span)
        self.to_anchor: dict[int, np.ndarray] = {anchor: identity()}
        self.height, self.width = flow.height or masks.height, flow.width or masks.width
        for t, matrix in follow(anchor, self.span, tracks, masks):
            self.to_anchor[t] = cv2.invertAffineTransform(matrix)
        self._residual: Path | None = None
        if residual > 0 and self.span:
            self._residual = self._chain(flow, masks, residual, scratch)

    def to_anchor_map(self, t: int, box: tuple[int, int, int, int]) -> np.ndarray:
        """float32 [h, w, 2]: for each pixel of the box on frame t, its (x, y) on the anchor frame."""
        x0, y0, x1, y1 = box
        grid = pixel_grid(x0, y0, x1, y1)
        where = apply(self.to_anchor[t], grid)
        if self._residual is not None and t != self.anchor:
            nodes = self._nodes(t)
            where += cv2.remap(
                np.dstack([nodes, np.zeros_like(nodes[..., :1])]),  # three channels keep remap's weights exact
                (grid[..., 0] + 0.5) / STEP - 0.5,
                (grid[..., 1] + 0.5) / STEP - 0.5,
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )[..., :2]
        return where

    @property
    def _grid(self) -> tuple[int, int]:
        """Rows and columns of the nodes at which residuals are kept."""
        return -(-self.height // STEP), -(-self.width // STEP)

    def _nodes(self, t: int) -> np.ndarray:
        """Residual of frame t at the nodes, float32 [gh, gw, 2]."""
        assert self._residual is not None
        shape = (*self._grid, 2)
        size = int(np.prod(shape))
        stored = np.fromfile(self._residual, np.float16, size, offset=2 * size * self.span.index(t))
        return stored.reshape(shape).astype(np.float32)

    def _chain(self, flow: FlowSeries, masks: RegionSeries, weight: float, scratch: Path) -> Path:
        """A file of the residuals of every frame of the span, float16 [n, gh, gw, 2], in working pixels of the anchor
        frame. Plain reads and writes: a mapped file would stay in this process's memory as the clip goes on."""
        gh, gw = self._grid
        path = scratch / f"residual-{self.anchor}-{self.span[0]}.bin"
        nodes = pixel_grid(0, 0, gw, gh) * STEP + (STEP - 1) / 2
        before, previous = np.zeros((gh, gw, 2), np.float32), self.anchor
        with single_threaded(), open(path, "wb") as stored:
            for t in self.span:
                step, hidden = step_towards(flow, t, previous)
                step, known = at_nodes(step, masks[t] & ~hidden)
                landed = nodes + step
                chained = apply(self.to_anchor[previous], landed) + sample(before, (landed + 0.5) / STEP - 0.5)
                left = without_affine(chained - apply(self.to_anchor[t], nodes), nodes, known)
                before = FORGET * smoothed(left, known)
                stored.write((weight * beyond_noise(before)).astype(np.float16).tobytes())
                previous = t
        return path


def follow(
    anchor: int, span: Iterable[int], tracks: TrackSeries, masks: RegionSeries
) -> Iterator[tuple[int, np.ndarray]]:
    """(t, affine [2,3] from the anchor to t) for each t of the span.

    The affine is fitted between t and a base frame: the anchor itself, or, once too few of its tracks are left, the
    last frame before they ran out.
    """
    base_points, base_matrix = alive(tracks, anchor), identity()
    matrix, previous = identity(), anchor
    for t in span:
        here = alive(tracks, t)
        a, b = common(base_points, here)
        if len(a) < max(MIN_POINTS, KEEP * len(base_points[0])):
            candidate = alive(tracks, previous)
            more = common(candidate, here)
            if len(more[0]) > len(a):
                base_points, base_matrix, (a, b) = candidate, matrix, more
        step = robust_affine(a, b, chain(matrix, cv2.invertAffineTransform(base_matrix)))
        if step is None:
            matrix = chain(mask_motion(masks, previous, t), matrix)
            base_points, base_matrix = here, matrix
        else:
            matrix = chain(step, base_matrix)
        yield t, matrix
        previous = t


def robust_affine(a: np.ndarray, b: np.ndarray, guess: np.ndarray | None = None) -> np.ndarray | None:
    """Affine [2,3] that takes points a to b (float32 [P,2]), outliers rejected; None when there are too few points.

    A full affine needs points to spare: with fewer than 12 inliers a similarity is fitted instead, with fewer than 4
    the median translation. `guess` is the answer of the frame before: an object that bends has many affines that suit
    a part of it, and a fresh search would jump between them from frame to frame.
    """
    if len(a) == 0:
        return None
    if len(a) < 4:
        return np.hstack([np.eye(2), np.median(b - a, axis=0)[:, None]])
    similarity, inside = cv2.estimateAffinePartial2D(a, b, method=cv2.RANSAC, ransacReprojThreshold=INLIER)
    if similarity is None or inside.sum() < 4:
        return np.hstack([np.eye(2), np.median(b - a, axis=0)[:, None]])
    affine, inliers = cv2.estimateAffine2D(a, b, method=cv2.RANSAC, ransacReprojThreshold=INLIER)
    if affine is None or inliers.sum() < 12 or not sane(affine):
        return similarity
    if guess is not None and sane(near := refined(guess, a, b)):
        return near
    return refined(affine, a, b)


def refined(matrix: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The affine again, by least squares with Tukey's weights (c = 4.685), whose scale is the spread of the errors: the
    points of a rigid object are taken at their word, all of a bending one have a say."""
    design = np.hstack([a, np.ones((len(a), 1), a.dtype)]).astype(np.float64)
    for _ in range(12):
        error = np.linalg.norm(design @ matrix.T - b, axis=1)
        scale = 4.685 * max(1.0, 1.4826 * float(np.median(error)))
        weight = np.square(np.clip(1 - np.square(error / scale), 0, None))
        if (weight > 0.05).sum() < 6:
            return matrix
        root = np.sqrt(weight)[:, None]
        matrix = np.linalg.lstsq(design * root, b * root, rcond=None)[0].T
    return matrix


def sane(matrix: np.ndarray) -> bool:
    """Whether an affine is a plausible motion of an object: no mirror, no collapse."""
    first, second = np.linalg.svd(matrix[:, :2], compute_uv=False)
    return bool(np.linalg.det(matrix[:, :2]) > 0 and second > 0.05 and first < 20 and first / second < 3)


def mask_motion(masks: RegionSeries, previous: int, t: int) -> np.ndarray:
    """Where no track is left: the motion of the mask's centre, and of its size. Identity when a mask is empty."""
    before, after = moments(masks[previous]), moments(masks[t])
    if before is None or after is None:
        return identity()
    scale = float(np.clip(np.sqrt(after[1] / before[1]), 0.8, 1.25))
    return np.hstack([np.eye(2) * scale, (after[0] - scale * before[0])[:, None]])


def moments(mask: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Centre (x, y) and area of a mask, or None when it is empty."""
    y, x = np.nonzero(mask)
    return (np.array([x.mean(), y.mean()]), float(len(x))) if len(x) else None


def alive(tracks: TrackSeries, t: int) -> Points:
    ids, xy, visible = tracks[t]
    return ids[visible], xy[visible]


def common(a: Points, b: Points) -> tuple[np.ndarray, np.ndarray]:
    """Positions, in a and in b, of the tracks that both hold."""
    _, in_a, in_b = np.intersect1d(a[0], b[0], assume_unique=True, return_indices=True)
    return a[1][in_a], b[1][in_b]


def step_towards(flow: FlowSeries, t: int, previous: int) -> tuple[np.ndarray, np.ndarray]:
    """Flow on the grid of t towards its neighbour `previous`, and the pixels of t that are hidden there."""
    if previous == t - 1:
        return flow.backward(previous), flow.occluded_backward(previous)
    return flow.forward(t), flow.occluded_forward(t)


def without_affine(residual: np.ndarray, nodes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The residual less its best affine under `weight` [gh,gw]: that part is the tracks' to say."""
    keep = weight > 0.5
    if keep.sum() < 12:
        return np.zeros_like(residual)
    design = np.concatenate([nodes, np.ones_like(nodes[..., :1])], axis=-1)
    solved = np.linalg.lstsq(design[keep].astype(np.float64), residual[keep], rcond=None)[0]
    return (residual - design @ solved).astype(np.float32)


def at_nodes(flow: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flow [H,W,2] averaged over the valid pixels of each node's cell, and how much of the cell they are, [gh,gw] in
    0..1. Averaging over all pixels would mix the object's motion with the background's along its whole rim."""
    height, width = valid.shape
    pad = ((0, -height % STEP), (0, -width % STEP))
    weight = np.pad(valid.astype(np.float32), pad)
    size = weight.shape[1] // STEP, weight.shape[0] // STEP
    known = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    planes = [cv2.resize(np.pad(flow[..., c], pad) * weight, size, interpolation=cv2.INTER_AREA) for c in (0, 1)]
    return np.dstack(planes) / np.maximum(known, 1e-6)[..., None], known


def smoothed(residual: np.ndarray, known: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    """Normalised Gaussian over the nodes where it is known, bounded to a tenth of the object's size."""
    bound = max(1.0, 0.1 * STEP * float(np.sqrt(known.sum())))
    blur = lambda field: cv2.GaussianBlur(field, (0, 0), sigma)  # noqa: E731
    weight = blur(known)
    mean = np.dstack([blur(residual[..., c] * known) for c in (0, 1)]) / np.maximum(weight, 1e-3)[..., None]
    mean *= np.clip(weight / 0.1, 0, 1)[..., None]  # fades to none away from the object
    return np.clip(mean, -bound, bound)


def beyond_noise(residual: np.ndarray) -> np.ndarray:
    """The residual less NOISE px of its length: chained flow wanders by that much on objects that do not bend."""
    length = np.linalg.norm(residual, axis=-1, keepdims=True)
    return residual * np.clip(1 - NOISE / np.maximum(length, 1e-6), 0, None)


def sample(field: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Bilinear samples of a [gh,gw,2] field at node coordinates [gh,gw,2], edges repeated."""
    x, y = where[..., 0].astype(np.float32), where[..., 1].astype(np.float32)
    planes = [cv2.remap(field[..., c], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for c in (0, 1)]
    return np.dstack(planes)


def identity() -> np.ndarray:
    return np.hstack([np.eye(2), np.zeros((2, 1))])


def chain(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The affine that does `first`, then `second`."""
    return np.hstack([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2:] + second[:, 2:]])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Affine [2,3] of points [..., 2], as float32."""
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def pixel_grid(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """float32 [h, w, 2] of (x, y) pixel centres of a box."""
    x, y = np.meshgrid(np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32))
    return np.dstack([x, y])
