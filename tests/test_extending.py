"""What somebody who adds to Retake has to write: no line beside the new module and its entry in the settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.checkouts import copied
from helpers.command import Child, Shell, sprite_clip

METRIC = """
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.metrics.common.sample import Result

VERSION = 3
NEEDS = ("optical_flow", "region", "tracks")
DESCRIPTIONS = {
    "change": ("mean absolute difference to the source, grey levels times gain", "lower"),
    "change_edit": ("the same inside the edited region", "lower"),
    "source_motion": ("mean length of the source's flow into a frame, px", "higher"),
    "points": ("points that are followed from a frame on", "higher"),
}


class Params(BaseModel, frozen=True, extra="forbid"):
    name: Literal["change"] = "change"
    gain: float = Field(default=1.0, gt=0, description="factor of the difference")


class Metric:
    def __init__(self, params):
        self.params, self.values = params, {name: {} for name in DESCRIPTIONS}

    def update(self, sample):
        difference = self.params.gain * np.abs(sample.source.astype(float) - sample.result)
        self.values["change"][sample.t] = difference.mean()
        self.values["change_edit"][sample.t] = difference[sample.region].mean()
        if sample.flow is not None:
            assert sample.backward.shape == sample.flow.shape
            self.values["source_motion"][sample.t] = np.linalg.norm(sample.flow, axis=-1).mean()
        if sample.tracks is not None:
            self.values["points"][sample.t] = sample.tracks.visible[0].sum()

    def result(self):
        return Result(self.values)
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    return copied(tmp_path / "checkout")


def test_a_metric_is_one_module_and_one_entry_in_the_settings(tmp_path, checkout):
    from retake.formats import open_series
    from retake.store import Store
    from retake.video import encode

    (checkout / "retake/metrics/change.py").write_text(METRIC)
    with open(checkout / "params/metrics/default.yaml", "a") as settings:
        settings.write("change: {name: change, gain: 1.0}\n")

    shell, clip = Child(tmp_path, checkout), sprite_clip(tmp_path / "clip.mp4", frames=18)
    rng = np.random.default_rng(0)
    result = tmp_path / "result.mp4"
    encode(result, (rng.integers(0, 255, (96, 160, 3), np.uint8) for _ in range(18)), 24.0)
    words = (
        "metrics",
        clip,
        result,
        "--box",
        "20,20,80,80",
        "--json",
        "report.tile=64",
        "metrics.names=[flicker,change]",
    )
    edit = shell(*words, "metrics.change.gain=2").data

    store = Store(tmp_path / "store" / "retake")
    records = [(s["stage"], record) for s in edit["stages"] if (record := store.find(s["stage"], s["key"]))]
    recipe = dict(records)["metrics"].recipe
    assert recipe["implementation"] == "flicker@1,change@3"
    assert recipe["params"]["change"] == {"name": "change", "gain": 2.0}
    frames, other = (open_series(store, record.artifact) for stage, record in records if stage == "frames")
    priors = (dict(records)[name].artifact for name in ("region", "optical_flow", "tracks"))
    region, flow, tracks = (open_series(store, prior) for prior in priors)
    difference = [2 * np.abs(frames[t].astype(float) - other[t]) for t in range(18)]
    expected = {
        "change": np.mean([d.mean() for d in difference]),
        "change_edit": np.mean([d[region[t]].mean() for t, d in enumerate(difference)]),
        "source_motion": np.mean([np.linalg.norm(flow.forward(t), axis=-1).mean() for t in range(17)]),
        "points": np.mean([tracks[t][2].sum() for t in (0, 16)]),
    }
    values = json.loads(Path(edit["outputs"]["metrics"]).read_text())
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert expected["change_edit"] > 10
    assert "change_edit" in Path(edit["outputs"]["report"]).read_text()

    # Its settings are judged as everybody else's, and it stands in nobody's key who does not ask for it.
    assert "Did you mean change?" in shell("plan", clip, "metrics.names=[chance]").err
    assert "Did you mean metrics.change.gain?" in shell("plan", clip, "+metrics.change.gian=2").err
    alone = (*words[:-1], "metrics.names=[flicker]")
    assert shell(*alone, "metrics.change.gain=2").statuses()["metrics"] == "ran"
    assert Shell(tmp_path)(*alone).statuses()["metrics"] == "cached"
