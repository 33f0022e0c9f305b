"""What the metrics of one edit say together: one flat dict, one table by frame, one TSV file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from retake.lookup import lookup, names

# Value name -> (what it is and in which unit, whether "lower" or "higher" is better), of every metric: `names` passes
# over this very module, which states no VERSION.
DESCRIPTIONS: dict[str, tuple[str, str]] = {
    value: about for metric in names("metrics") for value, about in lookup("metrics", metric).DESCRIPTIONS.items()
}

Row = dict[str, int | float | None]


class Result(Protocol):
    """What every metric's result can say of itself."""

    def summary(self) -> dict[str, float]:
        """Value name -> one number for the clip, NaN where there is none."""
        ...

    def per_frame(self) -> dict[str, dict[int, float]]:
        """Value name -> {frame: number}."""
        ...

    def reasons(self) -> dict[str, str]:
        """Value name -> why there is no number for the clip."""
        ...

    def files(self) -> dict[str, bytes]:
        """File name -> content of what is kept beside the numbers."""
        ...


def plain(value: float) -> float | None:
    """A finite float, or None: JSON knows neither NaN nor infinity."""
    return float(value) if math.isfinite(value) else None


def summarise(results: Iterable[Result]) -> dict[str, float | None]:
    """Value name -> number for the clip, over all metrics; None where nothing could be measured."""
    return {name: plain(value) for result in results for name, value in result.summary().items()}


def frame_rows(results: Iterable[Result], count: int) -> list[Row]:
    """`count` rows {"frame": t, value name: number or None}; a value of a pair stands at its first frame."""
    series = {name: values for result in results for name, values in result.per_frame().items()}
    return [
        {"frame": t} | {name: plain(values.get(t, math.nan)) for name, values in series.items()} for t in range(count)
    ]


def cell(value: object) -> str:
    """One field of a TSV line: floats with 9 digits, None empty, and no tab or line end inside."""
    if value is None:
        return ""
    text = format(value, ".9g") if isinstance(value, float) else str(value)
    return " ".join(text.split()) if any(mark in text for mark in "\t\r\n") else text


def write_tsv(path: Path | str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as tab-separated UTF-8 text with a header line; equal rows give equal bytes.

    Columns are the keys in order of first appearance; a missing value and None are empty fields.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["\t".join(map(cell, columns))]
    lines += ["\t".join(cell(row.get(name)) for name in columns) for row in rows]
    Path(path).write_text("\n".join(lines) + "\n", "utf-8", "backslashreplace", "\n")
