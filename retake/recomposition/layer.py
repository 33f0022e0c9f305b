"""A part of the scene as the edit places it: from which source frame it is taken, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.formats import Tensors
from retake.imaging.soft_mask import Box
from retake.recomposition.affine import exact, placed

STILL = 0.05  # px: less is no motion
BENDS = 0.75  # px by which points must leave the affine before it is bent
NODE = 4  # px between the nodes at which a bend is computed
MOST = 256  # points that say how it bends


@dataclass(frozen=True)
class Placement:
    """frame: of the source, from which it is taken. matrix: float64 [3, 3], places there to places on the edited frame;
    bend: float [P, 4] of points, their edited place and what the affine lacks there; hidden: it is taken away."""

    frame: int
    matrix: np.ndarray
    bend: np.ndarray
    hidden: bool = False

    def rests(self, t: int, box: Box) -> bool:
        """Whether frame t shows what the source does, for a thing that lies within the box."""
        if self.hidden or self.frame != t or len(self.bend):
            return False
        x0, y0, x1, y1 = box
        corners = np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float64)
        return bool(np.abs(placed(self.matrix, corners) - corners).max() < STILL)

    def source_map(self, box: Box) -> np.ndarray:
        """float32 [h, w, 2]: for each pixel of a box of the edited frame, its (x, y) on the source frame."""
        x0, y0, x1, y1 = box
        grid = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), -1).astype(np.float64)
        if len(self.bend):
            grid = grid - bent(self.bend, box)
        return placed(np.linalg.inv(self.matrix), grid).astype(np.float32)

    def reach(self, box: Box, size: tuple[int, int]) -> Box | None:
        """The box on the edited frame that holds what lies in a box of the source frame; None outside the picture."""
        x0, y0, x1, y1 = box
        ends = placed(self.matrix, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float64))
        slack = 2 + (np.abs(self.bend[:, 2:]).max() if len(self.bend) else 0)
        low, high = np.floor(ends.min(0) - slack), np.ceil(ends.max(0) + slack)
        found = max(0, int(low[0])), max(0, int(low[1])), min(size[0], int(high[0])), min(size[1], int(high[1]))
        return found if found[0] < found[2] and found[1] < found[3] else None


def placement(edited: Tensors, identity: int, t: int) -> Placement:
    """Where an object (0: the background) goes on frame t. edited: tensors of the frame's edited tracks."""
    mine = edited["objects"] == identity
    if not mine.any():
        return Placement(t, np.eye(3), np.zeros((0, 4)))
    frames = edited["frame"][mine]
    frame = int(np.bincount(frames).argmax())
    if edited["hidden"][mine].all():
        return Placement(frame, np.eye(3), np.zeros((0, 4)), True)
    use = mine & (edited["frame"] == frame)
    seen = use & edited["visible"]
    use = seen if seen.any() else use
    a, b = edited["source"][use].astype(np.float64), edited["xy"][use].astype(np.float64)
    matrix = exact(a, b)
    lacks = b - placed(matrix, a)
    if len(a) < 4 or np.abs(lacks).max() < BENDS:
        return Placement(frame, matrix, np.zeros((0, 4)))
    return Placement(frame, matrix, np.concatenate([b, lacks], 1))


def bent(bend: np.ndarray, box: Box) -> np.ndarray:
    """float64 [h, w, 2]: what the affine lacks at each pixel of a box, smooth between the points that say it."""
    x0, y0, x1, y1 = box
    bend = bend[:: -(-len(bend) // MOST)]
    apart = np.linalg.norm(bend[:, None, :2] - bend[None, :, :2], axis=-1) + 1e9 * np.eye(len(bend))
    soft = max(2.0, 0.5 * float(np.median(apart.min(1))))
    size = -(-(x1 - x0) // NODE), -(-(y1 - y0) // NODE)
    x, y = np.meshgrid(x0 + (np.arange(size[0]) + 0.5) * NODE - 0.5, y0 + (np.arange(size[1]) + 0.5) * NODE - 0.5)
    far = (x[..., None] - bend[:, 0]) ** 2 + (y[..., None] - bend[:, 1]) ** 2
    weight = (far + soft**2) ** -2
    nodes = ((weight / weight.sum(-1, keepdims=True)) @ bend[:, 2:]).astype(np.float32)
    whole = [cv2.resize(nodes[..., k], (size[0] * NODE, size[1] * NODE)) for k in (0, 1)]
    return np.stack(whole, -1)[: y1 - y0, : x1 - x0].astype(np.float64)
