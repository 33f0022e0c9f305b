"""How each kind of artifact is written and read. VERSION is part of every artifact's meta and so of its digest.

Time series are packed in chunks of 16 frames a file, whatever batches they were computed in. Tensors are
safetensors; pixels uint8; masks and occlusion bit-packed along the width; flow fp16 (within 1/32 px up to 64 px of
motion) and depth fp16; track coordinates fp32. Readers hash what they read and keep at most two chunks in memory.

    kind     tensors of one chunk (n frames, or n pairs of frames)
    frames   rgb uint8 [n,H,W,3]; and one file times.safetensors: seconds float64 [count]
    flow     forward, backward float16 [n,H,W,2] · occluded_forward, occluded_backward bits [n,H,ceil(W/8)]
             pair t: forward and its occlusion live on frame t, backward and its occlusion on frame t+1
    depth    depth float16 [n,H,W], relative inverse depth: 0 is far, larger is nearer
    masks    ids int64 [K] · objects bits [n,K,H,ceil(W/8)] · overlap float32 [n,K] (agreement with what was expected
             there, 0..1); of a soft matte also opacity uint8 [n,H,W]; and beside each chunk
             state-<chunk>.safetensors, what a correction goes on from
    region   mask bits [n,H,ceil(W/8)]; of a soft matte also opacity uint8 [n,H,W]
    tracks   ids int64 [P] · xy float32 [n,P,2] · visible bool [n,P]
    editedtracks
             ids, objects int64 [P] (0: background) · xy float32 [n,P,2], edited places · frame int32 [n,P], the source
             frame that a point shows · source float32 [n,P,2], its place there · visible, hidden bool [n,P] (hidden:
             taken away by the edit)
    latents  z float16 [n,C,h,w] of n latent frames
    inversion
             z float16 or float32 [g,n,C,h,w]: a group of up to 8 levels of noise of one chunk of latent
             frames. Levels 1 to 8 are the first group; level 0 is the latents themselves.
             File number = group * chunks + chunk
    motionchannels
             one file channels.safetensors, not a time series: by axis `ranked horizontal` int64 [C], `loadings
             horizontal` float64 [C]; by way `slope left` float32 [C], `curve left` float32 [scenes,f,C], and in
             the plane of two principal components `raw left`, `removed left` float32 [scenes,N,2]
    interpretation
             one file maps.safetensors: cosine similarity with a point, of features as they are (`raw`), without content
             (`removed`), of the channels of motion (`channels`): `raw each` float32 [f,h,w], `raw all` [h,w]; `trend`
             float32 [f,C], the point's own feature
    motionstudy
             one file a window of frames: latents float16 [1,f,C,h,w] · features float16 [1,T,h,w,D] of T tubes · flow
             float16 [1,T-1,2,H,W] between tubes · seen bool [1,T-1,H,W]
    edited   box int32 [4] (x0,y0,x1,y1) · rgb uint8 [n,h,w,3] · alpha uint8 [n,h,w], cropped to the box
    result   code values of the source's coding (meta.coding) at its size, uint8, or uint16 of more than 8 bits:
             y [n,H,W] · u, v [n,h,w], or rgb [n,H,W,3]; a [n,H,W] where the source has alpha
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from retake.artifact import Artifact
from retake.errors import IntegrityError
from retake.imaging.colour.coding import VIEW, Coding
from retake.imaging.colour.planes import names
from retake.store import Store

CHUNK = 16
VERSION = {
    "frames": 1,
    "flow": 1,
    "depth": 1,
    "masks": 2,
    "region": 1,
    "tracks": 1,
    "editedtracks": 1,
    "latents": 1,
    "inversion": 1,
    "motionchannels": 1,
    "interpretation": 1,
    "motionstudy": 1,
    "edited": 1,
    "result": 2,
    "metrics": 1,
    "report": 1,
}

GROUP = 8  # levels of an inversion in one file

TIMES = "times.safetensors"

Tensors = dict[str, np.ndarray]


def pack(tensors: Mapping[str, np.ndarray]) -> bytes:
    """safetensors bytes of named arrays. Equal arrays give equal bytes."""
    from safetensors.numpy import save

    # asarray, because ascontiguousarray makes a scalar an array of one
    return save({name: np.asarray(array, order="C") for name, array in sorted(tensors.items())})


def unpack(data: bytes) -> Tensors:
    """Arrays of safetensors bytes. Raises IntegrityError E610 when they are none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except SafetensorError as error:
        raise IntegrityError("E610", f"not a safetensors file: {error}", "Run `retake verify`.") from error


def pack_bits(mask: np.ndarray) -> np.ndarray:
    """bool [..., W] to uint8 [..., ceil(W/8)]."""
    return np.packbits(mask, axis=-1)


def unpack_bits(bits: np.ndarray, width: int) -> np.ndarray:
    """uint8 [..., ceil(W/8)] to bool [..., W]."""
    return np.unpackbits(bits, axis=-1, count=width).astype(bool)


