"""MoCA-Video on tiny models: what each part does to a step, what travels with a frame, what the whole leaves alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from helpers import small_cogvideox
from helpers import small_diffusion as small
from helpers.command import reference
from helpers.diagonal import CLIP, FRAMES, GRID, SCHEDULE, editing, latents, random
from helpers.stages import Calls, ProgressLog, StopAfter, run, seen

from flows.graph import metric_settings
from flows.settings.compose import settings
from retake.diffusion.attention_maps import Concepts
from retake.diffusion.backbone import Backbone, Condition
from retake.diffusion.families.unet_motion.adapter import UNetMotion
from retake.diffusion.loading.load import load
from retake.diffusion.loading.offload import Parts
from retake.diffusion.model import Model
from retake.diffusion.sampling.fifo import begin, run_queue
from retake.diffusion.sampling.fifo_queue import Denoiser, Queue, Slots, Span, cut, ddim_step
from retake.errors import ConfigError, RetakeError
from retake.formats import open_series
from retake.imaging.rgba import with_alpha
from retake.methods import moca
from retake.methods.moca import masks, steps
from retake.methods.moca.presets import CODE, PAPER, RECOMMENDED, RULES, rule_of
from retake.methods.moca.reference import filled, laid, scaled_box
from retake.synthetic import scenes
from retake.synthetic.world import World

NOTHING = {"weight": 0.0, "kappa": 0.0, "gamma": 0.0}
COUNT = 18


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return UNetMotion(Parts({"network": small.unet_motion()}), SCHEDULE, FRAMES, small.SIZE, small.SIZE)


@pytest.fixture(scope="module")
def condition() -> Condition:
    return Condition({"states": random(1, small.LENGTH, 16)}, {"states": random(1, small.LENGTH, 16, seed=1)})


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return random(CLIP, *GRID, seed=9)


def square(frames, low=2, high=6) -> torch.Tensor:
    m = torch.zeros(len(frames), 1, *GRID[1:])
    m[:, :, low:high, low:high] = 1
    return m


def picture(frames, value=1.0) -> torch.Tensor:
    return torch.full((len(frames), *GRID), value)


def mixed(preset, rule, where=square, shown=picture):
    """A preset's step with masks and a reference that are known."""
    return steps.mixing(preset, rule, partial(masks.gated, masks.from_region(where), rule.iou, "itself"), shown)


def edited(backbone, condition, clip, step, start=5) -> list[Any]:
    diagonal, source = editing(backbone, clip, start=start)
    denoiser = Denoiser(backbone, condition, guidance=2.0, eta=1.0, step=step)
    return list(run_queue(denoiser, begin(diagonal, source), diagonal, source, len(clip)))


def slots_of(level: int, count: int = 3, z: torch.Tensor | None = None) -> Slots:
    """Some slots at one level of 20, outside of a network."""
    pairs = tuple(reversed(SCHEDULE.step_pairs(20)))
    z = random(count, *GRID, seed=5) if z is None else z
    queue = Queue(0, z, [level] * len(z))
    return Slots(queue, range(len(z)), cut(range(len(z)), 8, 4, 0, len(z)), pairs, SCHEDULE, 1.0, 0)


# ---- the parts of a step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", RULES)
def test_with_every_strength_at_zero_it_is_plain_diagonal_denoising(backbone, condition, clip, preset):
    step = mixed(preset, replace(RULES[preset], **NOTHING))
    found, wanted = (latents(edited(backbone, condition, clip, one)) for one in (step, ddim_step))
    assert torch.equal(found, wanted)


def test_what_is_not_masked_takes_the_plain_step():
    slots, x0, eps = slots_of(4), random(3, *GRID), random(3, *GRID, seed=1)
    rule = replace(RECOMMENDED, gamma=1.0)
    found, wanted = mixed("recommended", rule)(x0, eps, slots), slots_of(4).step(x0, eps)
    outside = square(range(3), 1, 7).expand(3, *GRID) == 0  # residual noise reaches a cell out
    assert torch.equal(found[outside], wanted[outside])
    assert (found != wanted)[~outside].float().mean() > 0.9


