"""An evaluation: methods and variants of them (arms), side by side over pairs of a clip and what is to be edited in it.

    retake evaluate moca evaluation.first=12 evaluation.seeds=[0,1,2] evaluation.only=[sdedit,recommended]

Pairs stand in a manifest (pairs.py), arms in params/evaluation/. Whatever two arms share, the store makes once. A pair
that fails is reported and left out; the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from flows import graph
from flows.datasets.manifest import Row
from flows.experiments import pair_scores
from flows.experiments.pairs import read_pairs
from flows.places import CODE, OUTS, PROJECT
from flows.runners import Local
from flows.settings.compose import Settings, compose, for_clip, lay, validate
from flows.settings.explain import checked_model
from flows.settings.files import choices
from flows.settings.overrides import Override, read
from flows.terminal.console import Console
from retake.artifact import Artifact
from retake.clip import Clip, SpriteClip, open_clip
from retake.errors import ConfigError, MachineError, RetakeError, did_you_mean
from retake.formats import open_series
from retake.lookup import lookup
from retake.machine.disk import explain_write_errors, require_writable, write_atomic
from retake.metrics.common.crop import whole
from retake.metrics.common.likeness import ClipParams, load_clips
from retake.metrics.common.sample import ImagesAndTexts
from retake.metrics.summary import DESCRIPTIONS, write_tsv
from retake.recipe import digest
from retake.report import evaluation_page, intervals
from retake.report.contact_sheet import Sheet, letterboxed, png
from retake.store import Store
from retake.synthetic.world import World
from retake.video import read_image, resize

HOME = OUTS / "evaluations"
OURS = {
    "mask_iou": ("overlap of the region that the masks give with the first sprite's true mask", "higher"),
    **pair_scores.DESCRIPTIONS,
}
SHOWN = 160  # px, side of a picture on the sheet
SOURCE, REFERENCE = "source", "reference"  # its first rows; of a pair of the sprite world the reference is its target


class Evaluation(BaseModel, frozen=True, extra="forbid"):
    """What is compared, on what, by what."""

    pairs: str = Field(description="manifest of pairs, CSV; from here, else from the project, else a shipped one")
    first: int | None = Field(None, ge=1, description="only so many pairs, from the top")
    categories: tuple[str, ...] = Field((), description="only pairs of these; empty: all")
    settings: tuple[str, ...] = Field((), description="settings of every variant, as they are typed")
    arms: dict[str, tuple[str, ...]] = Field(description="name -> settings of that variant alone", min_length=1)
    only: tuple[str, ...] = Field((), description="only these variants; empty: all")
    seeds: tuple[int, ...] = Field((0,), description="of the edit's noise; values are means over them", min_length=1)
    values: tuple[str, ...] = Field(
        description="values in the table; those of metrics, mask_iou, and of pairs those of pair_scores.py",
        min_length=1,
    )
    against: str | None = Field(None, description="variant that the others are compared with, pair by pair")


@dataclass(frozen=True)
class Job:
    """One arm on one pair with one seed."""

    pair: Row
    arm: str
    seed: int
    settings: Settings


@dataclass
class Found:
    """What came of the jobs: values by (pair, arm, seed), middle frames by (pair, arm), what failed."""

    values: dict[tuple[str, str, int], dict[str, float | None]] = field(default_factory=dict)
    pictures: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    failed: list[dict[str, str]] = field(default_factory=list)


def evaluate(runner: Local, console: Console, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Run an evaluation and write its folder; what `retake evaluate NAME --json` prints.

    Raises ConfigError E296 (an evaluation, arm or value that there is not), E297 (a manifest), MachineError E302
    (weights of an arm), and what `lay` raises, before anything runs. An interrupted one leaves the table
    of what was done.
    """
    evaluation, pairs, jobs = prepared(name, overrides)
    arms = [arm for arm in evaluation.arms if any(job.arm == arm for job in jobs)]
    firsts = [next(job.settings for job in jobs if job.arm == arm) for arm in arms]
    runner.require(graph.weights_needed((p, graph.closure(p, "metrics")) for p in firsts))
    clip = clip_of(runner, firsts[0].metrics.clip_score) if "likeness_target" in evaluation.values else None
    if evaluation.against is None:
        console.say("note: no differences are taken; evaluation.against=NAME says to which variant")
    found = Found()
    # What was typed is part of the name: a quick look must not replace the table of a long run.
    folder = HOME / (f"{name}-{digest(list(overrides))[:8]}" if overrides else name)
    require_writable(folder)
    done: dict[str, Any] = {"evaluation": name, "overrides": list(overrides), "pairs": len(pairs)}
    try:
        for n, job in enumerate(jobs):
            console.say(f"\n{n + 1}/{len(jobs)}  {job.pair.id} × {job.arm} × seed {job.seed}")
            run_job(runner, job, found, console, clip)
    finally:
        among = {pair.id: pair.category for pair in pairs}
        done["table"] = intervals.table(found.values, among, arms, evaluation.values, evaluation.against)
        done["failed"] = found.failed
        with explain_write_errors(folder):
            done["outputs"] = write_folder(folder, done, found, pairs, arms, evaluation)
    return done


