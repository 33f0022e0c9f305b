"""What a person sees of a stage at work: that it is, how much of it is done, how long it takes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from helpers.command import reference, sprite_clip
from helpers.stages import ProgressLog
from rich.console import Console as Screen

from flows import graph
from flows.editing.edit import edit
from flows.runners import Local
from flows.settings.compose import settings
from flows.terminal.console import Console
from flows.terminal.progress import StageProgress
from retake.clip import open_clip
from retake.errors import ConfigError
from retake.store import Store
from retake.video import probe, write_png


@pytest.mark.parametrize(
    ("words", "count"),
    [(["frames.last=20"], 21), (["frames.first=5", "frames.fps=12"], 18), (["frames.start=0.5"], 28), ([], 40)],
)
def test_frames_are_counted_against_those_that_are_selected(tmp_path, words, count):
    clip, log = sprite_clip(tmp_path / "clip.mp4", frames=40), ProgressLog()
    graph.edit_graph(Local(Store(tmp_path / "store"), log), open_clip(str(clip)), settings(words), "frames")
    assert log.steps[0] == (16, count)
    assert log.steps[-1] == (count, count)


def shown(*counted: tuple[float, int, int]) -> str:
    """What stands on a terminal after (seconds, done, total)."""
    text, now = io.StringIO(), [0.0]
    progress = StageProgress(Screen(file=text, force_terminal=True, width=80), lambda: now[0])
    progress.start("edit")
    for now[0], done, total in counted:
        progress.count("edit", done, total)
    progress.stop()
    return text.getvalue()


def test_a_stage_is_a_name_and_its_seconds_until_there_is_something_to_count():
    for nothing in ((), ((20.0, 0, 80),)):
        assert "edit" in shown(*nothing)
        assert "0:00:0" in shown(*nothing)
        assert "/" not in shown(*nothing)  # no bar that stands at 0
    assert "16/80" in shown((40.0, 16, 80))
    assert "about 26.7 min left" in shown((40.0, 16, 656))  # and the whole line fits
    # A resumed stage starts high; from its second count on its own pace counts.
    assert "about 48.0 s left" in shown((1.0, 16, 80), (17.0, 32, 80))
    assert "left" not in shown((40.0, 80, 80))
    steps, frames = (10.0, 10, 10), (30.0, 16, 32)
    assert "16/32" in shown(steps, frames)
    assert "left" not in shown(steps, frames).rpartition("16/32")[2]  # a step says nothing of a frame
    assert "\x1b[?25h" in shown()  # the cursor is back


def run_shown(expected: list[tuple[str, float | None]], *events: tuple[float, str, int, int]) -> str:
    """What stands on a terminal at the end of (seconds, stage, done, total); done -1: the stage has ended."""
    text, now = io.StringIO(), [0.0]
    progress = StageProgress(Screen(file=text, force_terminal=True, width=80), lambda: now[0])
    progress.expect(expected)
    for now[0], stage, done, total in events:
        if done < 0:
            progress.ended(stage)
            progress.stop()
        else:
            progress.count(stage, done, total)
    text.truncate(text.seek(0))
    progress._bar.refresh()
    progress.stop()
    return text.getvalue()


def test_the_time_left_of_the_whole_run_is_the_stages_own_and_what_is_forecast_of_the_others():
    whole = [("frames", 10.0), ("edit", 30.0), ("metrics", 20.0)]
    begun = (0.0, "frames", 0, 32), (5.0, "frames", 16, 32)
    assert "5.0 s left, 55.0 s to the end" in run_shown(whole, *begun)
    # Frames took twice what was forecast: so will the others, until their own pace is known.
    slow = (0.0, "frames", 0, 32), (20.0, "frames", -1, 0), (20.0, "edit", 0, 4), (40.0, "edit", 1, 4)
    assert "60.0 s left, 1.7 min to the end" in run_shown(whole, *slow)
    assert "to the end" not in run_shown([*whole[:2], ("metrics", None)], *begun)  # nobody knows
    last = (0.0, "metrics", 0, 32), (5.0, "metrics", 16, 32)
    assert "about 5.0 s left\n" in run_shown(whole, *last)  # what it passed over was in the store


def test_a_result_plays_before_metrics_and_report_are_made(tmp_path):
    clip, log = sprite_clip(tmp_path / "clip.mp4", frames=4), ProgressLog()
    words = ["masks.box=[20,20,80,80]", f"edit.reference={reference(tmp_path / 'picture.png')}"]
    runner, told = Local(Store(tmp_path / "store"), log), []

    def ready(video: Path) -> None:
        told.append((probe(video).frames, [outcome.stage for outcome in runner.outcomes]))

    for _ in range(2):  # what is there already is not told
        edit(str(clip), words, runner=runner, folder=tmp_path / "out", ready=ready)
    assert told == [(4, ["frames", "optical_flow", "masks", "region", "tracks", "edit", "decode"])]


def test_the_line_is_taken_away_where_a_stage_fails(tmp_path):
    class Seen(Console):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[str] = []

        def started(self, stage: str) -> None:
            self.heard.append(f"{stage} started")

        def stopped(self, stage: str) -> None:
            self.heard.append(f"{stage} stopped")

    seen = Seen()
    for t in range(2):
        write_png(tmp_path / "flat" / f"{t}.png", np.full((96, 160, 3), 90, np.uint8))
    run, p = Local(Store(tmp_path / "store"), seen), settings(["masks.box=[20,20,80,80]"])
    with pytest.raises(ConfigError, match="E220"):
        graph.edit_graph(run, open_clip(str(tmp_path / "flat")), p, "masks")
    assert seen.heard[-2:] == ["masks started", "masks stopped"]
