"""Benchmarks on next to no data: its table can be made again. What it measures then says nothing."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from typing import Any

import pytest
from helpers import small_cogvideox
from helpers import small_diffusion as small
from helpers.forked import Forked

from benchmarks import NAMES, long_edit
from benchmarks.table import markdown
from retake.diffusion.model import Model
from retake.errors import MachineError

# The whole corpus of attacks runs once, in test_attacks.py, where the benchmark makes its rows of what came of it.
ELSEWHERE = ("faults.attacks",)
ON_A_MODEL = ("embedded", "motion_probe", "round_trip", "diffusion", "fifo", "steering", "steering_given")
HERE = [name for name in NAMES if name not in (*ELSEWHERE, *ON_A_MODEL, "long_edit")]


def in_this_process(module: str, order: list[str]) -> dict[str, float]:
    """What `benchmarks.watched` runs in a process of its own, which costs a start of Python each time."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        getattr(importlib.import_module(module), order[0])(*order[1:])
    return {"both": 1.0, "parent": 1.0, "seconds": 1.0} | json.loads(out.getvalue() or "{}")


@pytest.mark.parametrize("name", HERE)
def test_it_runs_and_makes_its_tables(name, monkeypatch):
    module: Any = importlib.import_module(f"benchmarks.{name}")
    if name != "memory":  # there the processes are the point
        monkeypatch.setattr(module, "watched", in_this_process, raising=False)
        monkeypatch.setattr("benchmarks.stages.watched", in_this_process)
    try:
        rows = module.run(**module.SMOKE)
    except MachineError as error:
        if error.code == "E504":  # no browser, which is not what rots
            pytest.skip(str(error))
        if error.code != "E302" or "retake weights" not in (error.hint or ""):
            raise
        return  # weights that do not ship, and it says which
    assert rows
    assert all(row["table"] for row in rows)
    assert markdown(rows)


@pytest.mark.parametrize("name", ON_A_MODEL)
def test_it_makes_its_tables_of_a_tiny_model(name, tmp_path, monkeypatch):
    module: Any = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(module, "REAL", tmp_path / "none", raising=False)
    sizes: dict[str, int] = {}
    chosen: dict[str, Any] = {}
    if name == "fifo":  # four windows fill the queue
        sizes = {"frames": 2}
    if name == "embedded":  # captions are drawn for clips of this size, whatever the model's
        sizes, chosen = {"frames": 16, "width": 128, "height": 128}, {"sheets": tmp_path / "sheets"}
    weights = small.save_embedded_like(tmp_path / "model")
    chosen["models"] = {"tiny": Model(name="tiny", **small.settings(weights, **sizes))}
    rows = module.run(**module.SMOKE | chosen)
    assert rows
    assert all(row["table"] for row in rows)
    assert markdown(rows)


def test_a_long_edit_is_measured_and_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(long_edit, "watched", in_this_process)
    monkeypatch.setattr(long_edit, "started", lambda order: Forked(lambda: long_edit.tell(*order)))
    weights, parts = small_cogvideox.save_embedded(tmp_path)
    words = ["family=cogvideox", f"weights={weights}", f"parts={parts}", "width=64", "height=64", "frames=16"]
    rows = long_edit.run(**long_edit.SMOKE, model=[f"model.{word}" for word in words])
    whole, killed = rows
    assert whole["last quarter"] > 0
    assert killed["killed behind frame"] >= killed["went on behind frame"] >= 0
    assert markdown(rows)
