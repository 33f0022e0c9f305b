"""Depth maps in files: PNG of 16 bits, EXR, npy and npz.

    .png   uint16 times a step: 1/64 holds the range of Retake's own maps, 0 to 1024
    .exr   float or half, exact (exr.py)
    .npy   one array [H, W]; .npz the same under `depth`, `inverse` or `arr_0`

A map is float32 [H, W]. These files do not say whether it is distance or inverse depth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retake.exchange import exr
from retake.exchange.files import damaged, read_npy, read_npz, read_png16, write_png16

SUFFIXES = (".png", ".exr", ".npy", ".npz")
STEP = 1 / 64

_NAMES = ("depth", "inverse", "arr_0")
_CHANNELS = ("Z", "Y", "V", "depth", "R")


def read(path: str | Path, step: float = STEP) -> np.ndarray:
    """Depth float32 [H, W] of a file, by its extension; `step` is the depth of one PNG level.

    Raises MediaError E400 (not there), E421 (too large), E432 (damaged, truncated, or another kind of file), E434 (a
    kind of EXR that is not read).
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".png":
        return read_png(path, step)
    if suffix == ".exr":
        return read_exr(path)
    if suffix == ".npy":
        return _plane(read_npy(path), path)
    if suffix == ".npz":
        found = read_npz(path, _NAMES)
        for name in _NAMES:
            if name in found:
                return _plane(found[name], path)
        raise damaged(path, f"it holds none of {', '.join(_NAMES)}")
    raise damaged(path, f"depth is read from {', '.join(SUFFIXES)}")


def read_png(path: str | Path, step: float = STEP) -> np.ndarray:
    """float32 [H, W]: a 16-bit grey PNG times `step`. Raises MediaError E400, E421, E432."""
    values = read_png16(path)
    if values.ndim != 2:
        raise damaged(path, "it is a colour picture; depth is grey")
    return values.astype(np.float32) * np.float32(step)


def write_png(path: str | Path, depth: np.ndarray, step: float = STEP) -> None:
    """Write depth [H, W] as a 16-bit PNG, to the nearest `step`, clipped to 0..65535 steps; NaN becomes 0."""
    with np.errstate(invalid="ignore"):
        steps = np.rint(np.nan_to_num(depth.astype(np.float64) / step, nan=0.0)).clip(0, 65535)
    write_png16(path, steps.astype(np.uint16))


def read_exr(path: str | Path) -> np.ndarray:
    """float32 [H, W]: the only channel of an EXR, else Z, Y, V, depth or R (or the same in a layer)."""

    def depth_of(names: list[str]) -> list[str]:
        if len(names) == 1:
            return names
        for wanted in _CHANNELS:
            for name in names:
                if name.rpartition(".")[2].lower() == wanted.lower():
                    return [name]
        raise damaged(path, f"none of its channels {', '.join(names)[:80]} is a depth")

    return _plane(next(iter(exr.read(path, depth_of).values())), path)


def write_exr(path: str | Path, depth: np.ndarray) -> None:
    """Write depth [H, W] losslessly: float16 as half, float32 as float, in channel Y, which viewers show as grey."""
    exr.write(path, depth)


def write_npy(path: str | Path, depth: np.ndarray) -> None:
    """Write depth [H, W] as float32."""
    with open(path, "wb") as file:
        np.save(file, depth.astype(np.float32))


def _plane(values: np.ndarray, path: str | Path) -> np.ndarray:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2:
        raise damaged(path, f"it holds {list(values.shape)}; [H, W] is needed")
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
