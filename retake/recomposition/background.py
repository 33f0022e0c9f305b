"""What stands behind the objects: taken from the frames in which it is seen, brought over by the camera's motion.

A place that an object hides is looked for in the nearest frames first; what no frame shows is made up once, from its
surroundings (fill.py), and carried along from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from retake.formats import FrameSeries, Tensors, pack_bits, unpack_bits
from retake.recomposition.affine import IDENTITY, placed, shifted
from retake.recomposition.camera import Camera
from retake.recomposition.fill import filled
from retake.recomposition.plate import Plate, sampled

EVERY = 32  # frames within which every one is looked at; further away they are looked at ever more seldom
EDGE = 4  # px at a frame's edge that are looked at last: cameras and coders leave dark lines there
CELL = 2  # px: neighbours so near are shown by the same frame


class Background:
    """The scene without its objects. Reads the clip once. On disk: a bit a pixel and frame.

    holes: of every frame in order, bool [H, W]: where no background is seen.
    """

    def __init__(self, frames: FrameSeries, holes: Iterator[np.ndarray], scratch: Path) -> None:
        self.frames, self.path = frames, scratch / "holes.bin"
        self.width, self.height = frames.width, frames.height
        self.to_first = np.tile(IDENTITY, (len(frames), 1, 1))
        """float64 [F, 3, 3]: places on a frame to places on the first."""
        self.asked = self.unseen = 0  # pixels that were hidden, and those of them that no frame shows
        self.plate: Plate | None = None
        camera = Camera()
        with self.path.open("wb") as file:
            for t, hole in enumerate(holes):
                file.write(pack_bits(hole).tobytes())
                self.to_first[t] = camera.follow(frames[t], ~hole)
        self._from_first = np.linalg.inv(self.to_first)
        self._near = lru_cache(2 * EVERY + 1)(self._read)

    def hole(self, t: int) -> np.ndarray:
        return unpack_bits(self._near(t), self.width)

    def hidden(self, u: int, row: np.ndarray, column: np.ndarray, t: int) -> np.ndarray:
        """Whether pixels of frame u lie in its hole, bool [N] of int [N] each. t: the frame that is worked on; holes of
        frames near it are kept, those further off are looked at once in a while."""
        bits = (self._near if abs(u - t) <= EVERY else self._read)(u)
        return (bits[row, column >> 3] << (column & 7)) & 128 > 0

    def _read(self, t: int) -> np.ndarray:
        row = -(-self.width // 8)
        return np.fromfile(self.path, np.uint8, row * self.height, offset=row * self.height * t).reshape(-1, row)

    def between(self, t: int, u: int) -> np.ndarray:
        """float64 [3, 3]: places on frame t to places on frame u, of what rests."""
        return self._from_first[u] @ self.to_first[t]

    def colours(self, t: int, xy: np.ndarray) -> np.ndarray:
        """Colours float32 [N, 3] of the scene at places float64 [N, 2] of frame t, also outside the picture."""
        out, unseen = np.zeros((len(xy), 3), np.float32), np.zeros(len(xy), bool)
        if self.plate is not None:  # what was made up is shown by no frame
            unseen, known = self.plate.look_up(self.between(t, self.plate.frame), xy)
            out[unseen] = known
        rest = np.flatnonzero(~unseen)
        cells = np.floor(xy[rest] / CELL).astype(np.int64)
        _, first, of = np.unique(cells[:, 1] * (1 << 32) + cells[:, 0], return_index=True, return_inverse=True)
        shown = self._search(t, xy[rest[first]])[of]
        order = np.argsort(shown, kind="stable")
        frames, starts = np.unique(shown[order], return_index=True)
        by_frame = dict(zip(frames.tolist(), np.split(rest[order], starts)[1:], strict=True))
        fresh = by_frame.pop(-1, rest[:0])
        for u, here in by_frame.items():
            out[here] = sampled(self.frames.alone(u), placed(self.between(t, u), xy[here]))
        self.asked, self.unseen = self.asked + len(xy), self.unseen + int(unseen.sum()) + len(fresh)
        if len(fresh):
            self._make_up(t, xy, out, unseen, fresh)
        return out

    def _search(self, t: int, xy: np.ndarray) -> np.ndarray:
        """The nearest frame that shows each place, int [N]; -1: none."""
        shown, left = np.full(len(xy), -1), np.arange(len(xy))
        for edge in (EDGE, 0):
            for u in nearest_first(t, len(self.frames)):
                if not len(left):
                    break
                there = placed(self.between(t, u), xy[left])
                column, row = np.rint(there).astype(int).T
                inside = (column >= edge) & (column < self.width - edge)
                inside &= (row >= edge) & (row < self.height - edge)
                found = np.flatnonzero(inside)
                found = found[~self.hidden(u, row[found], column[found], t)]
                shown[left[found]] = u
                left = np.delete(left, found)
        return shown

    def _make_up(self, t: int, xy: np.ndarray, out: np.ndarray, old: np.ndarray, fresh: np.ndarray) -> None:
        """Fill the colours of the fresh places, int [n] of N, and keep them; old: those made up before, bool [N]."""
        beyond = max(-xy.min(), (xy - (self.width - 1, self.height - 1)).max(), 0)
        pad = min(math.ceil(beyond), self.width + self.height)  # the picture may lack what lies outside it
        column, row = (np.rint(xy).astype(int) + pad).clip(0, (self.width - 1 + 2 * pad, self.height - 1 + 2 * pad)).T
        picture = cv2.copyMakeBorder(self.frames[t], pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        lacks = np.pad(self.hole(t), pad, constant_values=True)
        wanted = np.zeros(lacks.shape, bool)
        wanted[row[fresh], column[fresh]] = True
        picture[row, column], lacks[row, column] = np.rint(out), False
        picture = filled(picture, wanted, lacks | wanted)
        out[fresh] = picture[row[fresh], column[fresh]]
        if self.plate is None or not self.plate.holds(self.between(t, self.plate.frame)):
            self.plate = Plate(t, (self.width, self.height))
            wanted[row[old], column[old]] = True  # goes on to the new plate
        unpadded = shifted(np.array([-pad, -pad], np.float64))
        self.plate.add(self.between(t, self.plate.frame) @ unpadded, picture, wanted)

    def state(self) -> Tensors:
        """What a later chunk goes on from."""
        counts = {"counts": np.array([self.asked, self.unseen], np.int64)}
        return counts | self.plate.state() if self.plate else counts

    def restore(self, state: Tensors) -> None:
        self.asked, self.unseen = (int(n) for n in state["counts"])
        if "plate" in state:
            self.plate = Plate(int(state["plate_frame"]), (self.width, self.height))
            self.plate.restore(state)


def nearest_first(t: int, count: int) -> Iterator[int]:
    """Frames from t outwards: each of the nearest, then ever fewer."""
    yield t
    far = 1
    while t - far >= 0 or t + far < count:
        if t - far >= 0:
            yield t - far
        if t + far < count:
            yield t + far
        far += 1 + far // EVERY
