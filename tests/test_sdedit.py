"""The method sdedit on tiny models: what it leaves alone, what it is told, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from helpers import small_cogvideox
from helpers import small_diffusion as small
from helpers.command import Shell, reference
from helpers.stages import Calls, ProgressLog, StopAfter, run, seen

from flows.settings.compose import settings
from retake.diffusion.loading.load import load
from retake.diffusion.model import Model
from retake.errors import ConfigError, RetakeError
from retake.formats import open_series
from retake.methods import canvas
from retake.stage import Sources
from retake.synthetic import scenes
from retake.synthetic.world import World

COUNT = 18
CLIP = [f"frames.last={COUNT - 1}", "frames.short_side=48", "masks.box=[40,40,130,130]"]
QUICK = ["inversion.steps=5", "inversion.iterations=3", "inversion.overlap=2", "decode.preset=veryfast"]
PAINT = ["edit=sdedit", "edit.prompt=red ball", "edit.strength=0.8", "edit.guidance=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """It predicts velocity: random weights that predict noise say nothing of the clip where noise is nearly all."""
    scheduler = DDIMScheduler(**small.SCHEDULE, prediction_type="v_prediction")
    return small.save_embedded_like(tmp_path_factory.mktemp("model"), scheduler=scheduler)


@pytest.fixture(scope="module")
def painted(folder, tmp_path_factory):
    """Edit the clip with more settings; what earlier edits made is in the store."""
    root = tmp_path_factory.mktemp("painted") / "retake"
    model = [f"model.{name}={value}" for name, value in small.settings(folder).items()]

    def paint(*more: str, until: str = "edit") -> Calls:
        return run(root, "sprites:drift", settings([*CLIP, *QUICK, *model, *PAINT, *more]), until)

    return paint


def chunks(calls: Calls) -> list[dict[str, np.ndarray]]:
    series = open_series(calls.store, calls.made["edit"])
    return [series.chunk(index) for index in range(series.chunks())]


def whole_frames(calls: Calls) -> np.ndarray:
    """uint8 [T, H, W, 3] of an edit of the whole frame."""
    return np.concatenate([chunk["rgb"] for chunk in chunks(calls)])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """In dB, of uint8 clips."""
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-6)))


# ---- what it leaves alone ------------------------------------------------------------------------------------------


def test_outside_the_region_every_pixel_is_the_sources(painted):
    calls = painted(until="decode")
    assert calls.made["edit"].meta["name"] == "sdedit"
    meta, world = calls.made["frames"].meta, World(scenes.scene("drift"))
    working, full = (meta["width"], meta["height"]), (meta["source_width"], meta["source_height"])
    edits, result = (open_series(calls.store, calls.made[name]) for name in ("edit", "decode"))
    for t in (0, 9, 17):
        box, _, alpha = edits[t]
        touched, opaque = seen(alpha, box, working, full)
        source, out = world.frame(t), result[t]
        assert 0.02 < touched.mean() < 0.4
        assert np.array_equal(out[~touched], source[~touched])
        assert (out[opaque] != source[opaque]).any(axis=1).mean() > 0.9


def test_what_it_is_told_changes_the_inside_only(painted, tmp_path):
    picture = reference(tmp_path / "picture.png")
    first = chunks(painted())
    others = [
        painted("edit.prompt=blue cube"),
        painted(f"edit.reference={picture}"),
        painted(f"edit.reference={picture}", "edit.prompt=null"),
        painted("edit.unwanted=blue"),
        painted("edit.strength=0.4"),
    ]
    looks = [first, *map(chunks, others)]
    for other in looks[1:]:
        for a, b in zip(first, other, strict=True):
            assert np.array_equal(a["box"], b["box"])
            assert np.array_equal(a["alpha"], b["alpha"])
    assert len({chunk[0]["rgb"].tobytes() for chunk in looks}) == len(looks)


def test_with_nothing_to_change_it_gives_back_what_the_autoencoder_does(painted, folder):
    """Inversion and denoising under one prompt: from the highest level, the whole way, back to the clip."""
    same = ("inversion.prompt=red ball", "edit.guidance=1", "edit.strength=1", "edit.mask=false", "inversion.steps=20")
    calls = painted(*same)
    frames, latents = (open_series(calls.store, calls.made[name]) for name in ("frames", "latents"))
    backbone = load(Model(**small.settings(folder)))
    decoded = backbone.decode(torch.from_numpy(latents.span(range(COUNT)))[None])[0]
    from retake.video import resize

    coded = np.stack([resize(rgb, (frames.width, frames.height)) for rgb in canvas.as_rgb(decoded)])
    source, back = np.stack(list(frames)), whole_frames(calls)
    assert psnr(back, coded) > 40
    assert abs(psnr(back, source) - psnr(coded, source)) < 0.5

    # From noise, the nearer the start is to the clip, the nearer is what comes out.
    noisy = ("edit.source=noise", "edit.steps=25", "edit.mask=false")
    distances = [psnr(whole_frames(painted(*noisy, f"edit.strength={s}")), coded) for s in (0.04, 0.2, 0.8)]
    assert distances[0] > distances[1] > distances[2]
    assert distances[0] > 20


# ---- seeds, kills --------------------------------------------------------------------------------------------------


def test_a_seed_is_one_result_whatever_the_batch(painted):
    cheap = ("edit.source=noise", "edit.steps=5")
    calls = painted(*cheap)
    assert "inversion" not in calls.made
    calls.record("edit").unlink()
    assert calls.again("edit").digest == calls.made["edit"].digest
    batched = painted(*cheap, "model.batch=4")
    assert batched.ran == []
    assert painted(*cheap, "edit.seed=1").made["edit"].digest != calls.made["edit"].digest


def test_a_killed_edit_goes_on_with_the_chunks_that_it_lacks(painted, folder):
    calls = painted("edit.seed=2")
    whole = calls.made["edit"].digest
    calls.record("edit").unlink()
    with pytest.raises(KeyboardInterrupt):
        calls.again("edit", StopAfter(4 + 1))  # four steps, then the first chunk
    key = next(o.key for o in calls.outcomes if o.stage == "edit")
    mark = Sources(calls.store, [str(folder)]).mark
    assert [f["name"] for f in (calls.store.load_partial(key, mark) or {})["files"]] == ["00000.safetensors"]
    assert calls.again("edit").digest == whole


def test_a_killed_edit_goes_on_with_its_denoising(painted, folder):
    calls = painted("edit.seed=3", "inversion.steps=20", "inversion.iterations=0")  # 16 steps, 8 of them kept
    whole = calls.made["edit"].digest
    calls.record("edit").unlink()
    with pytest.raises(KeyboardInterrupt):
        calls.again("edit", StopAfter(11))
    seen = ProgressLog()
    assert calls.again("edit", seen).digest == whole
    assert seen.steps[:2] == [(9, 16), (10, 16)]


# ---- every family --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["unet3d", "cogvideox", "cogvideox with an image autoencoder"])
def test_it_runs_on_every_family(family, painted, tmp_path):
    if family == "unet3d":
        model = small.settings(small.save_modelscope(tmp_path / "m"))
    elif family == "cogvideox":
        path = small_cogvideox.save(tmp_path / "m")
        model = {"weights": path, "height": 32, "width": 48, "frames": 9, "device": "cpu", "batch": 8}
    else:
        path, parts = small_cogvideox.save_embedded(tmp_path)
        model = {"weights": path, "parts": parts, "height": 64, "width": 64, "frames": 16, "device": "cpu", "batch": 8}
    words = [f"model.{name}={value}" for name, value in model.items()]
    calls = painted(*words, f"model.family={family.partition(' ')[0]}", "edit.prompt=ab", "inversion.steps=3")
    assert calls.made["latents"].meta["time"] == (4 if family == "cogvideox" else 1)
    assert calls.made["latents"].meta["frames"] == COUNT
    assert sum(len(chunk["rgb"]) for chunk in chunks(calls)) == COUNT
    assert all(chunk["alpha"].any((1, 2)).all() for chunk in chunks(calls))


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["edit.prompt=null"], "E230", "edit.reference=IMAGE"),
        (["edit.prompt="], "E230", "edit.prompt="),
        (["edit.strength=0"], "E291", "0.2 or more"),
        (["edit.strength=0.05"], "E291", "0.2 or more"),
        (["edit.strength=0.1", "edit.source=noise", "edit.steps=4"], "E291", "0.25 or more"),
        (["edit.steps=20"], "E292", "inversion.steps=20"),
        (["edit.overlap=2"], "E292", "inversion.overlap=2"),
        (["edit.reference=nowhere.png"], "E400", ""),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_computed(painted, words, code, hint):
    with pytest.raises(RetakeError) as caught:
        painted(*words)
    assert caught.value.code == code
    assert hint in caught.value.hint


def test_a_model_of_text_alone_takes_no_reference(painted, tmp_path):
    plain = small.save_embedded_like(tmp_path / "plain", joint=False)
    words = (f"model.weights={plain}", f"edit.reference={reference(tmp_path / 'picture.png')}")
    with pytest.raises(ConfigError, match="E273") as caught:
        painted(*words)
    assert "edit.reference" in str(caught.value)
    assert not (plain / "image_encoder").exists()
    backbone = load(Model(**small.settings(plain)))
    with pytest.raises(ConfigError, match="E273"):
        backbone.condition(["a ball"], torch.zeros(1, 3, 8, 8))


def test_a_reference_is_laid_square_on_grey(tmp_path):
    from retake.video import write_png

    image = np.zeros((4, 8, 4), np.uint8)
    image[..., 0] = 255
    image[:, :4, 3] = 255
    write_png(tmp_path / "a.png", image)
    seen_ = canvas.shown(str(tmp_path / "a.png"))
    assert seen_.shape == (1, 3, 8, 8)
    assert torch.allclose(seen_[0, :, 3, 1], torch.tensor([1.0, -1, -1]))
    assert torch.allclose(seen_[0, :, [0, 3], [1, 6]], torch.tensor(127 / 127.5 - 1))


def test_from_the_command_line(folder, tmp_path):
    shell = Shell(tmp_path)
    model = [f"model.{name}={value}" for name, value in small.settings(folder).items()]
    few = ["frames.last=3", "inversion.steps=2", "inversion.iterations=0"]
    words = ["sprites:drift", *CLIP, *QUICK, *model, *PAINT, *few, "--until", "edit", "--json"]
    assert shell("plan", *words).statuses()["inversion"] == "may run"
    result = shell("edit", *words)
    assert result.ran() == ["frames", "optical_flow", "masks", "region", "latents", "inversion", "edit"]
    assert shell("edit", *words).ran() == []
    recipe = json.loads(next((tmp_path / "edits").rglob("recipe.json")).read_text())
    assert recipe["settings"]["model"]["height"] == small.SIZE
