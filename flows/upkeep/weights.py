"""The networks' weights on this machine: which are here, and how the others come here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.terminal.console import Console
from retake.machine.disk import format_bytes
from retake.weights import local
from retake.weights.catalogue import CATALOGUE, Url, Weights


def inventory() -> list[dict[str, Any]]:
    """One entry for each weights of the catalogue: name, present, path and bytes (None where missing), megabytes,
    licence, serves, command."""
    return [entry_of(weights, local.locate(name), local.fetch_command([name])) for name, weights in CATALOGUE.items()]


def entry_of(weights: Weights, path: Path | None, command: str) -> dict[str, Any]:
    return {
        "name": weights.name,
        "present": path is not None,
        "path": None if path is None else str(path),
        "bytes": None if path is None else bytes_in(path),
        "megabytes": weights.megabytes,
        "licence": weights.licence,
        "serves": weights.serves,
        "command": command,
    }


def table(entries: list[dict[str, Any]]) -> list[str]:
    """A line for each entry: what is here with its place, what is missing with the command that gets it."""
    lines = []
    for entry in entries:
        if entry["present"]:
            state, what, where = "here", entry["name"], entry["path"]
            much = format_bytes(entry["bytes"])
        else:
            state, what, where = "missing", entry["command"], entry["serves"]
            much = f"{entry['megabytes']} MB"
        lines.append(f"{state:8}{what:39}{much:>9}  {entry['licence']:13} {where}".rstrip())
    return lines


def get(references: list[str], console: Console) -> list[dict[str, Any]]:
    """Fetch what is not here, each with a word on its size and licence before, and a bar on a terminal. Returns the
    entries as `inventory` does. Raises ConfigError E250 before the first download, and what `fetch` raises."""
    from rich.console import Console as Rich
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from retake.weights.fetch import fetch

    here = {reference: local.locate(reference) for reference in references}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Rich(stderr=True), transient=True, disable=not console.live) as bars:
        for reference, path in here.items():
            if path is not None:
                continue
            entry, bar = local.catalogue_entry(reference), bars.add_task(reference, total=None)

            def moved(done: int, total: int, bar: Any = bar) -> None:
                bars.update(bar, completed=done, total=total or None)

            if entry.megabytes:
                console.say(f"{reference}: {entry.megabytes} MB, {entry.licence}, for {entry.serves}")
            here[reference] = fetch(reference, moved, console.say)
    return [entry_of(described(reference), path, local.fetch_command([reference])) for reference, path in here.items()]


def described(reference: str) -> Weights:
    """The catalogue's words, or none on a person's own file."""
    if local.local_path(reference) is not None:
        return Weights(reference, Url(reference), 0, "yours", "")
    return local.catalogue_entry(reference)


def bytes_in(path: Path) -> int:
    """Bytes of a file, or of all files of a folder, whatever links they stand behind."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
