"""Rows to markdown, and what kind of machine they were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def markdown(rows: Iterable[Row]) -> str:
    """One table for each value of the rows' key `table`, in order of appearance, headed by that value."""
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(str(row["table"]), []).append({k: v for k, v in row.items() if k != "table"})
    return "\n\n".join(f"**{title}**\n\n{one_table(of)}" for title, of in tables.items())


def one_table(rows: list[Row]) -> str:
    """A markdown table whose columns are the keys of all rows, in order of appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join("---" for _ in columns) + "|"]
    lines += ["| " + " | ".join(cell(row.get(name)) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    """About three figures of a number; a dash where there is none."""
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def machine() -> str:
    """Cores, processor, memory, system, Python: the kind of machine, not which one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.system()
    if system == "Linux":
        system = platform.freedesktop_os_release().get("PRETTY_NAME", system)
    python = platform.python_version()
    return f"{len(os.sched_getaffinity(0))} cores, {processor()}, {memory:.0f} GiB, {system}, Python {python}"


def processor() -> str:
    """Model name of the first processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def load() -> float:
    """Processes that ran or waited to run over the last minute, on average."""
    return os.getloadavg()[0]
