"""Steering motion (MOFT): against what must hold of it, and its channels recomputed from the formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_cogvideox
from helpers import small_diffusion as small
from torch.nn import functional as F

from benchmarks import published_moft
from retake.diffusion import checkpointing
from retake.diffusion import motion_channels as channels
from retake.diffusion.backbone import Backbone, Condition
from retake.diffusion.checkpointing import checkpointed
from retake.diffusion.cost import measure
from retake.diffusion.loading.load import load
from retake.diffusion.model import Model
from retake.diffusion.sampling import motion_guidance as guidance
from retake.diffusion.sampling.ddim import sample
from retake.diffusion.sampling.motion_guidance import Guide, Steering, Target, Unsteered
from retake.diffusion.sampling.windows import Windows
from retake.diffusion.shared_attention import SharedAttention
from retake.errors import ConfigError
from retake.synthetic.panning import WAYS, panning
from retake.synthetic.passing import passing
from tasks import motion_channels

SITE = "up_blocks.1"
SPATIAL = "up_blocks.*.attentions.*.transformer_blocks.0.attn1"


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load(Model(**small.settings(small.save_animatediff(tmp_path_factory.mktemp("animatediff")))))


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    weights, parts = small_cogvideox.save_embedded(tmp_path_factory.mktemp("dit"))
    how = {"family": "cogvideox", "weights": str(weights), "parts": str(parts), "width": 64, "height": 64, "frames": 8}
    return load(Model(**how))


def clip_of(backbone: Backbone, seed: int = 0) -> torch.Tensor:
    grid = backbone.grid(8, backbone.height, backbone.width)
    return noise(1, *grid, seed=seed)


def target_for(backbone: Backbone, site: str, z: torch.Tensor) -> Target:
    mask = torch.zeros(z.shape[1], *z.shape[-2:])
    mask[:, 2:5, 1:4] = 1
    width = next(found.grid.channels for found in backbone.sites() if found.name == site)
    some = torch.arange(0, width, 3)
    return Target(mask, some, 0.1 * noise(z.shape[1], len(some), seed=5))


# ---- steering ------------------------------------------------------------------------------------------------------


def test_latents_outside_the_mask_are_not_steered(unet):
    z, said = clip_of(unet), unet.condition(text=["a"])
    target = target_for(unet, SITE, z)
    moved, _ = guidance.steered(unet, z, 500, said, [target], Guide(SITE), None)
    change = (moved - z).abs().amax((0, 2))
    assert change[target.mask == 0].max() == 0
    assert change[target.mask == 1].min() > 0
    # Of frames behind `clip` the whole picture is free (the paper's figure 12).
    freed, _ = guidance.steered(unet, z, 500, said, [target], Guide(SITE), None, clip=3)
    change = (freed - z).abs().amax((0, 2))
    assert change[:3][target.mask[:3] == 0].max() == 0
    assert change[3:][target.mask[3:] == 0].max() > 0


def test_steering_goes_down_the_loss(unet, transformer):
    ways: list[dict[str, Any]] = [{"distance": "squared", "rate": 2.0, "weight": 6.0}, {"rate": 0.02}]
    for backbone, site, how in [(unet, SITE, how) for how in ways] + [(transformer, "transformer_blocks.1", ways[1])]:
        z, said = clip_of(backbone), backbone.condition(text=["a"])
        target = target_for(backbone, site, z)
        losses = []
        for _ in range(4):
            z, value = guidance.steered(backbone, z, 500, said, [target], Guide(site, updates=1, **how), None)
            losses.append(value)
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[0]


def test_a_course_is_followed_whatever_its_size_and_as_far_as_the_pace_says(unet):
    features = noise(1, 6, 8, 4, 4)
    mask, some = torch.ones(6, 4, 4), torch.tensor([0, 2, 3])
    own = guidance.motion(features, mask)[:, some]
    for scale, pace, far in (
        (1.0, 1.0, 0),
        (0.01, 1.0, 0),
        (-3.0, 1.0, 4),
        (1.0, 0.5, 0.25),
        (1.0, 3.0, 4),
        (0.0, 1.0, 1),
    ):
        told = Target(mask, some, scale * own, pace=pace)
        assert float(guidance.relative(features, [told])) == pytest.approx(far, abs=1e-5)
        halved = replace(told, pace=pace / 2)
        assert float(guidance.relative(features, [halved], amplitude=2.0)) == pytest.approx(far, abs=1e-5)


def test_what_shall_rest_loses_its_motion(unet):
    z, said = clip_of(unet), unet.condition(text=["a"])
    target = target_for(unet, SITE, z)
    rests = replace(target, curve=torch.zeros_like(target.curve))

    def left(z: torch.Tensor) -> float:
        found = guidance.motion(unet.features(z, 500, said, [SITE])[SITE], target.mask)[:, target.channels]
        return float(found.square().sum())

    moved, _ = guidance.steered(unet, z, 500, said, [rests], Guide(SITE, updates=1, rate=0.02), None)
    with torch.no_grad():
        assert left(moved) < left(z)


def test_an_update_moves_what_is_free_by_its_rate(unet):
    z, said = clip_of(unet), unet.condition(text=["a"])
    target = target_for(unet, SITE, z)
    moved, _ = guidance.steered(unet, z, 500, said, [target], Guide(SITE, updates=1, rate=0.25), None)
    inside = target.mask[None, :, None].expand_as(z) > 0.5
    told = 0.25 * float(unet.schedule.sigma(500.0))
    assert float((moved - z)[inside].square().mean().sqrt()) == pytest.approx(told, rel=1e-4)


def sampled(backbone: Backbone, guide: Guide, targets: int = 1, steps: int = 6, count: int = 8, **more: Any) -> Any:
    """Latents [F, C, h, w] sampled under guidance, steered where there are targets, and the levels that were."""
    grid = backbone.grid(8, backbone.height, backbone.width)
    z, said, seen = noise(count, *grid[1:]), backbone.condition(text=["a cat"]), list[int]()
    windows = Windows(count, grid.frames, 2)
    first = z[: grid.frames]
    target = target_for(backbone, guide.site, first[None])
    steering = Steering(
        backbone,
        z,
        said,
        lambda span: [target] * targets,
        guide,
        steps=steps,
        windows=windows,
        told=lambda level, loss: seen.append(level),
        **more,
    )
    sample(backbone, z, said, steps=steps, guidance=3.0, windows=windows, before=steering)
    return z, seen


def test_a_network_without_gradients_is_refused(unet, monkeypatch):
    whole = unet.features
    monkeypatch.setattr(unet, "features", lambda *a: {name: f.detach() for name, f in whole(*a).items()})
    z = clip_of(unet)
    with pytest.raises(ConfigError, match="E257"):
        guidance.steered(unet, z, 500, unet.condition(text=["a"]), [target_for(unet, SITE, z)], Guide(SITE), None)


def test_without_weight_it_is_sampling_to_the_bit(unet):
    plain = noise(8, *unet.grid(8, unet.height, unet.width)[1:])
    sample(unet, plain, unet.condition(text=["a cat"]), steps=6, guidance=3.0)
    for guide in (Guide(SITE, weight=0), Guide(SITE, weight=0, shared=SPATIAL)):
        assert torch.equal(sampled(unet, guide)[0], plain)
    assert torch.equal(sampled(unet, Guide(SITE), targets=0)[0], plain)
    assert not torch.equal(sampled(unet, Guide(SITE))[0], plain)


def test_only_the_guided_steps_are_steered(unet):
    assert sampled(unet, Guide(SITE, first=0.2, last=0.5), steps=10)[1] == [8, 7, 6]


def test_every_window_of_a_long_clip_is_steered(unet):
    long, plain = (sampled(unet, Guide(SITE, weight=weight), count=14)[0] for weight in (1.0, 0.0))
    change = (long - plain).abs().amax((1, 2, 3))
    assert len(change) == 14
    assert change.min() > 0
    # Where windows overlap, what one of them changes counts as much as it does in all else.
    windows, z = Windows(14, 8, 2), noise(14, *unet.grid(8, unet.height, unet.width)[1:])
    first, second = windows.spans
    target, said = target_for(unet, SITE, z[None, :8]), unet.condition(text=["a"])
    guide, before = Guide(SITE, first=0, last=1), z.clone()
    alone, _ = guidance.steered(unet, z[None, first.start : first.stop], 500.0, said, [target], guide, None)
    Steering(unet, z, said, lambda span: [target] * (span == first), guide, steps=1, windows=windows)(1, 500.0)
    change = z - before
    assert change[first.stop :].abs().max() == 0
    share = windows.weights[0][:, None, None, None]
    assert torch.allclose(change[: first.stop], share * (alone[0] - before[: first.stop]), atol=1e-5)
    assert 0 < float(share[second.start]) < 1


def test_the_unsteered_clip_is_sampled_no_further_than_it_is_asked_for(unet):
    begun = noise(8, *unet.grid(8, unet.height, unet.width)[1:])
    said, levels = unet.condition(text=["a cat"]), []

    def step(z: Any, level: int) -> None:
        levels.append(level)
        sample(unet, z, said, steps=6, start=level, stop=level - 1, guidance=3.0)

    plain = Unsteered(torch.zeros_like(begun), step, halves=True)
    guide = Guide(SITE, first=0.3, last=0.7, shared=SPATIAL)
    shared = sampled(unet, guide, plain=plain)[0]
    assert levels == [4, 3]  # until it is steered, the clip is the unsteered one
    expected = begun.clone()
    sample(unet, expected, said, steps=6, stop=2, guidance=3.0)
    assert torch.equal(plain.at(2, range(8)), expected)
    assert not torch.equal(shared, sampled(unet, Guide(SITE, first=0.3, last=0.7))[0])


def test_the_unsteered_clip_shares_the_same_whoever_samples_it(unet):
    """Its own steps remember what layers read; of a clip from elsewhere a pass reads it."""
    begun = noise(8, *unet.grid(8, unet.height, unet.width)[1:])
    said, guide = unet.condition(text=["a cat"]), Guide(SITE, shared=SPATIAL)

    def at(level: int, frames: range) -> torch.Tensor:
        z = begun.clone()
        sample(unet, z, said, steps=6, stop=level, guidance=3.0)
        return z[frames.start : frames.stop]

    def step(z: Any, level: int) -> None:
        sample(unet, z, said, steps=6, start=level, stop=level - 1, guidance=3.0)

    own = sampled(unet, guide, plain=Unsteered(torch.zeros_like(begun), step, halves=True))[0]
    assert torch.allclose(own, sampled(unet, guide, plain=at)[0], atol=1e-4)
    assert not torch.allclose(own, sampled(unet, guide)[0], atol=1e-3)


def test_it_makes_the_clip_that_the_published_loop_makes(unet):
    z, said = clip_of(unet), unet.condition(text=["a cat"])
    target = target_for(unet, SITE, z)
    guide = Guide(SITE, distance="squared", rate=0.5, weight=6.0, shared=SPATIAL)
    theirs = published_moft.sample(unet, z, said, [target], guide, steps=6, guidance=3.0)
    ours, plain = z[0].clone(), Unsteered(torch.zeros_like(z[0]), lambda z, level: stepped(z, level), halves=True)

    def stepped(z: Any, level: int) -> None:
        sample(unet, z, said, steps=6, start=level, stop=level - 1, guidance=3.0)

    windows = Windows(len(ours), len(ours))
    steering = Steering(unet, ours, said, lambda span: [target], guide, steps=6, windows=windows, plain=plain)
    sample(unet, ours, said, steps=6, guidance=3.0, before=steering)
    assert torch.allclose(ours, theirs[0], atol=1e-4)
    free = z[0].clone()
    sample(unet, free, said, steps=6, guidance=3.0)
    assert not torch.allclose(ours, free, atol=1e-2)


def test_the_mean_over_a_mask_needs_no_enlarged_map():
    maps, mask = noise(5, 3, 4, 6).double(), (noise(5, 16, 24, seed=1) > 0.4).double()
    large = F.interpolate(maps, (16, 24), mode="bilinear", align_corners=False)
    slow = torch.stack([large[t][:, mask[t] > 0].mean(1) for t in range(5)])
    weights = guidance.averaging(mask, 4, 6)
    assert torch.allclose((maps * weights[:, None]).sum((-2, -1)), slow, atol=1e-12)
    assert guidance.averaging(torch.zeros(2, 8, 8), 4, 4).abs().max() == 0


def test_two_objects_have_targets_of_their_own():
    features = noise(1, 6, 8, 4, 4)
    masks = torch.zeros(2, 6, 4, 4)
    masks[0, :, :2], masks[1, :, 2:] = 1, 1
    own = [guidance.motion(features, mask) for mask in masks]
    some = torch.tensor([1, 5])
    held = [Target(mask, some, curve[:, some]) for mask, curve in zip(masks, own, strict=True)]
    for distance in (guidance.squared, guidance.relative):
        assert float(distance(features, held)) == pytest.approx(0, abs=1e-6)
    swapped = [Target(held[0].mask, some, held[1].curve), Target(held[1].mask, some, held[0].curve)]
    each = F.mse_loss(own[0][:, some], own[1][:, some])
    assert float(guidance.squared(features, swapped)) == pytest.approx(2 * float(each), rel=1e-5)


def test_a_dragged_point_is_looked_for_where_it_shall_be():
    features = 0.1 * noise(1, 4, 8, 16, 16)
    path = torch.tensor([[0.25, 0.25], [0.4, 0.25], [0.55, 0.25], [0.7, 0.25]])
    for t, (x, y) in enumerate(path):
        column, row = int(x * 16), int(y * 16)
        features[0, t, 2, row - 1 : row + 2, column - 1 : column + 2] += 10.0
    mask, none = torch.ones(4, 16, 16), torch.zeros(0, dtype=torch.long)

    def lost(places: torch.Tensor | None) -> float:
        return float(guidance.drag_loss(features, [Target(mask, none, torch.zeros(4, 0), places)]))

    assert lost(path) < 0.025
    assert lost(path[:1].expand(4, 2)) > 0.25  # it stayed
    assert lost(None) == 0


def test_drags_go_on_after_motion_is_decided(unet):
    target = replace(target_for(unet, SITE, clip_of(unet)), places=torch.full((8, 2), 0.5))
    seen = []
    z, said = clip_of(unet)[0], unet.condition(text=["a"])
    guide = Guide(SITE, first=0.0, last=0.3, drag=1.0, dragged=(0.2, 0.6))
    steering = Steering(
        unet,
        z,
        said,
        lambda span: [target],
        guide,
        steps=10,
        windows=Windows(8, 8),
        told=lambda level, loss: seen.append(10 - level),
    )
    sample(unet, z, said, steps=10, before=steering)
    assert seen == [0, 1, 2, 3, 4, 5]


# ---- shared keys and values ----------------------------------------------------------------------------------------


def test_shared_keys_and_values_of_the_same_clip_change_nothing(unet):
    z, said, shared = clip_of(unet), unet.condition(text=["a"]), SharedAttention(unet, SPATIAL)
    with torch.no_grad():
        with shared.remembered():
            own = unet.predict(z, 500, said).x0
        with shared.used():
            again = unet.predict(z, 500, said).x0
        assert torch.allclose(own, again, atol=1e-5)
        with shared.remembered():
            unet.predict(clip_of(unet, seed=3), 500, said)
        with shared.used():
            assert not torch.allclose(unet.predict(z, 500, said).x0, own, atol=1e-3)
        assert torch.equal(unet.predict(z, 500, said).x0, own)  # nothing stays


def test_with_guidance_the_conditioned_half_is_remembered(unet):
    z, said, shared = clip_of(unet), unet.condition(text=["a"], negative="b"), SharedAttention(unet, SPATIAL)
    with torch.no_grad():
        own = unet.predict(z, 500, said).x0
        with shared.remembered(halves=True):
            unet.predict(z, 500, said, 3.0)
        with shared.used():
            assert torch.allclose(unet.predict(z, 500, said).x0, own, atol=1e-5)


def test_blocks_that_are_run_again_for_a_gradient_share_as_they_did(unet, monkeypatch):
    z, said, shared = clip_of(unet), unet.condition(text=["a"]), SharedAttention(unet, SPATIAL)
    target, guide = target_for(unet, SITE, z), Guide(SITE, updates=1, rate=0.3)
    with torch.no_grad(), shared.remembered():
        unet.predict(clip_of(unet, seed=3), 500, said)
    kept, _ = guidance.steered(unet, z, 500, said, [target], guide, shared)
    monkeypatch.setattr(checkpointing, "SMALL", 0)
    again, _ = guidance.steered(unet, z, 500, said, [target], guide, shared)
    assert torch.allclose(kept, again, atol=1e-5)
    alone, _ = guidance.steered(unet, z, 500, said, [target], guide, None)
    assert not torch.allclose(kept, alone, atol=1e-3)


def test_sharing_touches_the_named_layers_alone(unet):
    network = unet.parts.use("network")
    before = {name: module.processor for name, module in network.named_modules() if hasattr(module, "set_processor")}
    with SharedAttention(unet, SPATIAL).remembered():
        changed = {name for name, processor in before.items() if network.get_submodule(name).processor is not processor}
    named = {name for name in before if name.startswith("up_blocks") and name.endswith("transformer_blocks.0.attn1")}
    assert changed == {name for name in named if "attentions" in name}
    assert not [name for name in changed if "motion_modules" in name]
    assert all(network.get_submodule(name).processor is processor for name, processor in before.items())


# ---- cheap gradients -----------------------------------------------------------------------------------------------


def kept_by(backbone: Backbone, z: torch.Tensor, site: str) -> tuple[torch.Tensor, int]:
    """The gradient of a loss at a site, and the bytes that the pass kept for it."""
    z, kept = z.detach().requires_grad_(True), 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = backbone.features(z, 500, backbone.condition(text=["a"]), [site])[site]
        value = features.square().mean()
    (gradient,) = torch.autograd.grad(value, z)
    return gradient, kept


def test_checkpointed_blocks_give_the_same_gradient_and_keep_less(unet, transformer, monkeypatch):
    for backbone, site in ((unet, SITE), (transformer, "transformer_blocks.1")):
        network, z = backbone.parts.use("network"), clip_of(backbone)
        plain, much = kept_by(backbone, z, site)
        monkeypatch.setattr(checkpointing, "SMALL", 0)
        with backbone.checkpointed():
            again, little = kept_by(backbone, z, site)
        assert torch.allclose(plain, again, atol=1e-6)
        assert little < 0.5 * much
        assert not [name for name, module in network.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize(("name", "most"), [("animatediff", 0.5), ("cogvideox_2b", 1.5)])
def test_a_gradient_at_real_size_keeps_little(name, most):
    """On the meta device: what a pass to the site of motion keeps beside the weights, in GiB. The peak of a block that
    is run again comes on top."""
    architecture = measure.PUBLISHED[name]
    backbone = measure.built(architecture)
    network, adapter = backbone.parts.use("network"), measure.adapter_of(architecture.family)
    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    grid = backbone.grid(architecture.frames, architecture.height, architecture.width)
    z = torch.empty(1, *grid, device="meta", requires_grad=True)
    states = torch.empty(
        1, architecture.states, adapter.text_width(network.config), device="meta", dtype=backbone.dtype
    )
    site = adapter.site(network.config)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), checkpointed(network):
        features = backbone.features(z, 500.0, Condition({"states": states}), [site])[site]
        features.float().square().sum()
    held = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)
    assert 0.01 < held / 2**30 < most


# ---- channels ------------------------------------------------------------------------------------------------------


SHIFTS = 3.0 * torch.arange(8)


def features_of_pans(scenes: int = 3, frames: int = 8, width: int = 20) -> dict[tuple[str, int], torch.Tensor]:
    """Features in which channel 3 goes with x, channel 7 against y, the rest is content and a little noise."""
    made = {}
    for way in channels.WAYS:
        x, y = WAYS[way]
        for scene in range(scenes):
            still = noise(1, width, 8, 8, seed=scene)
            value = still.expand(frames, width, 8, 8) + 0.01 * noise(frames, width, 8, 8, seed=100 + scene)
            ramp = torch.linspace(-1, 1, frames)[:, None, None]
            value[:, 3] += 2 * x * ramp
            value[:, 7] -= 3 * y * ramp
            made[way, scene] = value
    return made


def panned(features: dict[tuple[str, int], torch.Tensor]) -> dict[tuple[str, int], channels.Panned]:
    return {key: channels.reduced(value) for key, value in features.items()}


def test_channels_that_move_are_found_by_axis():
    found = channels.find(panned(features_of_pans()), SHIFTS)
    assert int(found.ranked["horizontal"][0]) == 3
    assert int(found.ranked["vertical"][0]) == 7
    assert found.of(["horizontal"], 0.05).tolist() == [3]
    assert found.of(["horizontal", "vertical"], 0.05).tolist() == [3, 7]
    assert len(found.of(["horizontal"], 0.5)) == 10
    assert float(found.slope["right"][3]) == pytest.approx(4 / 21, rel=0.02)  # -2 to 2 over 21 pixels
    assert float(found.slope["left"][3]) == pytest.approx(-4 / 21, rel=0.02)


def test_the_ranking_is_the_published_one():
    """Recomputed as the notebook does it: first frames, the middle cells, covariance over N - 1, eigenvectors."""
    features = features_of_pans()
    samples = []
    for (way, _), value in features.items():
        if way in ("left", "right"):
            still = (value - value.mean(0))[0][:, 2:6, 2:6]
            samples.append(still.reshape(still.shape[0], -1).T.double().numpy())
    stacked = np.concatenate(samples)
    stacked = stacked - stacked.mean(0)
    values, vectors = np.linalg.eigh(stacked.T @ stacked / (len(stacked) - 1))
    first = np.abs(vectors[:, values.argmax()])
    ours = channels.find(panned(features), SHIFTS)
    assert np.allclose(ours.loadings["horizontal"].abs().numpy(), first, atol=1e-5)
    assert ours.ranked["horizontal"].tolist() == np.argsort(-first, kind="stable").tolist()


def test_a_made_curve_is_what_panning_clips_show():
    features = features_of_pans()
    found = channels.find(panned(features), SHIFTS)
    for way, channel in (("right", 3), ("left", 3), ("up", 7), ("down", 7)):
        shown = channels.content_removed(features[way, 0][None])[0].mean((-2, -1))
        path = SHIFTS[:, None] * torch.tensor(WAYS[way])
        made = found.curve(path)
        assert torch.allclose(made[:, channel], shown[:, channel], atol=0.05), way
        assert made.mean(0).abs().max() < 1e-5
        assert torch.allclose(found.curve(2 * path + 7), 2 * made, atol=1e-5)  # of where it starts nothing is said
    there_and_back = torch.tensor([0.0, 3, 6, 9, 12, 9, 6, 3, 0])[:, None] * torch.tensor([1.0, 0])
    made = found.curve(there_and_back)[:, 3]
    assert torch.allclose(made[0], made[-1])
    assert made.argmax() == 4


# ---- panning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", sorted(WAYS))
def test_content_of_a_panning_clip_goes_where_it_is_said(way):
    clip = panning(way, 4, 48, 5, 3.0).astype(float)
    x, y = WAYS[way]
    for t in range(4):  # frame t + 1 shows frame t, three pixels on
        moved = np.roll(clip[t], (3 * y, 3 * x), (0, 1))[6:-6, 6:-6]
        assert np.abs(moved - clip[t + 1][6:-6, 6:-6]).mean() < 1.0
    if way == "still":
        assert np.array_equal(clip[0], clip[4])
    assert np.array_equal(panning(way, 4, 48, 5, 3.0)[2], panning("still", 4, 48, 5, 3.0)[2])


@pytest.mark.parametrize("way", WAYS)
def test_sprites_pass_their_way_the_same_in_each_clip_of_a_seed(way):
    clip, masks = passing(way, 4, 48, 9, 1.5)
    places = np.array([np.argwhere(mask)[:, ::-1].mean(0) for mask in masks])
    assert np.allclose(places - places[0], 1.5 * np.arange(9)[:, None] * np.array(WAYS[way]), atol=0.5)
    assert np.abs(places[4] - 23.5).max() < 2  # through the middle
    still, others = passing("still", 4, 48, 9, 1.5)
    beside = F.max_pool2d(torch.from_numpy(masks.any(0) | others.any(0)).float()[None], 5, 1, 2)[0].numpy() == 0
    assert beside.any()
    assert np.array_equal(clip[:, beside], still[:, beside])


def test_features_of_a_passing_sprite_are_read_where_it_passes():
    features, passed = noise(3, 6, 8, 8), torch.zeros(3, 32, 32)
    passed[:, :4], passed[:, 4:8, :8] = 1, 1  # a row of eight cells and two of the next: 15 % of all
    kept, moving = channels.reduced(features, passed), features - features.mean(0)
    assert torch.allclose(kept.curve, moving.flatten(2)[..., :10].mean(-1), atol=1e-6)
    assert torch.equal(kept.raw.sort(0).values, features[0].flatten(1).T[:10].sort(0).values)


def test_models_that_ship_are_shown_sprites_and_others_pictures():
    told = motion_channels.Params.model_validate({})
    assert told.shown("embedded_dit") == ("sprites", 12)
    assert told.shown("stable_diffusion_v1_5") == told.shown("some/folder") == ("pans", 4)
    other = motion_channels.Params.model_validate({"clips": "pans", "scenes": 2})
    assert other.shown("embedded_dit") == ("pans", 2)
