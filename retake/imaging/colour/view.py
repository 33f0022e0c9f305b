"""The view: the uint8 RGB picture that priors, models, metrics and people work on, and the way back from it.

SDR keeps its transfer. Primaries that reach far beyond BT.709 (BT.2020, P3) are converted in linear light, and what
BT.709 cannot hold is cut. HDR becomes display light (HLG on the 1,000 cd/m2 display of BT.2100, table 5), with
reference white, 203 cd/m2 (ITU-R BT.2408, section 2), as the view's white; from three quarters of white on the largest
of R, G, B is compressed so that 1,000 cd/m2 still fits, the other two with it, which keeps the hue; and the display of
the view has gamma 2.4 (BT.1886). All of it but the cutting has an inverse, `from_view`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from .coding import Coding
from .convert import DEEP, Planes, to_rgb8, to_rgb16

WHITE = 203.0  # cd/m2
PEAK = 1000.0
KNEE = 0.75  # of the view's white, in linear light
_D65, _DCI = (0.3127, 0.3290), (0.314, 0.351)
_CHROMATICITIES = {
    "bt709": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    "smpte431": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}


def to_view(planes: Planes, coding: Coding) -> np.ndarray:
    """uint8 RGB [H, W, 3] of code values. Alpha is left out."""
    if not coding.hdr and not coding.wide:
        if coding.depth == 8:
            return to_rgb8(planes, coding)
        return cv2.convertScaleAbs(to_rgb16(planes, coding), alpha=255 / DEEP)
    light = to_light(planes, coding)
    if coding.hdr:
        light = _scaled(light, _compressed)
    light = cv2.transform(light, gamut(coding.primaries, "bt709"))
    return _encoded(light, "gamma24" if coding.hdr else coding.transfer)


def to_light(planes: Planes, coding: Coding) -> np.ndarray:
    """Linear light of code values in their own primaries, float32 [H, W, 3]: of SDR 1 is white, of HDR 203 cd/m2."""
    light = np.take(_linear_table(coding.transfer), to_rgb16(planes, coding))
    if coding.transfer == "hlg":
        return light * _system_gamma(light, coding, 0.2) * np.float32(PEAK / WHITE)
    return light * np.float32(10_000 / WHITE) if coding.transfer == "pq" else light


def from_view(rgb: np.ndarray, coding: Coding) -> np.ndarray:
    """Non-linear R'G'B' of a coding, float32 [H, W, 3] from 0 to 1, of a part of a view: float32 [H, W, 3], 0..255."""
    shown = np.clip(rgb, 0, 255) / np.float32(255)
    if not coding.hdr and not coding.wide:
        return shown
    light = linear(shown, "gamma24" if coding.hdr else coding.transfer)
    light = np.maximum(cv2.transform(light, gamut("bt709", coding.primaries)), 0)
    if coding.hdr:
        light = _scaled(light, _expanded)
        light *= np.float32(WHITE / PEAK if coding.transfer == "hlg" else WHITE / 10_000)
    if coding.transfer == "hlg":
        light = light * _system_gamma(light, coding, -0.2 / 1.2)
    return nonlinear(np.clip(light, 0, 1), coding.transfer)


def linear(values: np.ndarray, transfer: str) -> np.ndarray:
    """Linear light, 0 to 1, of non-linear values, 0 to 1: of PQ 1 is 10,000 cd/m2, of HLG it is scene light. SDR of
    another name is taken to be shown on a display of gamma 2.4."""
    if transfer == "pq":  # BT.2100, table 4
        power = np.power(values, 1 / 78.84375)
        return np.power(np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power), 1 / 0.1593017578125)
    if transfer == "hlg":  # BT.2100, table 5
        upper = (np.exp((np.maximum(values, 0.5) - 0.55991073) / 0.17883277) + 0.28466892) / 12
        return np.where(values <= 0.5, values * values / 3, upper)
    if transfer == "srgb":
        return np.where(values <= 0.04045, values / 12.92, np.power((values + 0.055) / 1.055, 2.4))
    return np.power(values, _GAMMA.get(transfer, 2.4))