def test_the_injection_is_a_blend_that_weakens_as_noise_falls():
    rule = replace(RECOMMENDED, kappa=0.0, gamma=0.0)
    for level in (2, 5):
        slots, x0, eps = slots_of(level), random(3, *GRID), random(3, *GRID, seed=1)
        weight = slots.t[0] / 1000
        m = square(range(3))
        wanted = slots_of(level).step(x0 * (1 - weight * m) + weight * m * picture(range(3)), eps)
        assert torch.allclose(mixed("recommended", rule)(x0, eps, slots), wanted, atol=1e-6)
    constant = replace(rule, weight=0.25, falling=False)
    wanted = slots_of(5).step(x0 * (1 - 0.25 * m) + 0.25 * m, eps)
    assert torch.allclose(mixed("recommended", constant)(x0, eps, slots_of(5)), wanted, atol=1e-6)


def test_momentum_is_the_average_over_a_frames_own_levels():
    rule = replace(RECOMMENDED, drift=0.0, gamma=0.0, falling=False, weight=0.5)
    step, v = mixed("recommended", rule), torch.zeros(2, *GRID)
    queue = slots_of(5, 2).queue
    for level in (5, 4, 3):
        queue.levels = [level] * 2
        slots = replace(slots_of(level, 2), queue=queue)
        x0, eps = random(2, *GRID, seed=level), random(2, *GRID, seed=10 + level)
        moved = 0.5 * square(range(2)) * (1 - x0)
        v = (0.9 * v + 0.1 * moved).clamp(-2, 2)
        kappa = 0.1 * (1 - slots.t[0] / 1000)
        assert torch.allclose(step(x0, eps, slots), slots.step(x0 + moved + kappa * v, eps), atol=1e-6)
        assert torch.allclose(queue.state["momentum"], v, atol=1e-6)


def test_residual_noise_lies_along_the_edge_and_ends_with_the_last_step():
    noisy = replace(RECOMMENDED, weight=0.0, kappa=0.0, gamma=0.5)
    band = (square(range(1), 1, 7) - square(range(1), 3, 5))[0, 0]
    for level in (5, 1):
        slots, x0, eps = slots_of(level), random(3, *GRID), random(3, *GRID, seed=1)
        added = mixed("recommended", noisy)(x0, eps, slots) - slots.step(x0, eps)
        wanted = 0.5 * SCHEDULE.spread(slots.t, slots.to)[0] * band * slots.noise() * (level > 1)
        assert torch.allclose(added, wanted, atol=1e-6)


def test_nothing_is_mixed_above_its_timestep(backbone, condition, clip):
    step = mixed("recommended", replace(RECOMMENDED, below=0.0))
    found, wanted = (latents(edited(backbone, condition, clip, one)) for one in (step, ddim_step))
    assert torch.equal(found, wanted)


def test_the_paper_puts_the_reference_in_the_latents_place():
    """x_mix = x_t (1 - m) + lambda x_ref m, literally; momentum is the latents' own way and moves all of the frame."""
    rule = replace(PAPER, kappa=0.0, gamma=0.0)
    slots, x0, eps = slots_of(5), random(3, *GRID), random(3, *GRID, seed=1)
    t, m = slots.t[0], square(range(3))
    x_mix = slots.z * (1 - m) + t / 1000 * m
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    wanted = torch.where(m > 0, (x_mix - sigma * eps) / alpha, x0)
    assert torch.allclose(mixed("paper", rule)(x0, eps, slots), slots.step(wanted, eps), atol=1e-5)
    ahead = steps.direction(eps, slots)
    v = 0.1 * (slots.z - slots.step(wanted, eps) + t / 1000 * ahead)
    pushed = slots.step(wanted + 0.1 * (1 - t / 1000) * v.clamp(-2, 2), eps)
    assert torch.allclose(mixed("paper", replace(rule, kappa=0.1))(x0, eps, slots_of(5)), pushed, atol=1e-5)
    later = slots_of(5)  # a second step from the same slots: v is an average over both
    step = mixed("paper", replace(rule, kappa=0.1))
    step(x0, eps, later)
    assert torch.allclose(
        step(x0, eps, later), slots.step(wanted + 0.1 * (1 - t / 1000) * (1.9 * v).clamp(-2, 2), eps), atol=1e-5
    )


