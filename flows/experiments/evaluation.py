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

from flows import graph
from flows.datasets.manifest import Row
from flows.experiments import looks, pair_scores
from flows.experiments.evaluation_jobs import OURS, Evaluation, Job, prepared
from flows.places import OUTS
from flows.runners import Local
from flows.terminal.console import Console
from retake.artifact import Artifact
from retake.clip import Clip, SpriteClip, open_clip
from retake.errors import MachineError, RetakeError
from retake.formats import open_series, unpack
from retake.machine.disk import explain_write_errors, require_writable, write_atomic
from retake.metrics import fid
from retake.metrics.common.crop import whole
from retake.metrics.common.sample import ImagesAndTexts
from retake.metrics.summary import DESCRIPTIONS, write_tsv
from retake.networks.clip import load as load_clip
from retake.recipe import digest
from retake.report import evaluation_page, intervals
from retake.report.contact_sheet import Sheet, letterboxed, png
from retake.store import Store
from retake.synthetic.world import World
from retake.video import read_image, resize

HOME = OUTS / "evaluations"
SHOWN = 160  # px, side of a picture on the sheet
SOURCE, REFERENCE = "source", "reference"  # its first rows; of a pair of the sprite world the reference is its target


@dataclass
class Found:
    """What came of the jobs: values by (pair, arm, seed), middle frames by (pair, arm), Inception's features of sources
    and results by (category, arm), what failed."""

    values: dict[tuple[str, str, int], dict[str, float | None]] = field(default_factory=dict)
    pictures: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    features: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    failed: list[dict[str, str]] = field(default_factory=list)


def evaluate(runner: Local, console: Console, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Run an evaluation and write its folder; what `retake evaluate NAME --json` prints.

    Raises ConfigError E296 (an evaluation, arm or value that there is not), E297 (a manifest), MachineError E302
    (weights of an arm, or of the CLIP that likeness_target is to: that of the first arm), and what `lay` raises, before
    anything runs. An interrupted one leaves the table of what was done.
    """
    evaluation, pairs, jobs = prepared(name, overrides)
    arms = [arm for arm in evaluation.arms if any(job.arm == arm for job in jobs)]
    firsts = [next(job.settings for job in jobs if job.arm == arm) for arm in arms]
    runner.require(graph.weights_needed((p, graph.closure(p, "metrics")) for p in firsts))
    of_first = firsts[0].metrics.clip_score
    judge = load_clip(of_first.weights, of_first.device) if "likeness_target" in evaluation.values else None
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
            run_job(runner, job, found, console, judge)
    finally:
        among = {pair.id: pair.category for pair in pairs}
        done["table"] = intervals.table(found.values, among, arms, evaluation.values, evaluation.against)
        of_sets(found, done["table"])
        done["failed"] = found.failed
        with explain_write_errors(folder):
            done["outputs"] = write_folder(folder, done, found, pairs, arms, evaluation)
    return done


def run_job(runner: Local, job: Job, found: Found, console: Console, judge: ImagesAndTexts | None) -> None:
    """Make one edit up to its metrics and note what came of it; a failure of the pair is noted, too. judge: what
    likeness_target is to. Raises MachineError: what is wrong with the machine is wrong for every pair."""
    runner.outcomes.clear()
    try:
        clip = open_clip(job.pair.clip)
        values, networks, pictures, features = runner.healed(lambda: measured(runner, job, clip, judge))
    except MachineError:
        raise
    except RetakeError as error:
        found.failed.append({"pair": job.pair.id, "arm": job.arm, "seed": str(job.seed), "error": str(error)})
        console.say(f"failed: {error}")
        return
    found.values[job.pair.id, job.arm, job.seed] = values
    found.networks |= networks
    for category in dict.fromkeys((intervals.ALL, job.pair.category)) if features else ():
        found.features.setdefault((category, job.arm), []).append(features)
    for what, picture in pictures.items():
        found.pictures.setdefault((job.pair.id, what), picture)


def measured(
    runner: Local, job: Job, clip: Clip, judge: ImagesAndTexts | None
) -> tuple[dict[str, float | None], dict[str, str], dict[str, Any], tuple[np.ndarray, np.ndarray] | None]:
    """Values, the networks behind them, middle frames, and Inception's features where they were asked for, of one job,
    an edit of the clip."""
    store = runner.store
    made = graph.edit_graph(runner, clip, job.settings, until="metrics")
    values = json.loads(store.read(made["metrics"]["metrics.json"]))
    networks = dict(made["metrics"].meta.get("networks", {}))
    values["edit_seconds"] = seconds_of(runner, "edit")
    if isinstance(clip, SpriteClip) and "region" in made:
        values["mask_iou"] = overlap(store, made["region"], clip)
    if pair := comparable_pair(clip, made["frames"]):
        values |= pair_scores.scores(pair, at_size(store, made), judge)
        networks |= {"likeness_target": judge.name} if judge else {}
    if told := looks.told_of(job.pair):
        keeps = job.pair.settings.get("edit.application") == "texture_transfer"  # the same for every arm
        values |= looks.scores(int(job.pair.clip.split(":")[2]), told, keeps, at_size(store, made))
    pictures = {SOURCE: middle(store, made["frames"]), job.arm: middle(store, made["decode"])}
    if given := job.pair.settings.get("edit.reference"):
        pictures[REFERENCE] = letterboxed(whole(read_image(given)), SHOWN)
    elif pair:
        pictures[REFERENCE] = letterboxed(World(pair.target).frame(pair.target.frames // 2), SHOWN)
    features = None
    if fid.FEATURES in made["metrics"]:
        both = unpack(store.read(made["metrics"][fid.FEATURES]))
        features = both["source"], both["result"]
    return values, networks, pictures, features


def seconds_of(runner: Local, stage: str) -> float:
    """What the last pass of a runner says that a stage took when it ran, whenever that was."""
    records = (runner.store.find(stage, one.key) for one in runner.outcomes if one.stage == stage)
    return sum(record.seconds for record in records if record is not None)


def of_sets(found: Found, table: Sequence[Mapping[str, Any]]) -> None:
    """Put FID and KID of all frames of a variant, of a category or all, into the rows of a table: numbers of a set, and
    so without an interval."""
    for row in table:
        pairs = found.features.get((row["category"], row["arm"]), [])
        if not pairs:
            continue
        source, result = (np.concatenate(side) for side in zip(*pairs, strict=True))
        for name, value in fid.score(source, result)[0].items():
            if name in row["values"]:
                row["values"][name] = {"mean": value, "low": value, "high": value, "pairs": len(pairs), "set": True}


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
