"""An evaluation: methods and variants of them (arms), side by side over pairs of a clip and what is to be edited in it.

    retake dataset evaluation=moca evaluation.first=12 evaluation.seeds=[0,1,2] evaluation.only=[sdedit,recommended]

Pairs stand in a manifest (pairs.py), arms in params/evaluation/. Whatever two arms share, the store makes once. A pair
that fails is told and left out; the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from flows import graph, handout
from flows.config import CHECKOUT, Settings, checked_model, compose, validate
from flows.console import Console
from flows.pairs import Pair, read_pairs
from flows.runners import Local
from retake.artifact import Artifact
from retake.clip import SpriteClip, open_clip
from retake.errors import ConfigError, RetakeError, did_you_mean
from retake.formats import open_series
from retake.metrics.summary import DESCRIPTIONS
from retake.report import comparison, standings
from retake.report.sheet import Sheet, write
from retake.store import Store

HOME = CHECKOUT / "artifacts" / "evaluations"
OURS = {"mask_iou": ("overlap of the region with the sprite's true mask", "higher")}
SHOWN = 160  # px, longest side of a picture on the sheet


class Evaluation(BaseModel, frozen=True, extra="forbid"):
    """What is compared, on what, by what."""

    pairs: str = Field(description="manifest of pairs, CSV; relative to the checkout")
    first: int | None = Field(None, ge=1, description="only so many pairs, from the top")
    categories: tuple[str, ...] = Field((), description="only pairs of these; empty: all")
    settings: tuple[str, ...] = Field((), description="settings of every arm, as they are typed")
    arms: dict[str, tuple[str, ...]] = Field(description="name -> settings of that arm alone", min_length=1)
    only: tuple[str, ...] = Field((), description="only these arms; empty: all")
    seeds: tuple[int, ...] = Field((0,), description="of the edit's noise; values are means over them", min_length=1)
    values: tuple[str, ...] = Field(description="values in the table; those of metrics, and mask_iou", min_length=1)
    against: str | None = Field(None, description="arm that the others are set against, pair by pair")


@dataclass(frozen=True)
class Job:
    """One arm on one pair with one seed."""

    pair: Pair
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
    """Run an evaluation and write its folder; what `retake dataset evaluation=NAME --json` prints.

    Raises ConfigError E296 (an evaluation, arm or value that there is not), E297 (a manifest), and what composing
    settings raises, before anything runs.
    """
    evaluation, pairs, jobs = prepared(name, overrides)
    found = Found()
    for job in jobs:
        run_job(runner, job, found, console)
    arms = [arm for arm in evaluation.arms if any(job.arm == arm for job in jobs)]
    among = {pair.id: pair.category for pair in pairs}
    table = standings.table(found.values, among, arms, evaluation.values, evaluation.against)
    folder = HOME / name
    outputs = write_folder(folder, name, found, pairs, arms, table, evaluation)
    return {"evaluation": name, "pairs": len(pairs), "table": table, "failed": found.failed, "outputs": outputs}


def prepared(name: str, overrides: Sequence[str]) -> tuple[Evaluation, list[Pair], list[Job]]:
    """The evaluation, its pairs and all jobs, pair by pair: an arm without a seed has one. Everything is validated."""
    own = [text for text in overrides if text.startswith("evaluation.")]
    common = [text for text in overrides if text not in own]
    known = sorted(path.stem for path in (CHECKOUT / "params" / "evaluation").glob("*.yaml"))
    if name not in known:
        raise ConfigError("E296", f"there is no evaluation {name!r}", did_you_mean(name, known))
    composed = compose([f"+evaluation={name}", *own])
    evaluation = checked_model("evaluation", Evaluation, composed["evaluation"])
    arms = chosen("evaluation.only", evaluation.only, tuple(evaluation.arms))
    if evaluation.against:
        chosen("evaluation.against", (evaluation.against,), tuple(evaluation.arms))
        if evaluation.against not in arms:
            evaluation = evaluation.model_copy(update={"against": None})
    chosen("evaluation.values", evaluation.values, (*DESCRIPTIONS, *OURS))
    pairs = read_pairs(CHECKOUT / Path(evaluation.pairs).expanduser())
    wanted = chosen("evaluation.categories", evaluation.categories, tuple(dict.fromkeys(p.category for p in pairs)))
    pairs = [pair for pair in pairs if pair.category in wanted][: evaluation.first]
    bases = {arm: base_of(evaluation, arm, common) for arm in evaluation.arms}
    keys = {key: [arm for arm, base in bases.items() if takes(base, key)] for pair in pairs for key in pair.settings}
    for text in common:
        if text.startswith("edit.") and not any(takes(base, text.partition("=")[0]) for base in bases.values()):
            raise ConfigError("E205", f"no arm has the setting {text.partition('=')[0]}", "See params/edit/.")
    if strange := sorted(key for key, takers in keys.items() if not takers):
        raise ConfigError("E297", f"no arm has the setting {strange[0]}", "A column is a setting: edit.reference, ...")
    jobs = []
    for pair in pairs:
        for arm in arms:
            base = bases[arm]
            for seed in evaluation.seeds if takes(base, "edit.seed") else evaluation.seeds[:1]:
                own_settings = {key: value for key, value in pair.settings.items() if arm in keys[key]}
                jobs.append(Job(pair, arm, seed, validate(laid(base, own_settings, seed))))
    return evaluation, pairs, jobs


def chosen(place: str, asked: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Those asked for, or all. Raises ConfigError E296 for one that there is not."""
    if strange := [one for one in asked if one not in known]:
        raise ConfigError("E296", f"{place} names {strange[0]!r}", did_you_mean(strange[0], list(known)))
    return tuple(asked) or tuple(known)


