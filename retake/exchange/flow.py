"""Optical flow in files: Middlebury .flo, KITTI PNG of 16 bits, npz.

    .flo   exact float32; a value beyond 1e9 marks an unknown pixel
    .png   (u * 64 + 2^15, v * 64 + 2^15, valid): steps of 1/64 px from -512 to 511.98 px
    .npz   `forward` (or `flow`) and, if there, `backward`, any type of number; NaN marks an unknown pixel

A flow is float32 [H, W, 2] in pixels, x to the right, y down (retake/imaging/flow.py). Sources: the Middlebury flow
benchmark's README of its format, and the development kit of KITTI's flow benchmark.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retake.exchange.files import check_size, damaged, read_bytes, read_npz, read_png16, write_png16

SUFFIXES = (".flo", ".png", ".npz")

_MAGIC = b"PIEH"  # the float32 202021.25, lowest byte first
_UNKNOWN = 1e9  # Middlebury writes 1666666752 for unknown motion and readers test for this bound
_KITTI_STEP, _KITTI_ZERO = 64.0, 1 << 15


class FlowFile(NamedTuple):
    """forward: float32 [H, W, 2], 0 where not valid. valid: bool [H, W]. backward and its validity: only npz files
    hold one."""

    forward: np.ndarray
    valid: np.ndarray
    backward: np.ndarray | None = None
    backward_valid: np.ndarray | None = None


def read(path: str | Path) -> FlowFile:
    """Read a flow file, by its extension. Raises MediaError E400 (not there), E421 (too large), E432 (damaged,
    truncated, or another kind of file)."""
    suffix = Path(path).suffix.lower()
    if suffix == ".flo":
        return FlowFile(*read_flo(path))
    if suffix == ".png":
        return FlowFile(*read_kitti(path))
    if suffix == ".npz":
        return read_flow_npz(path)
    raise damaged(path, f"flow is read from {', '.join(SUFFIXES)}")


def read_flo(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read Middlebury .flo: (flow float32 [H, W, 2] in px, valid bool [H, W]). Raises MediaError E400, E421, E432."""
    data = read_bytes(path)
    if data[:4] != _MAGIC or len(data) < 12:
        raise damaged(path, "it does not begin as a .flo file does")
    width, height = struct.unpack("<ii", data[4:12])
    check_size(path, width, height)
    if len(data) != 12 + 8 * width * height:
        raise damaged(path, f"{width}x{height} px need {12 + 8 * width * height} bytes, it has {len(data)}")
    return _split(np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2))


def write_flo(path: str | Path, flow: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Write flow [H, W, 2] as .flo, losslessly. Pixels that are not `valid` (bool [H, W]) are written as unknown."""
    flow = _checked(flow).astype("<f4")
    if valid is not None:
        flow = np.where(valid[..., None], flow, np.float32(1666666752.0)).astype("<f4")
    height, width = flow.shape[:2]
    Path(path).write_bytes(_MAGIC + struct.pack("<ii", width, height) + flow.tobytes())


def read_kitti(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read KITTI PNG: (flow float32 [H, W, 2] in px, valid bool [H, W]). Raises MediaError E400, E421, E432."""
    values = read_png16(path)
    if values.ndim != 3:
        raise damaged(path, "it is grey; KITTI flow has the three channels u, v, valid")
    valid = values[..., 2] > 0
    flow = (values[..., :2].astype(np.float32) - _KITTI_ZERO) / np.float32(_KITTI_STEP)
    return np.where(valid[..., None], flow, np.float32(0)), valid


def write_kitti(path: str | Path, flow: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Write flow [H, W, 2] as KITTI PNG, to the nearest 1/64 px. Motion out of the format's range is marked invalid."""
    flow = _checked(flow)
    steps = np.rint(flow.astype(np.float64) * _KITTI_STEP) + _KITTI_ZERO
    holds = np.logical_and.reduce(np.isfinite(steps) & (steps >= 0) & (steps <= 65535), axis=-1)
    known = holds if valid is None else holds & valid
    values = np.zeros((*flow.shape[:2], 3), np.uint16)
    values[..., :2] = np.where(known[..., None], steps, 0)
    values[..., 2] = known
    write_png16(path, values)


def read_flow_npz(path: str | Path) -> FlowFile:
    """Read an npz with `forward` or `flow`, and optionally `backward`. Raises MediaError E400, E421, E432."""
    found = read_npz(path, ("forward", "flow", "backward"))
    forward = found.get("forward", found.get("flow"))
    if forward is None:
        raise damaged(path, "it holds neither `forward` nor `flow`")
    backward = found.get("backward")
    for one in (forward, forward if backward is None else backward):
        if one.shape != (*forward.shape[:2], 2):
            raise damaged(path, f"it holds {list(one.shape)}; [H, W, 2] is needed, one size for both directions")
    return FlowFile(*_split(forward), *(_split(backward) if backward is not None else (None, None)))


def write_npz(path: str | Path, forward: np.ndarray, backward: np.ndarray | None = None) -> None:
    """Write an npz with `forward` and, if given, `backward`: float32 [H, W, 2], uncompressed."""
    arrays = {"forward": _checked(forward).astype(np.float32)}
    if backward is not None:
        arrays["backward"] = _checked(backward).astype(np.float32)
    with open(path, "wb") as file:  # an open file, because a path would get the ending .npz added
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(flow with unknown pixels set to 0, valid bool [H, W])."""
    with np.errstate(over="ignore", invalid="ignore"):
        flow = values.astype(np.float32)
        valid = np.logical_and.reduce(np.abs(flow) < _UNKNOWN, axis=-1)  # NaN compares as False
    return np.where(valid[..., None], flow, np.float32(0)), valid


def _checked(flow: np.ndarray) -> np.ndarray:
    if flow.ndim != 3 or flow.shape[2] != 2 or 0 in flow.shape:
        raise ValueError(f"a flow is [H, W, 2], not {list(flow.shape)}")
    return flow
