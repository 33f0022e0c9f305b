"""What colours tell object and surroundings apart: GrabCut's mixtures, and smoothed histograms."""

from __future__ import annotations

import cv2
import numpy as np

Models = tuple[np.ndarray, np.ndarray]  # of object and surroundings, float64 [1, 65] as OpenCV lays them out

MIN_AREA = 16  # px, below which there is nothing to learn colours from
_SAMPLES = 2048  # colours kept of one region
_BINS = 16  # levels per channel of the histograms


def cut(
    image: np.ndarray,
    labels: np.ndarray,
    models: Models,
    iterations: int,
    mode: int,
    seed: int,
) -> np.ndarray:
    """One call of GrabCut; `models` = (inside, outside) are overwritten. Returns the object, bool."""
    out = labels.copy()
    open_object = (out == cv2.GC_FGD) | (out == cv2.GC_PR_FGD)
    if mode == cv2.GC_INIT_WITH_MASK and (open_object.sum() < MIN_AREA or (~open_object).sum() < MIN_AREA):
        return np.zeros(labels.shape, bool)
    cv2.setRNGSeed(seed)  # the clustering's first centres; per thread in OpenCV
    cv2.grabCut(image, out, None, models[1], models[0], iterations, mode)  # type: ignore[call-overload]
    return (out == cv2.GC_FGD) | (out == cv2.GC_PR_FGD)


def learn(
    inside: np.ndarray,
    outside: np.ndarray,
    models: Models,
    seed: int,
    mode: int = cv2.GC_EVAL,
) -> Models:
    """Colour mixtures of two lists of colours, uint8 [N, 3], starting from `models`, which stay as they are.

    GrabCut learns from an image and its labels; a strip one pixel high with every label fixed leaves its cut
    nothing to decide.
    """
    strip = np.concatenate([inside, outside])[None]
    labels = np.repeat(np.array([cv2.GC_FGD, cv2.GC_BGD], np.uint8), [len(inside), len(outside)])[None]
    learned = (models[0].copy(), models[1].copy())
    cut(strip, labels, learned, 1 if mode == cv2.GC_EVAL else 3, mode, seed)
    return learned


def pick(colours: np.ndarray) -> np.ndarray:
    """At most `_SAMPLES` of a list of colours, evenly spread over it."""
    if len(colours) <= _SAMPLES:
        return colours
    return colours[np.linspace(0, len(colours) - 1, _SAMPLES).astype(int)]


def object_probability(image: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """float32 [H, W], 0..1: by smoothed colour histograms of both lists, averaged over 5x5 px."""
    table_in, table_out = _histogram(inside), _histogram(outside)
    table = (table_in + 1e-5) / (table_in + table_out + 2e-5)
    return cv2.blur(table[_bin(image)].astype(np.float32), (5, 5))


def _bin(colours: np.ndarray) -> np.ndarray:
    levels = (colours // (256 // _BINS)).astype(np.intp)
    return (levels[..., 0] * _BINS + levels[..., 1]) * _BINS + levels[..., 2]


def _histogram(colours: np.ndarray) -> np.ndarray:
    counts = np.bincount(_bin(colours), minlength=_BINS**3).astype(np.float64).reshape(_BINS, _BINS, _BINS)
    for axis in range(3):
        padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        low, mid, high = (np.take(padded, range(i, i + _BINS), axis) for i in range(3))
        counts = 0.25 * low + 0.5 * mid + 0.25 * high
    return counts.ravel() / max(1, len(colours))
