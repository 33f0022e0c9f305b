"""Notes on results as people read them: those that ask for something, and technical ones, that say how it was done.

Stages store notes as plain text, which is part of their digests. What a note weighs, and the words for some of them,
is decided here, where it is shown: by how it begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

TECHNICAL = (
    # the clip: nothing is lost, or what an edit does not need
    r"turned \d+ degrees",
    r"pixels of \S+ resampled to square ones",
    r"HDR \(\w+\): stages work on",
    r"primaries of ",
    r"\d+-bit colour: stages work on",
    r"no colour matrix tagged",
    r"stages do not see its transparency",
    r"further picture tracks",
    r"frames are not evenly spaced",
    r"its clock begins anew",
    r"frames that have the time of the one before",
    r"decord ",
    r"cropped from ",
    # given masks, depth, metrics
    r"a soft matte:",
    r"no PNG: ",
    r"their alpha is the same everywhere",
    r"Depth from parallax: ",
    r"Depth by Depth Anything: ",
    r"the result was enlarged",
    # the result's file
    r".* has no sound: none was copied",
    r"\S+ sound, which .* is written as AAC",
    r"subtitles as pictures are left out",
    r"attachments are left out",
)
LOOSE = re.compile(r"inversion: (\d+ of \d+) levels still moved by more than .*")


class Weighed(NamedTuple):
    """Notes in the words of `in_words`, each once."""

    notes: list[str]
    technical: list[str]


def weighed(notes: Iterable[str]) -> Weighed:
    """Notes by weight. One that is not known asks for attention."""
    found = Weighed([], [])
    for note in dict.fromkeys(notes):
        (found.technical if is_technical(note) else found.notes).append(in_words(note))
    return found


def is_technical(note: str) -> bool:
    """Whether a note says how something was done, and asks for nothing."""
    return any(re.match(beginning, note) for beginning in TECHNICAL)


def in_words(note: str) -> str:
    """A note in words for people."""
    return LOOSE.sub(
        r"the inversion is not exact at \1 noise levels: what should stay as it is may change a little. "
        "If it does: inversion.iterations=50",
        note,
    )
