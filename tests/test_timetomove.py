"""The method timetomove on tiny models: what it follows, what it leaves alone, kills and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from helpers import small_cogvideox
from helpers import small_diffusion as small
from helpers.stages import Calls, ProgressLog, StopAfter, run

from flows.settings.compose import settings
from retake.diffusion.loading.load import load
from retake.diffusion.model import Model
from retake.errors import RetakeError
from retake.formats import open_series
from retake.methods import canvas
from retake.synthetic import scenes
from retake.synthetic.world import World
from retake.video import resize

COUNT = 18
MOVE = json.dumps([{"do": "move", "by": [40, 0]}])
CLIP = [f"frames.last={COUNT - 1}", "masks=given", "masks.own=true", "tracks.reseed=0", f"edited_tracks.edits={MOVE}"]
QUICK = ["edit=timetomove", "edit.steps=10", "edit.prompt=red ball", "edit.guidance=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    scheduler = DDIMScheduler(**small.SCHEDULE, prediction_type="v_prediction")
    return small.save_embedded_like(tmp_path_factory.mktemp("model"), scheduler=scheduler)


@pytest.fixture(scope="module")
def moved(folder, tmp_path_factory):
    """Edit the clip with more settings; what earlier edits made is in the store."""
    root = tmp_path_factory.mktemp("moved") / "retake"
    model = [f"model.{name}={value}" for name, value in small.settings(folder).items()]

    def move(*more: str, until: str = "edit", how: list[str] = QUICK) -> Calls:
        return run(root, "sprites:still", settings([*CLIP, "decode.preset=veryfast", *how, *model, *more]), until)

    return move


def result(calls: Calls) -> np.ndarray:
    return np.stack(list(open_series(calls.store, calls.made["decode"])))


def apart(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """Mean distance in levels of 255."""
    return float(np.abs(a.astype(float) - b)[where].mean())


def test_objects_follow_the_crude_move_as_far_as_they_are_held(tmp_path):
    """Held down to the clean clip they are the crude move through the autoencoder, whatever the model paints."""

    def made(*how: str) -> np.ndarray:
        words = [*CLIP, "decode.preset=veryfast", "frames.last=15", "edit.steps=5", *how]
        words = words if "edit=move" not in how else [word for word in words if word != "edit.steps=5"]
        return result(run(tmp_path / "retake", "sprites:still", settings(words), "decode"))

    crude, backbone = made("edit=move"), load(Model())
    small_frames = np.stack([resize(frame, (backbone.width, backbone.height)) for frame in crude])
    pixels = torch.from_numpy(small_frames.transpose(0, 3, 1, 2).copy()).float()[None] / 127.5 - 1
    shape = crude.shape[2], crude.shape[1]
    coded = np.stack([resize(frame, shape) for frame in canvas.as_rgb(backbone.decode(backbone.encode(pixels))[0])])
    middle = np.roll(World(scenes.scene("still")).mask(8, 0), 40, 1)  # where the object lies, its rim left out
    for _ in range(6):
        middle &= np.roll(middle, 1, 0) & np.roll(middle, -1, 0) & np.roll(middle, 1, 1) & np.roll(middle, -1, 1)
    painted = ("edit=timetomove", "edit.prompt=a blue star", "edit.guidance=3")
    held, free = (apart(made(*painted, f"edit.hold={hold}")[8], coded[8], middle) for hold in (0, 0.9))
    assert held < 16
    assert free > 2 * held, (held, free)


def test_what_no_edge_touches_is_the_sources(moved):
    calls = moved(until="decode")
    edits, made = open_series(calls.store, calls.made["edit"]), result(calls)
    world = World(scenes.scene("still"))
    for t in (0, 9, 17):
        (x0, y0, x1, y1), _, alpha = edits[t]
        touched = np.zeros(made.shape[1:3], bool)
        touched[y0:y1, x0:x1] = alpha > 0
        assert np.array_equal(made[t][~touched], world.frame(t)[~touched])
        both = world.mask(t, 0) | np.roll(world.mask(t, 0), 40, 1)
        assert touched[both].mean() > 0.98  # the old place and the new one
        assert touched.mean() < 2.5 * both.mean()


def test_a_killed_edit_goes_on_with_its_denoising(moved):
    calls = moved("edit.seed=3", "edit.steps=40", "edit.strength=0.5", "edit.hold=0.3")  # 8 steps held, 12 free
    whole = calls.made["edit"].digest
    for steps in (6, 10, 18):
        calls.record("edit").unlink()
        with pytest.raises(KeyboardInterrupt):
            calls.again("edit", StopAfter(steps))
        assert calls.again("edit").digest == whole
    calls.record("edit").unlink()
    with pytest.raises(KeyboardInterrupt):
        calls.again("edit", StopAfter(10))
    seen = ProgressLog()
    assert calls.again("edit", seen).digest == whole
    assert seen.steps[0] == (9, 20)


def test_it_runs_on_the_video_transformer_with_its_own_autoencoder(moved, tmp_path):
    path = small_cogvideox.save(tmp_path / "m")
    model = {
        "weights": path,
        "height": 32,
        "width": 48,
        "frames": 9,
        "device": "cpu",
        "batch": 8,
        "family": "cogvideox",
    }
    calls = moved(
        *(f"model.{name}={value}" for name, value in model.items()), "edit.prompt=ab", "edit.steps=3", "edit.overlap=1"
    )
    series = open_series(calls.store, calls.made["edit"])
    chunks = [series.chunk(index) for index in range(series.chunks())]
    assert sum(len(chunk["rgb"]) for chunk in chunks) == COUNT
    assert all(chunk["alpha"].any((1, 2)).all() for chunk in chunks)


def test_a_clip_of_which_nothing_moves_stays_the_source(moved):
    calls = moved("edited_tracks.edits=[{do: move, by: [0, 0]}]", until="decode")
    world = World(scenes.scene("still"))
    assert np.array_equal(result(calls)[5], world.frame(5))


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["edit.strength=0.01"], "E291", "0.1 or more"),
        (["edit.hold=0.95"], "E291", "edit.hold=0.9 or less"),
        (["edit.order=[7]"], "E238", "The masks hold"),
    ],
)
def test_what_cannot_work_is_refused(moved, words, code, hint):
    with pytest.raises(RetakeError) as caught:
        moved(*words)
    assert caught.value.code == code
    assert hint in caught.value.hint
