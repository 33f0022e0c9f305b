"""Diagonal denoising: the published loop, frames and what travels with them, editing, resuming, memory, cost."""

from __future__ import annotations

import gc
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_cogvideox
from helpers import small_diffusion as small
from helpers.diagonal import CLIP, FRAMES, GRID, SCHEDULE, editing, latents, random

from benchmarks.cases import Case
from benchmarks.fifo import published_loop
from benchmarks.published_fifo import evenly, generated, loop_evaluations, published
from retake.diffusion.backbone import Backbone, Condition
from retake.diffusion.families.cogvideox.adapter import CogVideoX
from retake.diffusion.families.unet_motion.adapter import UNetMotion
from retake.diffusion.loading.offload import Parts
from retake.diffusion.sampling.ddim import noise, sample
from retake.diffusion.sampling.fifo import Diagonal, begin, run_queue, run_windows, together
from retake.diffusion.sampling.fifo_queue import Denoiser, Queue, Span, cut, drawn, keep_outside
from retake.diffusion.sampling.inversion import invert
from retake.diffusion.sampling.windows import Windows
from retake.diffusion.schedule import END, Schedule
from retake.errors import ConfigError

FAMILIES = {"unet": {}, "dit": {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "steps_offset": 0}}


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request) -> Backbone:
    schedule = Schedule.from_config(small.SCHEDULE | {"prediction_type": "v_prediction"} | FAMILIES[request.param])
    if request.param == "unet":
        return UNetMotion(Parts({"network": small.unet_motion()}), schedule, FRAMES, small.SIZE, small.SIZE)
    network = small_cogvideox.transformer(
        sample_width=8, sample_height=8, sample_frames=FRAMES, temporal_compression_ratio=1
    )
    return CogVideoX(Parts({"network": network}), schedule, FRAMES, 64, 64)


@pytest.fixture(scope="module")
def condition(backbone) -> Condition:
    length = 6 if isinstance(backbone, CogVideoX) else small.LENGTH
    return Condition({"states": random(1, length, 16)}, {"states": random(1, length, 16, seed=1)})


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return random(CLIP, *GRID, seed=9)


def edited(backbone, condition, clip, diagonally=True, **more):
    diagonal, source = editing(backbone, clip)
    denoiser = Denoiser(backbone, condition, **{"guidance": 2.0, "eta": 1.0} | more)
    if not diagonally:
        return list(run_windows(denoiser, together(diagonal, source, len(clip)), diagonal))
    return list(run_queue(denoiser, begin(diagonal, source), diagonal, source, len(clip)))


# ---- the published queue -------------------------------------------------------------------------------------------


def test_published_timesteps_and_coefficients():
    pairs = evenly(SCHEDULE, 64)
    assert [t for t, _ in pairs[:20]] == [
        *(0, 16, 32, 48, 63, 79, 95, 111, 127, 143, 159, 174, 190, 206, 222, 238, 254, 270, 285, 301)
    ]
    assert pairs[-1] == (999, 983)
    assert pairs[0] == (0, 0)
    assert all(to == before for (_, to), (before, _) in zip(pairs[1:], pairs, strict=False))
    z, output, fresh = random(64, *GRID), random(64, *GRID, seed=1), random(64, *GRID, seed=2)
    t, to = torch.tensor(pairs).T
    x0, eps = SCHEDULE.to_x0_eps(output, z, t)
    made = SCHEDULE.step(x0, eps, t, to, eta=1.0, noise=fresh)
    bars = SCHEDULE.alphas_cumprod.numpy()
    now, then = (bars[k.long()].reshape(64, 1, 1, 1) for k in (t, to))
    spread = np.sqrt((1 - then) / (1 - now) * (1 - now / then))
    assert spread[0] == 0
    clean = (z.numpy() - np.sqrt(1 - now) * output.numpy()) / np.sqrt(now)
    wanted = np.sqrt(then) * clean + np.sqrt(1 - then - spread**2) * output.numpy() + spread * fresh.numpy()
    assert made.numpy() == pytest.approx(wanted, abs=1e-4)
    assert torch.allclose(made[0], z[0], atol=1e-6)  # rank 0 is the identity, whatever was predicted and drawn


def test_too_many_levels_and_a_blind_top_are_refused():
    with pytest.raises(ConfigError, match="E275"):
        evenly(SCHEDULE, 1001)
    with pytest.raises(ConfigError, match="E277"):
        evenly(Schedule.from_config(small.SCHEDULE | {"rescale_betas_zero_snr": True}), 8)


