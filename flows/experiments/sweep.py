"""A sweep: one clip under every combination of some settings, ranked by a metric, drawn as a grid.

    retake sweep dog.mp4 --box 70,40,300,460 edit.reference=cat.png edit.strength=0.5,0.75,1 edit.feather=2,8
    retake sweep sprites:captioned:7 edit=sdedit edit.strength=0.4,0.8 edit.seed=0,1,2 --rank clip_i

Values are written as in Hydra's sweeps: `a,b,c`, `choice(a,b)`, `range(0,1,0.25)`. Seeds (`edit.seed`) repeat each:
its value is the mean over them, with an interval. Whatever combinations share, the store makes once.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flows import graph
from flows.datasets.jobs import files_named
from flows.editing import result_folder
from flows.places import edits_home
from flows.runners import Local
from flows.settings.compose import Settings, settings
from flows.settings.overrides import MOST, Override, read
from flows.terminal.console import Console
from retake.clip import open_clip
from retake.errors import ConfigError, MachineError, RetakeError, did_you_mean
from retake.formats import open_series
from retake.machine.disk import explain_write_errors, require_writable, write_atomic
from retake.metrics.summary import DESCRIPTIONS, write_tsv
from retake.recipe import digest
from retake.report import gallery_page, intervals
from retake.report.contact_sheet import Sheet, png, thumbnail
from retake.video import local_file

SEED = "edit.seed"
FAR = 1e12  # what a range starts and ends within
SHOWN = 200  # px, side of a picture on the grid
CHANGE, DRIVEN = "change_edited", 0.1  # how much was edited, and the share by which it must differ to matter


@dataclass(frozen=True)
class Point:
    """One combination: values by setting, as typed, and its seed."""

    values: Mapping[str, str]
    seed: str
    settings: Settings

    @property
    def name(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.values.items()) or "as it is"


@dataclass
class Found:
    """What came of the points: scores and pages by (name, seed), a middle frame by name, what failed."""

    scores: dict[tuple[str, str], dict[str, float | None]] = field(default_factory=dict)
    cards: list[gallery_page.Card] = field(default_factory=list)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    failed: list[dict[str, str]] = field(default_factory=list)


def sweep(runner: Local, console: Console, spec: str, overrides: Sequence[str], rank: str | None) -> dict[str, Any]:
    """Make every point and write the sweep's folder; what `retake sweep --json` prints.

    Everything is validated before anything runs. Raises ConfigError E218 where nothing is swept, or too much, or for a
    metric that there is not, and for what all points lack; MediaError E400 for a file that a point names and that is
    not there, E417 for another clip than frames.sha256 says; MachineError for what the machine lacks. A point that
    fails is reported and left out.
    """
    clip = open_clip(spec)
    points, swept = points_of(overrides, spec)
    for path in sorted({path for point in points for path in files_named(point.settings)}):
        if not os.path.exists(path):
            local_file(path)  # says what is near
    misfits = [next(graph.config_errors(p, graph.closure(p)), None) for p in (point.settings for point in points)]
    if (first := misfits[0]) and all(misfits):
        raise first
    for sha256 in {point.settings.frames.sha256 for point in points}:
        clip.expected(sha256).digest(runner.store)
    known = sorted({name for point in points for name in described(point.settings)})
    if rank is not None and rank not in known:
        raise ConfigError("E218", f"no metric here is called {rank!r}", did_you_mean(rank, known))
    home = edits_home() / clip.name
    folder = home / f"sweep-{digest([spec, list(overrides)])[:12]}"
    for place in (home, folder):
        require_writable(place)
    runner.require(graph.weights_needed((point.settings, graph.closure(point.settings)) for point in points))
    found = Found()
    try:
        for n, point in enumerate(points):
            console.say(f"\n{n + 1}/{len(points)}  {point.name}" + (f"  seed {point.seed}" if point.seed else ""))
            try:
                make(runner, clip, point, home, folder, found)
            except MachineError:
                raise
            except RetakeError as error:
                console.say(f"failed  {error.code} {error.message}")
                found.failed.append({"point": point.name, "seed": point.seed, "code": error.code, "why": error.message})
                reason = f"{error.code} {error.message}"
                found.cards.append(gallery_page.Card(point.name, point.seed or "edit", "failed", reason))
    finally:
        rows = ranked(found, rank)
        outputs = written(folder, clip.name, points, swept, found, rows) if found.cards else {}
    return {
        "clip": spec,
        "points": len(points),
        "rank": rank,
        "warning": driven(rows, rank) if rank else None,
        "table": rows,
        "failed": found.failed,
        "outputs": outputs,
    }


def points_of(overrides: Sequence[str], spec: str = "") -> tuple[list[Point], dict[str, list[str]]]:
    """All combinations in order, and the swept settings with their values (without seeds). Raises what `settings`
    raises, and ConfigError E218."""
    fixed, axes = [], {}
    for text in overrides:
        one = read(text, sweeps=True)
        if one.parsed.is_sweep_override():
            axes[one.parsed.get_key_element()] = values_of(one)
        else:
            fixed.append(text)
    seeds = axes.pop(SEED, [""])
    count = len(seeds) * int(np.prod([len(values) for values in axes.values()], dtype=object))
    if count < 2 or count > MOST:
        raise ConfigError("E218", f"{count} combinations", f"Give some values: edit.strength=0.5,1; at most {MOST}.")
    chosen = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    points = [(point, seed) for point in chosen for seed in seeds]
    return [Point(point, seed, settings([*fixed, *words(point, seed)], spec)) for point, seed in points], axes


def words(point: Mapping[str, str], seed: str) -> list[str]:
    """The overrides of one combination."""
    return [*(f"{key}={value}" for key, value in point.items()), *([f"{SEED}={seed}"] if seed else [])]


def values_of(one: Override) -> list[str]:
    """The values of a swept setting as they are typed, one more than there may be at most. Raises ConfigError E218."""
    from hydra.core.override_parser.types import RangeSweep, ValueType

    if one.parsed.value_type in (ValueType.GLOB_CHOICE_SWEEP, ValueType.INTERVAL_SWEEP):
        raise ConfigError(
            "E218", f"{one.text[:80]}: glob() and interval() are not taken", "List the choices: edit=propagate,sdedit"
        )
    swept = one.parsed.value()
    if isinstance(swept, RangeSweep):
        start, stop, step = swept.start or 0, swept.stop or 0, swept.step
        if not (step and all(-FAR < value < FAR for value in (start, stop, step))):
            raise ConfigError("E218", f"{one.text[:80]} has no end", "A range reads range(0,1,0.25).")
        if abs(stop - start) > MOST * abs(step):  # shuffle() would make a list of all of them first
            raise ConfigError("E218", f"{one.text[:80]} gives too many values", f"At most {MOST} combinations.")
    return list(itertools.islice(one.parsed.sweep_string_iterator(), MOST + 1))


def described(p: Settings) -> list[str]:
    """Names of the values of chosen metrics."""
    from retake.lookup import lookup

    return [value for name in p.metrics.names for value in lookup("metrics", name).DESCRIPTIONS]


def make(runner: Local, clip: Any, point: Point, home: Path, folder: Path, found: Found) -> None:
    """One point: an edit like any other, handed out beside the clip's others, a card in the sweep's gallery."""
    store = runner.store
    identity = result_folder.edit_id(store, clip, point.settings)

    def build() -> None:
        made = graph.edit_graph(runner, clip, point.settings)
        outputs = result_folder.hand_out(
            store, result_folder.Finished(identity, clip, point.settings, made, tuple(runner.outcomes)), home / identity
        )
        source, result = (open_series(store, made[stage]) for stage in ("frames", "decode"))
        shown = result[result.count // 2]
        picture = folder / f"{identity}.jpg"
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(gallery_page.thumbnail(source[source.count // 2], shown))
        scores = result_folder.scores_by_name(store, made["metrics"])
        found.scores[point.name, point.seed] = scores
        found.pictures.setdefault(point.name, thumbnail(shown, SHOWN))
        ran = any(outcome.status == "ran" for outcome in runner.outcomes)
        seconds = sum(outcome.seconds for outcome in runner.outcomes)
        found.cards.append(
            gallery_page.Card(
                point.name,
                f"seed {point.seed}" if point.seed else "edit",
                "ok" if ran else "cached",
                seconds=round(seconds, 3),
                report=os.path.relpath(outputs["report"], folder),
                picture=picture.name,
                scores=scores,
            )
        )

    runner.outcomes.clear()
    runner.healed(build)


def ranked(found: Found, rank: str | None) -> list[dict[str, Any]]:
    """A row a combination, the best first where a metric is asked for: means over seeds with their intervals."""
    names = list(dict.fromkeys(name for name, _ in found.scores))
    rows = []
    for name in names:
        some = [scores for (of, _), scores in found.scores.items() if of == name]
        values = {
            metric: intervals.bootstrap([one[metric] for one in some if one.get(metric) is not None])  # type: ignore[misc]
            for metric in some[0]
        }
        rows.append({"point": name, "seeds": len(some), "values": values})
    if rank is not None:
        higher = DESCRIPTIONS.get(rank, ("", "higher"))[1] != "lower"
        rows.sort(key=lambda row: rank_key(row["values"].get(rank, {}).get("mean"), higher))
    return rows


def driven(rows: Sequence[Mapping[str, Any]], rank: str) -> str | None:
    """A warning where the ranking is that of editing less: rows are ranked, the best first."""
    means = [(row["values"].get(rank, {}).get("mean"), row["values"].get(CHANGE, {}).get("mean")) for row in rows]
    changes = [change for value, change in means if value is not None and change is not None]
    if rank == CHANGE or len(changes) < 2 or changes[0] >= changes[-1] * (1 - DRIVEN):
        return None
    if any(later < earlier * (1 - DRIVEN / 2) for earlier, later in itertools.pairwise(changes)):
        return None
    return (
        f"the less is edited, the better is {rank} here ({CHANGE}: {changes[0]:.3g} at the best, {changes[-1]:.3g} at "
        "the worst). What is not edited is as steady as the source: compare results that change as much"
    )


def rank_key(mean: float | None, higher: bool) -> tuple[bool, float]:
    """Those without a value come last."""
    return (True, 0.0) if mean is None else (False, -mean if higher else mean)


def written(
    folder: Path,
    clip: str,
    points: Sequence[Point],
    swept: Mapping[str, Sequence[str]],
    found: Found,
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, str]:
    """index.html, grid.png, values.tsv; paths by what they are."""
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    outputs = {"gallery": folder / "index.html", "table": folder / "values.tsv"}
    title = f"{clip}: {' × '.join(swept) or 'seeds'}"
    write_atomic(outputs["gallery"], gallery_page.page(title, found.cards))
    write_tsv(
        outputs["table"],
        [{"point": name, "seed": seed, **scores} for (name, seed), scores in found.scores.items()],
    )
    if found.pictures:
        outputs["grid"] = folder / "grid.png"
        write_atomic(outputs["grid"], png(grid(points, swept, found)))
    return {what: str(path) for what, path in outputs.items()}


def grid(points: Sequence[Point], swept: Mapping[str, Sequence[str]], found: Found) -> np.ndarray:
    """The middle frames: the first swept setting downwards, the others to the right."""
    first, *others = list(swept) or [""]
    down = [f"{first}={value}" for value in swept.get(first, [])] or ["as it is"]
    right = list(dict.fromkeys(" ".join(f"{key}={point.values[key]}" for key in others) for point in points))
    board = Sheet(down, len(right), len(right), SHOWN)
    blank = np.full_like(next(iter(found.pictures.values())), 40)
    for n, caption in enumerate(right):
        views = [found.pictures.get(f"{row} {caption}".strip(), blank) for row in down]
        board.add(n, views, caption=caption or "result")
    return board.image()


def lines(done: Mapping[str, Any]) -> Iterator[str]:
    """The ranking, for a terminal: the metric that was asked for, or those that differ."""
    rows = done["table"]
    if not rows:
        return
    shown = [CHANGE] if done["rank"] != CHANGE and CHANGE in rows[0]["values"] else []
    metrics = [done["rank"], *shown] if done["rank"] else differing(rows)[:4]
    wide = max(len(row["point"]) for row in rows)
    if done["rank"]:
        better = DESCRIPTIONS.get(done["rank"], ("", "higher"))[1]
        yield f"the best first: {done['rank']}, {better} is better" if better else f"the largest first: {done['rank']}"
        if done["warning"]:
            yield f"note: {done['warning']}"
    yield " " * wide + "".join(f"  {metric:>24}" for metric in metrics)
    for row in rows:
        cells = (format_cell(row["values"].get(metric, {}), row["seeds"]) for metric in metrics)
        yield f"{row['point']:{wide}}" + "".join(f"  {cell:>24}" for cell in cells)


def differing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Metrics that are not the same everywhere."""
    return [
        metric
        for metric in rows[0]["values"]
        if len({round(row["values"].get(metric, {}).get("mean") or 0, 9) for row in rows}) > 1
    ]


def format_cell(value: Mapping[str, Any], seeds: int) -> str:
    if value.get("mean") is None:
        return "-"
    return f"{value['mean']:.4g}" + (f" [{value['low']:.4g}, {value['high']:.4g}]" if seeds > 1 else "")
