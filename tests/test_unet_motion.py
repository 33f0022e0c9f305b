"""The AnimateDiff adapter is diffusers' own network: one step, whole runs, features, attention, images."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, UNetMotionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from helpers import small_diffusion as small
from torch import nn

from retake.diffusion.backbone import Backbone, Condition
from retake.diffusion.families.unet_motion.adapter import UNetMotion
from retake.diffusion.loading.load import load
from retake.diffusion.loading.offload import Parts
from retake.diffusion.model import Model
from retake.diffusion.schedule import Schedule
from retake.errors import ConfigError


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (2, 8, 4, 8, 8)), generator=torch.Generator().manual_seed(seed))


def latents(seed: int = 0, frames: int = 8) -> torch.Tensor:
    return noise(seed, 2, frames, 4, 8, 8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.save_animatediff(tmp_path_factory.mktemp("animatediff"))


@pytest.fixture(scope="module")
def plain(saved: Path) -> Backbone:
    """Text alone."""
    return load(Model(**small.settings(saved)))


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Text and image, as the embedded model."""
    return load(Model(**small.settings(small.save_embedded_like(tmp_path_factory.mktemp("embedded")))))


def sample(backbone: Backbone, z: torch.Tensor, condition: Condition, steps: int, guidance: float) -> torch.Tensor:
    for t, to in backbone.schedule.step_pairs(steps):
        with torch.no_grad():
            x0, eps = backbone.predict(z, t, condition, guidance)
        z = backbone.schedule.step(x0, eps, t, to)
    return z


# ---- equality with diffusers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0, 17, 500, 999])
def test_one_step_is_diffusers(plain: Backbone, saved: Path, t: int) -> None:
    theirs = UNetMotionModel.from_pretrained(saved / "unet").eval()
    condition, z = plain.condition(["a", "b"]), latents()
    states = condition.positive["states"].repeat_interleave(8, dim=0)
    with torch.no_grad():
        expected = theirs(z.transpose(1, 2), t, encoder_hidden_states=states).sample.transpose(1, 2)
        found = plain.forward(z, torch.full((2, 8), t), condition.positive)
    assert (found - expected).abs().max() < 1e-5
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_whole_run_is_the_pipelines(tmp_path: Path, prediction: str) -> None:
    pipeline = small.animatediff(prediction)
    pipeline.save_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    backbone = load(Model(**small.settings(tmp_path)))
    z = latents()[:1]
    expected = pipeline(
        prompt="red ball",
        negative_prompt="blur",
        num_frames=8,
        height=small.SIZE,
        width=small.SIZE,
        num_inference_steps=10,
        guidance_scale=7.5,
        latents=z.transpose(1, 2),
        output_type="latent",
    ).frames.transpose(1, 2)
    found = sample(backbone, z, backbone.condition(["red ball"], negative="blur"), 10, 7.5)
    assert (found - expected).abs().max() < 1e-4
    with torch.no_grad():
        pixels = pipeline.decode_latents(expected.transpose(1, 2)).transpose(1, 2).clamp(-1, 1)
    assert (backbone.decode(found) - pixels).abs().max() < 1e-4


def test_equal_timesteps_are_the_ordinary_call_and_others_are_not(plain: Backbone) -> None:
    condition, z = plain.condition(["a", "b"]), latents()
    with torch.no_grad():
        whole = plain.predict(z, 300, condition)
        assert torch.equal(plain.predict(z, torch.tensor([300, 300]), condition).eps, whole.eps)
        assert torch.equal(plain.predict(z, torch.full((2, 8), 300), condition).eps, whole.eps)
        slots = torch.arange(8) * 120 + 20
        mixed = plain.predict(z, slots.expand(2, 8), condition).eps
        apart = plain.predict(z, torch.tensor([20, 860]), condition).eps
    assert (mixed - whole.eps).abs().max() > 1e-3
    assert (apart - whole.eps).abs().max() > 1e-3


def test_a_frames_timestep_reaches_its_own_time_embedding(saved: Path) -> None:
    """Without motion, frames do not see each other: each is then as if its timestep were the clip's."""
    backbone = load(Model(**small.settings(saved)))
    for module in backbone.network.modules():
        if hasattr(module, "motion_modules"):
            for motion in module.motion_modules:
                nn.init.zeros_(motion.proj_out.weight)
                nn.init.zeros_(motion.proj_out.bias)
    condition, z, slots = (
        backbone.condition(["a", "b"]),
        latents(),
        torch.tensor([[0, 50, 999, 7, 300, 2, 640, 1]]).repeat(2, 1),
    )
    with torch.no_grad():
        mixed = backbone.predict(z, slots, condition).eps
        for frame, t in enumerate(slots[0].tolist()):
            assert (mixed[:, frame] - backbone.predict(z, t, condition).eps[:, frame]).abs().max() < 1e-5


