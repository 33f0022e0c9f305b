"""A scene of the sprite world as a clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from retake.recipe import digest
from retake.store import Store
from retake.video import Selection, resize

from .base import Clip, ClipInfo, Frame, select_indices, slug

CAPTIONED = "captioned"  # clips of retake/synthetic/clips.py
SIDES = ("source", "target")  # of the pairs of retake/synthetic/pairs.py
FRAMES, POINTS = 17, 64  # of a pair


@dataclass(frozen=True)
class SpriteClip(Clip):
    """A scene of the sprite world, rendered on the fly."""

    @property
    def name(self) -> str:
        return slug(self.spec.replace(":", "-"))

    @cached_property
    def world(self) -> Any:
        from retake.synthetic import clips, scenes
        from retake.synthetic.world import World

        name, seed, *frames = self._asked
        if self.pair is not None:
            return World(getattr(self.pair, name.rpartition("_")[2]))
        if name != CAPTIONED:
            return World(scenes.scene(name, seed))
        return World(clips.draw(seed, clips.Limits(frames=frames[0]) if frames else clips.Limits()).scene)

    @cached_property
    def pair(self) -> Any:
        """The pair (retake/synthetic/pairs.py) of which this is the source or the target, else None."""
        from retake.synthetic import pairs

        name, seed, *_ = self._asked
        family, _, side = name.rpartition("_")
        if side not in SIDES or family not in pairs.FAMILIES:
            return None
        return pairs.pair(seed, family, frames=FRAMES, points=POINTS)

    @cached_property
    def _tracks(self) -> Any:
        return self.pair.tracks()

    def digest(self, store: Store) -> str:
        from retake.synthetic import clips, pairs, scenes

        name, *numbers = self._asked
        version: Any = clips.VERSION if name == CAPTIONED else scenes.VERSION
        if self.pair is not None:
            version = [pairs.VERSION, FRAMES, POINTS]
        return digest(["sprites", version, name, *numbers])

    @property
    def _asked(self) -> tuple[Any, ...]:
        """The scene's name, its seed, and how many frames where the name says so."""
        _, name, *numbers = self.spec.split(":")
        return name, *(int(number) for number in numbers or ["0"])

    def info(self, folder_fps: float) -> ClipInfo:
        return ClipInfo(self.world.width, self.world.height, self.world.frames, self.world.fps)

    def masks(self, selection: Selection, size: tuple[int, int]) -> Iterator[dict[int, np.ndarray]]:
        numbers = range(len(self.world.scene.sprites))
        return (
            {n + 1: resize(self.world.mask(index, n) * np.uint8(255), size) > 127 for n in numbers}
            for _, index in select_indices(selection, self.world.frames, self.world.fps)
        )

    def depth(self, selection: Selection, size: tuple[int, int]) -> Iterator[np.ndarray]:
        return (
            resize(self.world.depth(index), size)
            for _, index in select_indices(selection, self.world.frames, self.world.fps)
        )

    def tracks(self, selection: Selection, size: tuple[int, int], edited: bool) -> tuple[np.ndarray, np.ndarray]:
        if self.pair is None or self._asked[0].endswith(SIDES[1]):
            return super().tracks(selection, size, edited)
        frames = [index for _, index in select_indices(selection, self.world.frames, self.world.fps)]
        target, source = self._tracks
        xy, visible = target if edited else source
        scale = np.array(size) / (self.world.width, self.world.height)
        return ((xy[frames].astype(np.float64) + 0.5) * scale - 0.5).astype(np.float32), visible[frames]

    def read(
        self, selection: Selection, size: tuple[int, int] | None, folder_fps: float, **reading: Any
    ) -> Iterator[Frame]:
        for seconds, index in select_indices(selection, self.world.frames, self.world.fps):
            rgb = self.world.frame(index)
            yield seconds, resize(rgb, size) if size else rgb
