"""How many threads a process starts: its affinity, its control group's quota, and what runs beside it."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from retake.machine import share


@pytest.mark.parametrize(
    ("processors", "others", "wanted"),
    [(2, 0, 2), (2, 2, 1), (2, 9, 1), (16, 0, 16), (16, 16, 8), (16, 48, 4), (1, 5, 1), (8, 1, 7)],
)
def test_threads_are_an_equal_share(processors, others, wanted):
    assert share.threads(processors, others) == wanted


def test_the_quota_of_a_control_group_counts(tmp_path):
    allowed = len(os.sched_getaffinity(0))
    assert share.processors(tmp_path) == allowed  # no control group
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert share.processors(tmp_path) == allowed
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert share.processors(tmp_path) == 1
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("150000")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    assert share.processors(tmp_path) == min(allowed, math.ceil(1.5))


def test_others_are_those_that_want_to_run(tmp_path, monkeypatch):
    load = tmp_path / "loadavg"
    load.write_text("9.00 8.00 7.00 4/321 4242\n")
    monkeypatch.setattr(share, "processors", lambda: os.cpu_count())
    assert share.others(load, pause=0) == 3
    monkeypatch.setattr(share, "processors", lambda: 0)
    assert share.others(load, pause=0) == 0  # a part of the machine
    assert share.others(tmp_path / "none", pause=0) == 0


def test_what_is_set_already_stays():
    environment = {"OMP_NUM_THREADS": "7"}
    share.claim(environment)
    assert environment == {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
    environment = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE"}
    share.claim(environment)
    assert environment == {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE"}
    environment = {}
    share.claim(environment)
    assert len({environment[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")}) == 1


def test_libraries_start_that_many():
    code = (
        "import os; from retake.machine.share import claim\n"
        "os.environ.pop('OMP_NUM_THREADS', None); os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "claim(os.environ); import cv2, torch; print(cv2.getNumThreads(), torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"], done.stderr
