"""What an edit knows of its clip, as files for other tools: the work behind `retake export`.

    JPEGImages/480p/NAME/00000.png     frames, at working size (a DAVIS tree, though PNG: nothing is lost)
    Annotations/480p/NAME/00000.png    masks, palette PNGs whose values are the objects' ids
    region/00000.png                   where the edit happens, value 1
    flow/forward/00000.flo, backward/  motion of frame t into t+1 on the grid of t, and back on the grid of t+1
    depth/00000.png                    relative inverse depth, 16 bits times the step that the manifest states
    tracks.npz, edited_tracks.npz      xy, visible, ids, size (retake/exchange/tracks.py)
    result/00000.png                   the edited clip at the source's size
    manifest.json, SHA256SUMS          what this is and what made it; what `sha256sum -c` reads

A folder appears whole or not at all, and takes the place of nothing but an export of the same clip that nobody touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flows import graph
from flows.places import edits_home, open_store
from flows.runners import Local
from flows.settings.compose import Settings, compose, settings, validate
from retake.artifact import Artifact
from retake.clip import Clip, open_clip
from retake.errors import ConfigError, did_you_mean
from retake.exchange import depth as depth_files
from retake.exchange import flow as flow_files
from retake.exchange import manifest
from retake.exchange import masks as mask_files
from retake.exchange import tracks as track_files
from retake.exchange.atomic_folder import atomic_folder, list_files, why_not_replaceable
from retake.formats import open_series
from retake.machine.disk import require_writable
from retake.recipe import digest
from retake.store import Store
from retake.video import write_png

STAGE = {
    "frames": "frames",
    "flow": "optical_flow",
    "depth": "depth",
    "masks": "masks",
    "region": "region",
    "tracks": "tracks",
    "edited_tracks": "edited_tracks",
    "result": "decode",
}
FLOW = {"flo": flow_files.write_flo, "kitti": flow_files.write_kitti, "npz": flow_files.write_npz}
DEPTH = {"png16": depth_files.write_png, "exr": depth_files.write_exr, "npy": depth_files.write_npy}
TRACKS = {"npz": track_files.write_npz, "json": track_files.write_json}
ENDING = {"flo": "flo", "kitti": "png", "npz": "npz", "png16": "png", "exr": "exr", "npy": "npy", "json": "json"}
MOST_PLACES = {"npz": 1 << 29, "json": 1 << 23}  # frames times points: 4.5 GiB, and what JSON is read back from
VERSION = 2


@dataclass(frozen=True)
class Formats:
    """How each thing is written. Raises ConfigError E253 for a format that there is none of."""

    flow: str = "flo"
    depth: str = "png16"
    tracks: str = "npz"

    def __post_init__(self) -> None:
        for what, known in (("flow", FLOW), ("depth", DEPTH), ("tracks", TRACKS)):
            if (chosen := getattr(self, what)) not in known:
                raise ConfigError("E253", f"{what} has no format {chosen!r}", did_you_mean(chosen, list(known)))


@dataclass(frozen=True)
class Writing:
    """What a writer of one thing gets: its reader, the export's folder, the clip's name, the formats."""

    series: Any
    folder: Path
    name: str
    formats: Formats

    def into(self, folder: str) -> Path:
        """A folder of the export, made."""
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        return self.folder / folder


def export(
    clip_or_edit: str,
    what: Sequence[str],
    out: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    formats: Formats | None = None,
    runner: Local | None = None,
) -> dict[str, str | int]:
    """Write things of a clip, or of an edit that was handed out (its folder, or CLIP/ID), to a folder.

    `what`: names of STAGE. `overrides`: settings as of `retake edit`, for a clip only. `out`: the folder, by default
    one of its own beside the clip's edits. The graph runs as far as needed; what is in the store is taken from there.
    Returns the folder, its manifest, the number of files, their bytes, and the place of each thing, by name.

    Raises ConfigError E253 (nothing of that name), E254 (the folder holds what an export did not write, or would
    lose), E255 (an edit that cannot be read, was given settings, or is a comparison of two clips), E256 (too many
    tracks for one file), and what the stages raise.
    """
    formats = formats or Formats()
    what = tuple(dict.fromkeys(what))
    for name in what:
        if name not in STAGE:
            raise ConfigError("E253", f"there is nothing called {name!r} to export", did_you_mean(name, list(STAGE)))
    if not what:
        raise ConfigError("E253", "nothing was named to export", f"Name some of {', '.join(STAGE)}.")
    clip, p = opened(clip_or_edit, overrides)
    runner = runner or Local(open_store())
    wanted = out.expanduser().resolve() if out else None
    if wanted is not None:
        require_replaceable(wanted, clip.name, what)  # before anything runs
    require_writable(wanted.parent if wanted else edits_home() / clip.name)  # it appears whole, by its name

    def build() -> dict[str, str | int]:
        made = made_for(runner, clip, p, [STAGE[name] for name in what])
        artifacts = {name: made[STAGE[name]] for name in what}
        ingredients = {"artifacts": {name: a.digest for name, a in artifacts.items()}, "formats": asdict(formats)}
        folder = wanted or edits_home() / clip.name / f"export-{digest([VERSION, clip.name, ingredients])[:12]}"
        stages = [{"stage": o.stage, "key": o.key} for o in runner.outcomes]  # corrections repeat a stage
        ingredients |= about(clip, p, made, what) | {"stages": stages}
        return written(runner.store, folder, clip.name, artifacts, formats, ingredients)

    return runner.healed(build)


def opened(clip_or_edit: str, overrides: Sequence[str]) -> tuple[Clip, Settings]:
    """The clip and its settings. Of an edit's folder, those that its recipe states."""
    for folder in (Path(clip_or_edit).expanduser(), edits_home() / clip_or_edit):
        if not (folder / "recipe.json").is_file():
            continue
        if overrides:
            raise ConfigError("E255", f"{folder} is an edit and has its settings", "Give the clip to choose others.")
        try:
            recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
            spec, method, chosen = str(recipe["clip"]), recipe["method"], dict(recipe["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError("E255", f"{folder}/recipe.json cannot be read: {error}", "Give the clip.") from error
        if method == "comparison":  # its settings would make an edit that nobody asked for
            raise ConfigError("E255", f"{folder} compares two clips and is not an edit", f"Give the clip: {spec}")
        return open_clip(spec), validate({**compose([]), **chosen})
    clip = open_clip(clip_or_edit)
    return clip, settings(list(overrides), clip.spec)


def made_for(run: graph.Runner, clip: Clip, p: Settings, stages: Sequence[str]) -> dict[str, Any]:
    """The graph as far as these stages need it, without a report."""
    need = set().union(*(graph.closure(p, stage) for stage in stages))
    for error in graph.config_errors(p, need):
        raise error
    graph.check_own(p, clip, need)
    run.require(graph.weights_needed([(p, need)]))
    made = graph.edit_graph(run, clip, p, "decode" if "decode" in need else "frames")
    graph.check(p, made["frames"], need)
    graph.make_priors(run, p, made, need - made.keys(), clip)
    return made


def about(clip: Clip, p: Settings, made: Mapping[str, Artifact], what: Sequence[str]) -> dict[str, Any]:
    """What the manifest says of the clip and the settings."""
    frames = made["frames"].meta
    series = {name: p.as_json()[name] for name in made if hasattr(p, name)}
    return {
        "version": VERSION,
        "clip": clip.spec,
        "name": clip.name,
        "what": list(what),
        "frames": frames["count"],
        "size": [frames["width"], frames["height"]],
        "source_size": [frames["source_width"], frames["source_height"]],
        "fps": frames["fps"],
        "variable": frames["variable"],
        "pixels": "(0, 0) is the centre of the first pixel, x right, y down; between sizes (x + 0.5) * s - 0.5",
        "settings": series,
        "notes": sorted({note for artifact in made.values() for note in artifact.meta.get("notes", ())}),
    }


# ---- one thing each: writes it, and returns where it lies and how it is to be read --------------------------------


def write_frames(w: Writing) -> dict[str, Any]:
    place = f"JPEGImages/480p/{w.name}"
    return {"folder": place, "seconds": w.series.times.tolist(), **pictures(w.into(place), w.series)}


def write_result(w: Writing) -> dict[str, Any]:
    size = [w.series.width, w.series.height]
    return {"folder": "result", "size": size, **pictures(w.into("result"), w.series)}


def pictures(folder: Path, frames: Iterable[np.ndarray]) -> dict[str, Any]:
    for t, rgb in enumerate(frames):
        write_png(folder / f"{t:05d}.png", rgb)
    return {"format": "PNG, RGB of 8 bits"}


def write_masks(w: Writing) -> dict[str, Any]:
    folder, series = f"Annotations/480p/{w.name}", w.series
    place, shape = w.into(folder), (series.height, series.width)
    hidden = 0
    for t in range(len(series)):
        objects = [(i, series.object(t, i)) for i in series.ids]
        index = mask_files.index_image(objects, shape)
        hidden += sum(bool((mask & (index != i)).any()) for i, mask in objects)
        mask_files.write_index_png(place / f"{t:05d}.png", index)
    how = "palette PNG (DAVIS); the value is the object's id, 0 none; where objects overlap the higher id stands"
    return {"folder": folder, "format": how, "ids": list(series.ids), "masks_partly_covered": hidden}


def write_region(w: Writing) -> dict[str, Any]:
    place = w.into("region")
    for t in range(len(w.series)):
        mask_files.write_index_png(place / f"{t:05d}.png", w.series[t].astype(np.uint8))
    return {"folder": "region", "format": "palette PNG, 1 inside"}


def write_flow(w: Writing) -> dict[str, Any]:
    kind, series = w.formats.flow, w.series
    write: Callable[..., None] = FLOW[kind]
    together = kind == "npz"
    forward, backward = (w.into("flow" if together else f"flow/{way}") for way in ("forward", "backward"))
    for t in range(len(series)):
        name = f"{t:05d}.{ENDING[kind]}"
        if together:
            write(forward / name, series.forward(t), series.backward(t))
        else:
            write(forward / name, series.forward(t))
            write(backward / name, series.backward(t))
    precision = "to 1/64 px, from -512 to 511.98 px" if kind == "kitti" else "as stored, float16 in float32"
    return {"folder": "flow", "format": kind, "precision": precision, "convention": series.meta["convention"]}


def write_depth(w: Writing) -> dict[str, Any]:
    kind, series, place = w.formats.depth, w.series, w.into("depth")
    for t in range(len(series)):
        DEPTH[kind](place / f"{t:05d}.{ENDING[kind]}", series[t])
    scale = {"step": depth_files.STEP} if kind == "png16" else {}
    return {"folder": "depth", "format": kind, **scale, "convention": series.meta["convention"]}


def write_tracks(w: Writing, name: str = "tracks") -> dict[str, Any]:
    kind, tracks = w.formats.tracks, track_files.from_series(w.series)
    points, most = len(tracks.ids), MOST_PLACES[kind]
    if tracks.count * points > most or points > track_files.MAX_POINTS:
        raise ConfigError(
            "E256",
            f"{points} tracks over {tracks.count} frames are too many for one {kind} file",
            "Fewer: tracks.reseed=0, a wider tracks.spacing, fewer frames" + (", or npz." if kind == "json" else "."),
        )
    TRACKS[kind](w.folder / f"{name}.{kind}", tracks)
    return {"file": f"{name}.{kind}", "format": kind, "points": points}


WRITERS: dict[str, Callable[[Writing], dict[str, Any]]] = {
    "frames": write_frames,
    "flow": write_flow,
    "depth": write_depth,
    "masks": write_masks,
    "region": write_region,
    "tracks": write_tracks,
    "edited_tracks": partial(write_tracks, name="edited_tracks"),
    "result": write_result,
}


# ---- the folder --------------------------------------------------------------------------------------------------


def written(
    store: Store, folder: Path, name: str, artifacts: Mapping[str, Artifact], formats: Formats, facts: Mapping[str, Any]
) -> dict[str, str | int]:
    """Write everything, the manifest last; returns what `export` does."""
    with store.lock(digest(["folder", str(folder)])):
        require_replaceable(folder, name, list(artifacts))
        with atomic_folder(folder) as part:
            parts = {
                thing: WRITERS[thing](Writing(open_series(store, artifact), part, name, formats))
                for thing, artifact in artifacts.items()
            }
            manifest.write(part, {**facts, "parts": parts})
        files = list_files(folder)
        size = sum((folder / file).stat().st_size for file in files)
    places = {thing: str(folder / (entry.get("folder") or entry["file"])) for thing, entry in parts.items()}
    return {
        "folder": str(folder),
        "manifest": str(folder / manifest.NAME),
        "files": len(files),
        "bytes": size,
        **places,
    }


def require_replaceable(folder: Path, name: str, what: Sequence[str]) -> None:
    """Raises ConfigError E254 unless the folder is not there, is empty, or holds an export of this clip that has no
    more things than the new one, and whose files nobody added to or changed."""
    if why := manifest.why_not_same_export(folder, name, what) or why_not_replaceable(folder):
        raise ConfigError("E254", f"{folder} is kept as it is: {why}", "Write elsewhere: --out FOLDER, or move it.")
