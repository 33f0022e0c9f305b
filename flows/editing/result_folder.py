"""What a person gets: artifacts/edits/<clip>/<id> with the video, the report page, the metrics and the recipe.

Everything is a verified copy out of the store; editing it harms nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.settings.compose import Settings
from flows.settings.files import chosen_by_default
from retake.artifact import Artifact
from retake.clip import Clip
from retake.machine.disk import explain_write_errors, write_atomic
from retake.params import keyed_params, models_in
from retake.recipe import digest, installed
from retake.stage import Outcome
from retake.store import Store

NOT_OF_AN_EDIT = {"dataset", "report"}
SHOWN_VERSIONS = ("retake", "av", "decord", "numpy", "opencv-python-headless", "torch", "torchvision", "torchmetrics")


def edit_id(store: Store, clip: Clip, p: Settings) -> str:
    """Twelve hex digits that stand for this clip's content and these settings, known before anything runs."""
    groups = [g for g in Settings.__dataclass_fields__ if g not in NOT_OF_AN_EDIT]
    return digest([clip.digest(store), {g: keyed_params(getattr(p, g), store.source_digest) for g in groups}])[:12]


@dataclass(frozen=True)
class Finished:
    """One edit, as far as it was made."""

    name: str
    """What tells it from other edits of the clip: its id, or its name in the dataset."""
    clip: Clip
    settings: Settings
    made: Mapping[str, Artifact]
    outcomes: Sequence[Outcome]
    command: str = ""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Files outside of its folder that the page links: a text for people, by path relative to the page."""
    gallery: str = ""
    """Path of the page that this one is a part of, relative to it."""

    @property
    def method(self) -> str:
        """Name of the editing method; "comparison" of a result that somebody else made; where the edit stopped
        before it, the last stage that was made."""
        if "edit" in self.made:
            return str(self.settings.edit.name)
        if "metrics" in self.made:
            return "comparison"
        return [stage for stage in self.made if stage != "report"][-1]

    @property
    def title(self) -> str:
        """The method, the name, and the settings of the method that are not its defaults."""
        edit = self.settings.edit
        shown = [self.method, self.name]
        for key, info in type(edit).model_fields.items() if "edit" in self.made else ():
            value = getattr(edit, key)
            if value != info.get_default() and not isinstance(value, dict):
                if models := models_in(value):
                    value = " and ".join(written(one) for one in models)
                shown.append(f"{key}={Path(value).name if isinstance(value, str) else value}")
        return " · ".join(shown)

    def recipe(self) -> dict[str, Any]:
        """What made it, as plain JSON."""
        settings = {g: v for g, v in self.settings.as_json().items() if g != "dataset"}
        keys = [{"stage": o.stage, "key": o.key} for o in self.outcomes]  # corrections repeat a stage
        about = {"clip": self.clip.spec, "method": self.method, "command": self.command}
        return {**about, "settings": settings, "keys": keys}


def written(model: BaseModel) -> str:
    """What was said of a model within a setting, as it is written there."""
    said = model.model_dump(mode="json", exclude_unset=True)
    return "{" + ", ".join(f"{key}: {value}" for key, value in said.items()) + "}"


def hand_out(store: Store, edit: Finished, folder: Path) -> dict[str, str]:
    """Write the folder of one edit; returns its outputs by name, as paths. One process at a time writes a folder.
    Raises DamagedError before it would copy anything that is not what was stored."""
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    outputs: dict[str, str] = {}
    with store.lock(digest(["folder", str(folder.absolute())])):
        recipe = edit.recipe()
        text = json.dumps(recipe, indent=1, sort_keys=True, ensure_ascii=False)
        write_atomic(folder / "recipe.json", text + "\n")
        if "decode" in edit.made:
            view = folder / "result.mp4"
            store.copy_out(edit.made["decode"]["result.mp4"], view)
            if edit.settings.decode.recipe_tag:
                from retake.video import set_comment

                set_comment(view, json.dumps({"retake": recipe}, sort_keys=True, ensure_ascii=False))
            outputs["video"] = str(view)
            if masters := copy_masters(store, edit.made["decode"], folder):
                outputs["master"] = masters
        if "metrics" in edit.made:
            for name in ("metrics.json", "metrics.tsv"):
                store.copy_out(edit.made["metrics"][name], folder / name)
            outputs["metrics"] = str(folder / "metrics.json")
        if "report" in edit.made:
            outputs["report"] = str(write_page(store, edit, folder))
    return outputs


def copy_masters(store: Store, result: Artifact, folder: Path) -> str:
    """Copy what `decode.codec` made beside the view: master.mov and the like, or a folder of pictures. Returns the
    path, "" where there is none."""
    made = ""
    for file in result.files:
        if file.name.startswith("master-"):
            made, target = str(folder / "master"), folder / "master" / file.name.removeprefix("master-")
        elif file.name.startswith("master."):
            made, target = str(folder / file.name), folder / file.name
        else:
            continue
        target.parent.mkdir(exist_ok=True)
        store.copy_out(file, target)
    return made


def write_page(store: Store, edit: Finished, folder: Path) -> Path:
    """report.html with what the metrics and the stages say, beside its contact sheet and, when large, its layers."""
    from retake.formats import FrameSeries
    from retake.report import edit_page

    made = edit.made
    layers, frames = made["report"], made["frames"]
    series = FrameSeries(store, frames)
    summary, curves = scores_of(store, made.get("metrics"))
    files = {"result.mp4": "the result, H.264", "metrics.json": "metrics", "metrics.tsv": "metrics by frame"}
    files |= dict.fromkeys(("master.mp4", "master.mov", "master.mkv", "master"), "the master")
    files["recipe.json"] = "recipe and keys"
    there = {name: text for name, text in files.items() if (folder / name).exists()}
    shown = settings_that_counted(edit)
    rows = [edit_page.StageRow(o.stage, o.status, o.recorded_seconds, o.artifact.bytes, o.key) for o in edit.outcomes]
    data = edit_page.ReportData(
        title=edit.title,
        clip=edit.clip.name,
        fps=frames.meta["fps"],
        frames=frames.meta["count"],
        frame_size=(frames.meta["source_width"], frames.meta["source_height"]),
        tile_size=tuple(layers.meta["tile_size"]),
        columns=layers.meta["columns"],
        layers=tuple(layers.meta["layers"]),
        show=shown_first(made, layers.meta["layers"]),
        timestamps=tuple(series.times.tolist()),
        curves=curves,
        metrics=summary,
        stages=tuple(rows),
        recipe={"clip": edit.clip.spec, **shown},
        changed=frozenset({"clip", *changed_settings(edit, shown)}),
        versions=installed(*SHOWN_VERSIONS),
        health=tuple(health_rows(layers.meta.get("health", {}))),
        notices=tuple(note for artifact in made.values() for note in artifact.meta.get("notes", ())),
        links=tuple(edit_page.Link(text, name) for name, text in there.items()),
        elsewhere=tuple(edit_page.Link(text, path) for path, text in edit.elsewhere.items()),
        gallery=edit.gallery,
        flow_max_px=layers.meta["flow_max_px"],
        wheel=store.read(layers["wheel.png"]) if "wheel.png" in layers else None,
        depth_bar=store.read(layers["depth.png"]) if "depth.png" in layers else None,
        command=edit.command,
    )
    store.copy_out(layers["contact_sheet.png"], folder / "contact_sheet.png")
    store.copy_out(layers["layers.mp4"], folder / "layers.mp4")
    return edit_page.build(folder, data, folder / "layers.mp4", contact_sheet=True)


def health_rows(health: Mapping[str, Any]) -> Iterator[Any]:
    """What the page says of every object's masks."""
    from retake.health.verdict import WORDS, reasons_of
    from retake.report.edit_page import Health

    for identity, found in health.items():
        name = "The mask" if len(health) == 1 else f"The mask of object {identity}"
        spans = tuple((first, last) for first, last in found["frames"])
        yield Health(name, found["verdict"], WORDS[found["verdict"]], reasons_of(found), spans)