def test_dirs_length_is_what_the_noise_of_the_step_leaves():
    slots, eps = slots_of(6), random(3, *GRID, seed=1)
    stays = SCHEDULE.sigma(slots.to)[0] ** 2 - SCHEDULE.spread(slots.t, slots.to)[0] ** 2
    assert torch.allclose(steps.direction(eps, slots), stays.sqrt() * eps, atol=1e-6)
    assert torch.allclose(
        slots.step(0 * eps, eps), steps.direction(eps, slots) + SCHEDULE.spread(slots.t, slots.to)[0] * slots.noise(0),
        atol=1e-5,
    )  # fmt: skip


def test_in_the_published_code_the_reference_reaches_the_next_frames_momentum_alone_and_repels():
    still = replace(CODE, gamma=0.0, iou=0.0)
    x0, eps = random(3, *GRID), random(3, *GRID, seed=1)

    def step(rule, value):
        return mixed("code", rule, shown=partial(picture, value=value))(x0, eps, slots_of(4))

    assert torch.equal(step(replace(still, kappa=0.0), 1.0), step(replace(still, kappa=0.0), -1.0))
    moved = step(still, 1.0) - step(still, -1.0)
    inside = square(range(3)).expand(3, *GRID) > 0
    assert torch.equal(moved[0], torch.zeros(GRID))  # the first frame has none before it
    assert (moved[1:][inside[1:]] < 0).all()  # towards -1 where the reference is 1
    assert moved[1].abs().max() < 1.6 * 0.1 * 0.1  # kappa (1 - beta) of what it was changed by, 2 x 0.8
    assert torch.equal(moved[~inside], torch.zeros(int((~inside).sum())))


def test_the_published_codes_momentum_runs_along_the_frames():
    slots, x0, eps = slots_of(4), random(3, *GRID), random(3, *GRID, seed=1)
    t, m = slots.t[0], square(range(1))[0]
    noisy = 0.5 * SCHEDULE.spread(slots.t, slots.to)[0] * slots.noise(0)
    ahead, kappa = steps.direction(eps, slots), 0.1 * (1 - t / 1000)

    def chained(after) -> torch.Tensor:
        """after: what becomes of a frame's corrected x0 before the next frame's momentum sees it."""
        v1 = 0.1 * (x0[1] - after(0, x0[0]) + 0.05 * ahead[1])
        v2 = 0.9 * v1 + 0.1 * (x0[2] - after(1, x0[1] + kappa * v1) + 0.05 * ahead[2])
        return slots.step(x0 + kappa * torch.stack([torch.zeros(GRID), v1, v2]), eps)

    found = mixed("code", CODE)(x0, eps, slots)
    assert torch.allclose(found, chained(lambda i, x: x * (1 - m) + 0.8 * m + noisy[i]), atol=1e-6)
    above = mixed("code", replace(CODE, below=0.0))(x0, eps, slots_of(4))  # nothing is injected, no noise
    assert torch.allclose(above, chained(lambda i, x: x), atol=1e-6)


# ---- masks -----------------------------------------------------------------------------------------------------------


def found(news: list[torch.Tensor], iou: float = 0.5, compare: Any = "itself") -> list[torch.Tensor]:
    """Masks of one slot over a few steps."""
    slots, below = slots_of(3, 1), torch.tensor([True])
    taken = []
    for new in news:
        candidate = lambda x0, slots, rows, new=new: [new]  # noqa: E731
        taken.append(masks.gated(candidate, iou, compare, below, slots.z, slots)[0].clone())
    return taken


def test_a_new_mask_is_taken_where_it_overlaps_enough_with_the_one_that_is_kept():
    first, near, far = square([0])[0], square([0], 2, 7)[0], square([0], 5, 8)[0]
    empty, whole = torch.zeros_like(first), torch.ones_like(first)
    taken = found([empty, first, far, near, masks.believed(whole), empty])
    for mask, wanted in zip(taken, [empty, first, first, near, near, near], strict=True):
        assert torch.equal(mask, wanted)
    assert torch.equal(found([whole])[0], whole)  # what a person marked is taken, however large
    assert torch.equal(found([0.3 * first])[0], 0.3 * first)  # or thin
    assert torch.equal(found([first, far], iou=0.0)[1], far)  # the gate is off
    assert masks.overlap(first, near) == pytest.approx(16 / 25)


