"""Artifacts: immutable, typed sets of files, known by the digest of what they hold.

A handle is small JSON (kind, meta, file digests) and is what passes between stages; arrays never do. How the files
of each kind are written and read stands in formats.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from retake.recipe import digest


@dataclass(frozen=True)
class File:
    """One stored file: its name inside the artifact, sha256 (our address), md5 (DVC's address), size in bytes."""

    name: str
    sha256: str
    md5: str
    size: int

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": self.sha256, "md5": self.md5, "size": self.size}


KINDS: dict[str, type[Artifact]] = {}  # by the names of the classes below, in small letters


@dataclass(frozen=True)
class Artifact:
    """A handle. `meta` is plain JSON that readers need before they open a file (size, count, fps, ...)."""

    files: tuple[File, ...]
    meta: Mapping[str, Any]
    kind: ClassVar[str] = "artifact"

    def __init_subclass__(cls) -> None:
        cls.kind = cls.__name__.lower()
        KINDS[cls.kind] = cls

    @cached_property
    def digest(self) -> str:
        """Content digest: kind, meta, and the name and sha256 of every file. Inputs of later keys are these."""
        return digest([self.kind, dict(self.meta), [[f.name, f.sha256] for f in self.files]])

    @property
    def bytes(self) -> int:
        return sum(f.size for f in self.files)

    def __getitem__(self, name: str) -> File:
        for file in self.files:
            if file.name == name:
                return file
        raise KeyError(f"{self.kind} has no file {name!r}: {[f.name for f in self.files]}")

    def __contains__(self, name: str) -> bool:
        return any(file.name == name for file in self.files)

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "meta": dict(self.meta), "files": [f.as_json() for f in self.files]}


class Frames(Artifact):
    """Pixels at working size. meta: count, width, height, fps, source_width, source_height, notes, ..."""


class Flow(Artifact):
    """Optical flow both ways with occlusion, one entry per pair of neighbouring frames."""


class Depth(Artifact):
    """Relative inverse depth, larger is nearer; one map a frame."""


class Masks(Artifact):
    """One boolean mask a frame and object."""


class Region(Artifact):
    """Where the edit happens: one boolean mask a frame, made of the objects' masks."""


class Tracks(Artifact):
    """Point tracks with visibility."""


class EditedTracks(Artifact):
    """Where the points of tracks shall be, beside where they are. meta: count, width, height, objects."""


class Latents(Artifact):
    """The clip as a diffusion model's autoencoder sees it. meta: count (latent frames), frames, channels, height and
    width (of a latent), pixels (height, width), time (frames a latent frame)."""


class Inversion(Artifact):
    """Latents at every level of noise, from which sampling comes back to the clip. meta: steps, overlap, evaluations,
    notes, and of the latents' own count, frames, channels, height, width and time."""


class MotionChannels(Artifact):
    """Which channels of a diffusion model's features hold motion, and how. meta: site, channels (how many there are),
    step (pixels of the model's frame, of the clips that they were found in), clips (pans, sprites), scenes."""


class Interpretation(Artifact):
    """What moves as a point does, by a model's features of motion. meta: site, point (pixels of the clip), frame,
    row (of the maps, in which the point is), times (frames of the maps), latent_frames, channels, share, moves (size of
    the point's motion feature), pans (that of the channels' clips)."""


class MotionStudy(Artifact):
    """What a training reads of a clip: latents, a video encoder's features, and flow. meta: count (windows), length
    (frames of one), encoder, tube (frames), features (channels)."""


class Edited(Artifact):
    """The edited region at working size, with its opacity, cropped to where it is."""


class Result(Artifact):
    """The lossless result at the source's full size, and the MP4 view of it."""


class Metrics(Artifact):
    """metrics.json (flat) and metrics.tsv (one row a frame)."""


class Report(Artifact):
    """The layers video and contact sheet that the report page shows."""


def from_json(data: Mapping[str, Any]) -> Artifact:
    """The handle of a record. Raises KeyError or TypeError when the data is not one."""
    files = tuple(File(f["name"], f["sha256"], f["md5"], f["size"]) for f in data["files"])
    return KINDS[data["kind"]](files, data["meta"])