def test_the_published_queue_holds_the_base_clip_at_rising_noise(backbone):
    base, diagonal = random(FRAMES, *GRID), published(backbone, 4)
    queue = begin(diagonal, generated(backbone.schedule, diagonal.pairs, base, 5), FRAMES, repeat=True)
    assert diagonal.levels == 32
    assert queue.levels == [0] * 4 + list(range(1, 33))
    assert queue.frames == range(-28, FRAMES)
    for slot, number in enumerate(queue.frames):
        t = diagonal.pairs[max(0, slot - 4)][0]
        eps = drawn(5, [number], GRID)[0]
        assert torch.allclose(queue.z[slot], backbone.schedule.noised(base[max(0, number)], eps, t), atol=1e-6)
    assert not torch.equal(queue.z[0], queue.z[3])  # the same frame at the same level, with noise of its own


def loop(backbone, queue, pairs, condition, guidance, eta, seed, forwards=False):
    """One iteration as published: windows of half a window's stride, written one after the other in place."""
    z, half = queue.z.clone(), FRAMES // 2
    t = torch.tensor([0] * half + [t for t, _ in pairs])
    to = torch.tensor([0] * half + [to for _, to in pairs])
    windows = range(len(pairs) // half)
    for r in windows if forwards else reversed(windows):
        reads, kept = slice(r * half, r * half + FRAMES), slice(r * half + half, r * half + FRAMES)
        with torch.no_grad():
            x0, eps = backbone.predict(z[None, reads], t[None, reads], condition, guidance)
        fresh = torch.cat([drawn(seed, [queue.first + k], GRID, stream=k - half + 1) for k in range(*kept.indices(99))])
        z[kept] = backbone.schedule.step(x0[0, half:], eps[0, half:], t[kept], to[kept], eta, fresh)
    return z


def test_windows_at_once_are_the_published_loop(backbone, condition):
    base, diagonal = random(4, *GRID), published(backbone, 1)
    source = generated(backbone.schedule, diagonal.pairs, base, 5)
    options = {"guidance": 2.0, "eta": 1.0, "seed": 5}
    wanted, out = begin(diagonal, source, len(base), repeat=True), []
    for number in range(-4, 5):
        wanted.z = loop(backbone, wanted, diagonal.pairs, condition, **options)
        out += [wanted.z[4]] if number >= 0 else []
        wanted.z = torch.cat([wanted.z[1:], source(8, range(number + 8, number + 9))])
        wanted.first += 1
    for batch in (None, 1):
        queue = begin(diagonal, source, len(base), repeat=True)
        found = list(
            islice(run_queue(Denoiser(backbone, condition, batch=batch, **options), queue, diagonal, source), 5)
        )
        assert [one.frame for one in found] == [0, 1, 2, 3, 4]
        assert torch.allclose(latents(found), torch.stack(out), atol=1e-5)


def test_written_forwards_in_place_it_would_be_another(backbone, condition):
    base, diagonal = random(FRAMES, *GRID), published(backbone, 2)
    queue = begin(diagonal, generated(backbone.schedule, diagonal.pairs, base, 5), FRAMES, repeat=True)
    one, other = (loop(backbone, queue, diagonal.pairs, condition, 2.0, 1.0, 5, order) for order in (False, True))
    assert (one - other).abs().max() > 1e-3


# ---- frames, noise and what travels with them ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 8, 9, 21])
@pytest.mark.parametrize(("levels", "lookahead"), [(16, 4), (16, 0), (3, 4), (11, 4), (13, 6), (1, 7)])
def test_every_frame_takes_every_level_once_in_windows_of_one_length(count, levels, lookahead):
    diagonal = Diagonal(tuple(evenly(SCHEDULE, levels)), 8, lookahead)
    taken = dict.fromkeys(range(count), 0)
    for head in range(1 - levels, count):
        spans = diagonal.spans(head, 0, count)
        written = [number for span in spans for number in span.writes]
        assert written == list(range(max(0, head), min(head + levels, count)))
        for span in spans:
            assert len(span.reads) == min(8, count)
            assert set(span.writes) <= set(span.reads)
            seen = span.writes.start - span.reads.start
            assert seen >= min(lookahead, span.writes.start)
        for number in written:
            taken[number] += 1
    assert set(taken.values()) == {levels}
    with pytest.raises(ConfigError, match="E290"):
        Diagonal(diagonal.pairs, 8, 8)


@pytest.mark.parametrize("count", [3, FRAMES, CLIP])
def test_all_frames_at_one_level_is_ordinary_sampling_in_blended_windows(backbone, condition, clip, count):
    clip = clip[:count]
    _, source = editing(backbone, clip)
    options = {"guidance": 2.0, "eta": 1.0, "seed": 4}
    wanted = source(5, range(count))
    sample(backbone, wanted, condition, steps=20, start=5, windows=Windows(count, FRAMES, 4), **options)
    for batch in (None, 1):
        found = latents(edited(backbone, condition, clip, diagonally=False, batch=batch, **options))
        assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(latents(edited(backbone, condition, clip, **options)), wanted, atol=1e-4)


def test_batches_change_nothing_and_seeds_do(backbone, condition, clip):
    whole = edited(backbone, condition, clip)
    assert [one.frame for one in whole] == list(range(CLIP))
    assert torch.allclose(latents(edited(backbone, condition, clip, batch=1)), latents(whole), atol=1e-5)
    assert not torch.allclose(latents(edited(backbone, condition, clip, seed=1)), latents(whole), atol=1e-2)


def test_noise_of_a_slot_depends_on_seed_frame_and_level_alone(backbone, condition, clip):
    seen: dict[tuple[int, int], torch.Tensor] = {}

    def step(x0, eps, slots):
        for number, level, own in zip(slots.frames, slots.levels, slots.noise(), strict=True):
            assert (number, level) not in seen
            seen[number, level] = own
        assert not torch.equal(slots.noise(1), slots.noise(2))
        return slots.step(x0, eps)

    edited(backbone, condition, clip[:10], step=step, batch=1)
    first = dict(seen)
    seen.clear()
    diagonal, source = editing(backbone, clip, lookahead=0)
    list(run_queue(Denoiser(backbone, condition, step=step), begin(diagonal, source), diagonal, source, 12))
    assert len(first) == 50
    assert all(torch.equal(own, seen[place]) for place, own in first.items())
    assert torch.unique(torch.stack([*first.values()]).flatten(1), dim=0).shape[0] == 50


def test_what_is_kept_about_a_frame_travels_with_it(backbone, condition, clip):
    history = {}

    def step(x0, eps, slots):
        steps, number = slots.rows("steps"), slots.rows("number")
        momentum = slots.rows("momentum", *GRID)
        fresh = [level == 5 for level in slots.levels]
        number[torch.tensor(fresh)] = torch.tensor([float(n) for n in slots.frames])[torch.tensor(fresh)]
        assert number.tolist() == [float(n) for n in slots.frames]
        assert steps.tolist() == [5.0 - level for level in slots.levels]
        steps += 1
        momentum.mul_(0.9).add_(x0, alpha=0.1)
        for row, n in enumerate(slots.frames):
            history.setdefault(n, []).append(x0[row].clone())
        return slots.step(x0, eps)

    found = edited(backbone, condition, clip, step=step)
    for one in found:
        assert one.state["steps"] == 5
        assert one.state["number"] == one.frame
        wanted = torch.zeros(GRID)
        for x0 in history[one.frame]:
            wanted = 0.9 * wanted + 0.1 * x0
        assert torch.allclose(one.state["momentum"], wanted, atol=1e-6)
    assert torch.equal(latents(found), latents(edited(backbone, condition, clip)))


# ---- editing -------------------------------------------------------------------------------------------------------


class Oracle(UNetMotion):
    """Knows the clip: of every frame it is shown it finds which one it is, and predicts what leads there."""

    clip: torch.Tensor

    def forward(self, z, t, inputs):
        alpha, sigma = (value[..., None, None, None] for value in (self.schedule.alpha(t), self.schedule.sigma(t)))
        apart = (z[:, :, None] - alpha[:, :, None] * self.clip).square().flatten(3).sum(3)
        x0 = self.clip[apart.argmin(2)]
        return self.schedule.target(x0, (z - alpha * x0) / sigma, t)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("lookahead", [0, 4])
def test_with_a_network_that_is_right_the_clip_comes_back_frame_by_frame(clip, eta, lookahead):
    oracle = Oracle(Parts({"network": small.unet_motion()}), SCHEDULE, FRAMES, small.SIZE, small.SIZE)
    oracle.clip = clip
    diagonal, source = editing(oracle, clip, start=11, lookahead=lookahead)
    condition = Condition({"states": torch.zeros(1, 1, 1)})
    queue = begin(diagonal, source)
    found = list(run_queue(Denoiser(oracle, condition, eta=eta), queue, diagonal, source, CLIP))
    assert [one.frame for one in found] == list(range(CLIP))
    apart = latents(found) - SCHEDULE.alpha(END) * clip  # the end of this schedule is not quite clean
    assert apart.std() < 1.1 * SCHEDULE.sigma(END)
    if eta == 0:  # and keeps what is left of the noise that each frame entered with
        assert torch.allclose(apart, SCHEDULE.sigma(END) * noise(3, range(CLIP), GRID), atol=1e-4)


def test_frames_enter_from_the_stored_inversion_at_its_level(backbone, condition, clip):
    clip = clip[:12] * 0.5
    levels = {
        level.number: level.latents
        for level in invert(backbone, clip, condition, steps=20, iterations=0, windows=Windows(12, 8, 4))
    }
    asked = []

    def source(level, frames):
        asked.append((level, frames))
        return levels[level][frames.start : frames.stop]

    diagonal = Diagonal.of(backbone, 20, 3)
    found = list(run_queue(Denoiser(backbone, condition), begin(diagonal, source), diagonal, source, 12))
    assert {level for level, _ in asked} == {3}
    assert sorted(number for _, frames in asked for number in frames) == list(range(12))
    apart = [(one.z - clip[k]).square().mean().item() for one in found for k in range(12)]
    assert np.array(apart).reshape(12, 12).argmin(1).tolist() == list(range(12))


def test_the_network_is_never_asked_twice_about_the_same_frames():
    assert cut(range(16), 16, 8, 0, 16) == [Span(range(16), range(16))]
    assert cut(range(20), 16, 8, 0, 20) == [Span(range(16), range(16)), Span(range(4, 20), range(16, 20))]


def test_outside_a_mask_the_source_stays(backbone, condition, clip):
    _, source = editing(backbone, clip)
    free = torch.zeros(CLIP, 1, 8, 8)
    free[:, :, 2:6, 2:6] = 1
    step = keep_outside(lambda frames: free[frames.start : frames.stop], source)
    found = latents(edited(backbone, condition, clip, step=step))
    outside = free.expand_as(found) == 0
    assert torch.equal(found[outside], clip[outside])
    assert (found - clip)[~outside].std() > 0.05


def test_levels_and_base_clips_that_do_not_fit_are_refused(backbone, clip):
    for start in (0, 21):
        with pytest.raises(ConfigError, match="E275"):
            Diagonal.of(backbone, 20, start)
    diagonal, source = editing(backbone, clip)
    with pytest.raises(ConfigError, match="E293"):
        begin(diagonal, source, ready=6)


# ---- resuming, memory, cost ----------------------------------------------------------------------------------------


def momentum(x0, eps, slots):
    kept = slots.rows("momentum", *GRID)
    kept.mul_(0.9).add_(x0 - slots.z, alpha=0.1)
    return slots.step(x0 + 0.1 * kept, eps) + 0.01 * slots.noise()


@pytest.mark.parametrize("killed", [1, 8, 12])
def test_killed_and_resumed_is_bit_equal(backbone, condition, clip, killed, tmp_path):
    diagonal, source = editing(backbone, clip)
    denoiser = Denoiser(backbone, condition, guidance=2.0, eta=1.0, step=momentum)
    whole = begin(diagonal, source)
    wanted = list(run_queue(denoiser, whole, diagonal, source, CLIP))
    queue = begin(diagonal, source)
    running = run_queue(denoiser, queue, diagonal, source, CLIP)
    found = [next(running) for _ in range(killed)]
    snapshot: dict[str, Any] = queue.snapshot()
    np.savez(tmp_path / "snapshot.npz", **snapshot)
    next(running)  # lost
    with np.load(tmp_path / "snapshot.npz") as arrays:
        queue = Queue.restore(arrays)
    found += run_queue(denoiser, queue, diagonal, source, CLIP)
    assert [one.frame for one in found] == list(range(CLIP))
    assert torch.equal(latents(found), latents(wanted))
    assert all(torch.equal(a.state["momentum"], b.state["momentum"]) for a, b in zip(found, wanted, strict=True))
    assert queue.evaluations == whole.evaluations


@pytest.mark.parametrize("killed", [1, 4])
def test_windows_killed_between_levels_and_resumed_are_bit_equal(backbone, condition, clip, killed):
    diagonal, source = editing(backbone, clip)
    denoiser = Denoiser(backbone, condition, guidance=2.0, eta=1.0, step=momentum)
    snapshots: list[dict[str, Any]] = []
    queue = together(diagonal, source, CLIP)
    wanted = list(run_windows(denoiser, queue, diagonal, lambda: snapshots.append(queue.snapshot())))
    assert len(snapshots) == diagonal.levels
    resumed = Queue.restore(snapshots[killed - 1])
    found = list(run_windows(denoiser, resumed, diagonal))
    assert [one.frame for one in found] == list(range(CLIP))
    assert torch.equal(latents(found), latents(wanted))
    assert resumed.evaluations == queue.evaluations == 2 * diagonal.levels * (FRAMES + FRAMES + FRAMES)


def test_memory_is_constant_in_length(backbone, condition):
    base, diagonal = random(FRAMES, *GRID), published(backbone, 1)
    source = generated(backbone.schedule, diagonal.pairs, base, 5)
    queue = begin(diagonal, source, FRAMES)
    sizes, tensors = [], []
    for one in islice(run_queue(Denoiser(backbone, condition, step=momentum), queue, diagonal, source), 30):
        sizes.append(sum(array.nbytes for array in queue.snapshot().values()))
        if one.frame in (9, 19, 29):
            gc.collect()
            tensors.append(
                sum(kept.untyped_storage().nbytes() for kept in gc.get_objects() if type(kept) is torch.Tensor)
            )
    assert len(queue.levels) <= diagonal.levels + FRAMES
    assert len(set(sizes[8:])) == 1
    assert len(set(tensors)) == 1


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("lookahead", [0, 4])
def test_cost_of_generation_is_the_published(backbone, condition, partitions, lookahead):
    diagonal = published(backbone, partitions, lookahead)
    source = generated(backbone.schedule, diagonal.pairs, random(FRAMES, *GRID), 5)
    queue = begin(diagonal, source, FRAMES, repeat=True)
    running = run_queue(Denoiser(backbone, condition, guidance=2.0), queue, diagonal, source)
    next(running)
    windows = partitions * (2 if lookahead else 1)  # per output frame: n, and 2 n with lookahead
    for _ in range(3):
        before = queue.evaluations
        next(running)
        assert queue.evaluations - before == windows * FRAMES * 2
    iterations = 4 + FRAMES * partitions - FRAMES  # those before the first frame comes out are thrown away
    assert queue.evaluations == iterations * windows * FRAMES * 2 == loop_evaluations(diagonal, 4)


def test_the_published_loop_asks_what_is_counted(backbone, condition, monkeypatch):
    """The loop of the benchmark, its network counted; and the published sizes."""
    diagonal, seen = published(backbone, 2), []
    plain = backbone.forward
    monkeypatch.setattr(backbone, "forward", lambda z, *more: seen.append(z.shape[1]) or plain(z, *more))
    case = Case("small", backbone, condition, {}, 0)
    assert len(published_loop(case, diagonal, random(FRAMES, *GRID), 3)) == 3
    assert sum(seen) == loop_evaluations(diagonal, 3)
    assert loop_evaluations(Diagonal(tuple(evenly(SCHEDULE, 64)), 16, 8), 100) == 148 * 8 * 16 * 2


def test_cost_of_editing_is_told_before_and_saves_the_levels_above(backbone, condition, clip):
    diagonal, source = editing(backbone, clip)
    queue = begin(diagonal, source)
    list(run_queue(Denoiser(backbone, condition, guidance=2.0), queue, diagonal, source, CLIP))
    assert queue.evaluations == diagonal.evaluations(CLIP, guided=True)

    # 16 frames, 64 levels, 100 frames, as published: 8 windows for each of 148 iterations, were none of them cut short
    pairs = tuple(evenly(SCHEDULE, 64))
    published = Diagonal(pairs, 16, 8)
    assert sum(len(published.spans(head, -56)) for head in range(-48, 100)) == 1184
    staggered = published.evaluations(100, ready=16)
    repeated = published.evaluations(100, ready=16, repeat=True)
    assert staggered < repeated < 1184 * 16
    # t' = 300 is level 19 of 64: 3 windows instead of 8
    late = Diagonal(pairs[:19], 16, 8)
    assert len(late.spans(50, 0)) == 3
    assert 1184 * 16 / late.evaluations(100) > 3