def test_guidance_goes_in_one_batch_and_equals_two(plain: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    condition, z = plain.condition(["a", "b"], negative="c"), latents()
    batches = []
    forward = type(plain).forward

    def counted(self, z, t, condition):
        batches.append(len(z))
        return forward(self, z, t, condition)

    monkeypatch.setattr(type(plain), "forward", counted)
    with torch.no_grad():
        both = plain.predict(z, 300, condition, 7.5).eps
        wanted = plain.predict(z, 300, condition).eps
        without = plain.predict(z, 300, Condition(condition.negative)).eps
    assert batches == [4, 2, 2]
    assert (both - (without + 7.5 * (wanted - without))).abs().max() < 1e-4
    with pytest.raises(ConfigError) as refusal:
        plain.predict(z, 300, Condition(condition.positive), 2.0)
    assert refusal.value.code == "E273"


def test_uneven_sizes_are_diffusers(plain: Backbone, saved: Path) -> None:
    theirs = UNetMotionModel.from_pretrained(saved / "unet").eval()
    condition, z = plain.condition(["a"]), noise(0, 1, 3, 4, 7, 9)
    with torch.no_grad():
        states = condition.positive["states"].repeat_interleave(3, dim=0)
        expected = theirs(z.transpose(1, 2), 5, encoder_hidden_states=states).sample.transpose(1, 2)
        assert (plain.forward(z, torch.full((1, 3), 5), condition.positive) - expected).abs().max() < 1e-5


def test_more_frames_than_motion_knows_are_refused(plain: Backbone) -> None:
    with pytest.raises(ConfigError) as refusal:
        plain.predict(latents(frames=17), 5, plain.condition(["a", "b"]))
    assert refusal.value.code == "E272"


# ---- conditioning -----------------------------------------------------------------------------------------------


def test_text_image_and_both(joint: Backbone) -> None:
    image = noise(3, 2, 3, 32, 32).clamp(-1, 1)
    text, seen, both = joint.condition(["a", "b"]), joint.condition(image=image), joint.condition(["a", "b"], image)
    length = small.LENGTH
    for condition in (text, seen, both):
        assert condition.positive["states"].shape == condition.negative["states"].shape == (2, length + 17, small.WIDTH)
        assert not condition.negative["states"][:, length:].any()
    assert not text.positive["states"][:, length:].any()
    assert torch.equal(both.positive["states"][:, :length], text.positive["states"][:, :length])
    assert torch.equal(both.positive["states"][:, length:], seen.positive["states"][:, length:])
    assert torch.equal(seen.positive["states"][:, :length], joint.condition(["", ""]).positive["states"][:, :length])
    z = latents()
    with torch.no_grad():
        found = [joint.predict(z, 700, condition).eps for condition in (text, seen, both)]
    assert min((a - b).abs().max() for a, b in [found[:2], found[1:], found[::2]]) > 1e-4


def test_conditions_that_are_none(plain: Backbone, joint: Backbone) -> None:
    image = noise(3, 1, 3, 32, 32)
    for ask in (
        lambda: plain.condition(["a"], image),
        lambda: plain.condition(),
        lambda: joint.condition(["a", "b"], image),
    ):
        with pytest.raises(ConfigError) as refusal:
            ask()
        assert refusal.value.code == "E273"


# ---- the VAE -------------------------------------------------------------------------------------------------------


def test_chunks_are_the_whole(plain: Backbone) -> None:
    from retake.diffusion.families.common import image_vae

    network, pixels = plain.parts.use("vae"), noise(1, 1, 11, 3, 32, 32).clamp(-1, 1)
    with torch.no_grad():
        whole = network.encode(pixels[0]).latent_dist.mean * network.config.scaling_factor
        back = network.decode(whole / network.config.scaling_factor).sample.clamp(-1, 1)
    for chunk in (1, 3, 8, 16):
        assert (image_vae.encode(network, pixels, chunk=chunk)[0] - whole).abs().max() < 1e-5
        assert (image_vae.decode(network, whole[None], chunk=chunk)[0] - back).abs().max() < 1e-5
    assert (plain.encode(pixels)[0] - whole).abs().max() < 1e-5


def test_samples_of_the_posterior_do_not_depend_on_chunks(plain: Backbone) -> None:
    from retake.diffusion.families.common import image_vae

    network, pixels = plain.parts.use("vae"), noise(1, 1, 7, 3, 32, 32).clamp(-1, 1)
    one, two = (image_vae.encode(network, pixels, torch.Generator().manual_seed(5), chunk) for chunk in (2, 7))
    assert (one - two).abs().max() < 1e-5
    assert (one - image_vae.encode(network, pixels)).abs().max() > 0.1


def test_shifted_and_folded_vaes() -> None:
    from diffusers import AutoencoderKL

    from retake.diffusion.families.common import image_vae

    network = small.seeded(
        lambda: AutoencoderKL(
            in_channels=12,
            out_channels=12,
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            shift_factor=0.25,
            scaling_factor=2.0,
        ),
        0,
    )
    pixels = noise(0, 1, 2, 3, 16, 16)
    found = image_vae.encode(network, pixels)
    assert found.shape == (1, 2, 4, 4, 4)
    assert image_vae.stride(network) == 4
    with torch.no_grad():
        folded = nn.functional.pixel_unshuffle(pixels[0], 2)
        mean = network.encode(folded).latent_dist.mean
        back = nn.functional.pixel_shuffle(network.decode(mean).sample, 2).clamp(-1, 1)
    assert (found[0] - (mean - 0.25) * 2).abs().max() < 1e-5
    assert (image_vae.decode(network, found)[0] - back).abs().max() < 1e-5


@pytest.mark.parametrize("part", ["vae", "network"])
def test_overflow_is_an_error(saved: Path, part: str) -> None:
    backbone = load(Model(**small.settings(saved), dtype="float16"))
    condition = backbone.condition(["a", "b"])
    layer = backbone.parts.look(part).conv_out if part == "network" else backbone.parts.look(part).quant_conv
    layer.weight.data.fill_(6e4)
    ask = {
        "vae": lambda: backbone.encode(noise(0, 1, 2, 3, 32, 32)),
        "network": lambda: backbone.predict(latents(), 300, condition),
    }
    with pytest.raises(ConfigError) as refusal:
        ask[part]()
    assert refusal.value.code == "E278"
    assert "float16" in refusal.value.message
    assert "bfloat16" in refusal.value.hint


def test_nan_latents_are_an_error(plain: Backbone) -> None:
    z = latents()
    z[0, 3, 1, 2, 2] = float("nan")
    for ask in (lambda: plain.predict(z, 300, plain.condition(["a", "b"])), lambda: plain.decode(z)):
        with pytest.raises(ConfigError) as refusal:
            ask()
        assert refusal.value.code == "E278"


# ---- features and attention ----------------------------------------------------------------------------------------

READ = ("mid_block", "up_blocks.0.motion_modules.1", "up_blocks.1")


@contextmanager
def untouched(backbone: Backbone) -> Iterator[None]:
    """The block leaves no hook, no processor, no other output."""
    network = backbone.network
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    processors = {name: id(p) for name, p in network.attn_processors.items()}
    condition, z = backbone.condition(["a", "b"]), latents()
    with torch.no_grad():
        before = backbone.predict(z, 400, condition).eps
    yield
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()] == hooks
    assert {name: id(p) for name, p in network.attn_processors.items()} == processors
    with torch.no_grad():
        assert torch.equal(backbone.predict(z, 400, condition).eps, before)


