"""Three ways to call the stages of a graph: Plan looks, Local computes, Prefect computes and shows it.

All three make the same recipe of the same inputs, so what Plan says is what the others do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flows.planning.described import described
from flows.planning.forecast import STEPS, Extent, Forecast, Known, extent_before, forecast
from flows.planning.why import why_missing
from retake.artifact import Artifact
from retake.clip import Clip
from retake.errors import DamagedError
from retake.params import files_of
from retake.recipe import Recipe
from retake.stage import Observer, Outcome, Silent, Sources, Stage, compute
from retake.store import Store
from retake.weights import local

HEALING_ROUNDS = 6


@dataclass(frozen=True)
class Promise:
    """Stands where an artifact will be: its content, and so every key downstream, is not known yet."""

    stage: str


@dataclass(frozen=True)
class Planned:
    """What would happen to one stage."""

    stage: str
    status: str  # "cached", "will run" or "may run"
    why: str
    key: str | None = None
    seconds: float | None = None  # when cached: what it cost when it was made
    bytes: int | None = None
    forecast: Forecast | None = None  # when it would run
    lacks: tuple[str, ...] = ()  # weights that have to be fetched first
    says: str = ""  # what its settings come to, in words

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "status": self.status,
            "why": self.why,
            "key": self.key,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "forecast": self.forecast.as_json() if self.forecast else None,
            "lacks": list(self.lacks),
            "says": self.says,
        }


@dataclass(frozen=True)
class Chosen:
    """What of a stage call is neither settings nor inputs: the implementation, and references of its weights."""

    implementation: str = ""
    weights: Mapping[str, str] = field(default_factory=dict)


def recipe_of(
    store: Store, stage: Stage, params: Any, chosen: Chosen, inputs: Mapping[str, Any], lacking: bool = False
) -> Recipe:
    """The recipe of a stage call. Clips and artifacts stand in it by content digest, weights by commit or digest.

    Raises MachineError E302 when weights are not here and the stage cannot do without; with `lacking` they stand as
    absent, for a recipe that is not going to be run."""
    digests = {name: v.digest(store) if isinstance(v, Clip) else v.digest for name, v in inputs.items()}
    identify = local.identity_or_absent if stage.optional_weights or lacking else local.identity
    weights = {role: identify(reference, store.source_digest) for role, reference in chosen.weights.items()}
    return stage.recipe(params, digests, store.source_digest, chosen.implementation, weights)


@dataclass
class Plan:
    """Computes keys and looks them up; starts nothing and imports neither torch nor Prefect. explain: say why each
    stage would run; known: most similar results by settings, shared by the plans of many clips."""

    store: Store
    planned: list[Planned] = field(default_factory=list)
    extent: Extent = field(default_factory=Extent)  # of the clip, once its frames have been planned
    steps: int = STEPS  # of the inversion, once it has been planned
    explain: bool = True
    known: Known = field(default_factory=Known)

    def __call__(
        self, stage: Stage, params: Any, *, implementation: str = "", weights: Mapping[str, str] = {}, **inputs: Any
    ) -> Artifact | Promise:
        chosen = Chosen(implementation, weights)
        waits_for = [v.stage for v in inputs.values() if isinstance(v, Promise)]
        recipe = recipe_of(self.store, stage, params, chosen, {} if waits_for else inputs, lacking=True)
        self._look(stage, params, inputs)
        add = partial(self._add, stage.name, described(stage, params))
        if waits_for:
            likely = self._forecast(recipe, params)
            ran_before = f"; reused if {'these come' if len(waits_for) > 1 else 'that comes'} out unchanged"
            why = f"depends on {', '.join(waits_for)}" + (ran_before if likely.seconds is not None else "")
            add("may run", why, forecast=likely, lacks=lacking(stage, chosen))
            return Promise(stage.name)
        if lacks := lacking(stage, chosen):
            why = "first time: its weights are not here"
            likely = self._forecast(recipe, params)
            add("will run", why, forecast=likely, lacks=lacks)
            return Promise(stage.name)
        if record := self.store.find(stage.name, recipe.key):
            size = record.artifact.bytes
            add("cached", "", recipe.key, record.seconds, size)
            self._look(stage, params, {"made": record.artifact})
            return record.artifact
        why = why_missing(self.store, recipe) if self.explain else ""
        if self.store.partial_path(recipe.key).exists():
            why += "; goes on from the chunks of an interrupted run"
        add("will run", why, recipe.key, forecast=self._forecast(recipe, params))
        return Promise(stage.name)

    def _add(self, name: str, says: str, *args: Any, **values: Any) -> None:
        self.planned.append(Planned(name, *args, says=says, **values))

    def _look(self, stage: Stage, params: Any, inputs: Mapping[str, Any]) -> None:
        """Remember what later stages' forecasts go by. Raises what is wrong with a clip, as far as its container
        tells."""
        if stage.name == "frames":
            made, clip = inputs.get("made"), inputs.get("clip")
            if made is not None:
                meta = made.meta
                source = meta["source_width"] * meta["source_height"]
                self.extent = Extent(meta["count"], source, meta["width"] * meta["height"])
            elif isinstance(clip, Clip):
                self.extent = extent_before(clip, params)
        elif stage.name == "inversion":
            self.steps = params.settings.steps

    def require(self, references: Sequence[str]) -> None:
        """A plan may name weights that are not here: it says so. Raises ConfigError E250 for a name that is none."""
        for reference in references:
            local.locate(reference)

    def _forecast(self, recipe: Recipe, params: Any) -> Forecast:
        return forecast(self.store, recipe, params, self.extent, self.steps, self.known)


@dataclass
class Local:
    """Runs each stage in this process, or takes it from the store."""

    store: Store
    observer: Observer = field(default_factory=Silent)
    on_outcome: Callable[[Outcome], None] = lambda outcome: None
    outcomes: list[Outcome] = field(default_factory=list)
    made_before: dict[str, Outcome] = field(default_factory=dict)  # by this very run, before it met damage
    reported: set[tuple[str, str]] = field(default_factory=set)  # (key, status) of earlier passes that met damage

    def __call__(
        self, stage: Stage, params: Any, *, implementation: str = "", weights: Mapping[str, str] = {}, **inputs: Any
    ) -> Artifact:
        return self.noted(self.outcome(stage, params, Chosen(implementation, weights), inputs)).artifact

    def noted(self, outcome: Outcome) -> Outcome:
        """Keep an outcome and report it once."""
        self.outcomes.append(outcome)
        if (outcome.key, outcome.status) not in self.reported:
            self.on_outcome(outcome)
        return outcome

    def require(self, references: Sequence[str]) -> None:
        """Raises MachineError E302 for weights that are not here, E250 for a name that is none."""
        local.require_all(references)

    def outcome(self, stage: Stage, params: Any, chosen: Chosen, inputs: Mapping[str, Any]) -> Outcome:
        """Find or make one stage's result."""
        paths = files_of(params) + [path for v in inputs.values() if isinstance(v, Clip) for path in v.paths()]
        own = [str(path) for reference in chosen.weights.values() if (path := local.local_path(reference)) is not None]
        sources = Sources(self.store, paths + own)
        recipe = recipe_of(self.store, stage, params, chosen, inputs)
        outcome = compute(self.store, stage, recipe, params, inputs, self.observer, sources)
        return self.made_before.get(outcome.key, outcome) if outcome.status == "cached" else outcome

    def healed(self, build: Callable[[], Any]) -> Any:
        """Call `build` (a pass over a graph); when it meets a damaged object, set aside all damage among what the
        pass had used and call it again. Each round has less to trust and more to make anew, and tells of that only."""
        self.reported.clear()
        for _ in range(HEALING_ROUNDS):
            try:
                return build()
            except DamagedError:
                for outcome in self.outcomes:
                    drop_damaged(self.store, outcome.artifact)
                self.made_before |= {o.key: o for o in self.outcomes if o.status == "ran"}
                self.reported |= {(o.key, o.status) for o in self.outcomes}
                self.outcomes.clear()
        return build()