def base_of(evaluation: Evaluation, arm: str, common: Sequence[str]) -> dict[str, Any]:
    """Composed settings of an arm: those of every arm, then those typed beside, then its own. What was typed for a
    method is given to the arms that have it."""
    plain = compose(last_of([*evaluation.settings, *evaluation.arms[arm]]))
    taken = [text for text in common if not text.startswith("edit.") or takes(plain, text.partition("=")[0])]
    return compose(last_of([*evaluation.settings, *taken, *evaluation.arms[arm]])) if taken else plain


def last_of(overrides: Sequence[str]) -> list[str]:
    """Of settings that are given twice the last, in its place."""
    last = {text.partition("=")[0]: n for n, text in enumerate(overrides)}
    return [text for n, text in enumerate(overrides) if last[text.partition("=")[0]] == n]


def takes(base: Mapping[str, Any], key: str) -> bool:
    """Whether composed settings have a key: methods have settings that others have not."""
    group, _, name = key.partition(".")
    return name in base.get(group, {})


def laid(base: Mapping[str, Any], own: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Composed settings with a pair's own and the seed laid over them."""
    merged = {group: dict(values) for group, values in base.items()}
    for key, value in own.items():
        group, _, name = key.partition(".")
        merged[group][name] = value
    if "seed" in merged["edit"]:
        merged["edit"]["seed"] = seed
    return merged


def run_job(runner: Local, job: Job, found: Found, console: Console) -> None:
    """Make one edit up to its metrics and note what came of it; a failure is noted, too."""
    console.say(f"\n{job.pair.id} × {job.arm} × seed {job.seed}")
    clip = open_clip(job.pair.clip)
    runner.outcomes.clear()
    try:
        made = runner.healed(lambda: graph.edit_graph(runner, clip, job.settings, until="metrics"))
    except RetakeError as error:
        found.failed.append({"pair": job.pair.id, "arm": job.arm, "seed": str(job.seed), "error": str(error)})
        console.say(f"failed: {error}")
        return
    values = json.loads(runner.store.read(made["metrics"]["metrics.json"]))
    if isinstance(clip, SpriteClip) and "region" in made:
        values["mask_iou"] = overlap(runner.store, made["region"], clip)
    found.values[job.pair.id, job.arm, job.seed] = values
    found.networks |= made["metrics"].meta.get("networks", {})
    found.pictures.setdefault((job.pair.id, job.arm), middle(runner.store, made["decode"]))
    found.pictures.setdefault((job.pair.id, "source"), middle(runner.store, made["frames"]))


def middle(store: Store, frames: Artifact) -> np.ndarray:
    """The middle frame, no larger than the sheet shows it: those of all jobs are in memory at the end."""
    from retake.video import resize

    series = open_series(store, frames)
    frame = series[series.count // 2]
    height, width = frame.shape[:2]
    share = min(1.0, SHOWN / max(height, width))
    return resize(frame, (max(1, round(width * share)), max(1, round(height * share))))


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
    return float(np.mean(found))


def write_folder(
    folder: Path,
    name: str,
    found: Found,
    pairs: Sequence[Pair],
    arms: Sequence[str],
    table: Sequence[Mapping[str, Any]],
    evaluation: Evaluation,
) -> dict[str, str]:
    """index.html, the sheet, every value as TSV, the summary as JSON; paths by what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {"report": folder / "index.html", "table": folder / "values.tsv", "summary": folder / "summary.json"}
    columns = sorted({value for values in found.values.values() for value in values})
    lines = ["\t".join(["pair", "category", "arm", "seed", *columns])]
    category = {pair.id: pair.category for pair in pairs}
    for (pair, arm, seed), values in found.values.items():
        cells = ["" if (v := values.get(c)) is None else f"{v:.6g}" for c in columns]
        lines.append("\t".join([pair, category[pair], arm, str(seed), *cells]))
    handout.write_text(outputs["table"], "\n".join(lines) + "\n")
    told = {"evaluation": evaluation.model_dump(), "table": table, "failed": found.failed, "networks": found.networks}
    handout.write_text(outputs["summary"], json.dumps(told, indent=1) + "\n")
    if found.pictures:
        outputs["sheet"] = write(folder / "sheet.png", sheet(found, pairs, arms))
    about = {value: ({**DESCRIPTIONS, **OURS}[value], found.networks.get(value, "")) for value in evaluation.values}
    page = comparison.page(name, table, about, found.failed, evaluation.against, "sheet" in outputs)
    handout.write_text(outputs["report"], page)
    return {what: str(path) for what, path in outputs.items()}


def sheet(found: Found, pairs: Sequence[Pair], arms: Sequence[str]) -> np.ndarray:
    """A column a pair: the middle frame of the source, the reference, and what each arm made of it."""
    from retake.metrics.crop import whole
    from retake.video import read_image, resize

    shown = [pair for pair in pairs if (pair.id, "source") in found.pictures]
    board = Sheet(["source", "reference", *arms], len(shown), len(shown), SHOWN)
    for n, pair in enumerate(shown):
        source = found.pictures[pair.id, "source"]
        size = source.shape[1], source.shape[0]
        blank = np.full_like(source, 40)
        given = pair.settings.get("edit.reference")
        reference = resize(whole(read_image(given)), size) if given else blank
        made = [found.pictures.get((pair.id, arm), blank) for arm in arms]
        board.add(
            n, [source, reference, *(m if m.shape == source.shape else resize(m, size) for m in made)], caption=pair.id
        )
    return board.image()


def lines(done: Mapping[str, Any]) -> Iterator[str]:
    """The table of all pairs, for a terminal."""
    rows = [row for row in done["table"] if row["category"] == standings.ALL]
    values = list(rows[0]["values"])
    wide = max(len(row["arm"]) for row in rows)
    yield " " * wide + "".join(f"  {value:>22}" for value in values)
    for row in rows:
        yield f"{row['arm']:{wide}}" + "".join(f"  {comparison.told(row['values'][value]):>22}" for value in values)