def prepared(name: str, overrides: Sequence[str]) -> tuple[Evaluation, list[Row], list[Job]]:
    """The evaluation, its pairs and all jobs, pair by pair: an arm without a seed has one. Everything is validated."""
    own = [text for text in overrides if text.startswith("evaluation.")]
    common = [text for text in overrides if text not in own]
    known = choices("evaluation")
    if name not in known:
        raise ConfigError("E296", f"there is no evaluation {name!r}", did_you_mean(name, known))
    for text in own:
        if (key := text.partition("=")[0].split(".")[1]) not in Evaluation.model_fields:
            raise ConfigError("E205", f"unknown key evaluation.{key}", did_you_mean(key, list(Evaluation.model_fields)))
    evaluation = checked_model("evaluation", Evaluation, compose([f"+evaluation={name}", *own])["evaluation"])
    arms = chosen("evaluation.only", evaluation.only, tuple(evaluation.arms))
    if evaluation.against:
        chosen("evaluation.against", (evaluation.against,), tuple(evaluation.arms))
        if evaluation.against not in arms:
            evaluation = evaluation.model_copy(update={"against": None})
    pairs = read_pairs(manifest_of(evaluation.pairs))
    wanted = chosen("evaluation.categories", evaluation.categories, tuple(dict.fromkeys(p.category for p in pairs)))
    pairs = [pair for pair in pairs if pair.category in wanted][: evaluation.first]
    bases = {arm: base_of(evaluation, arm, common) for arm in evaluation.arms}
    typed = {text.partition("=")[0] for text in common}
    columns = {key for pair in pairs for key in pair.settings}
    for key in sorted(typed | columns):
        if key == "edit.seed":
            raise ConfigError("E296", "edit.seed is set by the evaluation", "Write evaluation.seeds=[0,1,2].")
        if (key in columns or key.startswith("edit.")) and not any(takes(base, key) for base in bases.values()):
            raise ConfigError("E205", f"no variant has the setting {key}", "A setting has a full name: edit.reference")
    names = {metric for base in bases.values() for metric in base["metrics"]["names"]}
    known = [value for metric in sorted(names) for value in lookup("metrics", metric).DESCRIPTIONS]
    chosen("evaluation.values", evaluation.values, (*known, *OURS))
    jobs = []
    for pair in pairs:
        for arm in arms:
            base, of_arm = bases[arm], {text.partition("=")[0] for text in evaluation.arms[arm]}
            settings = {k: v for k, v in pair.settings.items() if takes(base, k) and k not in of_arm}
            for seed in evaluation.seeds if takes(base, "edit.seed") else evaluation.seeds[:1]:
                try:
                    p = for_clip(validate(of_pair(base, pair, settings, seed)), pair.clip)
                    jobs.append(Job(pair, arm, seed, p))
                except ConfigError as error:
                    where = f"the pair {pair.id}, variant {arm}: {error.message}"
                    raise ConfigError(error.code, where, error.hint) from error
    return evaluation, pairs, jobs


def manifest_of(path: str) -> Path:
    """Where the manifest lies: as it is typed, else from the project, else among the shipped ones."""
    here = Path(path).expanduser() if path.startswith(("~/", "/")) else Path(path)
    return next((path for path in (here, PROJECT / here) if path.exists()), CODE / here)


