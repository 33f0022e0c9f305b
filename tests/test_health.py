"""The verdict on masks, against masks whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.command import Shell

from retake.health.signals import signals
from retake.health.verdict import doubt, listed, runs, said, worst
from retake.health.watch import Watch
from retake.synthetic import scenes
from retake.synthetic.world import World
from retake.video import encode

SIZE, FRAMES = (160, 96), 24


@pytest.fixture(scope="module")
def world() -> World:
    return World(scenes.scene("drift", width=SIZE[0], height=SIZE[1], frames=FRAMES))


def truth(world: World, t: int) -> np.ndarray:
    return np.asarray(world.surfaces(t) == 0)


def watched(world: World, shifted: range = range(0), by: int = 0, empty: range = range(0)) -> Watch:
    """True masks, in some frames moved aside, in some none; with the world's own motion."""
    watch = Watch()
    for t in range(FRAMES):
        mask = np.roll(truth(world, t), by, axis=1) if t in shifted else truth(world, t) & (t not in empty)
        watch.add(world.frame(t), {1: mask}, world.flow(t, t - 1) if t else None)
    return watch


def test_a_true_mask_lies_on_edges_and_holds_other_colours(world):
    at, beside = (signals(world.frame(5), np.roll(truth(world, 5), by, axis=1)) for by in (0, 40))
    assert at.edges is not None and at.overlap is not None  # noqa: PT018
    assert beside.edges is not None and beside.overlap is not None  # noqa: PT018
    assert at.edges > 0.9
    assert at.edges > beside.edges + 0.2
    assert at.overlap < 0.3 < beside.overlap
    assert at.area == pytest.approx(truth(world, 5).mean())
    assert doubt(at) < 0.1
    assert doubt(beside) > 0.9


def test_the_border_of_the_picture_is_no_edge_of_the_mask(world):
    corner = np.zeros(SIZE[::-1], bool)
    corner[:30, :40] = True
    found = signals(world.frame(0), corner)
    assert found.border == pytest.approx(69 / 136)  # of its outline of 2 * (30 + 40) - 4 pixels
    assert signals(world.frame(0), np.ones_like(corner)).edges is None
    assert signals(world.frame(0), np.zeros_like(corner)).overlap is None


def test_true_masks_are_good(world):
    found = watched(world).verdicts()[1]
    assert (found.word, found.spans, found.why) == ("good", (), ())
    assert len(found.doubts) == FRAMES
    assert said(found.as_json()) == "looks good"


def test_a_run_of_lost_frames_is_named(world):
    lost = watched(world, range(9, 15), by=45).verdicts()[1]
    assert lost.word == "look"
    (span,) = lost.spans
    assert span[0] == 9
    assert span[1] in (14, 15)  # it jumps back in frame 15
    gone = watched(world, empty=range(20, FRAMES)).verdicts()[1]
    assert (gone.word, gone.spans, gone.why[0]) == ("look", ((20, FRAMES - 1),), "empty")
    assert said(gone.as_json()) == f"is worth a look in frames 20-{FRAMES - 1}: the mask is empty"


def test_a_mask_beside_the_object_is_wrong(world):
    found = watched(world, range(FRAMES), by=45).verdicts()[1]
    assert found.word == "wrong"
    assert found.spans == ((0, FRAMES - 1),)


def test_runs_of_frames_are_joined_across_blinks():
    assert list(runs([3, 4, 7, 11, 12])) == [(3, 7), (11, 12)]  # two frames between are a blink, three are not
    assert list(runs([])) == []
    assert listed([[3, 3], [20, 31]]) == "3, 20-31"
    assert listed([[n, n] for n in range(0, 60, 10)]) == "0, 10, 20, 30 and 2 more"


def test_an_edit_says_what_its_mask_looks_like(world, tmp_path):
    clip, box = tmp_path / "clip.mp4", world.box(0, 0)
    encode(clip, (world.frame(t) for t in range(FRAMES)), 24)
    assert box is not None
    shell = Shell(tmp_path / "home")
    right, wrong = (box[0] - 4, box[1] - 4, box[2] + 4, box[3] + 4), (2, 2, 40, 30)
    for given, word in ((right, "good"), (wrong, "wrong")):
        words = ["edit", str(clip), "--box", ",".join(map(str, given)), "--until", "masks"]
        made = shell(*words, "--json").data
        assert made["health"]["1"]["verdict"] == word
        page = Path(made["outputs"]["report"]).read_text()
        assert f'<li class="{word}">' in page
        assert ('data-frame="0"' in page) == (word == "wrong")
    assert "mask     is probably wrong in frames 0-" in shell(*words).err


def test_the_worst_of_several_verdicts_stands_for_a_clip():
    look = {"verdict": "look", "frames": [[3, 5]], "why": ["jump"]}
    wrong = {"verdict": "wrong", "frames": [[0, 9]], "why": ["overlap"]}
    good = {"verdict": "good", "frames": [], "why": []}
    assert worst({}) == worst({"1": good, "2": good}) == ("good", "")
    assert worst({"1": look}) == ("look", "the mask is worth a look in frames 3-5: it jumps from one frame to the next")
    word, text = worst({"1": look, "2": good, "3": wrong})
    assert word == "wrong"
    assert "object 1 is worth a look" in text
    assert "object 3 is probably wrong in frames 0-9" in text
    assert "object 2" not in text
