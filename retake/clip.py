"""Clips: anything with frames. A video file, a folder of images, a sequence of a DAVIS tree, a sprite scene.

    holiday.mp4            a video file
    frames/                a folder of images, in the order of their names
    /data/DAVIS:bear       the sequence `bear` of a DAVIS tree (JPEGImages/480p/bear)
    sprites:drift          a scene of the sprite world (also sprites:drift:7, with a seed)
    sprites:captioned:7    a clip of the kind that the embedded models are trained on: 64x64, 16 frames
                           (sprites:captioned:7:100 moves as far in 100)

A clip is known by the digest of its content; its name is for people and folder names only.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from retake.errors import ConfigError, MediaError, did_you_mean
from retake.exchange.numbering import gap_note, gaps, natural
from retake.imaging.colour.coding import VIEW, Coding
from retake.recipe import digest
from retake.store import Store
from retake.video import (
    Selection,
    VideoInfo,
    decode,
    decode_codes,
    local_file,
    probe,
    read_image,
    resize,
    selection_end,
)

PROTOCOLS = {"concat", "crypto", "data", "file", "ftp", "http", "https", "pipe", "rtmp", "rtsp", "srt", "tcp", "udp"}
IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
CAPTIONED = "captioned"  # clips of retake/synthetic/clips.py
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for itself
Frame = tuple[float, np.ndarray]


@dataclass(frozen=True)
class ClipInfo:
    """Properties of a clip before decoding. Sizes as shown (upright, square pixels), times in seconds."""

    width: int
    height: int
    frames: int
    fps: float
    audio: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clip:
    """Base class of clips. `spec` is the clip's name as typed."""

    spec: str

    @property
    def name(self) -> str:
        """A safe folder name."""
        return slug(Path(self.spec).stem)

    def digest(self, store: Store) -> str:
        """Content digest; renaming or touching the clip does not change it."""
        raise NotImplementedError

    def paths(self) -> list[str]:
        """Files and folders that must not change during a run."""
        return []

    def expected(self, sha256: str | None) -> Clip:
        """The clip, checked against the SHA-256 of its file. Raises ConfigError E235 if it is not one file."""
        if sha256 is None:
            return self
        raise ConfigError("E235", f"frames.sha256 is of a video file, and {self.spec} is none", "Leave it out.")

    @property
    def audio(self) -> Path | None:
        """The file whose sound goes with the clip, if it has any."""
        return None

    @property
    def file(self) -> Path | None:
        """The video file that the clip is, if it is one."""
        return None

    def info(self, folder_fps: float) -> ClipInfo:
        """Size, count, rate. `folder_fps` is the rate of clips without times. Raises MediaError."""
        raise NotImplementedError

    def end(self, selection: Selection) -> float | None:
        """When the last selected frame is over, seconds from the clip's first frame; None: a step after it began."""
        return None

    def read(
        self, selection: Selection, size: tuple[int, int] | None, folder_fps: float, **reading: Any
    ) -> Iterator[Frame]:
        """(seconds from the clip's first frame, uint8 RGB [H,W,3]) of the selected frames, in order: the view."""
        raise NotImplementedError

    @property
    def coding(self) -> Coding:
        """How the code values that `codes` gives stand for colours."""
        return VIEW

    def codes(self, selection: Selection, folder_fps: float, **reading: Any) -> Iterator[list[np.ndarray]]:
        """Code values of the selected frames, in order, at the source's size: planes as in
        retake/imaging/colour/planes.py."""
        return ([rgb] for _, rgb in self.read(selection, None, folder_fps, **reading))


