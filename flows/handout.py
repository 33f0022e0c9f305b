"""What a person gets: artifacts/edits/<clip>/<id> with the video, the report page, the metrics and the recipe.

Everything is a verified copy out of the store; editing it harms nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.config import Settings
from retake.artifact import Artifact
from retake.clip import Clip
from retake.recipe import digest, installed, keyed_params
from retake.stage import Outcome
from retake.store import Store, writing_explained

NOT_OF_AN_EDIT = {"dataset", "report"}
SHOWN_VERSIONS = ("retake", "av", "decord", "numpy", "opencv-python-headless", "torch", "torchvision", "torchmetrics")


def edit_id(store: Store, clip: Clip, p: Settings) -> str:
    """Twelve hex digits that stand for this clip's content and these settings, known before anything runs."""
    groups = [g for g in Settings.__dataclass_fields__ if g not in NOT_OF_AN_EDIT]
    return digest([clip.digest(store), {g: keyed_params(getattr(p, g), store.source_digest) for g in groups}])[:12]


def hand_out(
    store: Store,
    clip: Clip,
    p: Settings,
    made: Mapping[str, Artifact],
    outcomes: Sequence[Outcome],
    folder: Path,
    command: str,
) -> dict[str, str]:
    """Write the folder of one edit; returns its outputs by name, as paths. Raises DamagedError before it would copy
    anything that is not what was stored."""
    with writing_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    outputs: dict[str, str] = {}
    recipe = {
        "clip": clip.spec,
        "command": command,
        "settings": p.as_json(),
        "keys": {o.stage: o.key for o in outcomes},
    }
    if "decode" in made:
        view = folder / "result.mp4"
        store.copy_out(made["decode"]["result.mp4"], view)
        if p.decode.recipe_tag:
            from retake.video import tag

            tag(view, json.dumps({"retake": recipe}, sort_keys=True, ensure_ascii=False))
        outputs["video"] = str(view)
    if "metrics" in made:
        for name in ("metrics.json", "metrics.tsv"):
            store.copy_out(made["metrics"][name], folder / name)
        outputs["metrics"] = str(folder / "metrics.json")
    if "report" in made:
        outputs["report"] = str(write_page(store, clip, p, made, outcomes, folder, command))
    write_text(folder / "recipe.json", json.dumps(recipe, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return outputs


def write_page(
    store: Store,
    clip: Clip,
    p: Settings,
    made: Mapping[str, Artifact],
    outcomes: Sequence[Outcome],
    folder: Path,
    command: str = "",
) -> Path:
    """report.html with what the metrics and the stages say, beside its contact sheet and, when large, its layers."""
    from retake.formats import FrameSeries
    from retake.report import page

    layers, frames = made["report"], made["frames"]
    series = FrameSeries(store, frames)
    summary, curves = scores_of(store, made.get("metrics"))
    files = [("result.mp4", "the result, H.264"), ("metrics.json", "metrics"), ("metrics.tsv", "metrics by frame")]
    data = page.ReportData(
        title=str(getattr(p.edit, "name", "")) if "edit" in made else "priors",
        clip=clip.name,
        fps=frames.meta["fps"],
        frames=frames.meta["count"],
        frame_size=(frames.meta["source_width"], frames.meta["source_height"]),
        tile_size=tuple(layers.meta["tile_size"]),
        columns=layers.meta["columns"],
        layers=tuple(layers.meta["layers"]),
        timestamps=tuple(series.times.tolist()),
        curves=curves,
        metrics=summary,
        stages=tuple(page.StageRow(o.stage, o.status, o.recorded_seconds, o.artifact.bytes, o.key) for o in outcomes),
        recipe={"clip": clip.spec, **{g: v for g, v in p.as_json().items() if g not in NOT_OF_AN_EDIT}},
        versions=installed(*SHOWN_VERSIONS),
        notices=tuple(note for artifact in made.values() for note in artifact.meta.get("notes", ())),
        links=tuple(page.Link(text, name) for name, text in files if (folder / name).exists()),
        flow_max_px=layers.meta["flow_max_px"],
        wheel=store.read(layers["wheel.png"]) if "wheel.png" in layers else None,
        command=command,
    )
    store.copy_out(layers["contact_sheet.png"], folder / "contact_sheet.png")
    store.copy_out(layers["layers.mp4"], folder / "layers.mp4")
    return page.build(folder, data, folder / "layers.mp4", contact_sheet=True)


def scores_of(store: Store, metrics: Artifact | None) -> tuple[tuple[Any, ...], dict[str, list[float | None]]]:
    """Summary rows and per-frame curves of a metrics artifact."""
    if metrics is None:
        return (), {}
    from retake.metrics.summary import DESCRIPTIONS
    from retake.report.page import Metric

    values = json.loads(store.read(metrics["metrics.json"]))
    rows = []
    for name, value in values.items():
        text, direction = DESCRIPTIONS.get(name, ("", ""))
        better = {"higher": True, "lower": False}.get(direction)
        rows.append(Metric(name, value, text, better))
    header, *lines = store.read(metrics["metrics.tsv"]).decode().splitlines()
    columns = header.split("\t")
    table = [line.split("\t") for line in lines]
    curves = {
        name: [float(row[k]) if row[k] else None for row in table] for k, name in enumerate(columns) if name != "frame"
    }
    return tuple(rows), curves


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with writing_explained(path.parent):
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
