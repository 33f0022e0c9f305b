"""The training of the embedded models: slices that resume, every part on a few steps, and what is exported."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.command import Shell
from safetensors.torch import load_file
from torch import nn

from retake.errors import ConfigError
from retake.networks import clip
from retake.synthetic import clips, grammar
from retake.training import autoencoder, denoisers, embedded, encoders, export, latents, scores, shipped
from retake.training.denoisers import Lesson
from retake.training.embedded import SIZES, Workshop
from retake.training.loop import Plan, Slice, Stopped, averaged, progress, train
from retake.weights.catalogue import CATALOGUE
from retake.weights.local import is_complete

FEW = Plan(2, 1e-3, warmup=1)
LESSONS = (Lesson(0.5, 4, 2), Lesson(1.0, 16, 1))
TINY = replace(
    SIZES["cpu"],
    pictures=24,
    clips=6,
    vae=FEW,
    vae_batch=4,
    clip=FEW,
    clip_batch=4,
    unet=FEW,
    unet_lessons=LESSONS[:1],
    motion=FEW,
    motion_lessons=LESSONS,
    transformer=FEW,
    transformer_lessons=LESSONS,
    half=False,
)


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A whole training of two steps a part."""
    shop = Workshop(tmp_path_factory.mktemp("training"), TINY, "cpu", say=quiet)
    for part in embedded.PARTS:
        assert not shop.finished(part)
        assert shop.make(part, 10)
        assert shop.finished(part)
    return shop


# ---- slices --------------------------------------------------------------------------------------------------------


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))


def task(model, interrupt=None):
    def loss_of(step):
        if step == interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return (model(x)[:, 0] - x.sum(1)).square().mean(), {"seen": 16.0}

    return loss_of


def test_a_stopped_training_goes_on_exactly(tmp_path):
    plan = Plan(12, 1e-2, warmup=2)
    whole, parted = small(), small()
    assert train(tmp_path / "whole", whole, task(whole), plan, Slice(), quiet)
    with pytest.raises(Stopped):
        train(tmp_path / "parted", parted, task(parted, interrupt=5), plan, Slice(), quiet)
    assert progress(tmp_path / "parted")["step"] == 6  # the step at which it was asked is finished
    again = small()
    assert train(tmp_path / "parted", again, task(again), plan, Slice(), quiet)
    a, b = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "parted"))
    for name in a.keys() - {"seconds"}:
        assert torch.equal(a[name], b[name]), name


def test_a_killed_training_goes_on_from_its_last_state(tmp_path):
    plan, model = Plan(10, 1e-2, warmup=2), small()
    loss_of = task(model)

    def killed(step):
        if step == 7:
            raise KeyboardInterrupt  # as good as kill -9: nothing is written on the way out
        return loss_of(step)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, model, killed, plan, Slice(save_every=0), quiet)
    assert progress(tmp_path)["step"] == 7
    again = small()
    assert train(tmp_path, again, task(again), plan, Slice(), quiet)
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 10
    assert {"loss", "norm", "seen", "minutes"} <= rows[-1].keys()


def test_a_slice_ends_when_its_time_is_over(tmp_path):
    model = small()
    assert not train(tmp_path, model, task(model), Plan(1000, 1e-2), Slice(minutes=0), quiet)
    assert progress(tmp_path)["step"] == 1


def test_the_average_is_what_infers(tmp_path):
    model = small()
    train(tmp_path, model, task(model), Plan(50, 1e-1, warmup=1), Slice(), quiet)
    state, mean = load_file(tmp_path / "state.safetensors"), averaged(tmp_path, small())
    for name, weight in mean.named_parameters():
        assert torch.equal(weight, state[f"average/{name}"])
        assert not torch.equal(weight, state[f"weight/{name}"])


def test_a_gradient_that_is_not_finite_is_not_taken(tmp_path):
    model = small()

    def broken(step):
        loss, figures = task(model)(step)
        return loss * (float("nan") if step == 3 else 1.0), figures

    train(tmp_path, model, broken, Plan(6, 1e-2, warmup=1), Slice(), quiet)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert float(load_file(tmp_path / "state.safetensors")["taken"]) == 5
    assert all(np.isfinite(json.loads(line)["loss"]) for line in (tmp_path / "curve.jsonl").read_text().splitlines())


