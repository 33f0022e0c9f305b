"""What the signals of a clip come to: good, frames to look at, or probably wrong.

The doubt in a frame is a logistic regression on its signals. It was fitted to masks whose truth is known:
`python -m benchmarks health` fits it anew and says how often it is right (docs/benchmarks.md).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # the command line says verdicts, and needs no pictures for that
    from retake.health.signals import Signals

Word = Literal["good", "look", "wrong"]

WEIGHTS = {"edges": -8.3, "overlap": 14.79, "agreement": -1.58}
BIAS = 3.41
UNKNOWN = {"edges": 1.0, "overlap": 0.0, "agreement": 1.0}  # what a signal counts as that could not be measured
DOUBTFUL = 0.5  # a frame's doubt that counts against the whole clip
LOOK = 0.9  # one for which the frame alone is worth a look
WRONG = 0.5  # share of doubtful frames from which on the whole is wrong
JUMP = 0.5  # agreement with the frame before, below which a mask has jumped
GAP = 2  # good frames between two doubtful runs that do not part them

REASONS = {
    "empty": "the mask is empty",
    "jump": "it jumps from one frame to the next",
    "edges": "its outline does not follow the edges of the picture",
    "overlap": "the colours inside it are those around it",
}

WORDS: dict[Word, str] = {
    "good": "looks good",
    "look": "is worth a look in frames",
    "wrong": "is probably wrong in frames",
}
"""Follow "the mask"; the frames and the reasons follow them."""


@dataclass(frozen=True)
class Verdict:
    """word: of the clip. spans: runs of frames to look at, first and last; of a wrong clip, too. why: keys of REASONS,
    the commonest first. doubts: by frame, 0..1."""

    word: Word
    spans: tuple[tuple[int, int], ...]
    why: tuple[str, ...]
    doubts: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        return {"verdict": self.word, "frames": [list(span) for span in self.spans], "why": list(self.why)}


def verdict(clip: Sequence[Signals], weights: Mapping[str, float] = WEIGHTS, bias: float = BIAS) -> Verdict:
    """The verdict on one object's masks, from the signals of all frames."""
    doubts = tuple(round(doubt(one, weights, bias), 3) for one in clip)
    wrong = sum(d >= DOUBTFUL for d in doubts) >= WRONG * len(clip)
    shown = [t for t, d in enumerate(doubts) if d >= (DOUBTFUL if wrong else LOOK)]
    word: Word = "wrong" if wrong else "look" if shown else "good"
    common = tuple(why for why, _ in Counter(reason(clip[t]) for t in shown).most_common(2))
    return Verdict(word, tuple(runs(shown)), common, doubts)


def doubt(one: Signals, weights: Mapping[str, float] = WEIGHTS, bias: float = BIAS) -> float:
    """How likely it is, 0..1, that a mask covers less than half of what it should, or as much beside it."""
    if one.area == 0 or (one.agreement is not None and one.agreement < JUMP):
        return 1.0
    total = bias + sum(weights[name] * value for name, value in known(one).items())
    return 1 / (1 + math.exp(-total))


def known(one: Signals) -> dict[str, float]:
    """The signals that have a weight, with what stands for one that could not be measured."""
    return {name: at if (value := getattr(one, name)) is None else value for name, at in UNKNOWN.items()}


def reason(one: Signals) -> str:
    """A key of REASONS: what adds most to the doubt."""
    if one.area == 0:
        return "empty"
    if one.agreement is not None and one.agreement < JUMP:
        return "jump"
    signal = known(one)
    missing, alike = WEIGHTS["edges"] * (signal["edges"] - 1), WEIGHTS["overlap"] * signal["overlap"]
    return "edges" if missing > alike else "overlap"


def runs(frames: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of rising numbers; those with at most GAP numbers missing between them are one."""
    first = last = None
    for t in frames:
        if last is not None and first is not None and t > last + GAP + 1:
            yield first, last
            first = t
        first, last = t if first is None else first, t
    if first is not None and last is not None:
        yield first, last


def said(found: Mapping[str, Any]) -> str:
    """A verdict's JSON in words that follow "the mask"."""
    lead, reasons = WORDS[found["verdict"]], reasons_of(found)
    return f"{lead} {listed(found['frames'])}: {reasons}" if reasons else lead


def worst(health: Mapping[str, Mapping[str, Any]]) -> tuple[Word, str]:
    """Of the verdicts on a clip's objects, by id, the worst, and in words what is wrong with which; ("good", "") where
    nothing is."""
    words: list[Word] = [*WORDS]
    told = {i: said(found) for i, found in health.items() if found["verdict"] != "good"}
    name = "the mask" if len(health) == 1 else "the mask of object {}"
    level = max((words.index(found["verdict"]) for found in health.values()), default=0)
    return words[level], "; ".join(f"{name.format(i)} {text}" for i, text in told.items())


def reasons_of(found: Mapping[str, Any]) -> str:
    """Why, in words; empty for a good mask."""
    return " and ".join(REASONS[name] for name in found["why"])


def listed(spans: Sequence[Sequence[int]], most: int = 4) -> str:
    """Runs of frames in words.

    >>> listed([[3, 3], [20, 31]])
    '3, 20-31'
    """
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in spans[:most]]
    return ", ".join(shown) + (f" and {len(spans) - most} more" if len(spans) > most else "")
