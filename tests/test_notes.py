"""Notes: what asks for something is told at once, the rest is counted and stands in a fold."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from helpers.command import CHECKOUT
from helpers.reports import report

from flows.terminal.console import Console
from retake.artifact import Frames
from retake.exchange import masters
from retake.imaging.colour.coding import VIEW
from retake.priors.depth import parallax
from retake.priors.masks.given import SOFT_NOTE
from retake.report import edit_page
from retake.report.notes import TECHNICAL, weighed
from retake.stage import Outcome

ASSUMED = "no colour matrix tagged: bt601 assumed from its height"
LOST = "the mask is empty from frame 9 on: the object was lost or left the picture. See the mask layer"
LOOSE = "inversion: 1 of 50 levels still moved by more than 0.001"
PACE = "frames are not evenly spaced; true timestamps are kept"


def test_notes_are_told_by_weight_each_once():
    depth = parallax.notes(parallax.Params())
    found = weighed([ASSUMED, LOST, PACE, ASSUMED, *depth, "something new", SOFT_NOTE])
    assert found.notes == [LOST, "something new"]
    assert found.technical == [ASSUMED, PACE, *depth, SOFT_NOTE]
    asks = masters.notes(replace(VIEW, depth=10), "h264")
    assert weighed(asks).notes == asks
    ((words,), technical) = weighed([LOOSE])
    assert not technical
    assert "1 of 50" in words
    assert "inversion.iterations=" in words


@pytest.mark.parametrize("beginning", TECHNICAL)
def test_what_is_called_technical_is_said_somewhere(beginning):
    """A note that is worded anew has to be weighed anew."""
    words = max(re.split(r"\\.|[.*+()]", beginning), key=len).strip()
    files = [path for folder in ("retake", "tasks") for path in (CHECKOUT / folder).rglob("*.py")]
    assert any(words in path.read_text() for path in files if path.name != "notes.py")


def told(capsys, console: Console) -> str:
    for stage, notes in (("frames", [ASSUMED, PACE]), ("masks", [LOST]), ("edit", [ASSUMED])):
        console.outcome(Outcome(stage, "k" * 64, "ran", 1.0, Frames((), {"notes": notes})))
    console.end()
    return capsys.readouterr().err


def test_the_console_counts_technical_notes(capsys):
    said = told(capsys, Console())
    assert f"note: {LOST}" in said
    assert ASSUMED not in said
    assert said.splitlines()[-1] == "2 technical notes: see the report, or -v"
    said = told(capsys, Console(verbose=True))
    assert f"note: {ASSUMED}" in said
    assert "technical" not in said


def test_the_page_folds_technical_notes():
    text = edit_page.render(report(notices=(ASSUMED, LOST, PACE)), "mosaic.mp4")
    top, _, fold = text.partition('<details class="technical">')
    assert LOST in top
    assert "2 technical notes" in fold
    assert ASSUMED in fold.partition("</details>")[0]
    assert ASSUMED not in top
    assert 'class="technical"' not in edit_page.render(report(notices=(LOST,)), "mosaic.mp4")
