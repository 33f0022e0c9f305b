"""What was made up, kept on one frame's grid, so that it is sampled once wherever the camera takes it."""

from __future__ import annotations

import cv2
import numpy as np

from retake.formats import Tensors
from retake.imaging.soft_mask import bounding_box
from retake.recomposition.affine import placed

BEYOND = 0.5  # of the frame's size: how far the plate reaches beyond it
ZOOM = 1.5  # by more than this in either way a new plate is begun


class Plate:
    """Colours uint8 [h, w, 3] around frame `frame`, where they are known: bool [h, w]."""

    def __init__(self, frame: int, size: tuple[int, int]) -> None:
        self.frame, self.size = frame, size
        self.corner = np.array([-int(BEYOND * size[0]), -int(BEYOND * size[1])])
        width, height = size[0] - 2 * self.corner[0], size[1] - 2 * self.corner[1]
        self.colours, self.known = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool)

    def holds(self, to_plate: np.ndarray) -> bool:
        """Whether a frame lies within the plate, at nearly its scale. to_plate: its places to those of `frame`."""
        zoom = np.sqrt(abs(np.linalg.det(to_plate[:2, :2])))
        width, height = self.size
        ends = placed(to_plate, np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)) - self.corner
        inside = (ends >= 0).all() and (ends < np.array(self.known.shape[::-1])).all()
        return bool(inside and 1 / ZOOM < zoom < ZOOM)

    def look_up(self, to_plate: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which places, float64 [N, 2], are known: bool [N]; and the colours of those, float32 [n, 3]."""
        spot = placed(to_plate, xy) - self.corner
        column, row = np.rint(spot).astype(int).clip(0, np.array(self.known.shape[::-1]) - 1).T
        known = self.known[row, column] & (np.abs(spot - np.stack([column, row], 1)).max(1, initial=0) <= 0.5)
        return known, sampled(self.colours, spot[known])

    def add(self, to_plate: np.ndarray, picture: np.ndarray, made: np.ndarray) -> None:
        """Keep what was made up on a frame: its picture uint8 [H, W, 3], where it was made up, bool [H, W]."""
        box = bounding_box(made, 5)
        if box is None:
            return
        x0, y0, x1, y1 = box
        ends = placed(to_plate, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float64)) - self.corner
        low = np.floor(ends.min(0)).astype(int).clip(0)
        high = np.minimum(np.ceil(ends.max(0)).astype(int) + 1, np.array(self.known.shape[::-1]))
        if (low >= high).any():
            return
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        where = placed(np.linalg.inv(to_plate), np.stack([x, y], -1).reshape(-1, 2) + self.corner)
        height, width = made.shape
        column, row = np.rint(where).astype(int).clip(0, (width - 1, height - 1)).T
        part = np.s_[low[1] : high[1], low[0] : high[0]]
        unknown, x, y = ~self.known[part].ravel(), x.ravel(), y.ravel()
        # Colours reach a little further than what is known: who samples between pixels at its edge must not meet black.
        for reach, known in ((9, False), (3, True)):
            near = cv2.dilate(made.astype(np.uint8), np.ones((reach, reach), np.uint8))[row, column] > 0
            rows, columns = y[near & unknown], x[near & unknown]
            self.colours[rows, columns] = np.rint(sampled(picture, where[near & unknown]))
            self.known[rows, columns] |= known

    def state(self) -> Tensors:
        return {"plate_frame": np.array(self.frame), "plate": self.colours, "plate_known": self.known}

    def restore(self, state: Tensors) -> None:
        self.colours, self.known = state["plate"], state["plate_known"]


def sampled(picture: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Colours float32 [N, 3] of uint8 [H, W, 3] at places [N, 2], bilinear; a whole place gives its pixel."""
    found = [np.zeros((0, 3), np.float32)]
    for n in range(0, len(xy), 30_000):  # remap takes no side of 32,768 and more
        x, y = xy[n : n + 30_000].astype(np.float32).T
        grid = (x[None].copy(), y[None].copy())
        found.append(cv2.remap(picture, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0])
    return np.concatenate(found).astype(np.float32)
