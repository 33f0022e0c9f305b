"""A clip without the columns and rows that an encoder added to reach even sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from retake.clip import Clip, ClipInfo, Frame
from retake.recipe import digest
from retake.store import Store
from retake.video import Selection, resize


@dataclass(frozen=True)
class CroppedClip(Clip):
    """The left upper `width` x `height` pixels of another clip, without sound."""

    clip: Clip
    width: int
    height: int

    def digest(self, store: Store) -> str:
        return digest(["cropped", self.clip.digest(store), self.width, self.height])

    def paths(self) -> list[str]:
        return self.clip.paths()

    def info(self, folder_fps: float) -> ClipInfo:
        whole = self.clip.info(folder_fps)
        note = f"cropped from {whole.width}x{whole.height}, padded to even sizes, to the source's own"
        return replace(whole, width=self.width, height=self.height, audio=None, notes=(*whole.notes, note))

    def end(self, selection: Selection) -> float | None:
        return self.clip.end(selection)

    def read(
        self, selection: Selection, size: tuple[int, int] | None, folder_fps: float, **reading: Any
    ) -> Iterator[Frame]:
        for seconds, rgb in self.clip.read(selection, None, folder_fps, **reading):
            own = rgb[: self.height, : self.width]
            yield seconds, resize(own, size) if size else own


def without_padding(clip: Clip, width: int, height: int, folder_fps: float) -> Clip:
    """The clip, cropped to an odd `width` or `height` where it has the even size above. Raises what `clip.info`
    raises."""
    even = width + width % 2, height + height % 2
    if even == (width, height):
        return clip
    info = clip.info(folder_fps)
    return CroppedClip(clip.spec, clip, width, height) if (info.width, info.height) == even else clip
