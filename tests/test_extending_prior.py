"""A prior is one module and one file of settings: no other line changes, neither in the program nor in dvc.yaml."""

from __future__ import annotations

import pytest
import yaml
from helpers.checkouts import copied
from helpers.command import CHECKOUT, Child, sprite_clip

PARAMS = """
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

VERSION = 3
NEEDS = ()


class Params(BaseModel, frozen=True, extra="forbid"):
    name: Literal["dummy"] = "dummy"
    value: float = Field(1.0, ge=0, le=9)
"""
MODULES = {
    "optical_flow": """

def pairs(frames, params, first=0):
    before = None
    for frame in frames:
        if before is not None:
            flow = np.full((*frame.shape[:2], 2), params.value, np.float32)
            yield flow, -flow
        before = frame
""",
    "depth": """

def maps(frames, flow, params, first=0):
    for t in range(first, len(frames)):
        yield np.full(frames[t].shape[:2], params.value + t, np.float32)
""",
    "masks": """    path: str | None = None


def masks(path, params, count, size):
    for t in range(count):
        mask = np.zeros(size[::-1], bool)
        mask[: t + 1, : int(params.value)] = True
        yield {1: mask}
""",
    "tracks": """

class Found:
    ids = np.array([0, 1])

    def __init__(self, count, value):
        self.count, self.value = count, value

    def blocks(self):
        for start in range(0, self.count, 16):
            n = min(16, self.count - start)
            yield np.full((n, 2, 2), self.value, np.float32), np.ones((n, 2), bool)


def tracks(params, frames):
    return Found(frames["count"], params.value)
""",
}


def expected(kind: str, series, t: int) -> bool:
    if kind == "optical_flow":
        return bool((series.forward(t) == 2).all() and (series.backward(t) == -2).all())
    if kind == "depth":
        return bool((series[t] == 2 + t).all())
    if kind == "masks":
        return int(series[t].sum()) == 2 * (t + 1)
    return bool((series[t][1] == 2).all())


@pytest.mark.parametrize("kind", MODULES)
def test_a_prior_is_one_module_and_one_settings_file(tmp_path, kind):
    from retake.formats import open_series
    from retake.store import Store

    checkout = copied(tmp_path / "checkout")
    (checkout / f"retake/priors/{kind}/dummy.py").write_text(PARAMS + MODULES[kind])
    (checkout / f"params/{kind}/dummy.yaml").write_text("name: dummy\nvalue: 1.0\n")

    shell, clip = Child(tmp_path, checkout), sprite_clip(tmp_path / "clip.mp4", frames=18)
    words = (clip, "--box", "20,20,80,80")[: 1 if kind == "masks" else 3]
    result = shell("edit", *words, f"{kind}=dummy", f"{kind}.value=2", "--until", kind, "--json").data

    store = Store(tmp_path / "store" / "retake")
    key = next(stage["key"] for stage in result["stages"] if stage["stage"] == kind)
    record = store.find(kind, key)
    assert record is not None
    assert record.recipe["implementation"] == "dummy@3"
    series = open_series(store, record.artifact)
    assert all(expected(kind, series, t) for t in range(17))
    assert "Did you mean dummy?" in shell("plan", clip, f"{kind}=dumy").err


@pytest.mark.parametrize("kind", MODULES)
def test_dvc_depends_on_the_whole_group(kind):
    stages = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text())["stages"]
    assert f"retake/priors/{kind}" in stages[kind]["deps"]