def test_against_its_neighbour_a_mask_that_jumps_is_the_neighbours():
    slots, below = slots_of(3, 3), torch.tensor([True] * 3)
    new = torch.stack([square([0], 0, 4)[0], square([0], 4, 8)[0], square([0], 0, 3)[0]])

    def candidate(x0, slots, rows):
        return new[rows]

    kept = masks.gated(candidate, 0.5, "neighbour", below, slots.z, slots)
    assert torch.equal(kept[1], new[0])
    assert torch.equal(kept[2], new[2])
    assert torch.equal(masks.gated(candidate, 0.5, "itself", below, slots.z, slots_of(3, 3))[1], new[1])


def test_masks_and_momentum_travel_with_their_frame(backbone, condition, clip):
    def where(frames):
        return torch.cat([square([n], n % 4, n % 4 + 3) for n in frames])

    done = edited(backbone, condition, clip, mixed("recommended", RECOMMENDED, where))
    for one in done:
        assert torch.equal(one.state["mask"], where([one.frame])[0])
        outside = one.state["mask"].expand(GRID) == 0
        assert one.state["momentum"][outside].abs().max() == 0
        assert one.state["momentum"][~outside].abs().min() > 0


def test_the_segmenter_cuts_the_object_out_of_a_picture():
    from retake.diffusion.grid import to_grid

    world = World(scenes.scene("drift"))
    frame, truth = world.frame(3), world.mask(3, 0)
    height, width = (side // 8 * 8 for side in truth.shape)
    frame, truth = np.ascontiguousarray(frame[:height, :width]), truth[:height, :width]
    cells = to_grid(torch.from_numpy(truth)[None], "masks", 8, 1)[0].numpy() > 0
    mask = masks.segmented(frame, cells, 8)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8
    assert not masks.segmented(frame, np.zeros_like(cells), 8).any()


# ---- where the network looks -----------------------------------------------------------------------------------------


def test_attention_to_words_is_read_frame_by_frame_and_nothing_else_changes(backbone, condition):
    z, t = random(2, FRAMES, *GRID), torch.tensor([400, 200])
    both = Condition({"states": random(2, small.LENGTH, 16)}, {"states": random(2, small.LENGTH, 16, seed=1)})
    concepts = Concepts([2, 3], (FRAMES, *GRID[1:]), guided=True)
    spans = [Span(range(0, 8), range(0, 8)), Span(range(4, 12), range(8, 12))]
    with torch.no_grad():
        wanted = backbone.predict(z, t, both, 3.0).x0
        with backbone.attention({"*": concepts}):
            assert torch.equal(backbone.predict(z, t, both, 3.0).x0, wanted)
        maps = concepts.masks(spans)
        assert maps.shape == (12, 1, *GRID[1:])
        assert maps.amin() == 0
        assert maps.amax() == 1
        # a window alone, without guidance, is heard as in the batch; other words are heard elsewhere
        alone = Concepts([2, 3], (FRAMES, *GRID[1:]), guided=False)
        others = Concepts([5], (FRAMES, *GRID[1:]), guided=False)
        second = Condition({"states": both.positive["states"][1:]})
        for one in (alone, others):
            with backbone.attention({"*": one}):
                backbone.predict(z[1:], 200, second)
    one = alone.masks([Span(range(4, 12), range(8, 12))])
    assert torch.allclose(one, maps[8:], atol=1e-4)
    assert not torch.allclose(others.masks(spans[1:]), one, atol=1e-2)


def test_attention_is_read_on_sides_that_do_not_halve_evenly(backbone):
    concepts = Concepts([2], (FRAMES, 9, 12), guided=False)
    condition = Condition({"states": random(1, small.LENGTH, 16)})
    with torch.no_grad(), backbone.attention({"*": concepts}):
        backbone.predict(random(1, FRAMES, 4, 9, 12), 300, condition)
    assert concepts.masks([Span(range(8), range(8))]).shape == (FRAMES, 1, 9, 12)


@pytest.mark.parametrize("rotary", [False, True])
def test_a_transformer_is_listened_to_in_its_joint_attention(rotary):
    network = small_cogvideox.transformer(
        sample_width=8,
        sample_height=8,
        sample_frames=FRAMES,
        temporal_compression_ratio=1,
        use_rotary_positional_embeddings=rotary,
    )
    from retake.diffusion.families.cogvideox.adapter import CogVideoX

    backbone = CogVideoX(Parts({"network": network}), SCHEDULE, FRAMES, 64, 64)
    concepts = Concepts([1], (FRAMES, *GRID[1:]), guided=False)
    condition = Condition({"states": random(1, 6, 16)})
    with torch.no_grad(), backbone.attention({"*": concepts}):
        backbone.predict(random(1, FRAMES, *GRID), 300, condition)
    maps = concepts.masks([Span(range(8), range(8))])
    assert maps.shape == (FRAMES, 1, *GRID[1:])
    assert maps.flatten(1).std(1).min() > 0


# ---- references, presets ---------------------------------------------------------------------------------------------


def test_a_picture_fills_the_objects_box_and_shows_the_frame_through():
    frame, image = np.full((40, 60, 3), 9, np.uint8), np.zeros((10, 20, 4), np.uint8)
    image[..., 0], image[:, 10:, 3] = 200, 255
    out = laid(frame, (10, 20, 30, 30), image)
    assert np.array_equal(out[20:30, 22:30], np.broadcast_to([200, 0, 0], (10, 8, 3)))
    assert np.array_equal(out[20:30, 10:18], frame[20:30, 10:18])
    out[20:30, 10:30] = 9
    assert np.array_equal(out, frame)
    assert filled(with_alpha(image), (33, 50)).shape == (50, 33, 4)
    assert laid(frame, None, image) is frame
    white = np.full((20, 20, 4), 255, np.uint8)
    white[:10] = 0  # black where it is not seen
    assert laid(np.full((40, 60, 3), 255, np.uint8), (3, 5, 20, 16), white).min() > 250


@pytest.mark.parametrize("width", [169, 31, 200, 1001])
def test_a_box_at_the_frames_edge_stays_within(width):
    mask = np.zeros((90, width), bool)
    mask[40:, width - 20 :] = True
    x0, y0, x1, y1 = scaled_box(mask, (720, 480))
    assert (x1, y1) == (720, 480)
    assert abs(x0 - 720 * (width - 20) / width) <= 1
    assert abs(y0 - 480 * 40 / 90) <= 1


def test_numbers_that_are_given_take_the_presets_places():
    assert rule_of("paper", {"gamma": None, "iou": 0.0}) == replace(PAPER, iou=0.0)
    assert rule_of("recommended", {"below": 400.0}).enter == 400
    assert rule_of("recommended", {"below": 400.0, "enter": 500.0}).enter == 500
    assert rule_of("code", {"below": 400.0}).enter == CODE.enter


# ---- the whole -------------------------------------------------------------------------------------------------------

CLIP_WORDS = [f"frames.last={COUNT - 1}", "frames.short_side=48", "masks.box=[40,40,130,130]"]
QUICK = ["edit=moca", "edit.source_prompt=a b", "edit.steps=12", "edit.guidance=3", "decode.preset=veryfast"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    scheduler = DDIMScheduler(**small.SCHEDULE, prediction_type="v_prediction")
    return small.save_embedded_like(tmp_path_factory.mktemp("model"), scheduler=scheduler)


@pytest.fixture(scope="module")
def mix(folder, tmp_path_factory):
    """Edit the clip with more settings; what earlier edits made is in the store."""
    at = tmp_path_factory.mktemp("mixed")
    model = [f"model.{name}={value}" for name, value in small.settings(folder).items()]
    image = f"edit.reference={reference(at / 'picture.png')}"

    def call(*more: str, until: str = "edit") -> Calls:
        return run(at / "retake", "sprites:drift", settings([*CLIP_WORDS, *QUICK, image, *model, *more]), until)

    return call


SHORT = "frames.last=8"  # where one chunk says as much as two


def chunks(calls: Calls) -> list[dict[str, np.ndarray]]:
    series = open_series(calls.store, calls.made["edit"])
    return [series.chunk(index) for index in range(series.chunks())]


def test_outside_the_region_every_pixel_is_the_sources(mix):
    calls = mix(until="decode")
    meta, world = calls.made["frames"].meta, World(scenes.scene("drift"))
    working, full = (meta["width"], meta["height"]), (meta["source_width"], meta["source_height"])
    edits, result = (open_series(calls.store, calls.made[name]) for name in ("edit", "decode"))
    for t in (0, 9, 17):
        box, _, alpha = edits[t]
        touched, opaque = seen(alpha, box, working, full)
        assert np.array_equal(result[t][~touched], world.frame(t)[~touched])
        assert (result[t][opaque] != world.frame(t)[opaque]).any(axis=1).mean() > 0.9


def test_another_reference_changes_the_inside_through_its_latents_alone(mix, tmp_path):
    from retake.video import write_png

    write_png(tmp_path / "other.png", np.full((20, 20, 3), (250, 30, 30), np.uint8))
    other = f"edit.reference={tmp_path / 'other.png'}"
    hidden = (SHORT, "edit.look=false")
    for words, same in ((hidden, False), ((*hidden, "edit.weight=0"), True)):
        for a, b in zip(chunks(mix(*words)), chunks(mix(*words, other)), strict=True):
            assert np.array_equal(a["alpha"], b["alpha"])
            assert np.array_equal(a["rgb"], b["rgb"]) == same


def test_every_part_can_be_switched_off(mix):
    looks = {
        words: b"".join(chunk["rgb"].tobytes() for chunk in chunks(mix(SHORT, "edit.steps=16", *words)))
        for words in [
            (),
            ("edit.kappa=0",),
            ("edit.gamma=0",),
            ("edit.weight=0",),
            ("edit.diagonal=true",),
            ("edit.place=frame",),
            ("edit.hold=false",),
            ("edit.look=false",),
            ("edit.reference_text=c",),
            ("edit.preset=code", "edit.object=a"),
            ("edit.preset=paper",),
            ("edit.masks=segmenter",),
            ("edit.masks=segmenter", "edit.iou=0"),
            ("edit.compare=neighbour", "edit.iou=0.99"),
        ]
    }
    assert len(set(looks.values())) == len(looks)


def test_a_clip_too_long_for_memory_takes_the_queue(mix, monkeypatch):
    """The threshold lies at thousands of frames, so it is lowered."""
    queue = mix(SHORT, "edit.diagonal=true").made["edit"].digest
    calls = mix(SHORT)
    for most, wanted in ((9, calls.made["edit"].digest), (7, queue)):
        monkeypatch.setattr("retake.methods.moca.presets.TOGETHER", most)
        calls.record("edit").unlink()
        assert calls.again("edit").digest == wanted
    assert queue != calls.made["edit"].digest


def test_a_killed_edit_in_windows_goes_on_bit_equal(mix):
    calls = mix("edit.seed=2", "edit.keep=6", "edit.diagonal=false")  # 4 levels of 18 frames: a state each
    whole = calls.made["edit"].digest
    for stop in (3, 4 + 1):  # between levels, and between chunks
        calls.record("edit").unlink()
        with pytest.raises(KeyboardInterrupt):
            calls.again("edit", StopAfter(stop))
        resumed = ProgressLog()
        assert calls.again("edit", resumed).digest == whole
        assert len(resumed.steps) <= 6 + 1 - stop


def test_a_killed_edit_goes_on_bit_equal(mix, folder):
    calls = mix("edit.seed=2", "edit.keep=4", "edit.diagonal=true")
    whole = calls.made["edit"].digest
    for stop in (2, 7, 16 + 1 + 2):  # soon, in the first chunk, and behind it
        calls.record("edit").unlink()
        with pytest.raises(KeyboardInterrupt):
            calls.again("edit", StopAfter(stop))
        resumed = ProgressLog()
        assert calls.again("edit", resumed).digest == whole
        first = resumed.steps[0][0]
        assert stop - 5 <= first <= stop + 1
        assert stop < 7 or first > 1


def test_by_default_a_quarter_of_a_window_is_only_looked_at_and_half_of_one_in_the_papers_presets(mix):
    window = 8
    for preset, share, count in (("recommended", 4, 24), ("paper", 2, 12)):  # queues about as long as a window
        asked = (SHORT, "edit.diagonal=true", f"edit.preset={preset}", f"edit.steps={count}")
        made = [mix(*asked, *words).made["edit"].digest for words in ahead(window // share)]
        assert made[0] == made[1] != made[2], preset


def ahead(wanted: int) -> list[list[str]]:
    """The default, what it should be, and another."""
    return [[], [f"edit.lookahead={wanted}"], [f"edit.lookahead={wanted + 1}"]]


@pytest.mark.parametrize("family", ["unet3d", "cogvideox", "cogvideox with an image autoencoder"])
def test_it_runs_on_every_family(family, mix, tmp_path):
    if family == "unet3d":
        model = small.settings(small.save_modelscope(tmp_path / "m"))
    elif family == "cogvideox":
        path = small_cogvideox.save(tmp_path / "m")
        model = {"weights": path, "height": 32, "width": 48, "frames": 9, "device": "cpu", "batch": 8}
    else:
        path, parts = small_cogvideox.save_embedded(tmp_path)
        model = {"weights": path, "parts": parts, "height": 64, "width": 64, "frames": 16, "device": "cpu", "batch": 8}
    words = [f"model.{name}={value}" for name, value in model.items()]
    words += [f"model.family={family.partition(' ')[0]}", "edit.reference_text=b", "edit.look=false"]
    calls = mix(*words)
    assert sum(len(chunk["rgb"]) for chunk in chunks(calls)) == COUNT
    for a, b in zip(chunks(calls), chunks(mix(*words, "edit.weight=0")), strict=True):
        assert not np.array_equal(a["rgb"], b["rgb"])


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["edit.reference=null"], "E230", "edit.reference=IMAGE"),
        (["edit.reference=nowhere.png"], "E400", ""),
        (["edit.masks=attention"], "E294", "edit.object"),
        (["edit.masks=attention", "edit.object=z"], "E294", "edit.object"),
        (["edit.masks=attention", "edit.object=a", "edit.source_prompt=ab"], "E294", "edit.object"),
        (["edit.source=inversion"], "E292", "inversion.steps=12"),
        (["edit.enter=0.5"], "E275", ""),
        (["edit.lookahead=8"], "E290", ""),
    ],
)
def test_what_cannot_work_is_refused(mix, words, code, hint):
    with pytest.raises(RetakeError) as caught:
        mix(*words)
    assert caught.value.code == code
    assert hint in caught.value.hint


def test_words_that_are_cut_off_are_refused(folder):
    backbone = load(Model(**small.settings(folder)))
    assert backbone.tokens_of("a b c", "b c") == [2, 3]
    with pytest.raises(ConfigError, match="E294"):
        backbone.tokens_of("a b c", "c b")


def test_a_second_prompt_stands_behind_the_first(folder):
    backbone = load(Model(**small.settings(folder)))
    one, two = backbone.condition(["a"]), backbone.condition(["a"], extra=["b"])
    length = small.LENGTH
    assert two.positive["states"].shape[1] == one.positive["states"].shape[1] + length
    assert torch.allclose(two.positive["states"][:, :length], one.positive["states"][:, :length], atol=1e-6)
    b = backbone.condition(["b"]).positive["states"][:, :length]
    assert torch.allclose(two.positive["states"][:, length : 2 * length], b, atol=1e-6)
    nothing = backbone.condition([""]).positive["states"][:, :length]
    assert torch.allclose(two.negative["states"][:, length : 2 * length], nothing, atol=1e-6)


def test_metrics_compare_with_what_the_edit_was_told(tmp_path):
    image = str(reference(tmp_path / "a.png"))
    overrides = [f"edit.reference={image}", "edit.source_prompt=a b"]
    asked = metric_settings(settings(["edit=moca", *overrides]))
    assert (asked.clip_score.reference, asked.clip_score.prompt) == (image, None)
    assert (asked.cass.reference, asked.cass.source_prompt) == (image, "a b")
    asked = metric_settings(settings(["edit=moca", *overrides, "metrics.cass.source_prompt=c"]))
    assert asked.cass.source_prompt == "c"
    asked = metric_settings(settings(["edit=sdedit", "edit.prompt=a b"]))
    assert (asked.clip_score.prompt, asked.cass.source_prompt) == ("a b", None)


def test_the_inversion_is_asked_for_only_where_it_is_read():
    assert "inversion" not in moca.needs(moca.Params.model_validate({"reference": "a.png"}))
    assert "inversion" in moca.needs(moca.Params.model_validate({"reference": "a.png", "source": "inversion"}))