def chunk_range(index: int, count: int) -> range:
    """Frames of chunk `index` in a series of `count`."""
    return range(index * CHUNK, min((index + 1) * CHUNK, count))


def chunk_name(index: int) -> str:
    return f"{index:05d}.safetensors"


def state_name(index: int) -> str:
    """The file, beside chunk `index`, that a later stage goes on from."""
    return f"state-{index:05d}.safetensors"


class Series:
    """Random access to a chunked artifact, one verified chunk at a time; keeps the last two chunks."""

    def __init__(self, store: Store, artifact: Artifact) -> None:
        self.store, self.artifact, self.meta = store, artifact, artifact.meta
        self.count: int = artifact.meta["count"]
        self.width: int = artifact.meta.get("width", 0)
        self.height: int = artifact.meta.get("height", 0)
        self._loaded: OrderedDict[int, Tensors] = OrderedDict()
        self._checked: set[str] = set()

    def __len__(self) -> int:
        return self.count

    def chunks(self) -> int:
        return -(-self.count // CHUNK)

    def chunk(self, index: int) -> Tensors:
        """Decoded tensors of one chunk. Raises DamagedError when its bytes are not what they were."""
        if index not in self._loaded:
            self._loaded[index] = self._decode(unpack(self.store.read(self.artifact[chunk_name(index)])))
            while len(self._loaded) > 2:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(index)
        return self._loaded[index]

    def at(self, t: int, name: str) -> np.ndarray:
        """Entry `name` of frame (or pair) t."""
        if not 0 <= t < self.count:
            raise IndexError(f"{self.artifact.kind} has {self.count} entries, not {t}")
        return self.chunk(t // CHUNK)[name][t % CHUNK]

    def _part(self, name: str, tensor: str, part: Any) -> np.ndarray:
        """A part of one tensor of a file, which is hashed once. Raises DamagedError when it is not what it was."""
        from safetensors import safe_open

        file = self.artifact[name]
        if name not in self._checked:
            self.store.verify(file)
            self._checked.add(name)
        with safe_open(self.store.object_path(file.sha256), framework="numpy") as opened:
            return opened.get_slice(tensor)[part]

    def _decode(self, tensors: Tensors) -> Tensors:
        return tensors


class AreaSeries(Series):
    """Areas that may be those of a soft matte."""

    def opacity(self, t: int) -> np.ndarray | None:
        """uint8 [H,W] of a soft matte, else None."""
        return self.at(t, "opacity") if "opacity" in self.chunk(t // CHUNK) else None


class FrameSeries(Series):
    """`series[t]` is uint8 RGB [H,W,3]."""

    def __getitem__(self, t: int) -> np.ndarray:
        return self.at(t, "rgb")

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[t] for t in range(self.count))

    def alone(self, t: int) -> np.ndarray:
        """Frame t without the others of its chunk, for whoever reads here and there."""
        if t // CHUNK in self._loaded:
            return self[t]
        return self._part(chunk_name(t // CHUNK), "rgb", t % CHUNK)

    @cached_property
    def times(self) -> np.ndarray:
        """Of Frames: presentation times, float64 [count], in seconds from the source's first frame."""
        return unpack(self.store.read(self.artifact[TIMES]))["seconds"]

    def seconds(self, t: int) -> float:
        """Presentation time of frame t."""
        return float(self.times[t])


class ResultSeries(FrameSeries):
    """`series[t]` is the view, uint8 RGB [H,W,3]; `series.codes(t)` are the planes of code values."""

    @cached_property
    def coding(self) -> Coding:
        return Coding.from_json(self.meta["coding"]) if "coding" in self.meta else VIEW

    def codes(self, t: int) -> list[np.ndarray]:
        """Planes as in retake/imaging/colour/planes.py."""
        return [self.at(t, name) for name in names(self.coding)]

    def __getitem__(self, t: int) -> np.ndarray:
        if self.coding.plain:
            return self.at(t, "rgb")
        from retake.imaging.colour.view import to_view

        return to_view(self.codes(t), self.coding)


class FlowSeries(Series):
    """Pairs: float32 [H,W,2] in pixels, x right and y down; occlusion bool [H,W], True where not visible in the other
    frame."""

    def forward(self, t: int) -> np.ndarray:
        """Motion from frame t into frame t+1, on the grid of t."""
        return self.at(t, "forward").astype(np.float32)

    def backward(self, t: int) -> np.ndarray:
        """Motion from frame t+1 into frame t, on the grid of t+1."""
        return self.at(t, "backward").astype(np.float32)

    def occluded_forward(self, t: int) -> np.ndarray:
        return unpack_bits(self.at(t, "occluded_forward"), self.width)

    def occluded_backward(self, t: int) -> np.ndarray:
        return unpack_bits(self.at(t, "occluded_backward"), self.width)


class DepthSeries(Series):
    """`series[t]` is float32 [H,W], relative inverse depth, >= 0, larger is nearer."""

    def __getitem__(self, t: int) -> np.ndarray:
        return self.at(t, "depth").astype(np.float32)


class MaskSeries(AreaSeries):
    """`series[t]` is bool [H,W], True on any object; `series.object(t, id)` is one object's."""

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Ids of the objects, ascending."""
        return tuple(int(i) for i in self.chunk(0)["ids"])

    def __getitem__(self, t: int) -> np.ndarray:
        return unpack_bits(np.bitwise_or.reduce(self.at(t, "objects"), axis=0), self.width)

    def object(self, t: int, id: int) -> np.ndarray:
        """One object's mask. Raises KeyError for an id that is not followed."""
        if id not in self.ids:
            raise KeyError(f"no object {id}: there are {self.ids}")
        return unpack_bits(self.at(t, "objects")[self.ids.index(id)], self.width)


class RegionSeries(AreaSeries):
    """`series[t]` is bool [H,W]."""

    def __getitem__(self, t: int) -> np.ndarray:
        return unpack_bits(self.at(t, "mask"), self.width)


class TrackSeries(Series):
    """`series[t]` is (ids int64 [P], xy float32 [P,2], visible bool [P]); the set of points changes between chunks."""

    def __getitem__(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chunk = self.chunk(t // CHUNK)
        return chunk["ids"], chunk["xy"][t % CHUNK], chunk["visible"][t % CHUNK]


class EditedTrackSeries(Series):
    """`series[t]` is the tensors of frame t by name: ids, objects int64 [P]; xy, source float32 [P,2]; frame int32 [P];
    visible, hidden bool [P]."""

    def __getitem__(self, t: int) -> Tensors:
        chunk = self.chunk(t // CHUNK)
        return {name: array if name in ("ids", "objects") else array[t % CHUNK] for name, array in chunk.items()}


class LatentSeries(Series):
    """`series[t]` is float32 [C,h,w] of latent frame t; `series.span(range(0, 20))` is float32 [20,C,h,w]."""

    def __getitem__(self, t: int) -> np.ndarray:
        return self.at(t, "z").astype(np.float32)

    def span(self, frames: range) -> np.ndarray:
        return np.stack([self[t] for t in frames])


class InversionSeries(Series):
    """`series.level(k, range(0, 20))` is float32 [20,C,h,w]: those latent frames at level k, 1 to `steps`.

    Sampling asks for one level after the other, over the whole clip. So files are hashed once, and then read slice by
    slice: neither does a level cost the reading of its group, nor does memory grow.
    """

    def __init__(self, store: Store, artifact: Artifact) -> None:
        super().__init__(store, artifact)
        self.steps: int = artifact.meta["steps"]

    def level(self, level: int, frames: range) -> np.ndarray:
        """Raises IndexError for a level that there is not, DamagedError for a file that is not what it was."""
        if not 1 <= level <= self.steps:
            raise IndexError(f"the inversion has levels 1 to {self.steps}, not {level}")
        group, row = divmod(level - 1, GROUP)
        found = []
        for chunk in range(frames.start // CHUNK, -(-frames.stop // CHUNK)):
            span = chunk_range(chunk, self.count)
            first, last = max(frames.start, span.start) - span.start, min(frames.stop, span.stop) - span.start
            found.append(self._part(chunk_name(group * self.chunks() + chunk), "z", (row, slice(first, last))))
        return np.concatenate(found).astype(np.float32)


class EditedSeries(Series):
    """`series[t]` is (box int32 [4], rgb uint8 [h,w,3], alpha uint8 [h,w]); an empty box means nothing is edited."""

    def __getitem__(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chunk = self.chunk(t // CHUNK)
        return chunk["box"], chunk["rgb"][t % CHUNK], chunk["alpha"][t % CHUNK]


class MotionChannelsFile:
    """`tensors()` of the one file, by kind ("ranked", "loadings", "slope", "curve", "raw", "removed") and then by axis
    or way."""

    def __init__(self, store: Store, artifact: Artifact) -> None:
        self.store, self.artifact, self.meta = store, artifact, artifact.meta

    def tensors(self) -> dict[str, Tensors]:
        """Raises DamagedError when the file is not what it was."""
        found: dict[str, Tensors] = {}
        for name, array in unpack(self.store.read(self.artifact["channels.safetensors"])).items():
            kind, _, of = name.partition(" ")
            found.setdefault(kind, {})[of] = array
        return found


READERS: dict[str, Any] = {
    "frames": FrameSeries,
    "flow": FlowSeries,
    "depth": DepthSeries,
    "masks": MaskSeries,
    "region": RegionSeries,
    "tracks": TrackSeries,
    "editedtracks": EditedTrackSeries,
    "latents": LatentSeries,
    "inversion": InversionSeries,
    "motionchannels": MotionChannelsFile,
    "edited": EditedSeries,
    "result": ResultSeries,
}


def open_series(store: Store, artifact: Artifact) -> Any:
    """The reader of an artifact that stages read. Raises KeyError for other kinds."""
    return READERS[artifact.kind](store, artifact)
