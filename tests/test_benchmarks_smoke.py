"""Benchmarks on next to no data: its table can be made again. What it measures then says nothing."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from typing import Any

import pytest
from helpers import small_diffusion as small

from benchmarks.table import markdown
from retake.diffusion.model import Model
from retake.errors import MachineError

# The whole corpus of attacks runs once, in test_attacks.py, where the benchmark makes its rows of what came of it.
HERE = ("depth", "stages", "lengths", "memory", "store", "sprites", "gallery")  # the others have not run at SMOKE yet
ON_A_MODEL = ("diffusion",)


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
def test_it_makes_its_tables_of_a_tiny_model(name, tmp_path):
    module: Any = importlib.import_module(f"benchmarks.{name}")
    weights = small.save_embedded_like(tmp_path / "model")
    model = Model(name="tiny", **small.settings(weights, frames=16))
    rows = module.run(**module.SMOKE | {"models": {"tiny": model}})
    assert rows
    assert all(row["model"].startswith("tiny") for row in rows)
    assert markdown(rows)
