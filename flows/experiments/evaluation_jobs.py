"""What an evaluation compares: its settings (params/evaluation/), and the jobs that they make of pairs and arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from flows.datasets.manifest import Row
from flows.experiments import looks, pair_scores
from flows.experiments.pairs import read_pairs, read_pictures
from flows.experiments.triplets import triplets
from flows.places import CODE, PROJECT
from flows.settings.compose import Settings, compose, for_clip, lay, validate
from flows.settings.explain import checked_model
from flows.settings.files import choices
from flows.settings.overrides import Override, read
from retake.errors import ConfigError, did_you_mean
from retake.lookup import lookup

OURS = {
    "mask_iou": ("overlap of the region that the masks give with the first sprite's true mask", "higher"),
    "edit_seconds": ("seconds of the edit itself, when it was made, without priors, latents and inversion", "lower"),
    **pair_scores.DESCRIPTIONS,
    **looks.DESCRIPTIONS,
}


class Evaluation(BaseModel, frozen=True, extra="forbid"):
    """What is compared, on what, by what."""

    pairs: str = Field(description="manifest of pairs, CSV; from here, else from the project, else a shipped one")
    davis: str | None = Field(None, description="in place of a manifest: a DAVIS tree, for which `references` are")
    references: str | None = Field(None, description="folder of pictures: APPLICATION/SEQUENCE[/OBJECT_ID]/NAME.png")
    first: int | None = Field(None, ge=1, description="only so many pairs, from the top")
    categories: tuple[str, ...] = Field((), description="only pairs of these; empty: all")
    settings: tuple[str, ...] = Field((), description="settings of every variant, as they are typed")
    rendered: tuple[str, ...] = Field(
        (), description="and of scenes of the sprite world, but for pairs that say masks or depth themselves"
    )
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
    pairs = pairs_of(evaluation)
    wanted = chosen("evaluation.categories", evaluation.categories, tuple(dict.fromkeys(p.category for p in pairs)))
    pairs = [pair for pair in pairs if pair.category in wanted][: evaluation.first]
    kinds = {knows_itself(pair) for pair in pairs}
    all_bases = {kind: {arm: base_of(evaluation, arm, common, kind) for arm in evaluation.arms} for kind in kinds}
    every_base = [base for bases in all_bases.values() for base in bases.values()]
    typed = {text.partition("=")[0] for text in common}
    columns = {key for pair in pairs for key in pair.settings}
    for key in sorted(typed | columns):
        if key == "edit.seed":
            raise ConfigError("E296", "edit.seed is set by the evaluation", "Write evaluation.seeds=[0,1,2].")
        if (key in columns or key.startswith("edit.")) and not any(takes(base, key) for base in every_base):
            raise ConfigError("E205", f"no variant has the setting {key}", "A setting has a full name: edit.reference")
    names = {metric for base in every_base for metric in base["metrics"]["names"]}
    known = [value for metric in sorted(names) for value in lookup("metrics", metric).DESCRIPTIONS]
    chosen("evaluation.values", evaluation.values, (*known, *OURS))
    jobs = []
    for pair in pairs:
        for arm in arms:
            base, of_arm = all_bases[knows_itself(pair)][arm], {text.partition("=")[0] for text in evaluation.arms[arm]}
            settings = {k: v for k, v in pair.settings.items() if takes(base, k) and k not in of_arm}
            for seed in evaluation.seeds if takes(base, "edit.seed") else evaluation.seeds[:1]:
                try:
                    p = for_clip(validate(of_pair(base, pair, settings, seed)), pair.clip)
                    jobs.append(Job(pair, arm, seed, p))
                except ConfigError as error:
                    where = f"the pair {pair.id}, variant {arm}: {error.message}"
                    raise ConfigError(error.code, where, error.hint) from error
    return evaluation, pairs, jobs


def pairs_of(evaluation: Evaluation) -> list[Row]:
    """Raises ConfigError E297 for a manifest, E296 for a DAVIS tree without references, or the other way round."""
    if evaluation.davis is None and evaluation.references is None:
        return read_pairs(manifest_of(evaluation.pairs))
    if evaluation.davis is None or evaluation.references is None:
        raise ConfigError(
            "E296",
            "evaluation.davis and evaluation.references belong together",
            "evaluation.davis=DAVIS_ROOT evaluation.references=FOLDER",
        )
    found = triplets(evaluation.davis, evaluation.references)
    for row in found:
        read_pictures(row.settings)
    return found


def manifest_of(path: str) -> Path:
    """Where the manifest lies: as it is typed, else from the project, else among the shipped ones."""
    here = Path(path).expanduser() if path.startswith(("~/", "/")) else Path(path)
    return next((path for path in (here, PROJECT / here) if path.exists()), CODE / here)


def chosen(place: str, asked: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Those asked for, or all. Raises ConfigError E296 for one that there is not."""
    if strange := [one for one in asked if one not in known]:
        raise ConfigError("E296", f"{place} names {strange[0]!r}", did_you_mean(strange[0], list(known)))
    return tuple(asked) or tuple(known)


def knows_itself(pair: Row) -> bool:
    """Whether a pair's clip is a scene of the sprite world, whose own masks and depth are to be taken."""
    given = any(key.startswith(("masks.", "depth.")) for key in pair.settings)
    return pair.clip.startswith("sprites:") and not given


def base_of(evaluation: Evaluation, arm: str, common: Sequence[str], rendered: bool) -> dict[str, Any]:
    """Settings of an arm: those of every arm, then those typed beside, then its own. What was typed for a
    method is given to the arms that have it. rendered: for scenes of the sprite world."""
    every = [*evaluation.settings, *(evaluation.rendered if rendered else ())]
    plain = lay(last_of([*every, *evaluation.arms[arm]]))
    taken = [text for text in common if not text.startswith("edit.") or takes(plain, text.partition("=")[0])]
    return lay(last_of([*every, *taken, *evaluation.arms[arm]])) if taken else plain


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
