"""Clips: anything with frames. A video file, a folder of images, a sequence of a DAVIS tree, a sprite scene.

    holiday.mp4            a video file
    frames/                a folder of images, in the order of their names
    /data/DAVIS:bear       the sequence `bear` of a DAVIS tree (JPEGImages/480p/bear)
    sprites:drift          a scene of the sprite world (also sprites:drift:7, with a seed)
    sprites:captioned:7    a clip of the kind that the embedded models are trained on: 64x64, 16 frames
                           (sprites:captioned:7:100 moves as far in 100)
    sprites:path_source:7  one of a pair that differs in its motion alone (path, camera, time, late, identical; its
                           other: sprites:path_target:7), 64x64, 17 frames

A clip is known by the digest of its content; its name is for people and folder names only.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from retake.errors import ConfigError, MediaError, did_you_mean
from retake.video import local_file

from .base import RESERVED, Clip, ClipInfo, Frame, select_indices, slug
from .folder import IMAGES, FolderClip
from .sprites import CAPTIONED, SpriteClip
from .video import VideoClip

__all__ = [
    "IMAGES",
    "RESERVED",
    "Clip",
    "ClipInfo",
    "FolderClip",
    "Frame",
    "SpriteClip",
    "VideoClip",
    "open_clip",
    "select_indices",
    "slug",
]

PROTOCOLS = {"concat", "crypto", "data", "file", "ftp", "http", "https", "pipe", "rtmp", "rtsp", "srt", "tcp", "udp"}


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