def chosen(place: str, asked: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Those asked for, or all. Raises ConfigError E296 for one that there is not."""
    if strange := [one for one in asked if one not in known]:
        raise ConfigError("E296", f"{place} names {strange[0]!r}", did_you_mean(strange[0], list(known)))
    return tuple(asked) or tuple(known)


def base_of(evaluation: Evaluation, arm: str, common: Sequence[str]) -> dict[str, Any]:
    """Settings of an arm: those of every arm, then those typed beside, then its own. What was typed for a
    method is given to the arms that have it."""
    plain = lay(last_of([*evaluation.settings, *evaluation.arms[arm]]))
    taken = [text for text in common if not text.startswith("edit.") or takes(plain, text.partition("=")[0])]
    return lay(last_of([*evaluation.settings, *taken, *evaluation.arms[arm]])) if taken else plain


def last_of(overrides: Sequence[str]) -> list[Override]:
    """Of settings that are given twice the last, in its place."""
    last = {text.partition("=")[0]: n for n, text in enumerate(overrides)}
    return [read(text) for n, text in enumerate(overrides) if last[text.partition("=")[0]] == n]


def takes(base: Mapping[str, Any], key: str) -> bool:
    """Whether settings have a key: methods have settings that others have not."""
    group, _, name = key.partition(".")
    return name in base.get(group, {})


def of_pair(base: Mapping[str, Any], pair: Row, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """An arm's settings with a pair's own and the seed laid over them. Metrics compare every arm with the same: what
    the pair says, whatever the arm's method reads of it."""
    merged = {group: dict(values) for group, values in base.items()}
    for key, value in settings.items():
        group, _, name = key.partition(".")
        merged[group][name] = value
    if "seed" in merged["edit"]:
        merged["edit"]["seed"] = seed
    for metric in ("clip_score", "cass"):
        of = merged["metrics"][metric]
        inputs = {what: pair.settings.get(f"edit.{what}") for what in ("reference", "prompt", "source_prompt")}
        merged["metrics"][metric] = of | {k: v for k, v in inputs.items() if v and k in of and of[k] is None}
    return merged


def clip_of(runner: Local, params: ClipParams) -> ImagesAndTexts:
    """The CLIP that clip_score looks with. Raises MachineError E302 when its weights are missing."""
    runner.require([params.weights])
    return load_clips({"clip": params.weights}, params.device)["clip"]


def run_job(runner: Local, job: Job, found: Found, console: Console, clip: ImagesAndTexts | None = None) -> None:
    """Make one edit up to its metrics and note what came of it; a failure of the pair is noted, too. clip: as in
    `pair_scores.scores`. Raises MachineError: what is wrong with the machine is wrong for every pair."""
    runner.outcomes.clear()
    try:
        of = open_clip(job.pair.clip)
        values, networks, pictures = runner.healed(lambda: measured(runner, job, of, clip))
    except MachineError:
        raise
    except RetakeError as error:
        found.failed.append({"pair": job.pair.id, "arm": job.arm, "seed": str(job.seed), "error": str(error)})
        console.say(f"failed: {error}")
        return
    found.values[job.pair.id, job.arm, job.seed] = values
    found.networks |= networks
    for what, picture in pictures.items():
        found.pictures.setdefault((job.pair.id, what), picture)


def measured(
    runner: Local, job: Job, of: Clip, clip: ImagesAndTexts | None = None
) -> tuple[dict[str, float | None], dict[str, str], dict[str, Any]]:
    """Values, the networks behind them, and middle frames of one job, an edit of the clip `of`. clip: as above."""
    store = runner.store
    made = graph.edit_graph(runner, of, job.settings, until="metrics")
    values = json.loads(store.read(made["metrics"]["metrics.json"]))
    networks = dict(made["metrics"].meta.get("networks", {}))
    if isinstance(of, SpriteClip) and "region" in made:
        values["mask_iou"] = overlap(store, made["region"], of)
    if pair := comparable_pair(of, made["frames"]):
        values |= pair_scores.scores(pair, at_size(store, made), clip)
        networks |= {"likeness_target": clip.name} if clip else {}
    pictures = {SOURCE: middle(store, made["frames"]), job.arm: middle(store, made["decode"])}
    if given := job.pair.settings.get("edit.reference"):
        pictures[REFERENCE] = letterboxed(whole(read_image(given)), SHOWN)
    elif pair:
        pictures[REFERENCE] = letterboxed(World(pair.target).frame(pair.target.frames // 2), SHOWN)
    return values, networks, pictures


def comparable_pair(clip: Clip, frames: Artifact) -> Any:
    """The pair of the sprite world of which a clip is the source; None of another clip, or at another size or pace."""
    pair = clip.pair if isinstance(clip, SpriteClip) and clip.spec.split(":")[1].endswith("_source") else None
    size = tuple(frames.meta[name] for name in ("count", "width", "height"))
    return pair if pair is not None and size == (pair.source.frames, pair.source.width, pair.source.height) else None


def at_size(store: Store, made: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """Frames of a result at working size, uint8 [H, W, 3]."""
    result, size = open_series(store, made["decode"]), tuple(made["frames"].meta[name] for name in ("width", "height"))
    return (resize(result[t], size) for t in range(result.count))


def middle(store: Store, frames: Artifact) -> np.ndarray:
    """The middle frame as the sheet shows it: those of all jobs are in memory at the end."""
    series = open_series(store, frames)
    return letterboxed(series[series.count // 2], SHOWN)


def overlap(store: Store, region: Artifact, clip: SpriteClip) -> float | None:
    """Mean intersection over union of a region with the first sprite's true mask; None at another size or pace."""
    series = open_series(store, region)
    world = clip.world
    if (series.count, series.height, series.width) != (world.frames, world.height, world.width):
        return None
    found = []
    for t in range(series.count):
        here, true = series[t], world.mask(t, 0)
        if (here | true).any():
            found.append((here & true).sum() / (here | true).sum())
    return float(np.mean(found)) if found else None


def write_folder(
    folder: Path,
    done: Mapping[str, Any],
    found: Found,
    pairs: Sequence[Row],
    arms: Sequence[str],
    evaluation: Evaluation,
) -> dict[str, str]:
    """index.html, the sheet, every value as TSV, the summary as JSON; paths by what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {"report": folder / "index.html", "table": folder / "values.tsv", "summary": folder / "summary.json"}
    category = {pair.id: pair.category for pair in pairs}
    write_tsv(
        outputs["table"],
        [
            {"pair": pair, "category": category[pair], "arm": arm, "seed": seed, **dict(sorted(values.items()))}
            for (pair, arm, seed), values in found.values.items()
        ],
    )
    result = {**done, "settings": evaluation.model_dump(), "networks": found.networks}
    write_atomic(outputs["summary"], json.dumps(result, indent=1) + "\n")
    if found.pictures:
        outputs["sheet"] = folder / "sheet.png"
        write_atomic(outputs["sheet"], png(sheet(found, pairs, arms)))
    about = {value: ({**DESCRIPTIONS, **OURS}[value], found.networks.get(value, "")) for value in evaluation.values}
    name = " ".join([f"evaluation={done['evaluation']}", *done["overrides"]])
    page = evaluation_page.page(name, done["table"], about, found.failed, evaluation.against, "sheet" in outputs)
    write_atomic(outputs["report"], page)
    return {what: str(path) for what, path in outputs.items()}


def sheet(found: Found, pairs: Sequence[Row], arms: Sequence[str]) -> np.ndarray:
    """A column a pair: the middle frame of the source, the reference, and what each arm made of it."""
    rows = [SOURCE, REFERENCE, *arms]
    shown = [pair for pair in pairs if (pair.id, SOURCE) in found.pictures]
    board = Sheet(rows, len(shown), len(shown), SHOWN)
    blank = np.full((SHOWN, SHOWN, 3), 40, np.uint8)
    for n, pair in enumerate(shown):
        board.add(n, [found.pictures.get((pair.id, row), blank) for row in rows], caption=pair.id)
    return board.image()


def lines(done: Mapping[str, Any]) -> Iterator[str]:
    """The table of all pairs, for a terminal."""
    rows = [row for row in done["table"] if row["category"] == intervals.ALL]
    values = list(rows[0]["values"])
    wide = max(len(row["arm"]) for row in rows)
    yield " " * wide + "".join(f"  {value:>22}" for value in values)
    for row in rows:
        yield f"{row['arm']:{wide}}" + "".join(
            f"  {evaluation_page.format_cell(row['values'][value]):>22}" for value in values
        )
