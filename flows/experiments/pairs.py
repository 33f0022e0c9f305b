"""A manifest of pairs: a clip, and what is to be edited in it (flows/datasets/manifest.py says how it is written).

Methods have different settings: a column is given to those that have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.datasets.manifest import ManifestError, Row, read_rows
from retake.clip import open_clip
from retake.errors import RetakeError
from retake.video import read_image


def read_pairs(path: Path) -> list[Row]:
    """The pairs of a manifest, which is checked whole: raises ConfigError E297 with every problem and its line."""
    rows, problems = read_rows(path)
    for row in rows:
        try:
            open_clip(row.clip)
            read_pictures(row.settings)
        except RetakeError as error:
            problems.append(f"line {row.line}: {error.message}")
        except (OSError, RuntimeError) as error:  # a name too long, a home that nobody has
            problems.append(f"line {row.line}: {row.clip[:40]!r} is not a clip: {error}"[:200])
    if not problems and not rows:
        problems.append("line 2: no pair")
    if problems:
        raise ManifestError(path, problems)
    return rows


def read_pictures(settings: Mapping[str, Any]) -> None:
    """Raises what reading the reference raises: it must not fail after an hour."""
    if given := settings.get("edit.reference"):
        read_image(given)