class Prefect(Local):
    """Local, with every stage call shown as a Prefect task. To be used inside a flow run."""

    def __call__(
        self, stage: Stage, params: Any, *, implementation: str = "", weights: Mapping[str, str] = {}, **inputs: Any
    ) -> Artifact:
        from prefect import task
        from prefect.cache_policies import NO_CACHE
        from prefect.states import Completed

        chosen = Chosen(implementation, weights)

        # A task must return the handle, not raise it through a state: the outcome travels beside it.
        @task(name=stage.name, cache_policy=NO_CACHE, persist_result=False)
        def run_stage(ingredients: Mapping[str, Any]) -> Any:
            outcome = self.noted(self.outcome(stage, params, chosen, inputs))
            if outcome.status == "cached":
                return Completed(name="Cached", data=outcome.artifact.as_json())
            return outcome.artifact.as_json()

        recipe = recipe_of(self.store, stage, params, chosen, inputs)
        run_stage(recipe.ingredients())
        return self.outcomes[-1].artifact


def lacking(stage: Stage, chosen: Chosen) -> tuple[str, ...]:
    """References of weights that have to be fetched before a stage can run."""
    if stage.optional_weights:
        return ()
    return tuple(reference for reference in chosen.weights.values() if local.locate(reference) is None)


def drop_damaged(store: Store, artifact: Artifact) -> None:
    """Set aside every damaged object of an artifact."""
    for file in artifact.files:
        try:
            store.verify(file)
        except DamagedError:
            continue
