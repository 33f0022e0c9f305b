"""Every test gets a store of its own, an environment without surprises, and the small clips of clips.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """RETAKE_STORE points into the test's folder, and nothing of the machine's Prefect settings leaks in."""
    monkeypatch.setenv("RETAKE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RETAKE_EDITS", str(tmp_path / "edits"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path / "store" / "retake"
