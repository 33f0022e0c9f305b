"""The stages latents and inversion, through the graph with a tiny model: what is kept, resumed, and in the keys."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from helpers import small_cogvideox
from helpers import small_diffusion as small
from helpers.command import CHECKOUT
from helpers.fields import another
from helpers.stages import Calls, StopAfter, Then, run

from flows import graph
from flows.runners import Chosen, Plan, recipe_of
from flows.settings.compose import settings
from retake.artifact import Frames
from retake.clip import open_clip
from retake.diffusion.loading.load import load
from retake.diffusion.model import Model, Modelled
from retake.diffusion.sampling.chunked_vae import decoded, encoded, latent_count
from retake.diffusion.sampling.ddim import sample
from retake.diffusion.sampling.windows import Windows
from retake.errors import ConfigError, IntegrityError, MachineError
from retake.formats import GROUP, open_series
from retake.params import files_of
from retake.stage import Work, device_used
from retake.store import Store
from retake.video import write_png
from tasks.latents import as_pixels, check, fitted, of_latents

COUNT, STEPS = 21, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """It predicts velocity: random weights that predict noise say nothing of the clip where noise is nearly all."""
    scheduler = DDIMScheduler(**small.SCHEDULE, prediction_type="v_prediction")
    return small.save_embedded_like(tmp_path_factory.mktemp("model"), scheduler=scheduler)


def words(folder: Path, *more: str) -> list[str]:
    """21 frames in windows of 8, ten levels in two groups, two chunks."""
    model = [f"model.{name}={value}" for name, value in small.settings(folder).items()]
    few = [f"frames.last={COUNT - 1}", "frames.short_side=48", f"inversion.steps={STEPS}", "inversion.iterations=1"]
    return [*model, *few, "inversion.overlap=3", "edit=sdedit", "edit.prompt=ab", *more]


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory) -> Calls:
    return run(tmp_path_factory.mktemp("made") / "retake", "sprites:drift", settings(words(folder)), "inversion")


# ---- what is kept --------------------------------------------------------------------------------------------------


def test_latents_are_the_autoencoders_of_the_resized_frames(made, folder):
    assert made.ran == ["frames", "latents", "inversion"]
    latents, frames = (open_series(made.store, made.made[name]) for name in ("latents", "frames"))
    assert (len(latents), latents.meta["frames"], latents.chunks()) == (COUNT, COUNT, 2)
    assert latents.span(range(14, 18)).shape == (4, 4, 8, 8)
    backbone = load(Model(**small.settings(folder)))
    from retake.video import resize

    pixels = as_pixels(np.stack([resize(frames[t], (32, 32)) for t in range(COUNT)]))
    wanted = backbone.encode(pixels[None])[0]
    kept = torch.from_numpy(latents.span(range(COUNT)))
    assert torch.allclose(kept, wanted, atol=2e-3)

    # Half precision costs nothing beside what the autoencoder loses.
    lost, rounded = (backbone.decode(z[None])[0] for z in (wanted, kept))
    assert (rounded - lost).square().mean() < 1e-4 * (lost - pixels).square().mean()
    streamed = torch.cat(list(decoded(backbone, kept, COUNT)))
    assert torch.allclose(streamed, rounded, atol=1e-5)
    assert torch.allclose(torch.cat(list(decoded(backbone, kept, COUNT, first=1))), rounded[16:], atol=1e-5)


def test_every_level_is_kept_and_denoising_them_comes_back(made, folder):
    latents, inversion = (open_series(made.store, made.made[name]) for name in ("latents", "inversion"))
    assert len(made.made["inversion"].files) == 2 * -(-STEPS // GROUP)
    assert inversion.meta["evaluations"] <= 2 * STEPS
    for level in (1, GROUP, GROUP + 1, STEPS):
        assert inversion.level(level, range(COUNT)).shape == (COUNT, 4, 8, 8)
        assert np.array_equal(inversion.level(level, range(14, 19)), inversion.level(level, range(COUNT))[14:19])
    for level in (0, STEPS + 1):
        with pytest.raises(IndexError):
            inversion.level(level, range(1))

    backbone = load(Model(**small.settings(folder)))
    top = torch.from_numpy(inversion.level(STEPS, range(COUNT)))
    back = sample(backbone, top, backbone.condition([""]), steps=STEPS, windows=Windows.of(backbone, COUNT, 3))
    clip = torch.from_numpy(latents.span(range(COUNT)))
    assert (torch.as_tensor(back) - clip).square().mean().sqrt() < 0.05


def test_levels_in_float32_come_back_nearer(made, folder, tmp_path):
    backbone = load(Model(**small.settings(folder)))
    clip = torch.from_numpy(open_series(made.store, made.made["latents"]).span(range(COUNT)))
    missed = {}
    for precision in ("float16", "float32"):
        asked = [f"inversion.precision={precision}", "inversion.tolerance=1e-4", "inversion.iterations=20"]
        root = shutil.copytree(made.store.root, tmp_path / precision)
        whole = run(root, "sprites:drift", settings(words(folder, *asked)), "inversion")
        assert whole.ran == ["inversion"]
        inversion = open_series(whole.store, whole.made["inversion"])
        assert inversion.at(0, "z").dtype == precision
        top = torch.from_numpy(inversion.level(STEPS, range(COUNT)))
        back = sample(backbone, top, backbone.condition([""]), steps=STEPS, windows=Windows.of(backbone, COUNT, 3))
        missed[precision] = float((torch.as_tensor(back) - clip).square().mean().sqrt())
    assert missed["float32"] < 0.2 * missed["float16"]


def test_a_killed_run_in_float32_goes_on_to_the_last_bit(made, folder, tmp_path):
    root = shutil.copytree(made.store.root, tmp_path / "store")
    whole = run(root, "sprites:drift", settings(words(folder, "inversion.precision=float32")), "inversion")
    assert open_series(whole.store, whole.made["inversion"]).at(0, "z").dtype == "float32"
    whole.record("inversion").unlink()
    for file in whole.made["inversion"].files:
        whole.store.object_path(file.sha256).unlink()
    with pytest.raises(KeyboardInterrupt):
        whole.again("inversion", StopAfter(9))
    assert whole.again("inversion").digest == whole.made["inversion"].digest


def test_a_damaged_file_of_levels_is_noticed(made, tmp_path):
    from retake.errors import DamagedError

    shutil.copytree(made.store.root, tmp_path / "store")
    store, artifact = Store(tmp_path / "store", lambda line: None), made.made["inversion"]
    path = store.object_path(artifact["00000.safetensors"].sha256)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedError):
        open_series(store, artifact).level(1, range(2))


@pytest.mark.parametrize(
    ("fit", "frame", "size"),
    [("stretch", (640, 360), (64, 48)), ("short_side", (640, 360), (96, 48)), ("short_side", (90, 200), (48, 96))],
)
def test_frames_are_brought_to_the_models_size(fit, frame, size):
    from tasks.latents import Params

    model = Model(width=64, height=48) if fit == "stretch" else Model(width=48, height=48)
    assert fitted(Modelled(settings=Params(fit=fit), model=model), frame, 4) == size


@pytest.mark.parametrize(
    ("frame", "refused"), [((64, 16), False), ((16, 64), False), ((66, 16), True), ((64, 8192), True)]
)
def test_a_shape_that_would_make_giant_latents_is_refused(frame, refused):
    from tasks.latents import Params

    model = Model(width=48, height=48)
    for fit in ("stretch", "short_side"):
        asked = Modelled(settings=Params(fit=fit), model=model)
        if refused and fit == "short_side":
            with pytest.raises(ConfigError, match="E295") as caught:
                check(Params(fit=fit), frame)
            assert "latents.fit=stretch" in caught.value.hint
        else:
            check(Params(fit=fit), frame)
            assert max(fitted(asked, frame, 4)) <= 4 * 48


def test_the_refusal_comes_before_the_model_is_read(tmp_path):
    (tmp_path / "model").mkdir()  # which holds none: E280, were it read
    (tmp_path / "clip").mkdir()
    for n in range(2):
        write_png(tmp_path / "clip" / f"{n}.png", np.full((16, 80, 3), 90, np.uint8))
    p = settings(["latents.fit=short_side", f"model.weights={tmp_path / 'model'}"])
    with pytest.raises(ConfigError, match="E295"):
        run(tmp_path / "store", str(tmp_path / "clip"), p, "latents")


# ---- resume --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "after"), [("latents", 1), ("inversion", 3), ("inversion", GROUP), ("inversion", 9)])
def test_a_killed_stage_goes_on_from_what_it_committed(made, tmp_path, monkeypatch, name, after):
    shutil.copytree(made.store.root, tmp_path / "store")
    calls = replace(made, store=Store(tmp_path / "store"))
    calls.record(name).unlink()
    for file in made.made[name].files:
        calls.store.object_path(file.sha256).unlink()
    committed: list[int] = []
    commit = Work.commit
    monkeypatch.setattr(
        Work, "commit", lambda self, index, *rest: (commit(self, index, *rest), committed.append(index))[0]
    )
    with pytest.raises(KeyboardInterrupt):
        calls.again(name, StopAfter(after))
    assert len(committed) == {("latents", 1): 1, ("inversion", 3): 0}.get((name, after), 2)
    assert not list((tmp_path / "store" / "tmp").iterdir())
    assert calls.again(name).digest == made.made[name].digest
    assert set(Counter(committed).values()) == {1}


def test_a_kill_between_two_chunks_of_a_group_loses_no_chunk(made, tmp_path, monkeypatch):
    shutil.copytree(made.store.root, tmp_path / "store")
    calls = replace(made, store=Store(tmp_path / "store"))
    calls.record("inversion").unlink()
    committed: list[int] = []
    commit = Work.commit

    def once(self: Work, index: int, *rest) -> None:
        if len(committed) == 3:
            committed.append(-1)
            raise KeyboardInterrupt
        commit(self, index, *rest)
        committed.append(index)

    monkeypatch.setattr(Work, "commit", once)
    with pytest.raises(KeyboardInterrupt):
        calls.again("inversion")
    assert calls.again("inversion").digest == made.made["inversion"].digest
    assert committed == [0, 1, 2, -1, 3]


# ---- keys ----------------------------------------------------------------------------------------------------------


FRAMES = Frames((), {"count": 1})


def keys(store: Store, p) -> dict[str, str]:
    """Keys of the three stages that a model is in, for one and the same input."""
    model = of_latents(p.model)
    calls = {
        "latents": graph.modelled(p.latents, model),
        "inversion": graph.modelled(p.inversion, p.model),
        "edit": graph.method(p),
    }
    found = {}
    for name, call in calls.items():
        chosen = Chosen(call.get("implementation", ""), {})
        found[name] = recipe_of(store, graph.STAGES[name], call["params"], chosen, {"frames": FRAMES}).key
    return found


@pytest.mark.parametrize("name", Model.model_fields)
def test_every_field_of_a_model_is_in_the_keys_where_it_counts(name, tmp_path):
    store, p = Store(tmp_path / "store"), settings(["edit=sdedit", "edit.prompt=ab"])
    info = Model.model_fields[name]
    changed = replace(p, model=p.model.model_copy(update={name: another(info.annotation, getattr(p.model, name))}))
    before, after = keys(store, p), keys(store, changed)
    moved = {stage for stage in before if before[stage] != after[stage]}
    marks = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    beyond = {"motion", "image_adapter", "lora", "lora_scale", "checkpoint", "schedule", "frames"}
    wanted = (
        set() if "inert" in marks else {"inversion", "edit"} if name in beyond else {"latents", "inversion", "edit"}
    )
    assert moved == wanted


def test_weights_are_keyed_by_content_and_must_be_here(folder, tmp_path, monkeypatch):
    store, p = Store(tmp_path / "store"), settings(words(folder))
    there = shutil.copytree(folder, tmp_path / "the same elsewhere")
    same = settings(words(there))
    for stage in ("latents", "inversion"):
        call, other = (graph.modelled(getattr(q, stage), q.model) for q in (p, same))
        one, two = (
            recipe_of(store, graph.STAGES[stage], c["params"], Chosen("", c["weights"]), {"frames": FRAMES})
            for c in (call, other)
        )
        assert one.key == two.key
        assert one.weights["weights"].startswith("sha256:")
        assert str(folder) not in str(one.ingredients())
    assert files_of(graph.method(settings(words(folder, "edit.reference=a.png")))["params"]) == ["a.png"]
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    with pytest.raises(MachineError, match="E302"):
        run(tmp_path / "s", "sprites:drift", settings([*words(folder), "model.weights=org/nothing"]), "inversion")


def test_weights_that_change_during_the_run_are_e601(made, folder, tmp_path):
    shutil.copytree(made.store.root, tmp_path / "store")
    calls = replace(made, store=Store(tmp_path / "store"))
    calls.record("latents").unlink()
    file = folder / "vae" / "config.json"
    kept = file.read_bytes()
    try:
        with pytest.raises(IntegrityError, match="E601") as caught:
            calls.again("latents", Then(lambda: file.write_bytes(kept + b" ")))
        assert folder.name in caught.value.message
    finally:
        file.write_bytes(kept)
    assert not calls.record("latents").exists()
    assert calls.again("latents").digest == made.made["latents"].digest


def test_device_of_a_nested_model_is_recorded(monkeypatch):
    p = settings(["edit=sdedit", "edit.prompt=ab"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_used(graph.method(p)["params"]) == "cuda"
    assert device_used(graph.modelled(p.latents, p.model.model_copy(update={"device": "cpu"}))["params"]) == "cpu"
    assert device_used(settings([]).edit) == "cpu"


def test_only_methods_that_need_latents_bring_them():
    pixels, painted = settings([]), settings(["edit=sdedit", "edit.prompt=ab"])
    assert not graph.closure(pixels) & {"latents", "inversion"}
    assert graph.closure(painted) >= {"latents", "inversion", "region"}
    cheap = settings(["edit=sdedit", "edit.prompt=ab", "edit.source=noise", "edit.mask=false"])
    assert graph.closure(cheap, "edit") == {"frames", "latents", "edit"}


def test_a_plan_names_what_changed_in_the_model(made, folder):
    plan = Plan(made.store)
    graph.edit_graph(plan, open_clip("sprites:drift"), settings(words(folder, "model.height=64")), "inversion")
    assert {p.stage: p.status for p in plan.planned} == {
        "frames": "cached",
        "latents": "will run",
        "inversion": "may run",
    }
    assert next(p for p in plan.planned if p.stage == "latents").why == "model.height: 32 -> 64"
    plan = Plan(made.store)
    graph.edit_graph(plan, open_clip("sprites:drift"), settings(words(folder, "inversion.prompt=ab")), "inversion")
    assert next(p for p in plan.planned if p.stage == "inversion").why == "inversion.prompt:  -> ab"


def test_a_plan_and_a_cached_inversion_import_no_torch(made, folder):
    script = (
        "import sys\n"
        "from flows import graph\nfrom flows.settings.compose import settings\nfrom flows.runners import Local, Plan\n"
        "from retake.clip import open_clip\nfrom retake.store import Store\n"
        "root, *words = sys.argv[1:]\nstore, clip, p = Store(root), open_clip('sprites:drift'), settings(words)\n"
        "graph.edit_graph(Plan(store), clip, p)\nrunner = Local(store)\n"
        "graph.edit_graph(runner, clip, p, 'inversion')\n"
        "assert {o.status for o in runner.outcomes} == {'cached'}\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'prefect'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(made.store.root), *words(folder, "masks.box=[40,40,130,130]")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr[-2000:]


# ---- a time stride of four -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    path = small_cogvideox.save(tmp_path_factory.mktemp("cogvideox"))
    return load(Model(family="cogvideox", weights=str(path), height=32, width=48, frames=9, device="cpu"))


@pytest.mark.parametrize("frames", [1, 2, 5, 9, 61])
def test_a_short_clip_of_a_causal_model_is_its_own_encoding(causal, frames):
    pixels = torch.rand(frames, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = latent_count(frames, causal.time)
    z = torch.cat(list(encoded(causal, lambda span: pixels[span.start : span.stop], frames)))
    assert len(z) == whole
    if (frames - 1) % 4 == 0:
        assert torch.allclose(z, causal.encode(pixels[None])[0], atol=1e-4)
    back = torch.cat(list(decoded(causal, z, frames)))
    assert back.shape == pixels.shape
    if frames <= 16 and (frames - 1) % 4 == 0:
        assert torch.allclose(back, causal.decode(z[None])[0], atol=1e-4)


def test_chunks_of_a_causal_model_agree_with_the_whole(causal):
    """Smooth motion, 27 latent frames of it: what a chunk does not see of the past costs little, in any frame."""
    frames = 105
    t = torch.arange(frames)[:, None, None, None] / 40
    x = torch.arange(48)[None, None, None] / 12 + torch.arange(32)[None, None, :, None] / 20
    pixels = torch.sin(x + t + torch.arange(3)[None, :, None, None])
    z = torch.cat(list(encoded(causal, lambda span: pixels[span.start : span.stop], frames)))
    whole = causal.encode(pixels[None])[0]
    assert z.shape == whole.shape
    assert torch.allclose(z[:16], whole[:16], atol=1e-4)
    assert (z - whole).square().mean((1, 2, 3)).sqrt().max() < 0.05 * whole.std()
    again = torch.cat(list(encoded(causal, lambda span: pixels[span.start : span.stop], frames, first=1)))
    assert torch.equal(again, z[16:])
    back, at_once = torch.cat(list(decoded(causal, whole, frames))), causal.decode(whole[None])[0]
    assert (back - at_once).square().mean((1, 2, 3)).sqrt().max() < 0.05 * at_once.std()
