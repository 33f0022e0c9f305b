"""Numbers that are pinned: tests/golden.json, by topic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "golden.json"


def read(topic: str) -> Any:
    """What is pinned of a topic. Raises KeyError where there is nothing."""
    return json.loads(FILE.read_text(encoding="utf-8"))[topic]


def write(topic: str, values: Any) -> None:
    """Pin other values of a topic; other topics stay as they are."""
    pinned = json.loads(FILE.read_text(encoding="utf-8")) | {topic: values}
    FILE.write_text(json.dumps(pinned, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
