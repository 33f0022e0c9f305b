"""`retake interpret`: what its page shows, what is computed anew for another point, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from helpers import small_cogvideox
from helpers import small_diffusion as small
from helpers.command import Shell

from flows.editing.interpret import Interpreted, interpret
from flows.runners import Local
from retake.errors import ConfigError
from retake.report import charts
from retake.store import Store

MODEL = ["frames.last=9", "motion_channels.scenes=1"]


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    root = tmp_path_factory.mktemp("interpret")
    folder = small.save_embedded_like(
        root / "model", scheduler=DDIMScheduler(**small.SCHEDULE, prediction_type="v_prediction")
    )
    model = [f"model.{name}={value}" for name, value in small.settings(folder).items()]

    def run(name: str = "page", *more: str, **asked) -> Interpreted:
        runner = Local(Store(root / "store", lambda line: None))
        return interpret("sprites:drift", [*MODEL, *model, *more], runner=runner, folder=root / name, **asked)

    return run


def test_the_page_holds_maps_of_each_kind_and_the_models_figures(interpreted):
    done = interpreted(point=(90.0, 90.0))
    page = Path(done.outputs["report"]).read_text()
    assert page.count("data:image/png;base64,") == 3 * 5
    assert page.count("<svg") == 4 + 4
    assert "frame 0" in page
    assert "retake interpret sprites:drift" in page
    assert "--point 90,90" in page
    assert not re.search(r"(src|href)=.?https?:", page)
    about = json.loads((Path(done.outputs["report"]).parent / "interpretation.json").read_text())
    assert about["point"] == pytest.approx([90.5, 90.5])
    assert about["site"] == "up_blocks.0"
    assert done.as_json()["times"] == about["times"] == list(range(8))  # the model's window


def test_another_point_costs_its_own_maps_alone(interpreted):
    interpreted(point=(90.0, 90.0))
    again = interpreted("other", point=(10.0, 20.0))
    assert [o.stage for o in again.outcomes if o.status == "ran"] == ["interpretation"]
    assert not [o for o in interpreted("other", point=(10.0, 20.0)).outcomes if o.status == "ran"]


def test_a_plan_of_an_interpretation_runs_nothing(tmp_path):
    result = Shell(tmp_path)("interpret", "sprites:drift", "--plan", "--point", "90,90")
    assert result.code == 0
    stages = [line.split()[0] for line in result.out.splitlines()]
    assert stages[:4] == ["frames", "latents", "motion_channels", "interpretation"]
    assert not list(tmp_path.rglob("report.html"))


def test_a_later_frame_begins_a_window_of_its_own_where_there_are_frames(interpreted):
    assert interpreted("first", frame=2).about["times"] == list(range(2, 10))
    done = interpreted("later", frame=5)  # too near the end: the model's window is its last one
    assert done.about["times"] == list(range(2, 10))
    page = Path(done.outputs["report"]).read_text()
    assert "<th>frame 5</th>" in page
    assert done.about["point"] == pytest.approx([160, 90])  # the middle


def test_it_reads_a_video_transformer(tmp_path):
    weights, parts = small_cogvideox.save_embedded(tmp_path / "dit")
    how = {"family": "cogvideox", "weights": weights, "parts": parts, "width": 64, "height": 64, "frames": 8}
    words = [*MODEL, *(f"model.{name}={value}" for name, value in how.items())]
    runner = Local(Store(tmp_path / "store", lambda line: None))
    done = interpret("sprites:drift", words, runner=runner, folder=tmp_path / "page")
    assert done.about["site"].startswith("transformer_blocks.")


@pytest.mark.parametrize(
    ("asked", "code"), [({"point": (400.0, 10.0)}, "E221"), ({"frame": 10}, "E231"), ({"point": (5.0, -1.0)}, "E221")]
)
def test_a_place_that_there_is_not_is_refused(interpreted, asked, code):
    with pytest.raises(ConfigError) as caught:
        interpreted("wrong", **asked)
    assert caught.value.code == code


def test_a_point_that_is_none_is_refused_at_once(tmp_path):
    for words in ("here", "1,2,3", "nan,1"):
        result = Shell(tmp_path)("interpret", "sprites:drift", "--point", words)
        assert result.code == 2
        assert "E221" in result.err


def test_charts_are_drawings_in_which_values_stand_at_their_places():
    xy = np.array([[0.0, 0.0], [1.0, 2.0]])
    for text in (
        charts.points({"a <b": xy}, "points"),
        charts.lines({"a": xy[:, 1]}, "lines"),
        charts.bars([3.0, 1.0], 1, "bars"),
    ):
        svg = ElementTree.fromstring(re.search(r"<svg.*</svg>", text)[0])
        assert svg.attrib["viewBox"] == f"0 0 {charts.WIDTH} {charts.HEIGHT}"
    placed = charts.placed(xy, *charts.bounds(xy))
    assert placed[0].tolist() == [charts.EDGE, charts.HEIGHT - charts.EDGE]
    assert placed[1].tolist() == [charts.WIDTH - charts.EDGE, charts.EDGE]
    heights = re.findall(r"<rect[^>]* height='([\d.]+)' fill='(#\w+)'", charts.bars([3.0, 1.0], 1, "bars"))
    assert float(heights[0][0]) == pytest.approx(3 * float(heights[1][0]), rel=0.01)
    assert heights[0][1] != heights[1][1]