@dataclass(frozen=True)
class VideoClip(Clip):
    """A video file. It is probed and decoded in a child process. sha256: the expected hash, if any."""

    sha256: str | None = None

    def expected(self, sha256: str | None) -> Clip:
        return replace(self, sha256=sha256.lower()) if sha256 else self

    def digest(self, store: Store) -> str:
        """Content digest. Raises MediaError E417 if it differs from `sha256`."""
        found = store.source_digest(self.spec)
        if self.sha256 not in (None, found):
            raise MediaError(
                "E417",
                f"{self.spec} has the SHA-256 {found[:12]}..., not {self.sha256[:12]}... as frames.sha256 says",
                "Copy it again; or where it was changed on purpose: sha256sum FILE prints its own.",
            )
        return found

    def paths(self) -> list[str]:
        return [self.spec]

    @property
    def audio(self) -> Path | None:
        return Path(self.spec) if self._probed.audio else None

    @property
    def file(self) -> Path | None:
        return Path(self.spec)

    @cached_property
    def _probed(self) -> VideoInfo:
        return probe(self.spec)

    def info(self, folder_fps: float) -> ClipInfo:
        v = self._probed
        return ClipInfo(v.width, v.height, v.frames, v.fps, v.audio, v.notes)

    def end(self, selection: Selection) -> float | None:
        return selection_end(self.spec, selection)

    def read(
        self, selection: Selection, size: tuple[int, int] | None, folder_fps: float, **reading: Any
    ) -> Iterator[Frame]:
        return decode(self.spec, selection, size, **reading)

    @property
    def coding(self) -> Coding:
        return self._probed.shown

    def codes(self, selection: Selection, folder_fps: float, **reading: Any) -> Iterator[list[np.ndarray]]:
        return (planes for _, planes in decode_codes(self.spec, selection, **reading))


@dataclass(frozen=True)
class FolderClip(Clip):
    """A folder of images of one size, in the order of their names. VERSION: of how they are read."""

    VERSION: ClassVar[int] = 2

    def digest(self, store: Store) -> str:
        """Content digest. Numbers that are missing count, because a note names them."""
        return digest(["images", self.VERSION, [store.source_digest(p) for p in self.images], self._gaps])

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
        height, width = read_image(self.images[0]).shape[:2]
        notes = (gap_note(self._gaps, len(self.images)),) if self._gaps else ()
        return ClipInfo(width, height, len(self.images), folder_fps, notes=notes)

    def read(
        self, selection: Selection, size: tuple[int, int] | None, folder_fps: float, **reading: Any
    ) -> Iterator[Frame]:
        expected: tuple[int, ...] | None = None
        on_note: Callable[[str], None] | None = reading.get("on_note")
        for seconds, index in select_indices(selection, len(self.images), folder_fps):
            image = read_image(self.images[index])
            rgb = image[..., :3]
            if on_note and image.shape[2] == 4 and image[..., 3].min() < 255:
                on_note("its transparency is dropped")
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

    def read(
        self, selection: Selection, size: tuple[int, int] | None, folder_fps: float, **reading: Any
    ) -> Iterator[Frame]:
        for seconds, index in select_indices(selection, self.world.frames, self.world.fps):
            rgb = self.world.frame(index)
            yield seconds, resize(rgb, size) if size else rgb


def open_clip(spec: str) -> Clip:
    """The clip of a name as typed. Raises MediaError E400 (nothing there), E401 (empty file), E404 (not a local
    file), ConfigError E240 (not the name of a scene)."""
    if re.fullmatch(rf"sprites:([a-z_]+(:\d{{1,9}})?|{CAPTIONED}:\d{{1,9}}:[1-9]\d{{0,3}})", spec):
        return SpriteClip(spec)
    if spec.startswith("sprites:"):
        raise ConfigError(
            "E240", f"{spec!r} names no scene", "Write sprites:NAME or sprites:NAME:SEED, as sprites:drift"
        )
    if not spec.strip():
        raise MediaError("E400", "the clip's name is empty", "Give the path of a video, for example clip.mp4")
    try:
        return _file_clip(spec)
    except (OSError, ValueError, RuntimeError) as error:  # too long, not text, unknown home folder
        why = f"{spec[:80]!r} is not a file name: {error.strerror if isinstance(error, OSError) else error}"
        raise MediaError("E400", why[:300], "Give the path of a video, for example clip.mp4") from error