def test_sites_have_the_shapes_that_features_give(plain: Backbone) -> None:
    sites = {site.name: site.grid for site in plain.sites()}
    assert {"conv_in", "down_blocks.0", "mid_block", "up_blocks.1.motion_modules.1"} <= sites.keys()
    assert next(iter(sites)) == "conv_in"
    assert list(sites)[-1] == "up_blocks.1"
    condition = plain.condition(["a", "b"])
    with torch.no_grad():
        found = plain.features(latents(), 400, condition, list(sites))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        name: (2, *grid) for name, grid in sites.items()
    }


def test_features_stop_early_and_leave_no_trace(plain: Backbone) -> None:
    condition, z, reached = plain.condition(["a", "b"]), latents(), []
    last = plain.network.conv_out.register_forward_hook(lambda *_: reached.append("conv_out"))
    late = plain.network.up_blocks[1].register_forward_hook(lambda *_: reached.append("up_blocks.1"))
    with torch.no_grad():
        found = plain.features(z, 400, condition, READ[:2])
    assert list(found) == list(READ[:2])
    assert reached == []
    last.remove()
    late.remove()
    with untouched(plain), torch.no_grad():
        again = plain.features(z, 400, condition, READ)
    assert torch.equal(again[READ[0]], found[READ[0]])
    assert plain.features(z, 400, condition, []) == {}


