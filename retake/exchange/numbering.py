"""Numbers in the names of a sequence's files: their order, and what is missing among them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

MAX_RANGES = 8  # that a note names


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sorting key in which numbers count as numbers: shot2 comes before shot10. Equal for 1 and 01."""
    parts = re.split(r"(\d+)", name)  # decimal digits, in any script, are what int takes
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def gaps(stems: Sequence[str]) -> list[tuple[int, int]]:
    """(first, last) of the numbers that are missing in file names without their endings, given in natural order.

    Neighbours count where they differ in one number alone, by more than most of them do (2 for every second frame).
    Where most differ by no one step, as times do, nothing is missing.
    """
    steps = [step for a, b in pairwise(map(natural, stems)) if (step := _step(a, b))]
    usual, times = Counter(b - a for a, b in steps).most_common(1)[0] if steps else (1, 0)
    if times * 2 <= len(steps):
        return []
    return [(a + usual, b - usual) for a, b in steps if b - a > usual]


def gap_note(found: Sequence[tuple[int, int]], count: int) -> str:
    """What is said of the missing numbers of `count` images."""
    return f"{gap_words(found)}; the {count} images that are there follow one another"


def gap_words(found: Sequence[tuple[int, int]]) -> str:
    """ "numbers are missing: 5 to 6, 9"; empty where none are."""
    named = [f"{a}" if a == b else f"{a} to {b}" for a, b in found[:MAX_RANGES]]
    more = f" and {len(found) - MAX_RANGES} further gaps" if len(found) > MAX_RANGES else ""
    return f"numbers are missing: {', '.join(named)}{more}" if named else ""


def _step(a: list[tuple[int, int | str]], b: list[tuple[int, int | str]]) -> tuple[int, int] | None:
    """The two numbers in which names differ, if they differ in that alone."""
    changed = [(x, y) for (_, x), (_, y) in zip(a, b, strict=False) if x != y]
    if len(a) == len(b) and len(changed) == 1:
        x, y = changed[0]
        return (x, y) if isinstance(x, int) and isinstance(y, int) else None
    return None