def shown_first(made: Mapping[str, Artifact], layers: Sequence[str]) -> str:
    """The layer that a person came for: the result, else that of the prior at which the edit stopped."""
    named = {"optical_flow": "flow", "depth": "depth", "masks": "mask", "region": "region", "tracks": "tracks"}
    named["edited_tracks"] = "edited tracks"
    last = [named[stage] for stage in made if stage in named]
    wanted = "result" if "result" in layers else last[-1] if last else "source"
    return wanted if wanted in layers else "mask"  # a region that is the union of the masks has no layer of its own


def settings_that_counted(edit: Finished) -> dict[str, Any]:
    """Settings of the stages that were made, and of the metrics that were asked for."""
    made = {*edit.made, *(["model"] if "latents" in edit.made else [])}
    groups = {g: v for g, v in edit.settings.as_json().items() if g in made and g not in NOT_OF_AN_EDIT}
    if metrics := groups.get("metrics"):
        groups["metrics"] = {k: v for k, v in metrics.items() if k in metrics["names"] or not isinstance(v, dict)}
    return groups


def scores_of(store: Store, metrics: Artifact | None) -> tuple[tuple[Any, ...], dict[str, list[float | None]]]:
    """Summary rows and per-frame curves of a metrics artifact."""
    if metrics is None:
        return (), {}
    from retake.lookup import lookup
    from retake.report.edit_page import Metric

    meta = metrics.meta
    values = json.loads(store.read(metrics["metrics.json"]))
    described = {group: lookup("metrics", group).DESCRIPTIONS for group in meta["names"]}
    known = {name: (group, *what) for group, values_of in described.items() for name, what in values_of.items()}
    rows = []
    for name in [*(n for n in known if n in values), *(n for n in values if n not in known)]:
        group, text, direction = known.get(name, ("", "", ""))
        better = {"higher": True, "lower": False}.get(direction)
        network, reason = meta.get("networks", {}).get(name, ""), meta.get("reasons", {}).get(name, "")
        rows.append(Metric(name, values[name], text, better, group=group, network=network, reason=reason))
    header, *lines = store.read(metrics["metrics.tsv"]).decode().splitlines()
    columns = header.split("\t")
    table = [line.split("\t") for line in lines]
    curves = {
        name: [float(row[k]) if row[k] else None for row in table] for k, name in enumerate(columns) if name != "frame"
    }
    return tuple(rows), curves


def scores_by_name(store: Store, metrics: Artifact) -> dict[str, float | None]:
    """The summary values of a metrics artifact."""
    return json.loads(store.read(metrics["metrics.json"]))


def changed_settings(edit: Finished, groups: Mapping[str, Any]) -> Iterator[str]:
    """Of the settings of some groups those that are not their choice's defaults, and the names of choices that are not
    the default ones, as group.key."""
    for group in groups:
        params = getattr(edit.settings, group)
        for key, info in type(params).model_fields.items():
            by_default = info.get_default(call_default_factory=True)
            if key == "name":
                by_default = chosen_by_default().get(group, by_default)
            if getattr(params, key) != by_default:
                yield f"{group}.{key}"