def nonlinear(light: np.ndarray, transfer: str) -> np.ndarray:
    """The inverse of `linear`."""
    if transfer == "pq":
        power = np.power(light, 0.1593017578125)
        return np.power((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power), 78.84375)
    if transfer == "hlg":
        upper = 0.17883277 * np.log(np.maximum(12 * light - 0.28466892, 1e-6)) + 0.55991073
        return np.where(light <= 1 / 12, np.sqrt(3 * light), upper)
    if transfer == "srgb":
        return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.power(light, 1 / 2.4) - 0.055)
    return np.power(light, 1 / _GAMMA.get(transfer, 2.4))


_GAMMA = {"gamma22": 2.2, "gamma28": 2.8, "linear": 1.0, "smpte428": 2.6}


@cache
def gamut(source: str, target: str) -> np.ndarray:
    """float32 [3, 3] from linear RGB of one set of primaries to another's, white to white. Sets that are not known are
    taken for BT.709's."""
    matrix = np.linalg.inv(_to_xyz(target)) @ _to_xyz(source)
    return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)  # DCI white becomes D65


def chromaticities(primaries: str) -> tuple[float, ...]:
    """x and y of red, green, blue and white; BT.709's where a set is not known."""
    return tuple(value for place in _CHROMATICITIES.get(primaries, _CHROMATICITIES["bt709"]) for value in place)


def _to_xyz(primaries: str) -> np.ndarray:
    *rgb, white = [
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in _CHROMATICITIES.get(primaries, _CHROMATICITIES["bt709"])
    ]
    columns = np.stack(rgb, axis=1)
    return columns * np.linalg.solve(columns, white)


@cache
def _linear_table(transfer: str) -> np.ndarray:
    return linear(np.arange(65536, dtype=np.float64) / DEEP, transfer).astype(np.float32)


@cache
def _encoding_table(transfer: str) -> np.ndarray:
    """uint8 by the root of linear light, which spreads the dark values that a table over light would crowd."""
    root = np.arange(65536, dtype=np.float64) / DEEP
    return np.rint(255 * nonlinear(root * root, transfer)).astype(np.uint8)


def _encoded(light: np.ndarray, transfer: str) -> np.ndarray:
    root = cv2.sqrt(np.clip(light, 0, 1))
    return np.take(_encoding_table(transfer), (root * np.float32(DEEP) + np.float32(0.5)).astype(np.uint16))


def _system_gamma(light: np.ndarray, coding: Coding, power: float) -> np.ndarray:
    """Luminance ** power, [H, W, 1]: what HLG's light is multiplied with on its way to the display."""
    weights = _to_xyz(coding.primaries)[1].astype(np.float32)
    luminance = light @ weights
    return np.power(np.maximum(luminance, 1e-9), np.float32(power))[..., None]


def _scaled(light: np.ndarray, curve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Light whose largest of R, G, B follows a curve, the other two in proportion."""
    largest = light.max(axis=-1, keepdims=True)
    return light * np.where(largest > KNEE, curve(largest) / np.maximum(largest, KNEE), np.float32(1))


_ROOM = 1 - KNEE
_REACH = (PEAK / WHITE - KNEE) / _ROOM  # of the compressed part, in units of its room in the view


def _compressed(light: np.ndarray) -> np.ndarray:
    """KNEE..PEAK/WHITE to KNEE..1, with slope 1 at the knee (Reinhard et al. 2002, equation 4, above the knee)."""
    above = np.clip((light - KNEE) / _ROOM, 0, _REACH)
    return KNEE + _ROOM * above * (1 + above / _REACH**2) / (1 + above)


def _expanded(shown: np.ndarray) -> np.ndarray:
    """The inverse of `_compressed`."""
    part = np.clip((shown - KNEE) / _ROOM, 0, 1)
    half = (1 - part) * _REACH**2 / 2
    return KNEE + _ROOM * (np.sqrt(half * half + part * _REACH**2) - half)
