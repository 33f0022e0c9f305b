"""`python -m benchmarks`: what cannot run here says why, the others run, and only their sections of the page change."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import benchmarks.__main__ as program
from retake.errors import MachineError

PAGE = "\n".join(f"<!-- results of {name} -->\nof {name}, before\n<!-- end of {name} -->" for name in ("lost", "found"))


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page of two benchmarks, the first of which lacks its weights."""
    lost, found = ModuleType("lost"), ModuleType("found")

    def run():
        raise MachineError("E302", "weights are not here", "Get them: retake weights lost")

    lost.__dict__["run"], found.__dict__["run"] = run, lambda: [{"table": "Found", "value": 1.5}]
    monkeypatch.setitem(sys.modules, "benchmarks.lost", lost)
    monkeypatch.setitem(sys.modules, "benchmarks.found", found)
    monkeypatch.setattr(program, "NAMES", ("lost", "found"))
    path = tmp_path / "benchmarks.md"
    path.write_text(PAGE)
    monkeypatch.setattr(program, "PAGE", path)
    return path


def test_one_that_cannot_run_does_not_stop_the_others(page, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--write", "lost", "found"])
    assert program.main() == 5
    out, err = capsys.readouterr()
    for said in ("lost: E302 weights are not here", "Get them: retake weights lost"):
        assert said in err
    assert "Traceback" not in err
    assert "## found" in out
    assert "lost" not in out
    text = page.read_text()
    assert "of lost, before" in text
    assert "of found, before" not in text
    assert "| 1.50 |" in text


def test_all_that_run_are_a_success(page, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "found"])
    assert program.main() == 0
    assert page.read_text() == PAGE


def test_other_errors_are_mistakes_of_the_benchmark(page, monkeypatch):
    monkeypatch.setattr(sys.modules["benchmarks.lost"], "run", lambda: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    with pytest.raises(ZeroDivisionError):
        program.main()
