"""What the values of mask pictures mean: ids of objects, or opacity. Decided over all pictures, not one by one.

Ids fill areas. Opacities between black and white stand where an edge is: beside a pixel of one value there is another.
So grey pictures that reach white hold a matte, unless a value between fills an area. This is shared code and no choice
of the settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import cv2
import numpy as np

MAX_OBJECTS = 64  # ids of one folder; more are something else
DARK, BRIGHT = 16, 240  # a codec's noise on black and white stays below and above
FLAT = 0.05  # share of the pixels between that may lie within areas of one value
SOFT = 2.0  # px, mean width of a rim that is wider than antialiasing and coding make it
_SQUARE = np.ones((3, 3), np.uint8)


@dataclass
class Tally:
    """What was met in pictures, uint8 or uint16 [h, w], one after the other."""

    met: np.ndarray = field(default_factory=lambda: np.zeros(256, bool))
    largest: int = 0
    deep_white: bool = False
    others: bool = False  # values above 255 that are not white
    between: int = 0
    flat: int = 0
    rim: int = 0
    bright: bool = False
    near_white: bool = False

    def add(self, values: np.ndarray, grey: np.ndarray) -> None:
        """`grey` is `values` in 8 bits."""
        self.largest = max(self.largest, int(values.max()))
        if values.dtype == np.uint8:
            self.met |= np.bincount(values.ravel(), minlength=256) > 0
        else:
            self.others |= bool(((values > 255) & (values < 65535)).any())
            self.met |= np.bincount(values[values < 256].ravel(), minlength=256)[:256] > 0
            self.deep_white |= bool((values == 65535).any())
        between = (grey >= DARK) & (grey < BRIGHT)
        self.between += int(between.sum())
        self.flat += int((between & (cv2.erode(grey, _SQUARE) == cv2.dilate(grey, _SQUARE))).sum())
        inside = (grey > 127).astype(np.uint8)
        self.rim += int((inside & (cv2.erode(inside, _SQUARE) == 0)).sum())
        self.bright |= bool((grey >= BRIGHT).any())
        self.near_white |= bool(((grey >= BRIGHT) & (grey < 255)).any())

    def with_those_of(self, other: Tally) -> Tally:
        """Both, as one."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        largest = max(pairs.pop("largest"))
        added = {name: a | b if isinstance(a, bool | np.ndarray) else a + b for name, (a, b) in pairs.items()}
        return Tally(**added, largest=largest)

    @property
    def values(self) -> list[int]:
        """Every value from 1 to 255 that was met, ascending."""
        return [int(v) for v in np.flatnonzero(self.met) if v]

    @property
    def varied(self) -> bool:
        """More than one value."""
        return int(self.met.sum()) > 1

    @property
    def white(self) -> bool:
        """Black and white alone, or black alone."""
        return not self.others and self.values in ([], [255])

    @property
    def fits_ids(self) -> bool:
        """Whether the values may be ids."""
        return not self.others and not self.deep_white and len(self.values) <= MAX_OBJECTS

    @property
    def soft(self) -> bool:
        """Whether the rim is wide enough to be an edge that somebody made soft."""
        return self.between >= SOFT * max(1, self.rim) and self.bright

    def matte(self, rgb: bool) -> bool:
        """Whether the values are opacities. `rgb`: the pictures have three equal channels, as those of a video."""
        edges = self.between > 0 and self.flat <= FLAT * self.between
        return self.bright and (edges or (self.between == 0 and (self.near_white or rgb)))
