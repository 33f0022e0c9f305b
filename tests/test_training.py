"""The training of the embedded models: slices that resume, every part on a few steps, and what is exported."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command import Shell
from safetensors.torch import load_file
from torch import nn
from transformers import VideoMAEConfig, VideoMAEModel

from flows.runners import Local
from flows.upkeep import train as training
from retake import video
from retake.diffusion.families.cogvideox.transformer import evaluate, positions
from retake.diffusion.loading.load import load as load_model
from retake.diffusion.model import Model
from retake.errors import ConfigError
from retake.networks import clip
from retake.networks import video_mae as video_encoder
from retake.store import Store
from retake.synthetic import clips, detector, grammar, pairs
from retake.synthetic.world import World
from retake.training import (
    autoencoder,
    editing_clips,
    editing_samples,
    encoders,
    export,
    fours,
    ivediff,
    judging,
    lessons,
    motion_subspace,
    motionv2v,
    moving,
    scores,
    shipped,
    transformer,
    unet,
    video_autoencoder,
)
from retake.training.lessons import Lesson, heard, loss
from retake.training.loop import Plan, Slice, Stopped, averaged, optimisers_of, progress, train
from retake.training.muon import Muon, is_matrix, orthogonal
from retake.training.sizes import SIZES, Course
from retake.training.workshop import PARTS, Workshop
from retake.weights.catalogue import CATALOGUE
from retake.weights.local import is_complete

FEW = Plan(2, 1e-3, warmup=1)
TURNED = Plan(2, 1e-3, muon=0.01, warmup=1)
TINY = replace(
    SIZES["cpu"],
    pictures=24,
    moving=2,
    vae=FEW,
    vae_batch=4,
    clip=FEW,
    clip_batch=4,
    video_vae=TURNED,
    video_vae_batch=2,
    unet=Course(
        TURNED, (Lesson(0.5, ("plain",), 1, 2, 5), Lesson(1.0, ("world",), 1, 2)), {"plain": 2, "world": 2}, 0.7
    ),
    motion=Course(
        TURNED,
        (Lesson(0.5, ("clips", "world"), 4, 1, 3), Lesson(1.0, ("clips",), 16, 1)),
        {"world": 2, "clips": 2},
        0.5,
    ),
    transformer_frames=Course(TURNED, (Lesson(1.0, ("plain", "world"), 1, 2),), {"plain": 2, "world": 2}, 0.5),
    transformer=Course(
        TURNED,
        (Lesson(0.5, ("plain",), 1, 2), Lesson(1.0, ("pair", "counterfactual"), 5, 1)),
        {"plain": 2, "pair": 2, "counterfactual": 2},
        0.5,
    ),
    pairs=2,
    control=TURNED,
    control_batch=2,
    video_mae=TURNED,
    video_mae_batch=2,
    studied=2,
    motion_subspace=FEW,
    motion_subspace_batch=2,
    aligned=TURNED,
    aligned_lora=FEW,
    aligned_batch=2,
    editing=2,
    ivediff_image=TURNED,
    ivediff_image_batch=2,
    ivediff=TURNED,
    ivediff_batch=1,
    scaled_on=2,
)


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A whole training of two steps a part."""
    shop = Workshop(tmp_path_factory.mktemp("training"), TINY, "cpu", say=quiet)
    for part in PARTS:
        assert not shop.finished(part), part
        assert shop.make(part, 10)
        assert shop.finished(part)
    return shop


# ---- slices --------------------------------------------------------------------------------------------------------


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 1))


def task(model, interrupt=None):
    def loss_of(step):
        if step == interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return (model(x)[:, 0] - x.sum(1)).square().mean(), {"seen": 16.0}

    return loss_of


@pytest.mark.parametrize("muon", [0.0, 0.02])
def test_a_stopped_training_goes_on_exactly(tmp_path, muon):
    plan = Plan(12, 1e-2, muon=muon, warmup=2)
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


def test_a_training_is_looked_at_now_and_then(tmp_path):
    seen, model = [], small()
    train(
        tmp_path, model, task(model), Plan(6, 1e-2), Slice(look_every=0), quiet, lambda: seen.append(progress(tmp_path))
    )
    assert [state["step"] for state in seen] == [1, 2, 3, 4, 5]  # each after its state was written


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
    assert float(load_file(tmp_path / "state.safetensors")["moment.step/0.weight"]) == 5
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


