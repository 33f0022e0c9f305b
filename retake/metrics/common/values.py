"""What every metric does with its numbers: pixels to 0..1, equal sizes checked, means that skip NaN."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retake.errors import MediaError

Floats = tuple[float, ...]


def unit(frame: NDArray[Any]) -> NDArray[np.float32]:
    """uint8 [H, W, 3] in 0..255 as float32 in 0..1; floating input is taken to be in 0..1 already."""
    if frame.dtype == np.uint8:
        return np.multiply(frame, np.float32(1 / 255), dtype=np.float32)
    return frame.astype(np.float32, copy=False)


def mean(values: Iterable[float]) -> float:
    """The mean of the finite values; NaN when there is none. `math.fsum`: the order does not matter."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def same_size(**arrays: NDArray[Any] | None) -> None:
    """Every array given (None is skipped) has the height and width of the first, or MediaError E440."""
    given = {name: array for name, array in arrays.items() if array is not None}
    first, size = next((name, array.shape[:2]) for name, array in given.items())
    for name, array in given.items():
        if array.shape[:2] != size:
            raise MediaError(
                "E440",
                f"metrics compare pixel by pixel: {first} is {size[1]}x{size[0]}, "
                f"{name} is {array.shape[1]}x{array.shape[0]}",
                "Give source, result, masks and flow at one size.",
            )
