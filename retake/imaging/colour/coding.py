"""What is known of a picture's code values. Nothing here touches a pixel.

Numbers of matrices, primaries and transfers are those of ITU-T H.273 (tables 2 to 4), which every codec uses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Layout = Literal["rgb", "gray", "yuv"]

# (kr, kb) of the luma equation. YCgCo has none and stands for itself.
LUMA = {
    "bt709": (0.2126, 0.0722),
    "fcc": (0.30, 0.11),
    "bt601": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "bt2020": (0.2627, 0.0593),
}
MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 8: "ycgco", 9: "bt2020"}
UNREAD_MATRICES = {
    10: "BT.2020 constant luminance",
    11: "SMPTE 2085 (Y'D'zD'x)",
    12: "chromaticity-derived",
    13: "chromaticity-derived, constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
PRIMARIES = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    11: "smpte431",
    12: "smpte432",
    22: "ebu3213",
}
TRANSFERS = {
    1: "bt709",
    4: "gamma22",
    5: "gamma28",
    6: "bt601",
    7: "smpte240m",
    8: "linear",
    11: "xvycc",
    12: "bt1361",
    13: "srgb",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "pq",
    17: "smpte428",
    18: "hlg",
}
UNTAGGED = "untagged"
HDR = ("pq", "hlg")


@dataclass(frozen=True)
class Coding:
    """How code values stand for colours."""

    layout: Layout
    """`yuv`: planes of luma, blue and red difference; `gray`: luma alone; `rgb`: one array [H, W, 3]."""
    depth: int
    """Bits of a code value, 8 to 16. Arrays are uint8 at 8 bits, else uint16 with the values in the low bits."""
    step: tuple[int, int] = (1, 1)
    """Pixels for one chroma sample, (across, down): (2, 2) is 4:2:0."""
    siting: tuple[float, float] = (0.5, 0.5)
    """Where the first chroma sample lies, in pixels from the first pixel's centre, (right, down)."""
    alpha: bool = False
    matrix: str = "rgb"
    full: bool = True
    """Full range; else luma lies in 16..235 and chroma in 16..240 (at 8 bits)."""
    primaries: str = UNTAGGED
    transfer: str = UNTAGGED

    @property
    def plain(self) -> bool:
        """Whether the code values are the view itself: RGB of 8 bits with ordinary primaries and no alpha."""
        return (self.layout, self.depth, self.alpha, self.hdr, self.wide) == ("rgb", 8, False, False, False)

    @property
    def hdr(self) -> bool:
        return self.transfer in HDR

    @property
    def wide(self) -> bool:
        """Whether the primaries reach so far beyond BT.709 that the view is converted."""
        return self.primaries in ("bt2020", "smpte431", "smpte432")

    def as_json(self) -> dict[str, Any]:
        """A dict of JSON types; `from_json` reads it back."""
        return {**asdict(self), "step": list(self.step), "siting": list(self.siting)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Coding:
        """The record from `as_json`. Raises TypeError for a missing or unknown field."""
        return cls(**{**data, "step": tuple(data["step"]), "siting": tuple(data["siting"])})


VIEW = Coding("rgb", 8, primaries="bt709", transfer="bt709")
"""The view's own coding."""


def number(table: dict[int, str], name: str) -> int:
    """The number of a name in one of the tables above; 2, unspecified, for one that it does not hold."""
    return next((key for key, value in table.items() if value == name), 2)


def turned(coding: Coding, size: tuple[int, int], rotation: int, mirrored: bool) -> Coding:
    """The coding of planes turned by `rotation` degrees clockwise, after a flip left to right if `mirrored`; `size` is
    (width, height) as stored."""
    across, down = coding.step
    (right, below), (width, height) = coding.siting, size

    def reverse(offset: float, step: int, length: int) -> float:
        return length - 1 - step * (-(-length // step) - 1) - offset

    if mirrored:
        right = reverse(right, across, width)
    if rotation in (180, 270):
        right = reverse(right, across, width)
    if rotation in (90, 180):
        below = reverse(below, down, height)
    if rotation % 180:
        return replace(coding, step=(down, across), siting=(below, right))
    return replace(coding, siting=(right, below))
