"""Edits of one clip side by side, on one page with one play bar."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flows.editing.history import edits
from flows.editing.result_folder import scores_of
from flows.places import edits_home, open_store
from retake.artifact import Artifact
from retake.errors import ConfigError, did_you_mean
from retake.formats import FrameSeries, open_series
from retake.machine.disk import explain_write_errors
from retake.recipe import digest
from retake.report import contact_sheet, edit_page, layers
from retake.report.metric_rows import Metric, companion
from retake.store import Store
from retake.video import encode

TILE, CRF, COLUMNS = (
    640,
    23,
    6,
)  # as of a report: longest side of a view in pixels, quality, frames on the contact sheet
LABEL = 40  # characters of an edit's name on the page


@dataclass(frozen=True)
class Shown:
    """An edit as the page has it. label: what tells it from the others."""

    entry: dict[str, Any]
    label: str
    frames: Artifact
    result: Artifact
    metrics: Artifact | None

    @property
    def name(self) -> str:
        return f"{self.entry['clip']}/{self.entry['edit']}"


def compare(names: Sequence[str], folder: Path | None = None) -> Path:
    """The page of some edits, by what `retake report` calls them (CLIP/ID) or by their folders.

    Raises ConfigError E212 for an edit that there is not, E264 for fewer than two, for edits of different frames, and
    for one whose result is not in the store any more."""
    known = {f"{entry['clip']}/{entry['edit']}": entry for entry in edits()}
    wanted = list(dict.fromkeys(named(name, list(known)) for name in names))
    if len(wanted) < 2:
        raise ConfigError("E264", "one edit alone cannot be compared", "Name two or more: `retake report` lists them.")
    store = open_store()
    entries = [known[name] for name in wanted]
    shown = [opened(store, entry, label) for entry, label in zip(entries, labels(entries), strict=True)]
    first = shown[0]
    for other in shown[1:]:
        if other.frames.digest != first.frames.digest:
            what = f"{first.name} and {other.name} are edits of different frames"
            raise ConfigError("E264", what, "Compare edits of one clip, with the same frames.* settings.")
    to = folder or edits_home() / first.entry["clip"] / f"compare-{digest(wanted)[:12]}"
    with explain_write_errors(to):
        to.mkdir(parents=True, exist_ok=True)
    return write(store, shown, to)


def named(name: str, known: list[str]) -> str:
    """CLIP/ID of what was typed: that, the id alone, or the path of its folder or page. Raises ConfigError E212."""
    if len(same := [one for one in known if one.rpartition("/")[2] == name]) == 1:
        return same[0]
    path = Path(name)
    place = path.parent if path.suffix == ".html" else path
    found = "/".join(place.absolute().parts[-2:])
    if found not in known:
        raise ConfigError("E212", f"there is no edit {name}", did_you_mean(name, known))
    return found


def labels(entries: Sequence[dict[str, Any]]) -> list[str]:
    """What tells every edit from the others: its method where these differ, words of its command, else its id."""
    methods = {entry["method"] for entry in entries}
    words = [set(entry["settings"]) for entry in entries]
    shared = set.intersection(*words)
    found = []
    for entry in entries:
        own = [word for word in entry["settings"] if word not in shared]
        said = " ".join([entry["method"]] * (len(methods) > 1) + own)[:LABEL]
        found.append(said or entry["method"])
    return [
        f"{label} {entry['edit'][:4]}" if found.count(label) > 1 else label
        for label, entry in zip(found, entries, strict=True)
    ]


def opened(store: Store, entry: dict[str, Any], label: str) -> Shown:
    """An edit with what the store has of it. Raises ConfigError E264."""
    recipe = json.loads((edits_home() / entry["clip"] / entry["edit"] / "recipe.json").read_text())
    records = {one["stage"]: store.find(one["stage"], one["key"]) for one in recipe["keys"]}
    made = {stage: record.artifact for stage, record in records.items() if record is not None}
    if not {"frames", "decode"} <= made.keys():
        name, until = f"{entry['clip']}/{entry['edit']}", "--until" in entry["command"]
        what = f"{name} stopped before its result" if until else f"{name} is not in the store any more"
        command = entry["command"].partition(" --until")[0]
        raise ConfigError("E264", what, f"Make it whole: {command}" if until else f"Make it again: {command}")
    return Shown(entry, label, made["frames"], made["decode"], made.get("metrics"))


def write(store: Store, shown: Sequence[Shown], folder: Path) -> Path:
    """The page with its layers and its contact sheet."""
    source: FrameSeries = open_series(store, shown[0].frames)
    size = layers.tile_size(source.width, source.height, TILE)
    names = ("source", *(one.label for one in shown))
    columns = layers.columns_for(len(names))
    sheet = contact_sheet.Sheet(names, len(source), COLUMNS)

    def mosaics() -> Iterator[np.ndarray]:
        series = [source, *(open_series(store, one.result) for one in shown)]
        for t, views in enumerate(zip(*series, strict=True)):
            tiles = [layers.resize_to(view, size) for view in views]
            sheet.add(t, tiles, source.seconds(t))
            yield layers.mosaic(tiles, size, columns)

    metrics, curves = scores(store, shown)
    here = folder.absolute()
    pages = [(one.label, Path(one.entry["report"])) for one in shown if one.entry["report"]]
    data = edit_page.ReportData(
        title=f"{len(shown)} edits",
        clip=shown[0].entry["clip"],
        fps=source.meta["fps"],
        frames=len(source),
        frame_size=(source.meta["source_width"], source.meta["source_height"]),
        tile_size=size,
        columns=columns,
        layers=names,
        show=names[-1],
        timestamps=tuple(source.times.tolist()),
        curves=curves,
        metrics=metrics,
        elsewhere=tuple(
            edit_page.Link(f"report of {label}", os.path.relpath(page.absolute(), here)) for label, page in pages
        ),
        command=shlex.join(["retake", "compare", *(one.name for one in shown)]),
    )
    encode(folder / "layers.mp4", mosaics(), source.meta["fps"], crf=CRF, keyint=8, preset="veryfast")
    (folder / "contact_sheet.png").write_bytes(contact_sheet.png(sheet.image()))
    return edit_page.build(folder, data, folder / "layers.mp4", contact_sheet=True)


def scores(store: Store, shown: Sequence[Shown]) -> tuple[tuple[Metric, ...], dict[str, list[float | None]]]:
    """Every metric of the results, an edit a row, and their curves."""
    rows: dict[str, list[Metric]] = {}
    curves: dict[str, list[float | None]] = {}
    for one in shown:
        found, by_frame = scores_of(store, one.metrics)
        for metric in found:
            if companion(metric.name)[1]:  # of the source: the same for all
                continue
            name = f"{metric.name}_{one.label}"
            about = metric.description if metric.name not in rows else ""  # once is enough
            rows.setdefault(metric.name, []).append(replace(metric, name=name, group=metric.name, description=about))
            if metric.name in by_frame:
                curves[name] = by_frame[metric.name]
    return tuple(metric for some in rows.values() for metric in some), curves
