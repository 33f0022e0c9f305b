"""Sweeps: what combinations share is made once, the ranking is right, what fails is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command import Shell, reference, sprite_clip

from flows.experiments.sweep import driven, lines, points_of
from retake.errors import ConfigError

BALL = "edit.reference=params/dataset/ball.png"


def names(*overrides: str) -> list[str]:
    return [point.name for point in points_of([BALL, *overrides])[0]]


def test_values_are_written_as_in_hydra():
    assert names("edit.strength=0.5,1", "masks.box=[1,2,3,4]") == ["edit.strength=0.5", "edit.strength=1"]
    assert names("edit.strength=range(0.25,1,0.25)") == [f"edit.strength={n}" for n in (0.25, 0.5, 0.75)]
    both = names("edit.strength=choice(0.5,1)", "edit.feather=2,8")
    assert both == [f"edit.strength={a} edit.feather={b}" for a in ("0.5", "1") for b in (2, 8)]
    points, swept = points_of([BALL, "edit=sdedit", "edit.strength=0.4,0.8", "edit.seed=0,1,2"])
    assert [(p.name, p.seed) for p in points] == [(f"edit.strength={a}", s) for a in ("0.4", "0.8") for s in "012"]
    assert list(swept) == ["edit.strength"]
    assert points[4].settings.edit.seed == 1
    assert [p.settings.edit.name for p in points_of([BALL, "edit=propagate,sdedit"])[0]] == ["propagate", "sdedit"]


@pytest.mark.parametrize(
    "overrides",
    [["edit.strength=0.5"], ["edit.strength=range(0,1,0.0001)"], ["edit=glob(*)"], ["edit.strength=0.5,much"]],
)
def test_what_is_no_sweep_is_refused(overrides):
    with pytest.raises(ConfigError, match=r"E218|E205"):
        points_of([BALL, *overrides])


@pytest.mark.parametrize(
    ("changes", "warned"),
    [((0.1, 0.2, 0.3), True), ((0.3, 0.2, 0.1), False), ((0.1, 0.3, 0.2), False), ((0.2, 0.2, 0.201), False)],
)
def test_a_ranking_by_editing_less_is_named(changes, warned):
    rows = [{"values": {"flicker": {"mean": 1.0 - n}, "change_edited": {"mean": c}}} for n, c in enumerate(changes)]
    assert (driven(rows, "flicker") is not None) is warned
    assert driven(rows, "change_edited") is None
    table = [{"point": "a", "seeds": 1, **row} for row in rows]
    assert next(lines({"table": table, "rank": "change_edited", "warning": None})) == "the largest first: change_edited"


def test_a_sweep_ranks_draws_and_shares(tmp_path: Path):
    shell = Shell(tmp_path)
    clip, cat = sprite_clip(tmp_path / "clip.mp4", frames=4), reference(tmp_path / "cat.png")
    words = ("sweep", clip, f"edit.reference={cat}", "report.tile=64", "edit.strength=0.25,1")
    result = shell(*words, "masks.box=[20,20,80,80],[0,0,4,4]", "--rank", "warp_error_edit", "--json")
    assert result.code == 3
    done = json.loads(result.out)
    assert {one["code"] for one in done["failed"]} == {"E220"}
    assert [row["point"].split()[0] for row in done["table"]] == ["edit.strength=0.25", "edit.strength=1"]
    values = [row["values"]["warp_error_edit"]["mean"] for row in done["table"]]
    assert values == sorted(values)
    assert done["warning"].startswith("the less is edited, the better is warp_error_edit here")  # a ghost wins
    page = Path(done["outputs"]["gallery"])
    assert "E220" in page.read_text()
    assert len(list(page.parent.glob("*.jpg"))) == 2
    assert Path(done["outputs"]["grid"]).stat().st_size > 1000
    assert Path(done["outputs"]["table"]).read_text().count("\n") == 3
    records = tmp_path / "store" / "retake" / "records"
    assert {stage: len(list((records / stage).iterdir())) for stage in ("frames", "masks", "edit")} == {
        "frames": 1,
        "masks": 1,
        "edit": 2,
    }
    assert shell(*words, "--box", "20,20,80,80", "--rank", "beauty", "--json").error["code"] == "E218"
    assert shell(*words, "--box", "20,20,80,80", "masks.box=[0,0,4,4]", "--json").error["code"] == "E221"
    assert shell(*words, "--box", "20,20,80,80", f"frames.sha256={'ab' * 32}", "--json").error["code"] == "E417"