def test_every_word_of_the_grammar_is_one_piece_of_the_transformers_text():
    words = transformer.tokenizer()
    for word in (*grammar.vocabulary(), "and"):
        assert len(words(word).input_ids) == 2, word  # and the end
    two = "a dotted yellow star moving quickly down left and a marbled magenta box moving slowly up right over water"
    assert len(words(two).input_ids) == transformer.LENGTH
    assert words.decode(words("a zebra").input_ids, skip_special_tokens=True) == "a zebra"


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
    student = workshop.trained("transformer")
    z = torch.randn(1, 5, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    told = {"t": torch.tensor([500]), "tokens": transformer.tokenised(["a red disc"])}

    def out(z, at):
        with torch.no_grad():
            return student({**told, "z": z, "at": torch.tensor(at)})

    states = student.text(told["tokens"]).last_hidden_state
    places = positions(student.transformer, 5, 16, 16, z.device)
    whole = student.transformer(z, states, told["t"], image_rotary_emb=places, return_dict=False)[0]
    assert torch.allclose(out(z, [0, 1, 2, 3, 4]), whole, atol=1e-5)
    late = out(z[:, :3], [0, 2, 4])
    assert not torch.allclose(out(z[:, :3], [0, 1, 2]), late, atol=1e-4)
    # Attention knows of order only by positions: frames and their places exchanged together change nothing else.
    assert torch.allclose(out(z[:, [0, 2, 1]], [0, 4, 2])[:, [0, 2, 1]], late, atol=1e-5)


def test_the_motion_modules_begin_as_the_image_model(workshop):
    still = workshop.trained("unet").unet
    motion = unet.of_clips(workshop.trained("unet").unet).eval()
    z = torch.randn(2, 4, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    condition, t = torch.randn(2, 33, 64, generator=torch.Generator().manual_seed(1)), torch.tensor([500, 100])
    clip = motion(z.transpose(1, 2), t, condition.repeat_interleave(4, 0), return_dict=False)[0].transpose(1, 2)
    frames = still(z.flatten(0, 1), t.repeat_interleave(4), condition.repeat_interleave(4, 0), return_dict=False)[0]
    assert torch.allclose(clip.flatten(0, 1), frames, atol=1e-5)


def test_frames_of_short_lessons_stand_at_their_own_places_for_motion_modules_too():
    torch.manual_seed(0)
    motion = unet.of_clips(unet.of_frames()).eval()
    for name, weight in motion.named_parameters():
        if name.endswith("proj_out.weight"):
            torch.nn.init.normal_(weight, std=0.1)
    z = torch.randn(1, 8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    condition, t = torch.zeros(4, 33, 64), torch.tensor([500])

    def out(z, at=None):
        with torch.no_grad(), unet.placed(motion, torch.tensor(at)) if at else nullcontext():
            return motion(z, t, condition, return_dict=False)[0]

    assert torch.equal(out(z, [0, 1, 2, 3]), out(z))
    late = out(z, [0, 4, 8, 12])
    assert not torch.allclose(late, out(z), atol=1e-3)
    # Attention knows of order by places alone: frames and places exchanged together change nothing else.
    swapped = out(z[:, :, [0, 2, 1, 3]], [0, 8, 4, 12])
    assert torch.allclose(swapped[:, :, [0, 2, 1, 3]], late, atol=1e-5)
    assert torch.equal(out(z), out(z, [0, 1, 2, 3]))  # nothing stays changed


def test_all_of_the_image_model_and_its_text_tower_learn_on_with_the_motion_modules(workshop):
    before, after = workshop.trained("unet").state_dict(), workshop.trained("motion").state_dict()
    still = {name for name in before.keys() & after.keys() if torch.equal(before[name], after[name])}
    assert before.keys() <= after.keys()
    assert not {name for name in still if name.endswith("weight")}


def test_a_part_waits_for_what_it_learns_from(tmp_path):
    shop = Workshop(tmp_path, TINY, "cpu", say=quiet)
    for part in ("unet", "motion", "transformer_frames", "transformer", "control"):
        with pytest.raises(ConfigError, match="E247"):
            shop.make(part, 1)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_look_at_a_training_tells_what_it_hears_and_shows(workshop):
    for part in ("unet", "transformer_frames", "transformer"):
        row = judging.judged(workshop, part, count=1, clips=1, steps=2)
        folder = workshop.folder / part
        assert json.loads((folder / "scores.jsonl").read_text())["step"] == row["step"] == 2
        assert row["heard"].keys() == set(judging.TIMES)
        assert row["scores"]["clips"] == 1
        assert (folder / "sheet-000002.png").exists()


# ---- fours ---------------------------------------------------------------------------------------------------------


def test_the_clips_of_a_four_differ_in_one_word_alone():
    kinds = {**unet.KINDS, "transformer": transformer.KINDS["world"], "moving": transformer.KINDS["upright_moving"]}
    seen = set()
    for kind in kinds.values():
        for seed in range(60):
            attribute, subjects, scenes = fours.alone(kind.seed + seed, kind, clips.Limits())
            seen.add(attribute)
            assert len({str(subject) for subject in subjects}) == fours.FOUR
            same = {
                name: {getattr(s, name) for s in subjects}
                for name in ("shape", "hue", "texture", "direction", "ground")
            }
            moved = {"speed", "direction"} if attribute == "speed" else {attribute}
            assert {name for name, values in same.items() if len(values) > 1} <= moved
            assert len({(scene.seed, scene.palette, scene.ground) for scene in scenes}) == 1
            if attribute in ("shape", "hue", "texture"):
                assert len({scene.sprites[0].poses for scene in scenes}) == 1
            if kind.radius is not None and kind.jitter is None and subjects[0].direction not in (None, "resting"):
                first, last = scenes[0].sprites[0].poses[0], scenes[0].sprites[0].poses[-1]
                angle = np.arctan2(last.y - first.y, last.x - first.x)  # on the screen: the camera rests
                assert round(angle / (np.pi / 4)) % 8 == grammar.DIRECTIONS.index(subjects[0].direction)
    assert seen == set(fours.VALUES)


def test_upright_sprites_rest_near_the_middle_and_their_captions_say_no_direction():
    for name, wide in (("upright", 0.03), ("loose", 0.15)):
        kind = unet.KINDS[name]
        for seed in range(10):
            _, subjects, scenes = fours.alone(kind.seed + seed, kind, clips.Limits())
            poses = {pose for scene in scenes for pose in scene.sprites[0].poses}
            (pose,) = poses
            assert pose.angle == 0
            assert max(abs(pose.x - 31.5), abs(pose.y - 31.5)) <= wide * 64
            assert all(subject.direction is None for subject in subjects)


def test_upright_sprites_that_move_do_not_turn_where_they_go():
    kind = transformer.KINDS["upright_moving"]
    for seed in range(10):
        _, subjects, scenes = fours.alone(kind.seed + seed, kind, clips.Limits(frames=17))
        poses = [pose for scene in scenes for pose in scene.sprites[0].poses]
        assert {pose.angle for pose in poses} == {0.0}
        moving = subjects[0].direction != "resting"
        assert (len({(pose.x, pose.y) for pose in scenes[0].sprites[0].poses}) > 1) is moving


def test_clips_of_counterfactual_pairs_are_two_pairs_without_a_caption():
    kind = transformer.KINDS["counterfactual"]
    attribute, captions, scenes = fours.draw(kind.seed, kind, clips.Limits(frames=17))
    assert (attribute, captions) == ("pair", [""] * fours.FOUR)
    first, second = pairs.pair(2 * kind.seed, frames=17), pairs.pair(2 * kind.seed + 1, frames=17)
    assert scenes == [first.target, first.source, second.target, second.source]


def test_speeds_of_a_four_are_those_of_their_words():
    kind = replace(unet.KINDS["clips"], shares={"speed": 1.0})
    _, subjects, scenes = fours.alone(kind.seed, kind, clips.Limits())
    gone = {}
    for subject, scene in zip(subjects, scenes, strict=True):
        first, last = scene.sprites[0].poses[0], scene.sprites[0].poses[-1]
        gone[subject.direction if subject.direction == "resting" else subject.speed] = np.hypot(
            last.x - first.x, last.y - first.y
        )
    assert gone["resting"] == 0
    assert gone["slowly"] < gone[""] < gone["quickly"]


def test_of_two_objects_each_does_what_its_words_say():
    kind, limits = transformer.KINDS["pair"], clips.Limits(frames=17)
    right, told = 0, 0
    for seed in range(12):
        _, captions, scenes = fours.draw(kind.seed + seed, kind, limits)
        assert len(set(captions)) == fours.FOUR
        clip = clips.render(scenes[0])
        first, second = captions[0].partition(" over ")[0].split(" and ")
        asked = [grammar.parse(said) for said in (first, second)]
        assert asked[0].hue != asked[1].hue
        for subject in asked:
            if subject.direction is not None:
                told += 1
                right += detector.read(clip, subject.hue).direction == subject.direction
    assert told > 15
    assert right >= 0.85 * told  # they cover each other now and then


def test_fours_that_are_there_are_not_rendered_again(workshop):
    file = next((workshop.folder / "fours" / "vae").glob("clips-*.safetensors"))
    before = file.stat().st_mtime_ns
    assert workshop.rendered("motion")
    assert file.stat().st_mtime_ns == before
    assert not list(workshop.folder.rglob("*.part"))


def test_processes_share_the_rendering(workshop, tmp_path):
    coder, kind, count = workshop.coder("unet"), unet.KINDS["plain"], fours.SHARD + 1
    kind = replace(kind, frames=1)
    fours.render(tmp_path, "some", kind, count, coder, share=(1, 2))
    first, second = fours.shards(tmp_path, "some", count)
    assert second.exists()
    assert not first.exists()


def test_latents_of_a_four_are_those_of_its_clips(workshop):
    data = fours.read(workshop.folder / "fours" / "vae", "clips", 2)
    kind, vae = unet.KINDS["clips"], workshop.vae()
    attribute, captions, scenes = fours.draw(kind.seed + 1, kind, clips.Limits())
    assert data.attributes[1] == attribute
    assert data.captions[1] == captions
    with torch.inference_mode():
        z = vae.encode(autoencoder.tensor(clips.render(scenes[2]))).latent_dist.mean * vae.config.scaling_factor
    assert torch.allclose(data.latents[1, 2].float(), z, atol=2e-3, rtol=2e-3)
    inside = World(scenes[2]).mask(5, 0)
    assert data.cells[1, 2, 5].float().sum() / 255 * 16 == pytest.approx(inside.sum(), abs=1)


def test_cells_of_a_latent_frame_are_those_of_the_frames_it_holds(workshop):
    data = fours.read(workshop.folder / "fours" / "video_vae", "world", 2)
    kind = transformer.KINDS["world"]
    _, _, scenes = fours.draw(kind.seed, kind, clips.Limits(frames=17))
    world = World(scenes[0])
    for latent, frames in enumerate(([0], [1, 2, 3, 4], [5, 6, 7, 8])):
        inside = np.mean([world.mask(t, 0).sum() for t in frames])
        assert data.cells[0, 0, latent].float().sum() / 255 * 16 == pytest.approx(inside, abs=1.5)


# ---- lessons -------------------------------------------------------------------------------------------------------


def test_the_teacher_draws_the_same_for_the_same_step(workshop):
    one, other = workshop.teacher("motion"), workshop.teacher("motion")
    lesson = Lesson(1.0, ("clips",), 4, 2, 3)
    a, b, c = one.draw(4, lesson), other.draw(4, lesson), one.draw(5, lesson)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["noise"], c["noise"])
    assert a["z"].shape == (8, 4, 8, 16, 16)
    assert a["tokens"].shape == (8, 16)
    assert a["references"].shape == (8, 17, 64)
    assert 0.5 < one.data["clips"].latents.float().std() < 2
    assert one.draw(4, Lesson(1.0, ("world",), 4, 2))["z"].shape == (32, 1, 8, 16, 16)  # as many frames
    assert a["weight"].min() == 1
    assert 2 < a["weight"].max() <= 3


def test_a_four_is_shown_under_one_noise_at_one_time(workshop):
    drawn = workshop.teacher("motion").draw(0, Lesson(1.0, ("clips",), 4, 8))
    noise, t = drawn["noise"].unflatten(0, (8, 4)), drawn["t"].unflatten(0, (8, 4))
    high = [n for n in range(8) if t[n].min() >= lessons.APART]
    assert 2 < len(high) < 8
    for n in range(8):  # where little is noise, each has its own
        assert len({float(one) for one in noise[n, :, 0, 0, 0, 0]}) == (1 if n in high else 4)
        assert len(set(t[n].tolist())) == (1 if n in high else 4)
    assert len(set(t[high, 0].tolist())) == len(high)


def test_a_word_that_is_heard_is_told_from_one_that_is_not(workshop):
    teacher = judging.listener(workshop, "motion", 3)
    said = {tuple(teacher.tokens["heard"][n, k].tolist()): (n, k) for n in range(3) for k in range(4)}

    def knowing(drawn):  # what its caption's own clip would have, so far as it is told
        own = [said[tuple(tokens)] for tokens in drawn["tokens"].tolist()]
        x0 = torch.stack([teacher.data["heard"].latents[n, k].float() for n, k in own])
        return teacher.schedule.target(x0, drawn["noise"], drawn["t"]) + 0.01

    def deaf(drawn):
        return torch.zeros_like(drawn["z"])

    assert min(heard(knowing, teacher, "heard", 850).values()) > 1
    assert set(heard(deaf, teacher, "heard", 850).values()) == {0.0}


def test_the_loss_of_a_lesson_falls_with_its_network(workshop):
    student, teacher = workshop.fresh("unet").train(), workshop.teacher("unet")
    of = loss(student, teacher, (Lesson(1.0, ("plain",), 1, 2),), 40)
    optimisers = optimisers_of(dict(student.named_parameters()), Plan(40, 1e-3, muon=0.01))
    values = []
    for _ in range(40):
        value, figures = of(0)
        value.backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        values.append(float(value.detach()))
        assert figures["plain"] == pytest.approx(values[-1])  # all cells weigh the same here
    assert values[-1] < 0.7 * values[0]


# ---- Muon ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (40, 12)])
def test_muon_keeps_singular_vectors_and_levels_singular_values(shape):
    matrix = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.mT @ orthogonal(matrix) @ v.mT
    level = torch.diagonal(turned, dim1=1, dim2=2)
    assert torch.allclose(turned, torch.diag_embed(level), atol=1e-6)
    assert values.max() / values.min() > 2
    kept = values[0] > 0.05 * values.max()  # smaller ones are not lifted all the way in five steps
    assert ((level[0][kept] > 0.6) & (level[0][kept] < 1.3)).all()


def test_muon_takes_kernels_as_matrices_and_steps_as_far_for_any_gradient():
    torch.manual_seed(0)
    gone = []
    for scale in (1e-4, 1e4):
        kernel = nn.Parameter(torch.zeros(16, 8, 3, 3))
        kernel.grad = scale * torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(1))
        Muon([kernel], lr=0.1).step()
        gone.append(kernel.detach().clone())
    assert torch.allclose(gone[0], gone[1], atol=1e-5)
    assert torch.linalg.matrix_norm(gone[0].flatten(1), 2) == pytest.approx(0.1, rel=0.3)


def test_what_reads_tokens_and_writes_the_output_is_left_to_adam(workshop):
    for part in ("unet", "motion", "video_vae", "transformer", "control"):
        turned = [name for name, weight in workshop.fresh(part).named_parameters() if is_matrix(name, weight)]
        assert len(turned) > 20
        assert not [name for name in turned if name.endswith(("conv_in.weight", "conv_out.weight"))]
        assert not [name for name in turned if "embedding" in name or "shared" in name or "bias" in name]


# ---- moving clips --------------------------------------------------------------------------------------------------


def test_the_pool_of_moving_clips_is_made_once(tmp_path):
    made = moving.pool(tmp_path / "clips.npy", 3, 6, 9, 32)
    assert made.shape == (6, 9, 32, 32, 3)
    again = moving.pool(tmp_path / "other.npy", 3, 6, 9, 32)
    assert np.array_equal(made, again)
    assert moving.pool(tmp_path / "clips.npy", 3, 6, 9, 32).base is not None  # read from the file
    apart = [np.abs(clip[-1].astype(int) - clip[0]).mean() for clip in made]
    assert max(apart) > 3  # they move


def test_windows_of_a_clip_are_its_own_pixels():
    clip = moving.one(np.random.default_rng(1), 12, 32)
    for seed in range(8):
        some = moving.window(np.random.default_rng(seed), clip, 9)
        assert some.shape == (9, 32, 32, 3)
        assert sorted(some.sum((1, 2, 3)).tolist()) in [
            sorted(clip[k : k + 9].sum((1, 2, 3)).tolist()) for k in range(4)
        ]


def test_the_video_autoencoder_codes_the_first_frame_alone(workshop):
    vae = workshop.video_vae()
    code = video_autoencoder.clip_by_clip(vae)
    clip = clips.render(clips.draw(5, clips.Limits(frames=17)).scene)[None]
    z = code(clip)
    assert z.shape == (1, 5, 16, 16, 16)
    other = clip.copy()
    other[:, 1:] = 0
    changed = (code(other)[:, :, :] - z).abs().amax((0, 2, 3, 4))
    assert changed[1:].min() > 1e-3
    assert float(code(clip[:, :1]).sub(z[:, :1]).abs().max()) < 1.0  # norms see a chunk, so not to the bit
    assert 0.5 < video_autoencoder.measured(vae, clips.Limits(frames=17), count=2) / vae.config.scaling_factor < 2


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


def test_two_objects_are_read_apart():
    pairs = scores.asked_pairs(12, 3)
    assert all(one.hue != other.hue and one.direction != other.direction for one, other in pairs)
    limits, rng = clips.Limits(frames=17), np.random.default_rng(0)
    scenes = [[clips.scene_of(subject, 5, rng, limits) for subject in pair] for pair in pairs]
    made = np.stack([clips.render(clips.joined(*two, (0, 13) if n % 2 else (13, 0))) for n, two in enumerate(scenes)])
    assert scores.both_right(made, pairs) >= 0.8
    swapped = [(replace(one, direction=other.direction), other) for one, other in pairs]
    assert scores.both_right(made, swapped) == 0


def test_every_direction_is_asked_for_as_often():
    directions = [s.direction for s in scores.asked(64, 1)]
    assert {directions.count(d) for d in grammar.DIRECTIONS} == {8}


# ---- what ships ----------------------------------------------------------------------------------------------------


def test_what_is_exported_loads_as_any_model_does(workshop, tmp_path):
    from diffusers import AnimateDiffPipeline, CogVideoXPipeline, UNetMotionModel
    from transformers import CLIPModel

    for part in export.WRITERS:
        export.export(workshop, part, tmp_path)
    total = sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    assert total < 65_000_000  # with what does not ship: aligned transformers

    pipeline = AnimateDiffPipeline.from_pretrained(tmp_path / "embedded")  # nothing else said
    assert isinstance(pipeline.unet, UNetMotionModel)
    how = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "np"}
    made = pipeline("a red disc", num_frames=4, **how).frames
    assert made.shape == (1, 4, 64, 64, 3)
    assert np.isfinite(made).all()

    student = workshop.trained("motion")
    z, t = torch.randn(1, 8, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([300])
    condition = torch.zeros(4, 33, 64)
    with torch.inference_mode():
        written, trained = (m(z, t, condition, return_dict=False)[0] for m in (pipeline.unet, student.unet))
        assert torch.allclose(written, trained, atol=2e-2)  # half precision
        tokens = unet.tokenised(["a red disc moving left"])
        said, learnt = pipeline.text_encoder(tokens)[0], student.text(tokens)[0]
    assert torch.allclose(said, learnt, atol=2e-2)

    pipeline = CogVideoXPipeline.from_pretrained(tmp_path / "embedded_dit")
    made = pipeline("a red disc", num_frames=9, **how).frames
    assert made.shape == (1, 9, 64, 64, 3)
    assert np.isfinite(made).all()
    assert pipeline.transformer.config.max_text_seq_length == transformer.LENGTH
    assert CLIPModel.from_pretrained(tmp_path / "judge").config.vision_config.patch_size == 8
    looks_like(workshop.trained("judge"), tmp_path / "judge")
    frames = np.random.default_rng(0).integers(0, 255, (1, 16, 64, 64, 3), np.uint8)
    read = video_encoder.load(str(tmp_path / "video_mae"), "cpu").clips(frames)
    torch.testing.assert_close(read, workshop.video_encoder().clips(frames), atol=2e-2, rtol=0)
    subspace = motion_subspace.MotionSubspace.from_pretrained(tmp_path / "motion_subspace", torch_dtype=torch.float32)
    with torch.inference_mode():
        flow = subspace(read.clone(), (32, 32))
        torch.testing.assert_close(flow, workshop.trained("motion_subspace")(read.clone(), (32, 32)), atol=1e-2, rtol=0)
    editor = Model(family="ivediff", weights=str(tmp_path / "embedded_ivediff"), parts=str(tmp_path / "embedded"))
    loaded, taught = load_model(editor), workshop.trained("ivediff")
    data = editing_clips.Clips(editing_clips.shards(workshop.folder / "editing", 2)).take([0], range(3))
    eyes = ivediff.Eyes(workshop.vae(), workshop.taught("clip").vision_model, "cpu")
    given = editing_samples.hidden(taught, eyes, data, "object")
    told = ivediff.told_of(taught, eyes, given.pictures, torch.ones(1, dtype=torch.bool))
    z = torch.randn(1, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        times = torch.full((1, 3), 300.0)
        written = loaded.forward(z, times, {**given.inputs, **told})
        torch.testing.assert_close(written, taught(z, times, {**given.inputs, **told}), atol=2e-2, rtol=0)
        picture = loaded.condition(None, given.pictures).positive
    for name in ("states", "reference"):
        torch.testing.assert_close(picture[name], told[name], atol=2e-2, rtol=0)
    card = json.loads((tmp_path / "embedded.training.json").read_text())
    assert card.keys() == {"vae", "clip", "unet", "motion"}
    assert json.loads((tmp_path / "embedded_dit.training.json").read_text()).keys() == {"video_vae", "transformer"}
    assert card["vae"]["step"] == 2
    assert card["vae"]["curve"][-1]["step"] == 2


def test_motion_learnt_around_pictures_that_ship_is_written_as_a_whole_network(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr(Workshop, "as_shipped", lambda self, part: part == "ivediff_image")
    export.export(workshop, "ivediff", tmp_path)
    folder = tmp_path / "embedded_ivediff"
    for part in json.loads((folder / "model_index.json").read_text()):
        assert part.startswith("_") or any((folder / part).glob("*config.json")), part
    ours, theirs = (
        load_file(f"{at}/unet/diffusion_pytorch_model.safetensors")
        for at in (folder, shipped.HERE / "embedded_ivediff")
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_shipped_pipeline_runs_in_plain_diffusers():
    from diffusers import AnimateDiffPipeline

    pipeline, seed = AnimateDiffPipeline.from_pretrained(shipped.HERE / "embedded"), torch.Generator().manual_seed(0)
    words = "a red ball drifting to the right"
    made = pipeline(words, num_frames=4, height=64, width=64, num_inference_steps=4, generator=seed, output_type="np")
    red, green, blue = made.frames[0, :, 16:48, 16:48].reshape(-1, 3).mean(0)
    assert red > max(green, blue)


def test_the_shipped_transformer_runs_in_plain_diffusers():
    from diffusers import CogVideoXPipeline

    pipeline = CogVideoXPipeline.from_pretrained(shipped.HERE / "embedded_dit")
    how = {"height": 64, "width": 64, "num_inference_steps": 8, "guidance_scale": 2.0, "output_type": "np"}

    def middle(words: str) -> np.ndarray:
        seed = torch.Generator().manual_seed(0)
        return np.asarray(pipeline(words, num_frames=5, generator=seed, **how).frames[0])[..., 16:48, 16:48, :].mean(
            (0, 1, 2)
        )

    red, green = middle("a red disc moving right"), middle("a green disc moving right")
    assert red[0] - red[1] > green[0] - green[1] + 0.02


def test_parts_that_ship_are_learnt_from(workshop, tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    monkeypatch.setattr(shipped, "HERE", weights)
    for part in ("vae", "clip", "unet", "video_vae", "transformer_frames"):
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
    later = ["judge", "control", "video_mae", "motion_subspace", "aligned", "aligned_lora", "ivediff_image", "ivediff"]
    assert shop.wanted(None) == later
    assert shop.wanted("motion") == ["motion"]  # it ships, but was asked for
    assert shop.make("motion", 10)
    export.export(shop, "motion", weights)
    here, there = (fours.read(one.folder / "fours" / "vae", "clips", 2) for one in (workshop, shop))
    assert torch.allclose(here.latents, there.latents, atol=2e-2)  # half precision
    assert torch.allclose(here.references, there.references, atol=2e-2)
    assert shop.make("transformer", 10)
    shop.make("vae", 10)  # begun here, it is no longer taken as it ships
    assert not shop.as_shipped("vae")


def test_a_further_round_begins_as_the_part_ships(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "HERE", tmp_path / "weights")
    for part in ("vae", "clip", "unet", "motion", "video_vae", "transformer"):
        export.export(workshop, part, tmp_path / "weights")
    shop = Workshop(tmp_path / "training", TINY, "cpu", on_shipped=True, further=True, say=quiet)
    for part in ("motion", "transformer"):
        learnt, begun = (dict(one.named_parameters()) for one in (workshop.trained(part), shop.fresh(part)))
        assert all(torch.allclose(learnt[name], weight, atol=1e-2) for name, weight in begun.items())
        assert shop.plan_of(part).rate == workshop.plan_of(part).rate / 2
    lesson = TINY.motion.lessons[0]
    workshop.rendered("motion")
    shop.rendered("motion")
    assert not torch.equal(*(one.teacher("motion").draw(0, lesson)["noise"] for one in (workshop, shop)))
    assert shop.make("motion", 10)
    assert shop.make("transformer", 10)
    export.export(shop, "motion", tmp_path / "weights")
    card = json.loads((tmp_path / "weights" / "embedded.training.json").read_text())["motion"]
    export.export(shop, "transformer", tmp_path / "weights")  # as it was read from there
    for config in (tmp_path / "weights").rglob("config.json"):
        assert str(tmp_path) not in config.read_text()
    assert card["before"]["step"] == card["step"] == TINY.motion.plan.steps
    with pytest.raises(ConfigError, match="does not ship"):
        shop.ready("judge")


def test_moalign_learns_from_clips_of_ones_own_and_goes_on(workshop, tmp_path, monkeypatch):
    """All three stages through the command's own function, with a manifest, in many sittings too short for a step, and
    one that is not."""
    weights, folder = tmp_path / "weights", tmp_path / "training"
    monkeypatch.setattr(shipped, "HERE", weights)
    monkeypatch.setitem(SIZES, "cpu", TINY)
    for part in ("video_vae", "transformer"):
        export.export(workshop, part, weights)
    own = tmp_path / "clips" / "a"
    own.mkdir(parents=True)
    for t, frame in enumerate(clips.render(clips.draw(3, clips.Limits(frames=17)).scene)):
        video.write_png(own / f"{t:03d}.png", frame)
    runner = Local(Store(tmp_path / "store", lambda line: None))

    def sitting(minutes: float) -> bool:
        return training.run("moalign", "cpu", None, minutes, folder, True, False, str(own.parent), None, runner)

    for _ in range(40):
        if sitting(0.0001):
            break
    assert sitting(1)
    ran = [outcome.stage for outcome in runner.outcomes if outcome.status == "ran"]
    assert ran == ["frames", "optical_flow", "motion_study"]  # in all these sittings
    for part in ("video_mae", "motion_subspace", "aligned"):
        assert progress(folder / "cpu" / part)["step"] == 2
        page = (folder / "cpu" / part / "report.html").read_text()
        assert "data:image/png;base64," in page
        assert page.count("<svg") >= 1
    shop = Workshop(folder / "cpu", TINY, "cpu", on_shipped=True, say=quiet)
    export.export(shop, "aligned", weights)
    state = load_file(next((weights / "aligned").glob("*.safetensors")))
    named = dict(shop.trained("aligned").student.transformer.named_parameters())
    assert state.keys() == named.keys()


def test_ivediff_learns_from_clips_of_ones_own_and_goes_on(workshop, tmp_path, monkeypatch):
    """Both stages through the command's own function, with a manifest, in many sittings too short for a step."""
    weights, folder = tmp_path / "weights", tmp_path / "training"
    monkeypatch.setattr(shipped, "HERE", weights)
    monkeypatch.setitem(SIZES, "cpu", TINY)
    for part in ("vae", "clip", "unet", "motion"):
        export.export(workshop, part, weights)
    own = tmp_path / "clips" / "a"
    own.mkdir(parents=True)
    shown = clips.render(clips.draw(3, clips.Limits(frames=17)).scene)
    for t, frame in enumerate(shown):
        video.write_png(own / f"{t:03d}.png", frame)
    short = tmp_path / "clips" / "b"  # is told and left out
    short.mkdir()
    video.write_png(short / "000.png", shown[0])
    runner = Local(Store(tmp_path / "store", lambda line: None))

    def sitting(minutes: float) -> bool:
        return training.run("ivediff", "cpu", None, minutes, folder, True, False, str(own.parent), None, runner)

    for _ in range(40):
        if sitting(0.0001):
            break
    assert sitting(1)
    ran = [outcome.stage for outcome in runner.outcomes if outcome.status == "ran"]
    assert ran == ["frames", "optical_flow", "depth", "frames"]  # in all these sittings; the last of the short one
    (real,) = (folder / "cpu" / "editing").glob("real-*.safetensors")
    data = editing_clips.Clips([real])
    assert len(data) == 1  # a window of 17 frames
    assert np.array_equal(data.take([0]).frames[0].numpy(), shown[:16])
    for part in ("ivediff_image", "ivediff"):
        assert progress(folder / "cpu" / part)["step"] == 2
        page = (folder / "cpu" / part / "report.html").read_text()
        assert "data:image/png;base64," in page
        assert page.count("<svg") >= 1


def test_a_subspace_belongs_to_its_encoder(workshop, tmp_path, monkeypatch):
    """Another encoder, of other patches and width: learnt from, exported, and never mixed with ours."""
    monkeypatch.setattr(shipped, "HERE", tmp_path / "weights")
    for part in ("video_vae", "transformer", "video_mae", "motion_subspace"):
        export.export(workshop, part, tmp_path / "weights")
    torch.manual_seed(0)
    sizes = {"image_size": 128, "patch_size": 16, "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    VideoMAEModel(VideoMAEConfig(**sizes, intermediate_size=64)).save_pretrained(tmp_path / "other")

    def shop(encoder: Path | None) -> Workshop:
        name = None if encoder is None else str(encoder)
        return Workshop(tmp_path / "training", TINY, "cpu", on_shipped=True, encoder=name, say=quiet)

    with pytest.raises(ConfigError, match="this is another"):
        shop(tmp_path / "other").ready("aligned")  # the subspace that ships is of the encoder that ships
    own = shop(tmp_path / "other")
    assert own.make("motion_subspace", 10)
    assert own.trained("motion_subspace").config.features == 48
    own.ready("aligned")
    for part in ("motion_subspace", "aligned"):
        with pytest.raises(ConfigError, match="another video encoder"):
            shop(None).ready(part)
    export.export(Workshop(own.folder, TINY, "cpu", on_shipped=True), "motion_subspace", tmp_path / "out")
    read = motion_subspace.MotionSubspace.from_pretrained(tmp_path / "out" / "motion_subspace")
    assert read.config.features == 48


def test_what_ships_fits_what_learns_from_it(tmp_path):
    shop = Workshop(tmp_path, SIZES["cpu"], "cpu", on_shipped=True, say=quiet)
    assert tuple(shop.fresh("motion").unet.config.block_out_channels) == unet.WIDTHS
    assert shop.eyes("transformer") == "video_vae"
    assert shop.video_vae().config.latent_channels == video_autoencoder.CHANNELS
    for part in ("unet", "motion", "transformer_frames"):
        shop.ready(part)


def test_the_video_autoencoder_that_ships_keeps_what_clips_show():
    vae = shipped.load("video_vae")
    code, found = video_autoencoder.clip_by_clip(vae), []
    for seed in range(4_000, 4_008):
        clip = clips.render(clips.draw(seed, clips.Limits(frames=17)).scene)
        with torch.inference_mode():
            shown = judging.decoded(vae, code(clip[None]))[0]
        found.append(10 * np.log10(255**2 / np.square(shown.astype(float) - clip).mean()))
    assert np.mean(found) > 33  # dB


def test_parts_of_the_models_to_come_are_learnt_from_before_those_that_are_used(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "HERE", tmp_path)
    export.export(workshop, "unet", tmp_path)
    assert shipped.folders("unet")[0] == tmp_path / "embedded" / "unet"
    export.export(workshop, "unet", tmp_path / "next")
    assert shipped.folders("unet") == [tmp_path / "next" / "embedded" / name for name in ("unet", "text_encoder")]
    export.export(workshop, "video_vae", tmp_path / "next")
    assert shipped.ships("video_vae")
    export.export(workshop, "transformer_frames", tmp_path / "next")
    assert not shipped.ships("transformer")  # though it would lie in the same folder
    export.export(workshop, "transformer", tmp_path / "next")
    assert shipped.ships("transformer")
    assert shipped.ships("transformer_frames")  # the later serves as it
    card = json.loads((tmp_path / "next" / "embedded_dit.training.json").read_text())
    assert card.keys() == {"video_vae", "transformer"}


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


def test_what_cannot_be_trained_is_refused(tmp_path, monkeypatch):
    shell = Shell(tmp_path)
    assert "E206" in shell("train", "nothing").err
    for words in (["--size", "huge"], ["--part", "arm"]):
        result = shell("train", "embedded", "--folder", str(tmp_path), *words)
        assert result.code == 2
        assert "E247" in result.err
    stage = shell("train", "moalign", "--folder", str(tmp_path), "--stage", "subspce")
    assert stage.code == 2
    assert "E206" in stage.err
    assert "subspace" in stage.err
    assert "E206" in shell("train", "embedded", "--folder", str(tmp_path), "--stage", "subspace").err
    with monkeypatch.context() as patched:
        patched.setattr(shipped, "HERE", tmp_path / "nothing")
        early = shell("train", "moalign", "--folder", str(tmp_path), "--stage", "align")
    assert "E247" in early.err
    assert "motion_subspace" in early.err
    assert not list(tmp_path.glob("*/state*"))
    for part in ("motion", "unet", "transformer_frames", "transformer"):
        early = shell("train", "embedded", "--folder", str(tmp_path), "--part", part)
        assert early.code == 2
        assert "E247" in early.err
        assert part in early.err


def test_pairs_are_told_by_blobs_that_lie_on_their_points():
    whole = motionv2v.told(motionv2v.SEED + 3, 64, 4, "path", whole=True)
    pair = pairs.pair(motionv2v.SEED + 3, "path", width=64, height=64, frames=17, points=motionv2v.POINTS)
    (xy, seen), _ = pair.tracks()
    bright = whole.target_tracks.max(-1)
    inside = seen & (xy >= 2).all(-1) & (xy <= 61).all(-1)
    places = np.rint(xy[inside]).astype(int)
    on = bright[np.nonzero(inside)[0], places[:, 1], places[:, 0]]
    told = np.mean(on > 100)
    assert 0.02 < told <= 1
    assert whole.target.shape == whole.source_tracks.shape == (17, 64, 64, 3)
    assert not np.array_equal(whole.target, whole.source)
    again = motionv2v.told(motionv2v.SEED + 3, 64, 4, "path", whole=True)
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))
    less = motionv2v.told(motionv2v.SEED + 3, 64, 4, "path")
    assert np.array_equal(less.target, whole.target)
    assert less.target_tracks.astype(int).sum() <= whole.target_tracks.astype(int).sum()


def test_the_control_branch_learns_on_coded_pairs(workshop):
    data = motionv2v.read(workshop.folder / "pairs", 2)
    assert data["target"].shape == (2, 5, 16, 16, 16)
    assert motionv2v.control_of(data, [1, 0]).shape == (2, 5, 48, 16, 16)
    base, branch = workshop.taught("transformer"), workshop.fresh("control")
    before = {name: value.clone() for name, value in base.state_dict().items()}
    of = motionv2v.loss(branch, base, data, 2, 0.5, 0, "cpu")
    optimiser = torch.optim.AdamW(branch.parameters(), 3e-3)
    values = []
    for _ in range(12):
        value, _ = of(0)
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        values.append(float(value.detach()))
    assert values[-1] < 0.9 * values[0]
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_an_aligned_transformer_is_a_checkpoint_of_the_model_that_it_was(workshop, tmp_path):
    """`model.checkpoint=` reads what alignment writes; without it the model is as it ships."""
    for part in ("video_vae", "transformer", "aligned"):
        export.export(workshop, part, tmp_path)
    (file,) = (tmp_path / "aligned").glob("*.safetensors")
    plain, aligned = (
        load_model(
            Model(name="m", family="cogvideox", weights=str(tmp_path / "embedded_dit"), frames=17, checkpoint=one)
        )
        for one in (None, str(file))
    )
    learnt = workshop.trained("aligned").student.transformer.state_dict()
    for name, value in aligned.parts.look("network").state_dict().items():
        torch.testing.assert_close(value.float(), learnt[name].float(), atol=2e-3, rtol=2e-3)
    both = zip(*(one.parts.look("network").parameters() for one in (plain, aligned)), strict=True)
    assert any(not torch.equal(a, b) for a, b in both)


def test_a_lora_of_an_aligned_transformer_does_what_it_did(workshop, tmp_path):
    """`model.lora=` reads what the export writes; nothing but the LoRA and the projection has learnt."""
    for part in ("video_vae", "transformer", "aligned_lora"):
        export.export(workshop, part, tmp_path)
    learnt, base = workshop.trained("aligned_lora").student.transformer, workshop.taught("transformer").transformer
    state = learnt.state_dict()
    for name, value in base.state_dict().items():
        for own in (name, name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")):
            assert own not in state or torch.equal(state[own], value)
    (file,) = (tmp_path / "aligned_lora").glob("*.safetensors")
    how = {"family": "cogvideox", "weights": str(tmp_path / "embedded_dit"), "frames": 17, "dtype": "float32"}
    plain, aligned = (load_model(Model(name="m", **how, lora=one)).parts.look("network") for one in (None, str(file)))
    random = torch.Generator().manual_seed(0)
    z, text = torch.randn(1, 5, 16, 16, 16, generator=random), torch.randn(1, 20, transformer.WIDTH, generator=random)
    t = torch.full((1, 5), 400.0)
    with torch.no_grad():
        wanted, found, before = (evaluate(one, z, t, text) for one in (learnt, aligned, plain))
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-3)
    assert not torch.allclose(found, before, atol=1e-5)
