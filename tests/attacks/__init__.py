"""Hostile settings, names, manifests, pictures and weights: what somebody may send, and what must come of it.

`corpus()` is the same list every time. `watch` runs it in a process that is watched for anything but a refusal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import manifests, models, names, overrides, pictures, weights, yamls
from .case import HARMLESS, Case

LEAST = {"overrides": 1400, "yaml": 400, "names": 140, "manifests": 380, "pictures": 190, "weights": 450}

__all__ = ["HARMLESS", "LEAST", "Case", "corpus", "watched"]


def corpus() -> list[Case]:
    """All cases, family by family; their names are unique."""
    rooms = (overrides, yamls, names, manifests, pictures, weights, models)
    return [case for room in rooms for case in room.cases()]


def watched(folder: Path) -> list[dict[str, Any]]:
    """What came of every case, in a process of its own that knows no weights but those that ship. `folder` is empty."""
    checkout, log = Path(__file__).resolve().parents[2], folder / "told.jsonl"
    paths = os.pathsep.join(map(str, (checkout, checkout / "tests")))
    away = {name: str(folder / "none") for name in ("HF_HOME", "TORCH_HOME", "RETAKE_STORE", "RETAKE_EDITS")}
    settled = {"PYTHONPATH": paths, "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "attacks.watch", str(log)],
        env={**os.environ, **away, **settled},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