def test_features_give_gradients_to_z(plain: Backbone) -> None:
    condition, z = plain.condition(["a", "b"]), latents().requires_grad_()
    with untouched(plain):
        found = plain.features(z, torch.arange(8).expand(2, 8), condition, READ[:1])[READ[0]]
        (grad,) = torch.autograd.grad(found.square().mean(), z)
    assert grad.shape == z.shape
    assert (grad.flatten(2).abs().amax(-1) > 0).all()
    assert all(p.grad is None for p in plain.network.parameters())


def test_features_are_what_the_modules_give(plain: Backbone) -> None:
    condition, z, heard = plain.condition(["a", "b"]), latents(), {}
    modules = dict(plain.network.named_modules())
    hooks = [
        modules[name].register_forward_hook(
            lambda m, i, o, name=name: heard.update({name: o[0] if isinstance(o, tuple) else o})
        )
        for name in READ
    ]
    with torch.no_grad():
        plain.predict(z, 400, condition)
        for hook in hooks:
            hook.remove()
        found = plain.features(z, 400, condition, READ)
    assert all(torch.equal(found[name].flatten(0, 1), heard[name]) for name in READ)


@pytest.mark.parametrize("name", ["", "up_blocks.7", "mid_block.attentions.0.transformer_blocks.0.attn1", "conv_out"])
def test_what_is_no_site_is_refused(plain: Backbone, name: str) -> None:
    with untouched(plain), pytest.raises(ConfigError) as refusal:
        plain.features(latents(), 400, plain.condition(["a", "b"]), ["mid_block", name])
    assert refusal.value.code == "E274"


def test_an_error_inside_leaves_no_trace(plain: Backbone) -> None:
    condition = plain.condition(["a", "b"])
    with untouched(plain), pytest.raises(RuntimeError):
        plain.features(latents(), 400, Condition({"states": condition.positive["states"][..., :3]}), READ)


class Recorded(AttnProcessor2_0):
    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, attn, hidden_states, *more, **named):
        self.shapes.append(tuple(hidden_states.shape))
        return super().__call__(attn, hidden_states, *more, **named)


def test_attention_is_replaced_by_pattern_and_restored(plain: Backbone) -> None:
    condition, z = plain.condition(["a", "b"]), latents()
    recorded = Recorded()
    with torch.no_grad():
        before = plain.predict(z, 400, condition).eps
    with untouched(plain):
        with plain.attention({"up_blocks.*.motion_modules.*": recorded}), torch.no_grad():
            assert torch.equal(plain.predict(z, 400, condition).eps, before)
        assert len(recorded.shapes) == 2 * 2 * 2  # blocks, layers, attentions of a motion module
        assert {shape[1] for shape in recorded.shapes} == {8}


def test_attention_is_restored_after_an_error(plain: Backbone) -> None:
    condition, z = plain.condition(["a", "b"]), latents()

    def silent(attn, hidden_states, *more, **named):
        return torch.zeros_like(hidden_states)

    def fail() -> None:
        with plain.attention({"*.attn2": silent, "*": Recorded()}), torch.no_grad():
            assert (
                plain.network.attn_processors["down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor"]
                is silent
            )
            plain.predict(z, 400, condition)
            raise RuntimeError("on purpose")

    with untouched(plain), pytest.raises(RuntimeError, match="on purpose"):
        fail()
    with (
        untouched(plain),
        pytest.raises(ConfigError) as refusal,
        plain.attention({"*.attn1": silent, "*.attn9": silent}),
    ):
        pass
    assert refusal.value.code == "E274"


# ---- without a folder ----------------------------------------------------------------------------------------------


def test_a_network_alone_is_a_backbone_for_training() -> None:
    schedule = Schedule.from_config(dict(DDIMScheduler(**small.SCHEDULE).config))
    backbone = UNetMotion(Parts({"network": small.unet_motion()}), schedule, 8, 64, 64)
    condition = Condition({"states": noise(1, 2, 5, small.WIDTH)})
    assert backbone.predict(latents(), 3, condition).eps.shape == (2, 8, 4, 8, 8)
    assert len(backbone.sites()) > 20
    with pytest.raises(ConfigError) as refusal:
        backbone.encode(noise(0, 1, 8, 3, 64, 64))
    assert refusal.value.code == "E281"


def test_gradients_reach_weights_that_ask_for_them() -> None:
    from retake.diffusion.families.common.unet import walk

    network = small.unet_motion().train()
    network.conv_in.requires_grad_(True)
    output = walk(network, latents(), torch.full((2, 8), 9), {"states": noise(1, 2, 5, small.WIDTH)})
    output.square().mean().backward()
    assert network.conv_in.weight.grad is not None
    untrained = copy.deepcopy(network)
    assert untrained.training
