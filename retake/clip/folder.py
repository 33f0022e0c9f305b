"""A folder of pictures as a clip: an image sequence, a sequence of DAVIS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from retake.errors import MediaError
from retake.exchange.numbering import gap_note, gaps, natural
from retake.imaging.colour.coding import VIEW, Coding
from retake.imaging.colour.recode import recoded
from retake.recipe import digest
from retake.store import Store
from retake.video import Selection, read_image, resize

from .base import Clip, ClipInfo, Frame, select_indices

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class FolderClip(Clip):
    """A folder of images of one size, in the order of their names. VERSION: of how they are read.

    Code values are those of the pictures, 8 or 16 bits, with alpha where the first picture has it.
    """

    VERSION: ClassVar[int] = 2

    def digest(self, store: Store) -> str:
        """Content digest. Numbers that are missing count, because a note names them."""
        told = ["images", self.VERSION, [store.source_digest(p) for p in self.images], self._gaps]
        return digest(told if self.coding.plain else [*told, self.coding.as_json()])

    def paths(self) -> list[str]:
        return [str(p) for p in self.images]

    @cached_property
    def images(self) -> tuple[Path, ...]:
        """The image files in natural order. Raises MediaError E410 when there are none, E418 when one frame is there
        twice."""
        found = [p for p in Path(self.spec).iterdir() if p.suffix.lower() in IMAGES and not p.name.startswith(".")]
        if not found:
            raise MediaError("E410", f"{self.spec} holds no image", f"A frame is one of {', '.join(sorted(IMAGES))}.")
        found.sort(key=lambda p: (natural(p.name), p.name))
        doubles = [(a, b) for a, b in pairwise(found) if natural(a.stem) == natural(b.stem)]
        if doubles:
            a, b = doubles[0]
            raise MediaError(
                "E418",
                f"{self.spec} holds {b.name} beside {a.name}: {len(doubles)} of its frames are there twice",
                "Keep one file a frame: move the others into a folder of their own.",
            )
        return tuple(found)

    @cached_property
    def _gaps(self) -> list[tuple[int, int]]:
        return gaps([p.stem for p in self.images])

    def info(self, folder_fps: float) -> ClipInfo:
        height, width = self._first.shape[:2]
        notes = [gap_note(self._gaps, len(self.images))] if self._gaps else []
        notes += ["stages do not see its transparency"] * self.coding.alpha
        return ClipInfo(width, height, len(self.images), folder_fps, notes=tuple(notes))

    @cached_property
    def _first(self) -> np.ndarray:
        return read_image(self.images[0], deep=True)

    @property
    def coding(self) -> Coding:
        return _coding_of(self._first)

    def codes(self, selection: Selection, folder_fps: float, **reading: Any) -> Iterator[list[np.ndarray]]:
        for _, index in select_indices(selection, len(self.images), folder_fps):
            image = read_image(self.images[index], deep=True)
            coding = _coding_of(image)
            planes = [image[..., :3], image[..., 3]] if coding.alpha else [image]
            yield [np.ascontiguousarray(plane) for plane in recoded(planes, coding, self.coding)]

    def read(
        self, selection: Selection, size: tuple[int, int] | None, folder_fps: float, **reading: Any
    ) -> Iterator[Frame]:
        expected: tuple[int, ...] | None = None
        on_note: Callable[[str], None] | None = None if self.coding.alpha else reading.get("on_note")
        for seconds, index in select_indices(selection, len(self.images), folder_fps):
            image = read_image(self.images[index])
            rgb = image[..., :3]
            if on_note and image.shape[2] == 4 and image[..., 3].min() < 255:
                on_note(f"transparency is dropped, as {self.images[0].name} has none")
                on_note = None
            expected = expected or rgb.shape
            if rgb.shape != expected:
                raise MediaError(
                    "E412",
                    f"{self.images[index]} is {rgb.shape[1]}x{rgb.shape[0]}, the first frame is "
                    f"{expected[1]}x{expected[0]}",
                    "All images of a clip need one size.",
                )
            yield seconds, resize(rgb, size) if size else rgb


def _coding_of(image: np.ndarray) -> Coding:
    """Of a picture as `read_image` gives it."""
    return replace(VIEW, depth=8 * image.dtype.itemsize, alpha=image.shape[2] == 4)
