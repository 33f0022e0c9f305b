"""Two hundred random changes of settings: a plan never promises wrongly, and says which setting it was."""

from __future__ import annotations

import random

import pytest
from helpers.stages import DRIFT, Calls, run

from flows import graph
from flows.runners import Plan, Planned
from flows.settings.compose import Settings, settings
from retake.clip import open_clip
from retake.store import Store

COUNT = 200
LAST = "metrics"  # the report has no settings that it shares with others
SMALL = [*DRIFT, "frames.last=3", "frames.short_side=48", "metrics.names=[region]"]
NUMBERS = {  # a value that is drawn was not there before
    "masks.enlarge": (1.2, 2.0),
    "masks.band": (0.03, 0.08),
    "masks.support": (0.5, 0.8),
    "tracks.spacing": (4.0, 9.0),
    "tracks.fb_threshold": (0.5, 2.0),
    "tracks.residual": (10.0, 30.0),
    "edit.strength": (0.1, 1.0),
    "edit.feather": (1.0, 6.0),
    "edit.grow": (0.0, 3.0),
    "edit.residual": (0.0, 1.0),
}
CHOICES = {  # a value that is drawn may have been there before
    "frames.short_side": [40, 44, 48, 52, 56],
    "frames.last": [2, 3, 4, 5],
    "optical_flow.preset": ["ultrafast", "fast", "medium"],
    "masks.seed": [0, 1, 2, 3],
    "masks.iterations": [4, 5, 6],
    "region.steps": ["[]", "[largest]", "[rectangle]"],
    "tracks.levels": [3, 4],
    "tracks.window": [9, 11, 13],
    "edit.fit": ["cover", "contain", "stretch"],
    "decode.crf": [16, 18, 20, 22, 24],
}


def planned(store: Store, p: Settings) -> dict[str, Planned]:
    plan = Plan(store)
    graph.edit_graph(plan, open_clip("sprites:drift"), p, LAST)
    return {one.stage: one for one in plan.planned}


def drawn(rng: random.Random) -> dict[str, str]:
    """One to three settings, each with a value that is not the default's."""
    names = rng.sample([*NUMBERS, *CHOICES], rng.choice((1, 1, 2, 3)))
    return {
        name: f"{rng.uniform(*NUMBERS[name]):.6f}" if name in NUMBERS else str(rng.choice(CHOICES[name]))
        for name in names
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Calls:
    return run(tmp_path_factory.mktemp("plan") / "retake", "sprites:drift", settings(SMALL), LAST)


def test_a_plan_keeps_its_word_and_names_what_changed(made):
    rng, root, store, seen, before = random.Random(5), made.store.root, made.store, set[str](), set[str]()
    for number in range(COUNT):
        changed = drawn(rng)
        p = settings([*SMALL, *(f"{name}={value}" for name, value in changed.items())])
        result = planned(store, p)
        ran = set(run(root, "sprites:drift", p, LAST).ran)
        status = {stage: one.status for stage, one in result.items()}
        where = f"change {number}: {changed}, {status}, ran {sorted(ran)}"
        assert all(status[stage] in ("will run", "may run") for stage in ran), where
        assert {stage for stage in status if status[stage] == "will run"} <= ran, where
        assert not ran & {stage for stage in status if status[stage] == "cached"}, where
        for stage, one in result.items():
            if one.status != "will run":
                continue
            named = {part.partition(":")[0] for part in one.why.split("; ")}
            own = {name for name in changed if name.partition(".")[0] == stage}
            # What is new here is named; alone it is all there is to say. Where a stage meets inputs that it has met
            # before under other settings, these are as near.
            new = own & NUMBERS.keys()
            assert new <= named, f"{where}: {one.why}"
            free = own if new and len(changed) == 1 else own | before
            assert all(name in free or name.startswith("another ") for name in named), f"{where}: {one.why}"
            seen |= named & own
        before |= changed.keys()
    assert len(seen) > 15  # of 20: most were the reason at some time


def test_another_clip_with_the_new_setting_is_no_reason(tmp_path):
    """The clip's own earlier result is nearer than another clip's that has the new setting already."""
    p = settings([*SMALL, "optical_flow.preset=fast"])
    run(tmp_path, "sprites:drift", settings(SMALL), "optical_flow")
    other = run(tmp_path, "sprites:zoom", p, "optical_flow")
    assert planned(other.store, p)["optical_flow"].why == "optical_flow.preset: medium -> fast"
