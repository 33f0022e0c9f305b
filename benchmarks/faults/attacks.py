"""Hostile settings, names, manifests, pictures and weights (tests/attacks): what was refused, what happened beside it,
how long a refusal took, and how much memory it needed.

The corpus runs once in a process that is watched by an audit hook (tests/attacks/watch.py says what is forbidden).
Times are those of refusals alone, after benign work of the same kind; CPU time is the process's, which does not count
that child, and does not depend on what else the machine does. Memory is the growth of the peak over what was
held before, of the process and of the child in which pictures are parsed.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from attacks import HARMLESS, LEAST, watched

SLOW = 0.050  # seconds
TOLD = 10  # of the slowest


def run() -> list[dict[str, Any]]:
    """A row a family and one over all; then the slowest refusals."""
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        return rows_of(watched(Path(folder)))


def rows_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of what came of every case."""
    families = {family: [row for row in rows if row["family"] == family] for family in LEAST}
    return [*(summary(family, rows) for family, rows in families.items()), summary("all", rows), *slowest(rows)]


def summary(family: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    refused = [row for row in rows if row["got"] != HARMLESS]
    took = [1000 * row["seconds"] for row in refused]
    return {
        "table": f"{len(rows)} attacks" if family == "all" else "By family",
        "family": family,
        "cases": len(rows),
        "refused": len(refused),
        "harmless": len(rows) - len(refused),
        "not as expected": sum(row["got"] not in row["expected"] for row in rows),
        "forbidden events": sum(len(row["events"]) for row in rows),
        "median, ms": statistics.median(took),
        "99th percentile, ms": statistics.quantiles(took, n=100)[-1],
        "max, ms": max(took),
        "over 50 ms": sum(value > 1000 * SLOW for value in took),
        "max, ms of CPU": 1000 * max(row["cpu"] for row in refused),
        "over 50 ms of CPU": sum(row["cpu"] > SLOW for row in refused),
        "memory growth, MB": max(row["growth"] for row in rows) / 1e6,
    }


def slowest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    refused = sorted((row for row in rows if row["got"] != HARMLESS), key=lambda row: -row["seconds"])
    return [
        {
            "table": f"The slowest {TOLD} refusals",
            "family": row["family"],
            "case": row["name"],
            "code": row["got"],
            "ms": 1000 * row["seconds"],
            "ms of CPU": 1000 * row["cpu"],
            "memory growth, MB": row["growth"] / 1e6,
        }
        for row in refused[:TOLD]
    ]
