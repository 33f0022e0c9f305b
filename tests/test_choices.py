"""Every settings file of every choice: it composes, validates, and reaches the code that does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import small_diffusion, small_sam2
from helpers.command import CHECKOUT

from flows import graph
from flows.editing import export
from flows.runners import Local
from flows.settings.choice import CHOICES
from flows.settings.compose import Settings, settings
from retake.clip import open_clip
from retake.diffusion.model import weights_of
from retake.errors import MachineError
from retake.store import Store
from retake.weights.catalogue import CATALOGUE, Shipped
from retake.weights.local import locate

SMALL = ("frames.last=5", "frames.short_side=64", "report.tile=64", "report.columns=2", "decode.preset=veryfast")
BOX = "masks.box=[40,40,130,130]"
EDIT = f"edit.reference={CHECKOUT}/params/dataset/ball.png"
HIDE = "edited_tracks.edits=[{{do: hide}}]"
# What a choice cannot do without: words to type, in which a name in braces is a folder or file that was exported.
NEEDED = {
    "optical_flow/given": ("optical_flow.forward={flow}/forward", "optical_flow.backward={flow}/backward"),
    "depth/given": ("depth.path={depth}",),
    "masks/given": ("masks.path={masks}",),
    "masks/sam2": (BOX,),
    "tracks/given": ("tracks.path={tracks}", BOX),
    "edited_tracks/given": ("edited_tracks.path={tracks}", BOX),
    "edited_tracks/program": (HIDE, BOX),
    "edit/move": (HIDE, BOX),
    "edit/timetomove": (HIDE, "edit.steps=2", BOX),
    "edit/motionv2v": (HIDE, "edit.steps=2", "model=embedded_dit", BOX),
    "edit/ivediff": ("edit.steps=2", "model=embedded_ivediff", BOX),
    "edit/sdedit": ("edit.prompt=a disc", "inversion.steps=2", BOX),
    "edit/moft": (
        "edit.targets=[{{object: 1, direction: right}}]",
        "inversion.steps=2",
        "motion_channels.scenes=1",
        BOX,
    ),
    "inversion/default": ("inversion.steps=2",),
    "motion_channels/default": ("motion_channels.scenes=1", "inversion.steps=2"),
}
PICTURELESS = ("edit/move", "edit/timetomove", "edit/motionv2v", "edit/moft")
PROMPTED = {"region", "tracks", "edit", "decode", "metrics", "report"}


def references(p: Settings, until: str) -> list[str]:
    """What a choice loads: its own weights, and the diffusion model's where it needs that."""
    own = p.choices[until].weights if until in CHOICES else {}
    model = weights_of(p.model) if "latents" in graph.closure(p, until) else {}
    return [*own.values(), *model.values()]


def choices() -> list[str]:
    files = (CHECKOUT / "params").glob("*/*.yaml")
    return sorted(f"{p.parent.name}/{p.stem}" for p in files if p.parent.name not in ("dataset", "evaluation"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, Any]:
    """Flow, depth, masks and tracks of the clip, as files."""
    folder = tmp_path_factory.mktemp("exported")
    what = ["flow", "depth", "masks", "tracks"]
    runner = Local(Store(folder / "store", lambda line: None))
    found: dict[str, Any] = export.export("sprites:drift", what, folder / "out", [*SMALL, BOX], runner=runner)
    return found


@pytest.fixture
def nothing_fetched(tmp_path, monkeypatch) -> Path:
    """A machine without any weights."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    return tmp_path


@pytest.mark.parametrize("choice", choices())
def test_a_choice_composes_validates_and_reaches_its_code(choice, exported, nothing_fetched):
    group, _, name = choice.partition("/")
    words = [w.format(**exported) for w in NEEDED.get(choice, (BOX,) if group in PROMPTED or group == "masks" else ())]
    pasted = () if choice in PICTURELESS else (EDIT,)  # which take no picture
    p = settings([f"{group}={name}", *SMALL, *pasted, *words])
    runner = Local(Store(nothing_fetched / "store", lambda line: None))
    until = "latents" if group == "model" else group
    if missing := [reference for reference in references(p, until) if locate(reference) is None]:
        # It loads a network: without weights it stops before any work, with the command that gets them.
        with pytest.raises(MachineError) as caught:
            graph.edit_graph(runner, open_clip("sprites:drift"), p, until)
        assert caught.value.code == "E302"
        assert missing[0] in caught.value.message
        assert missing[0] in CATALOGUE
        if not isinstance(CATALOGUE[missing[0]].source, Shipped):
            assert caught.value.hint.endswith(f": retake weights {' '.join(dict.fromkeys(missing))}")
        assert not runner.outcomes
        return
    made = graph.edit_graph(runner, open_clip("sprites:drift"), p, until)
    assert until in made
    if group == "model":
        return
    assert [o.status for o in runner.outcomes if o.stage == group] == ["ran"]
    if group in CHOICES:
        record = runner.store.find(group, next(o.key for o in runner.outcomes if o.stage == group))
        assert record is not None
        assert record.recipe["implementation"].startswith(f"{name}@")


@pytest.fixture(scope="module")
def small_masks(tmp_path_factory) -> dict[str, Path]:
    return small_sam2.saved(tmp_path_factory.mktemp("sam2"), small_sam2.small_model())


@pytest.fixture(scope="module")
def small_model(tmp_path_factory) -> Path:
    return small_diffusion.save_embedded_like(tmp_path_factory.mktemp("diffusion"))


TINY = ("model.weights={}", "model.height=32", "model.width=32", "model.frames=8", "inversion.steps=2")
WITH_NETWORKS = {
    "edit=sdedit": ("small_model", *TINY, "edit.prompt=a b", BOX),
    "optical_flow=raft": ("small_raft", "optical_flow.weights={}", "optical_flow.updates=2"),
    "depth=depth_anything": ("small_depth", "depth.weights={}"),
    "masks=sam2": ("small_masks:transformers", "masks.weights={}", BOX),
    "masks=sam2 masks.backend=sam2": ("small_masks:sam2", "masks.weights={}", BOX),
    "metrics=all": ("clip_folder", "metrics.clip_score.weights={}", "metrics.clip_score.prompt=a b", BOX),
}


@pytest.mark.parametrize("choice", WITH_NETWORKS)
def test_a_choice_with_a_network_loads_it_and_runs(choice, request, nothing_fetched):
    """Through the graph, with small random weights in the genuine classes: what loads them is what loads real ones."""
    given, *words = WITH_NETWORKS[choice]
    fixture, _, part = given.partition(":")
    weights = request.getfixturevalue(fixture)
    path = weights[part] if part else weights
    p = settings([*choice.split(), *SMALL, EDIT, *(word.format(path) for word in words)])
    group = choice.partition("=")[0]
    runner = Local(Store(nothing_fetched / "store", lambda line: None))
    made = graph.edit_graph(runner, open_clip("sprites:drift"), p, group)
    record = runner.store.find(group, next(o.key for o in runner.outcomes if o.stage == group))
    assert record is not None
    identities = record.recipe["weights"].values()
    assert any(identity.startswith("sha256:") for identity in identities)
    assert str(path) not in str(record.recipe)
    if group == "metrics":
        assert made["metrics"].meta["networks"]["clip_t"]
        assert "retake weights" in made["metrics"].meta["reasons"]["lpips"]
