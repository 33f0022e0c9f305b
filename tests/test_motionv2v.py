"""The method motionv2v on tiny models: what its branch is told, what it leaves alone, kills, plans and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_cogvideox
from helpers.stages import Calls, ProgressLog, StopAfter, run

from flows.planning.forecast import of_model
from flows.settings.compose import settings
from retake.diffusion.cost.predict import predicted, table
from retake.diffusion.families.cogvideox.control import ControlBranch
from retake.diffusion.loading.load import load
from retake.diffusion.model import Model, Modelled
from retake.diffusion.sampling.chunked_vae import decoded
from retake.diffusion.sampling.ddim import noise, sample
from retake.errors import RetakeError
from retake.formats import open_series
from retake.imaging.blobs import SIGMA
from retake.methods import Inputs, canvas, motionv2v
from retake.methods.motionv2v.control_points import Told, chosen, spread
from retake.synthetic import scenes
from retake.synthetic.world import World
from retake.training import motionv2v as training

COUNT = 9
MOVE = json.dumps([{"do": "move", "by": [40, 0]}])
CLIP = [f"frames.last={COUNT - 1}", "masks=given", "masks.own=true", "tracks.queries=grid", "decode.preset=veryfast"]
QUICK = ["edit=motionv2v", "edit.steps=4", f"edited_tracks.edits={MOVE}"]
SIZE = {"height": 32, "width": 48, "frames": 9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small_cogvideox.save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def branches(tmp_path_factory) -> dict[str, Path]:
    """Control branches of the model: as they begin, one that has learnt something, and one of another model."""
    to, network = tmp_path_factory.mktemp("branches"), small_cogvideox.transformer()
    torch.manual_seed(0)
    made = {
        "fresh": ControlBranch.of(network, 3, 2),
        "taught": ControlBranch.of(network, 3, 2),
        "other": ControlBranch.of(small_cogvideox.transformer(num_attention_heads=3), 3, 2),
    }
    for projection in made["taught"].projections:
        torch.nn.init.normal_(projection.weight, std=0.2)
    for name, one in made.items():
        one.save_pretrained(to / name)
    network.save_pretrained(to / "network")
    return {name: to / name for name in (*made, "network")}


@pytest.fixture(scope="module")
def moved(folder, branches, tmp_path_factory):
    """Edit the clip with more settings; what earlier edits made is in the store."""
    root = tmp_path_factory.mktemp("moved") / "retake"
    model = {"weights": folder, "device": "cpu", "family": "cogvideox", **SIZE}
    words = [*CLIP, *QUICK, *(f"model.{name}={value}" for name, value in model.items())]

    def move(*more: str, branch: str = "taught", until: str = "edit") -> Calls:
        return run(root, "sprites:still", settings([*words, f"edit.branch={branches[branch]}", *more]), until)

    return move


def painted(calls: Calls) -> np.ndarray:
    series = open_series(calls.store, calls.made["edit"])
    return np.concatenate([series.chunk(index)["rgb"] for index in range(series.chunks())])


def test_a_fresh_branch_leaves_the_model_to_itself(moved, folder):
    backbone = load(Model(weights=str(folder), family="cogvideox", device="cpu", **SIZE))  # type: ignore[arg-type]
    z = noise(0, range(3), (4, 8, 12))
    sample(backbone, z, backbone.condition([""]), steps=4)
    alone = torch.cat(list(decoded(backbone, z, COUNT)))
    made = painted(moved(branch="fresh"))
    expected = canvas.patch(alone, (made.shape[2], made.shape[1]), None).rgb
    assert np.abs(made.astype(int) - expected).max() <= 1
    assert expected.std() > 1


def test_a_branch_of_no_weight_leaves_the_model_to_itself(moved):
    assert np.array_equal(painted(moved("edit.scale=0")), painted(moved(branch="fresh")))


def test_a_single_point_cannot_be_shuffled(moved):
    one = moved("edit.ablation=shuffled", "edit.points=1").made["edit"].meta["notes"]
    assert any("keeps its own path" in note for note in one)
    assert not any("keeps its own path" in note for note in moved("edit.ablation=shuffled").made["edit"].meta["notes"])


def test_what_an_ablation_keeps_from_the_branch_is_missing(moved, tmp_path):
    made = [painted(moved(f"edit.ablation={name}")) for name in ("none", "first_frame", "one_colour", "shuffled")]
    for n, one in enumerate(made):
        assert not any(np.array_equal(one, other) for other in made[n + 1 :])
    both = told(moved(), count=6)
    white = replace(both, colours="one_colour").source(range(COUNT)).astype(int)
    assert (white.max(-1) == white.min(-1)).all()
    swapped, frames = replace(both, colours="shuffled"), range(COUNT)
    assert np.array_equal(swapped.source(frames), both.source(frames))
    assert not np.array_equal(swapped.target(frames), both.target(frames))
    assert swapped.target(frames).sum() == pytest.approx(both.target(frames).sum(), rel=0.1)  # the same blobs
    calls = moved()
    inputs = Inputs(open_series(calls.store, calls.made["frames"]), tmp_path)
    still = motionv2v.still_of(inputs, (48, 32))(frames)
    assert still.shape == (COUNT, 32, 48, 3)
    assert (still == still[0]).all()


def test_the_branch_hears_tracks_clip_and_words(moved):
    made = painted(moved())
    for words in (
        [f"edited_tracks.edits={json.dumps([{'do': 'move', 'by': [-40, 0]}])}"],
        ["edit.points=3"],
        ["edit.jitter=2"],
        ["edit.seed=1"],
        ["edit.prompt=ab"],
    ):
        assert not np.array_equal(painted(moved(*words)), made), words


def test_where_nothing_moves_every_pixel_is_the_sources(moved):
    calls = moved("edit.area=moved", until="decode")
    edits, result = open_series(calls.store, calls.made["edit"]), open_series(calls.store, calls.made["decode"])
    world = World(scenes.scene("still"))
    for t in (0, 4, 8):
        (x0, y0, x1, y1), _, alpha = edits[t]
        touched = np.zeros(world.mask(t, 0).shape, bool)
        touched[y0:y1, x0:x1] = alpha > 0
        assert np.array_equal(result[t][~touched], world.frame(t)[~touched])
        both = world.mask(t, 0) | np.roll(world.mask(t, 0), 40, 1)
        assert touched[both].mean() > 0.98  # the old place and the new one
        assert touched.mean() < 2.5 * both.mean()


def test_a_killed_edit_goes_on_with_its_denoising(moved):
    calls = moved("edit.seed=3", "edit.steps=20")
    whole = calls.made["edit"].digest
    for steps, first in ((6, 5), (10, 5), (18, 13)):
        calls.record("edit").unlink()
        with pytest.raises(KeyboardInterrupt):
            calls.again("edit", StopAfter(steps))
        seen = ProgressLog()
        assert calls.again("edit", seen).digest == whole
        assert seen.steps[0] == (first, 20)


def test_a_long_clip_goes_in_windows_that_each_read_their_own_tracks(moved):
    """In one step nothing passes from a window to frames that it does not hold."""

    def late(by: int) -> np.ndarray:
        edits = json.dumps([{"do": "move", "by": [by, 0], "frames": [20, 24]}])
        return painted(moved("frames.last=24", "edit.overlap=1", "edit.steps=1", f"edited_tracks.edits={edits}"))

    right, left = late(40), late(-40)
    assert len(right) == 25
    assert np.array_equal(right[:5], left[:5])
    assert not np.array_equal(right[20:], left[20:])


def told(calls: Calls, count: int = 20, jitter: float = 0.0) -> Told:
    tracks, edited = (open_series(calls.store, calls.made[name]) for name in ("tracks", "edited_tracks"))
    frames = open_series(calls.store, calls.made["frames"])
    ids = chosen(tracks, edited, count).ids
    return Told(tracks, edited, ids, (frames.width, frames.height), (96, 64), 4, jitter, "apart", 0)


def test_the_branch_reads_tracks_and_clip_in_the_order_of_its_training(moved, folder, tmp_path):
    calls = moved()
    backbone = load(Model(weights=str(folder), family="cogvideox", device="cpu", **SIZE))  # type: ignore[arg-type]
    latents, frames = (open_series(calls.store, calls.made[name]) for name in ("latents", "frames"))
    one = replace(told(calls), size=(48, 32))
    read = motionv2v.control_of(backbone, latents, one, None, Inputs(frames, tmp_path))[0:3][None]

    def coded(pictures: np.ndarray) -> torch.Tensor:
        return backbone.encode(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())[None].float() / 127.5 - 1)

    data = {
        "target_tracks": coded(one.target(range(COUNT))),
        "source_tracks": coded(one.source(range(COUNT))),
        "source": torch.from_numpy(latents.span(range(3)))[None],
    }
    assert torch.allclose(read, training.control_of(data, [0]), atol=1e-4)
    assert not torch.allclose(data["target_tracks"], data["source_tracks"], atol=1e-2)


def test_what_stays_is_told_of_where_it_is_followed(moved):
    alone = moved("tracks.queries=mask").made["edit"].meta["notes"]
    assert any("tracks.queries=grid" in note for note in alone)
    assert not any("tracks.queries" in note for note in moved().made["edit"].meta.get("notes", []))


def test_where_what_moves_is_lost_it_is_told(moved):
    assert not any("no point of what moves" in note for note in moved().made["edit"].meta.get("notes", []))
    calls = moved()
    tracks, edited = (open_series(calls.store, calls.made[name]) for name in ("tracks", "edited_tracks"))
    assert chosen(tracks, edited, 20).lost == 0
    moves = edited[0]["ids"][edited[0]["objects"] == 1]
    chunk = tracks.chunk(0)
    chunk["visible"][3:, np.isin(chunk["ids"], moves)] = False  # the tracker loses it on frame 3, the ground never
    short = chosen(Chunked(tracks, chunk), edited, 20)
    assert short.lost == COUNT - 3
    assert np.isin(short.ids, moves).sum() == np.isin(chosen(tracks, edited, 20).ids, moves).sum()


class Chunked:
    """Tracks of one chunk that are others in it."""

    def __init__(self, tracks: Any, chunk: Any) -> None:
        self.tracks, self.only = tracks, chunk

    def chunks(self) -> int:
        return 1

    def chunk(self, index: int) -> Any:
        return self.only

    def __getitem__(self, t: int) -> Any:
        return self.tracks[t]


def test_most_points_are_of_what_moves_and_all_lie_apart(moved):
    one = told(moved())
    assert len(one.ids) == 20
    now = one.edited[0]
    rows = np.searchsorted(now["ids"], one.ids)
    assert (now["objects"][rows] > 0).mean() == pytest.approx(0.75, abs=0.05)
    places = now["source"][rows]
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e3 * np.eye(len(places))
    assert gaps.min() > 5
    few = told(moved(), count=3)
    assert len(few.ids) == 3


def test_spread_places_are_far_from_one_another():
    line = np.stack([np.arange(101.0), np.zeros(101)], 1)
    assert sorted(spread(line, 3)) == [0, 50, 100]
    assert spread(line[:2], 5) in ([0, 1], [1, 0])
    assert spread(line[:0], 5) == []


def test_a_point_has_one_colour_in_both_pictures_and_lies_where_it_is_and_shall_be(moved):
    one = told(moved(), count=1)
    now = one.edited[COUNT - 1]
    row = int(np.searchsorted(now["ids"], one.ids[0]))
    assert now["objects"][row] == 1  # what moves comes first
    for pictures, place in ((one.source, now["source"][row]), (one.target, now["xy"][row])):
        last = pictures(range(COUNT))[-1].astype(int)
        brightest = np.unravel_index(last.sum(-1).argmax(), last.shape[:2])[::-1]
        assert np.abs((place + 0.5) * [96, 64] / one.working - 0.5 - brightest).max() <= 0.6
    source, target = (pictures(range(COUNT))[-1] for pictures in (one.source, one.target))
    assert np.abs(source.max((0, 1)).astype(int) - target.max((0, 1))).max() < 12


def test_only_the_target_is_shaken_and_no_further_than_said(moved):
    calm, shaken = told(moved(), count=1), told(moved(), count=1, jitter=1.0)
    assert np.array_equal(calm.source(range(COUNT)), shaken.source(range(COUNT)))

    def middle(pictures: np.ndarray) -> np.ndarray:
        weight = pictures.sum(-1, dtype=float)
        y, x = np.mgrid[: weight.shape[1], : weight.shape[2]]
        return np.stack([(weight * at).sum((1, 2)) / weight.sum((1, 2)) for at in (x, y)], 1)

    apart = middle(shaken.target(range(COUNT))) - middle(calm.target(range(COUNT)))
    assert 0.5 < np.abs(apart).max() <= SIGMA * 4 + 0.1
    assert len(np.unique(np.round(apart, 2), axis=0)) == COUNT  # anew on every frame


def test_too_many_points_are_told_of(moved):
    notes = moved("edit.points=30").made["edit"].meta["notes"]
    assert any("edit.points=30" in note for note in notes)
    assert not any("edit.points" in note for note in moved().made["edit"].meta.get("notes", []))


def test_plans_count_the_branch(branches, tmp_path):
    configuration: dict[str, Any] = {"channels": 48, "depth": 18, "num_attention_heads": 48, "attention_head_dim": 64}
    configuration |= {"time_embed_dim": 512, "patch_size": 2}
    model = settings(["model=cogvideox_5b"]).model.model_copy(update={"weights": str(tmp_path), "offload": "model"})
    (tmp_path / "transformer").mkdir()
    network = {**configuration, "num_layers": 42, "in_channels": 16}
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(network))
    (tmp_path / "branch").mkdir()
    (tmp_path / "branch" / "config.json").write_text(json.dumps(configuration))
    params = motionv2v.Params(branch=str(tmp_path / "branch"))
    beside = motionv2v.branch(params, model)
    with torch.device("meta"):
        real = ControlBranch(**configuration)
    assert beside.parameters == pytest.approx(sum(p.numel() for p in real.parameters()), rel=0.01)
    plain = predicted(model, "edit", 49, steps=params.steps)
    more = of_model("edit", Modelled(settings=params, model=model), 49, 50)
    assert plain
    assert more
    assert more.flops / plain.flops == pytest.approx(1 + 18 / 42, rel=0.05)
    evaluation = table()[model.name].memory("evaluation", "model", 1, "bfloat16")
    assert more.memory == evaluation + 2 * beside.parameters > plain.memory


def test_another_branch_is_another_key(moved):
    assert moved().made["edit"].digest != moved(branch="fresh").made["edit"].digest


@pytest.mark.parametrize(
    ("words", "branch", "code", "hint"),
    [
        (["edit.branch=motionv2v"], "taught", "E258", "edit=timetomove"),
        (["model.family=unet_motion"], "taught", "E258", "family cogvideox"),
        ([], "other", "E258", "one made for it"),
        ([], "network", "E258", "as training exports it"),
        (["edit.branch=nowhere"], "taught", "E250", ""),
        (["edit.area=moved", "edit.order=[7]"], "taught", "E238", "The masks hold"),
    ],
)
def test_what_cannot_work_is_refused(moved, words, branch, code, hint):
    with pytest.raises(RetakeError) as caught:
        moved(*words, branch=branch)
    assert caught.value.code == code
    assert hint in caught.value.hint
    assert code != "E258" or "this model" not in str(caught.value)  # which is named


def test_the_branch_that_ships_is_no_branch_of_a_published_model(tmp_path):
    with pytest.raises(RetakeError) as caught:
        run(tmp_path / "retake", "sprites:still", settings([*CLIP, *QUICK, "model=cogvideox_5b"]), "edit")
    assert caught.value.code == "E258"  # before its weights are asked for
    assert "cogvideox_5b" in str(caught.value)
