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
        if name != CAPTIONED:
            return World(scenes.scene(name, seed))
        return World(clips.draw(seed, clips.Limits(frames=frames[0]) if frames else clips.Limits()).scene)

    def digest(self, store: Store) -> str:
        from retake.synthetic import clips, scenes

        name, *numbers = self._asked
        return digest(["sprites", clips.VERSION if name == CAPTIONED else scenes.VERSION, name, *numbers])

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

    def read(
        self, selection: Selection, size: tuple[int, int] | None, folder_fps: float, **reading: Any
    ) -> Iterator[Frame]:
        for seconds, index in select_indices(selection, self.world.frames, self.world.fps):
            rgb = self.world.frame(index)
            yield seconds, resize(rgb, size) if size else rgb