def _file_clip(spec: str) -> Clip:
    path = Path(spec).expanduser()
    if path.is_dir():
        return FolderClip(str(path))
    root, _, sequence = spec.rpartition(":")
    if root and (davis := Path(root).expanduser() / "JPEGImages").is_dir():
        return FolderClip(str(davis_sequence(davis, sequence)))
    if not path.exists() and root not in PROTOCOLS and re.fullmatch(r"[\w./~-]+:[A-Za-z0-9][\w.-]*", spec):
        raise MediaError(
            "E400",
            f"{root} is not a DAVIS tree: there is no folder {Path(root) / 'JPEGImages'}",
            "Write DAVIS_ROOT:sequence, as in /data/DAVIS:bear",
        )
    local_file(os.path.expanduser(spec))
    return VideoClip(str(path))


def davis_sequence(images: Path, sequence: str) -> Path:
    """The folder of a sequence in a DAVIS tree's JPEGImages, at the resolution that is there (480p first)."""
    resolutions = sorted((p for p in images.iterdir() if p.is_dir()), key=lambda p: (p.name != "480p", p.name))
    for folder in resolutions:
        if slug(sequence) == sequence and (folder / sequence).is_dir():
            return folder / sequence
    known = sorted({p.name for folder in resolutions for p in folder.iterdir() if p.is_dir()})
    raise MediaError("E400", f"{images.parent} has no sequence {sequence!r}", did_you_mean(sequence, known))


def select_indices(selection: Selection, count: int, fps: float) -> Iterator[tuple[float, int]]:
    """(seconds, source index) of the selected frames of a clip whose frame k is shown at k / fps.

    The rules are those of `Selection`: with `selection.fps`, tick k takes the frame that is on screen then.
    Raises ConfigError E211 when nothing is left, MediaError E414 when more than `max_frames` are.
    """
    first = max(selection.first or 0, math.ceil(selection.start * fps - 1e-6))
    ends = [count - 1 if selection.last is None else min(selection.last, count - 1)]
    if selection.end is not None:
        ends.append(math.ceil(selection.end * fps - 1e-6) - 1)
    last = min(ends)
    if first > last:
        raise ConfigError(
            "E211",
            f"the selection leaves no frame: the clip has {count} frames in {count / fps:.3f} s",
            "Choose frames.start and frames.end, or first and last, inside the clip.",
        )
    indices = list(range(first, last + 1))
    if rate := selection.rate:
        begin = selection.start if selection.start * fps > first - 1 else first / fps
        ticks = math.floor(((last + 1) / fps - begin) * float(rate) - 1e-6) + 1
        indices = [max(first, min(last, math.floor((begin + k / float(rate)) * fps + 1e-6))) for k in range(ticks)]
    if selection.max_frames and len(indices) > selection.max_frames:
        raise MediaError(
            "E414",
            f"{len(indices)} frames are more than frames.max_frames={selection.max_frames}",
            "Trim, or raise it.",
        )
    step = 1 / float(selection.rate) if selection.rate else 1 / fps
    return ((indices[0] / fps + k * step, index) for k, index in enumerate(indices))


def slug(text: str) -> str:
    """A folder name that is safe everywhere: letters, digits, '.', '_' and '-', at most 128 characters.

    Letters beyond ASCII lose their accents or are left out; six digits of the text's digest then keep names apart that
    differ in them alone. However a system composes accents, the name is the same.
    """
    text = unicodedata.normalize("NFC", text)
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")
    safe = (f"clip-{safe}" if RESERVED.fullmatch(safe) else safe)[:128].rstrip("-._") or "clip"
    return safe if text.isascii() else f"{safe[:121].rstrip('-._')}-{digest(text)[:6]}"
