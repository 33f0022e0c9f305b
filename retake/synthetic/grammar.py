"""Captions of clips with one sprite: a small grammar, written and read back.

a [texture] hue shape [(moving [quickly | slowly] direction) | resting] [over ground]

a striped red star moving quickly up left over sand
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from retake.errors import ConfigError

HUES = {"red": 0.0, "yellow": 0.15, "green": 0.36, "cyan": 0.5, "blue": 0.64, "magenta": 0.84}
"""Where each word stands on the colour circle, 0..1."""
SHAPES = ("disc", "box", "star", "cross")
TEXTURES = ("plain", "striped", "dotted", "marbled")
DIRECTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
"""Eighths of a turn, clockwise on the screen, from the x axis."""
SPEEDS = ("slowly", "", "quickly")
GROUNDS = {"sand": "dune", "moss": "moss", "stone": "slate", "clay": "clay", "water": "lagoon"}
"""Word and palette (texture.PALETTES)."""


@dataclass(frozen=True)
class Subject:
    """What a caption says; None or "" is left unsaid. direction: a name of DIRECTIONS, "resting" or None."""

    shape: str
    hue: str
    texture: str = ""
    direction: str | None = None
    speed: str = ""
    ground: str = ""

    def __str__(self) -> str:
        words = ["a", self.texture, self.hue, self.shape]
        if self.direction == "resting":
            words.append("resting")
        elif self.direction:
            words += ["moving", self.speed, self.direction]
        if self.ground:
            words += ["over", self.ground]
        return " ".join(word for word in words if word)


def together(one: Subject, other: Subject) -> str:
    """The caption of two, over the first one's ground: `a red disc resting and a blue star moving left over sand`."""
    told = [str(replace(subject, ground="")) for subject in (one, other)]
    return " and ".join(told) + (f" over {one.ground}" if one.ground else "")


def parse(caption: str) -> Subject:
    """The subject of a caption. Raises ConfigError E244 for a text that the grammar does not make."""
    words = caption.split()
    ground = words.pop() if len(words) > 2 and words[-2] == "over" else ""
    words = words[:-1] if ground else words
    direction, speed = None, ""
    if words and words[-1] == "resting":
        direction = words.pop()
    elif "moving" in words:
        at = words.index("moving")
        rest, words = words[at + 1 :], words[:at]
        speed = rest.pop(0) if rest and rest[0] in SPEEDS else ""
        direction = " ".join(rest)
    texture = words.pop(1) if len(words) == 4 else ""
    hue, shape = words[1:] if len(words) == 3 else ("", "")
    subject = Subject(shape, hue, texture, direction, speed, ground)
    known = (
        shape in SHAPES
        and hue in HUES
        and texture in ("", *TEXTURES)
        and direction in (None, "resting", *DIRECTIONS)
        and ground in ("", *GROUNDS)
    )
    if not known or str(subject) != caption:
        raise ConfigError("E244", f"the sprite world has no caption {caption!r}", f"One it has: {example()}")
    return subject


def example() -> str:
    return str(Subject("star", "red", "striped", "up left", "quickly", "sand"))


def heading(direction: str) -> float:
    """The angle of a direction in radians, clockwise on the screen from the x axis (y points down)."""
    return DIRECTIONS.index(direction) * math.pi / 4


def vocabulary() -> Sequence[str]:
    """Every word of the grammar, in a fixed order."""
    words = ["a", "moving", "resting", "over", *HUES, *SHAPES, *TEXTURES, "right", "down", "left", "up"]
    return [*words, "slowly", "quickly", *GROUNDS]