def test_a_curve_goes_on_where_the_state_does(tmp_path):
    model = small()
    train(tmp_path, model, task(model), Plan(10, 1e-2), Slice(minutes=0), quiet)
    with (tmp_path / "curve.jsonl").open("a") as curve:
        curve.write('{"step": 7, "loss": 1.0}\n{"step": 8, "lo')  # reached, and killed before the state was written
    (tmp_path / "state.json").write_text('{"step": ')
    assert progress(tmp_path)["step"] == 0
    again = small()
    assert train(tmp_path, again, task(again), Plan(10, 1e-2), Slice(), quiet)
    assert [json.loads(line)["step"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()] == [1, 10]
    assert progress(tmp_path)["step"] == 10


# ---- words ---------------------------------------------------------------------------------------------------------


def test_every_word_of_the_grammar_is_one_token():
    words = encoders.tokenizer()
    assert words("a red disc").input_ids == [0, 28, 68, 91, 1]  # what the shipped towers were trained with
    for word in grammar.vocabulary():
        assert len(words(word).input_ids) == 3, word
    longest = grammar.Subject("star", "magenta", "striped", "up left", "quickly", "water")
    assert len(words(str(longest)).input_ids) <= encoders.LENGTH
    assert len(words("zebra").input_ids) - 2 > 1  # an unknown word is spelt
    assert words.decode(words("a zebra").input_ids, skip_special_tokens=True).strip() == "a zebra"


def test_a_caption_is_true_of_what_it_does_not_contradict():
    clip = grammar.Subject("disc", "red", "striped", "left", "", "sand")

    def holds(said, of=clip):
        return bool(encoders.true_of(encoders.codes([said]), encoders.codes([of]))[0, 0])

    assert holds(grammar.Subject("disc", "red"))
    assert holds(replace(clip, ground=""))
    assert not holds(replace(clip, direction="right"))
    assert not holds(replace(clip, hue="blue"))
    assert not holds(clip, of=replace(clip, texture="plain"))
    assert encoders.true_of(encoders.codes([clip] * 2), encoders.codes([clip] * 3)).shape == (2, 3)


# ---- parts ---------------------------------------------------------------------------------------------------------


def test_frames_stand_at_their_own_places_in_time(workshop):
    model = workshop.trained("transformer")
    z = torch.randn(1, 16, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    condition, t = torch.zeros(1, 33, 64), torch.tensor([500])
    whole = denoisers.spread(model, z, t, condition, torch.arange(16))
    assert torch.allclose(whole, model(z, condition, t, return_dict=False)[0], atol=1e-5)
    early = denoisers.spread(model, z[:, :4], t, condition, torch.arange(4))
    late = denoisers.spread(model, z[:, :4], t, condition, torch.tensor([0, 4, 8, 12]))
    assert torch.allclose(early, model(z[:, :4], condition, t, return_dict=False)[0], atol=1e-5)
    assert not torch.allclose(early, late, atol=1e-3)
    # Attention knows of order only by positions: frames and their places exchanged together change nothing else.
    swapped = denoisers.spread(model, z[:, [0, 2, 1, 3]], t, condition, torch.tensor([0, 8, 4, 12]))
    assert torch.allclose(swapped[:, [0, 2, 1, 3]], late, atol=1e-5)


def test_the_motion_modules_begin_as_the_image_model(workshop):
    unet, motion = workshop.trained("unet"), denoisers.motion(workshop.trained("unet")).eval()
    z = torch.randn(2, 4, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    condition, t = torch.randn(2, 33, 64, generator=torch.Generator().manual_seed(1)), torch.tensor([500, 100])
    clip = motion(z.transpose(1, 2), t, condition.repeat_interleave(4, 0), return_dict=False)[0].transpose(1, 2)
    frames = unet(z.flatten(0, 1), t.repeat_interleave(4), condition.repeat_interleave(4, 0), return_dict=False)[0]
    assert torch.allclose(clip.flatten(0, 1), frames, atol=1e-5)


def test_frames_of_short_lessons_stand_at_their_own_places_for_motion_modules_too():
    torch.manual_seed(0)
    motion = denoisers.motion(denoisers.unet()).eval()
    for name, weight in motion.named_parameters():
        if name.endswith("proj_out.weight"):
            torch.nn.init.normal_(weight, std=0.1)
    z = torch.randn(1, 8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    condition, t = torch.zeros(4, 33, 64), torch.tensor([500])

    def out(z, at=None):
        with torch.no_grad(), denoisers.placed(motion, torch.tensor(at)) if at else nullcontext():
            return motion(z, t, condition, return_dict=False)[0]

    assert torch.equal(out(z, [0, 1, 2, 3]), out(z))
    late = out(z, [0, 4, 8, 12])
    assert not torch.allclose(late, out(z), atol=1e-3)
    # Attention knows of order by places alone: frames and places exchanged together change nothing else.
    swapped = out(z[:, :, [0, 2, 1, 3]], [0, 8, 4, 12])
    assert torch.allclose(swapped[:, :, [0, 2, 1, 3]], late, atol=1e-5)
    assert torch.equal(out(z), out(z, [0, 1, 2, 3]))  # nothing stays changed


def test_the_image_model_learns_on_with_the_motion_modules(workshop):
    before, after = workshop.trained("unet").state_dict(), workshop.trained("motion").state_dict()
    shared = before.keys() & after.keys()
    assert shared == before.keys()
    assert sum(not torch.equal(before[name], after[name]) for name in shared) > 100


def test_the_teacher_draws_the_same_for_the_same_step(workshop):
    one, other = workshop.teacher(1), workshop.teacher(1)
    a, b, c = one.draw(4, LESSONS[0]), other.draw(4, LESSONS[0]), one.draw(5, LESSONS[0])
    assert all(torch.allclose(a[name].float(), b[name].float(), atol=1e-5) for name in a)
    assert not torch.equal(a["noise"], c["noise"])
    assert a["z"].shape == (2, 4, 8, 16, 16)
    assert a["condition"].shape == (2, 33, 64)
    assert 0.5 < workshop.teacher(1).cache.latents.float().std() < 2


def test_a_part_waits_for_what_it_learns_from(tmp_path):
    shop = Workshop(tmp_path, TINY, "cpu", say=quiet)
    for part in ("latents", "unet", "motion", "transformer"):
        with pytest.raises(ConfigError, match="E247"):
            shop.make(part, 1)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_latents_that_are_there_are_not_rendered_again(workshop):
    file = next((workshop.folder / "latents").glob("clips-*.safetensors"))
    before = file.stat().st_mtime_ns
    workshop.render()
    assert file.stat().st_mtime_ns == before
    assert not list((workshop.folder / "latents").glob("*.part"))


def test_latents_are_those_of_the_clips(workshop):
    cache = latents.read(workshop.folder / "latents", TINY.clips)
    vae, limits = workshop.vae(), clips.Limits()
    scene, _, caption = clips.draw(embedded.CLIPS_FROM + 3, limits)
    assert cache.captions[3] == caption
    with torch.inference_mode():
        z = vae.encode(autoencoder.tensor(clips.render(scene))).latent_dist.mean * vae.config.scaling_factor
    assert torch.allclose(cache.latents[3].float(), z, atol=2e-3, rtol=2e-3)


# ---- scores --------------------------------------------------------------------------------------------------------


def test_the_world_itself_scores_full_marks():
    subjects = scores.asked(16, 0)
    found = scores.score(scores.rendered(subjects, 5, clips.Limits()), subjects)
    assert (found.hue, found.direction, found.present) == (1.0, 1.0, 1.0)
    assert found.shape >= 0.9
    turned = [
        replace(s, direction=grammar.DIRECTIONS[(grammar.DIRECTIONS.index(s.direction) + 3) % 8]) for s in subjects
    ]
    assert scores.score(scores.rendered(subjects, 5, clips.Limits()), turned).direction == 0


def test_every_direction_is_asked_for_as_often():
    directions = [s.direction for s in scores.asked(64, 1)]
    assert {directions.count(d) for d in grammar.DIRECTIONS} == {8}


# ---- what ships ----------------------------------------------------------------------------------------------------


def test_what_is_exported_loads_as_any_model_does(workshop, tmp_path):
    from diffusers import AnimateDiffPipeline, CogVideoXTransformer3DModel, UNetMotionModel
    from transformers import CLIPModel

    for part in export.WRITERS:
        export.export(workshop, part, tmp_path)
    total = sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    assert total < 12_000_000

    pipeline = AnimateDiffPipeline.from_pretrained(tmp_path / "embedded")  # nothing else said
    assert isinstance(pipeline.unet, UNetMotionModel)
    made = pipeline("a red disc", num_frames=4, height=64, width=64, num_inference_steps=2, output_type="np").frames
    assert made.shape == (1, 4, 64, 64, 3)
    assert np.isfinite(made).all()

    motion = workshop.trained("motion")
    z, t = torch.randn(1, 8, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([300])
    condition = torch.zeros(4, 33, 64)
    with torch.inference_mode():
        shipped, trained = (m(z, t, condition, return_dict=False)[0] for m in (pipeline.unet, motion))
    assert torch.allclose(shipped, trained, atol=2e-2)  # half precision

    dit = CogVideoXTransformer3DModel.from_pretrained(tmp_path / "embedded_dit" / "transformer")
    assert dit.config.max_text_seq_length == 33
    assert CLIPModel.from_pretrained(tmp_path / "judge").config.vision_config.patch_size == 8
    looks_like(workshop.trained("judge"), tmp_path / "judge")
    card = json.loads((tmp_path / "embedded.training.json").read_text())
    assert card.keys() == {"vae", "clip", "unet", "motion"}
    assert card["vae"]["step"] == 2
    assert card["vae"]["curve"][-1]["step"] == 2


def test_the_shipped_pipeline_runs_in_plain_diffusers():
    from diffusers import AnimateDiffPipeline

    pipeline, seed = AnimateDiffPipeline.from_pretrained(shipped.HERE / "embedded"), torch.Generator().manual_seed(0)
    words = "a red ball drifting to the right"
    made = pipeline(words, num_frames=4, height=64, width=64, num_inference_steps=4, generator=seed, output_type="np")
    red, green, blue = made.frames[0, :, 16:48, 16:48].reshape(-1, 3).mean(0)
    assert red > max(green, blue)


def test_parts_that_ship_are_learnt_from(workshop, tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    monkeypatch.setattr(shipped, "HERE", weights)
    for part in ("vae", "clip", "unet"):
        assert not shipped.ships(part)
        export.export(workshop, part, weights)
        assert shipped.ships(part)
    assert not is_complete(weights / "embedded")  # motion modules are wanting: nothing takes it for a model
    export.export(workshop, "motion", weights)
    export.export(workshop, "transformer", weights)
    assert is_complete(weights / "embedded")
    assert is_complete(weights / "embedded_dit")

    shop = Workshop(tmp_path / "training", TINY, "cpu", on_shipped=True, say=quiet)
    assert not Workshop(tmp_path / "training", TINY, "cpu", say=quiet).finished("vae")
    assert shop.finished("unet")
    assert shop.wanted(None) == ["judge", "latents"]
    assert shop.wanted("motion") == ["latents", "motion"]  # it ships, but was asked for
    shop.render()
    assert shop.wanted("motion") == ["motion"]
    assert shop.make("motion", 10)
    export.export(shop, "motion", weights)
    assert shop.finished("latents")
    here, there = (latents.read(one.folder / "latents", TINY.clips) for one in (workshop, shop))
    assert torch.allclose(here.latents, there.latents, atol=2e-2)  # half precision
    assert torch.allclose(here.references, there.references, atol=2e-2)
    shop.make("vae", 10)  # begun here, it is no longer taken as it ships
    assert not shop.as_shipped("vae")


def looks_like(trained, folder, tolerance=2e-2):
    """The metrics' CLIP makes of an exported folder what training made of the same pictures and captions."""
    network = clip.load(str(folder), "cpu")
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    captions = ["a red disc", "a magenta striped star moving quickly up left over water", "a zebra"]
    tokens = encoders.tokenizer()(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.inference_mode():
        out = trained.float()(input_ids=tokens, pixel_values=autoencoder.tensor(frames))
    for ours, theirs in ((network.images(frames), out.image_embeds), (network.texts(captions), out.text_embeds)):
        unit = ours / np.linalg.norm(ours, axis=1, keepdims=True)
        np.testing.assert_allclose(unit, theirs.numpy(), atol=tolerance)
    assert network.images(frames[:, :48, :40]).shape == (3, 64)  # any shape is resized to what it was trained on


def test_a_judge_that_is_exported_is_a_clip_that_metrics_load(tmp_path):
    torch.manual_seed(0)
    model = encoders.network(encoders.JUDGE, len(encoders.tokenizer())).eval()
    with torch.no_grad():
        for weight in model.parameters():  # random, yet far from each other
            weight.add_(0.1 * torch.randn(weight.shape))
    export.whole_clip(model, tmp_path / "judge")
    looks_like(model, tmp_path / "judge", tolerance=1e-5)  # both are of half precision now
    size = sum(f.stat().st_size for f in (tmp_path / "judge").iterdir())
    assert size / 1e6 < CATALOGUE["judge"].megabytes
    captions = ["a red disc", "a blue star"]
    found = [clip.load(str(tmp_path / "judge"), "cpu").texts([one])[0] for one in captions]
    assert np.abs(found[0] - found[1]).max() > 1e-2


def test_clips_are_the_same_whichever_process_draws_them():
    limits = clips.Limits(frames=2)
    with latents.drawing(0) as here, latents.drawing(2) as elsewhere:
        for a, b in zip(here([5, 6, 7], limits), elsewhere([5, 6, 7], limits), strict=True):
            assert a[0] == b[0]
            assert np.array_equal(a[1], b[1])
            assert np.array_equal(a[2], b[2])


def test_what_cannot_be_trained_is_refused(tmp_path):
    shell = Shell(tmp_path)
    assert "E206" in shell("train", "nothing").err
    for words in (["--size", "huge"], ["--part", "arm"]):
        result = shell("train", "embedded", "--folder", str(tmp_path), *words)
        assert result.code == 2
        assert "E247" in result.err
    assert not list(tmp_path.glob("*/state*"))
    for part in ("motion", "latents", "transformer"):
        early = shell("train", "embedded", "--folder", str(tmp_path), "--part", part)
        assert early.code == 2
        assert "E247" in early.err
        assert part in early.err
