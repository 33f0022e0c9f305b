"""How the camera moves: an affine from every frame to the first, followed on corners of the background.

Corners (Shi, Tomasi, CVPR 1994) are tracked from a key frame on (Lucas, Kanade, pyramidal) and every frame is fitted to
the key frame directly, so that errors add up only from key to key. Flat places say nothing of a motion, though
optical flow has a value there, too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import cv2
import numpy as np

from retake.recomposition.affine import IDENTITY, placed
from retake.track_edits.camera import fitted

CORNERS = 300
LEAST = 12  # corners; with fewer the camera is taken to go on resting
KEEP = 0.5  # of a key frame's corners; with fewer the next key frame begins
BACK = 0.7  # px between a corner and its way forth and back
REST = 0.25  # px at a corner of the picture: less is noise, and sampling between pixels would blur


class Camera:
    """Takes frame after frame."""

    def __init__(self) -> None:
        self._key = IDENTITY
        """Places on the key frame to places on the first frame."""
        self._start = self._now = np.zeros((0, 2), np.float32)
        """Corners on the key frame, and where they are on the frame before."""
        self._gray: Any = None  # the frame before
        self._matrix = IDENTITY

    def follow(self, rgb: np.ndarray, background: np.ndarray) -> np.ndarray:
        """float64 [3, 3]: places on this frame, uint8 [H, W, 3], to places on the first. background: bool [H, W]."""
        gray, clear = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), background.astype(np.uint8)
        if self._gray is not None:
            self._step(gray, clear)
        if len(self._now) < KEEP * CORNERS and len(fresh := corners(gray, clear)) > len(self._now):
            self._key, self._start, self._now = self._matrix, fresh, fresh
        self._gray = gray
        return self._matrix

    def _step(self, gray: np.ndarray, clear: np.ndarray) -> None:
        if not len(self._now):
            return
        height, width = clear.shape
        flow: Any = cv2.calcOpticalFlowPyrLK
        follow = partial(flow, nextPts=None, winSize=(15, 15), maxLevel=4)
        there, found, _ = follow(self._gray, gray, self._now)
        back, again, _ = follow(gray, self._gray, there)
        keep = (found.ravel() > 0) & (again.ravel() > 0) & (np.linalg.norm(back - self._now, axis=1) < BACK)
        column, row = np.rint(there).astype(int).clip(0, (width - 1, height - 1)).T
        keep &= clear[row, column] > 0
        self._start, self._now = self._start[keep], there[keep]
        if len(self._now) < LEAST:
            return
        matrix = fitted(self._now, self._start, "affine")
        ends = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
        moved = np.abs(placed(np.linalg.inv(self._matrix) @ self._key @ matrix, ends) - ends).max()
        if moved >= REST:
            self._matrix = self._key @ matrix


def corners(gray: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """float32 [P, 2]: places of a frame, uint8 [H, W], that can be followed, where `clear` is not 0."""
    found = cv2.goodFeaturesToTrack(gray, CORNERS, 0.005, 8, mask=clear)
    return np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2)
