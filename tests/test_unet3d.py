"""The ModelScope adapter is diffusers' own network: one step, whole runs, features, attention, LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet3DConditionModel
from helpers import small_diffusion as small

from retake.diffusion.backbone import Backbone
from retake.diffusion.loading.load import load
from retake.diffusion.model import Model
from retake.errors import ConfigError


def latents(frames: int = 8) -> torch.Tensor:
    return torch.randn(2, frames, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.save_modelscope(tmp_path_factory.mktemp("modelscope"))


@pytest.fixture(scope="module")
def backbone(saved: Path) -> Backbone:
    return load(Model(family="unet3d", **small.settings(saved)))


@pytest.mark.parametrize("t", [0, 500, 999])
def test_one_step_is_diffusers(backbone: Backbone, saved: Path, t: int) -> None:
    theirs = UNet3DConditionModel.from_pretrained(saved / "unet").eval()
    condition, z = backbone.condition(["a", "b"]), latents()
    with torch.no_grad():
        expected = theirs(z.transpose(1, 2), t, encoder_hidden_states=condition.positive["states"]).sample.transpose(
            1, 2
        )
        found = backbone.forward(z, torch.full((2, 8), t), condition.positive)
    assert (found - expected).abs().max() < 1e-5
    assert expected.abs().max() > 0.1


def test_a_whole_run_is_the_pipelines(backbone: Backbone) -> None:
    pipeline = small.modelscope()
    pipeline.set_progress_bar_config(disable=True)
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
    condition = backbone.condition(["red ball"], negative="blur")
    for t, to in backbone.schedule.step_pairs(10):
        with torch.no_grad():
            z = backbone.schedule.step(*backbone.predict(z, t, condition, 7.5), t, to)
    assert (z - expected).abs().max() < 1e-4
    with torch.no_grad():
        pixels = pipeline.decode_latents(expected.transpose(1, 2)).transpose(1, 2).clamp(-1, 1)
    assert (backbone.decode(z) - pixels).abs().max() < 1e-4


def test_every_frame_has_its_own_timestep(backbone: Backbone) -> None:
    condition, z = backbone.condition(["a", "b"]), latents()
    with torch.no_grad():
        whole = backbone.predict(z, 300, condition)
        assert torch.equal(backbone.predict(z, torch.full((2, 8), 300), condition).eps, whole.eps)
        mixed = backbone.predict(z, (torch.arange(8) * 120 + 20).expand(2, 8), condition)
    assert (mixed.eps - whole.eps).abs().max() > 1e-3


def test_sites_have_the_shapes_that_features_give(backbone: Backbone) -> None:
    sites = {site.name: site.grid for site in backbone.sites()}
    assert {
        "transformer_in",
        "down_blocks.0.temp_convs.0",
        "mid_block.temp_attentions.0",
        "up_blocks.1",
    } <= sites.keys()
    condition, z = backbone.condition(["a", "b"]), latents().requires_grad_()
    found = backbone.features(z, 400, condition, list(sites))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        name: (2, *grid) for name, grid in sites.items()
    }
    (grad,) = torch.autograd.grad(backbone.features(z, 400, condition, ["mid_block"])["mid_block"].square().mean(), z)
    assert (grad.flatten(2).abs().amax(-1) > 0).all()
    assert not any(module._forward_hooks for module in backbone.network.modules())


def test_attention_is_replaced_and_restored(backbone: Backbone) -> None:
    condition, z = backbone.condition(["a", "b"]), latents()
    before = dict(backbone.network.attn_processors)
    with torch.no_grad():
        plain = backbone.predict(z, 300, condition).eps
        with backbone.attention({"*.temp_attentions.*": lambda attn, states, *more, **named: torch.zeros_like(states)}):
            assert not torch.equal(backbone.predict(z, 300, condition).eps, plain)
        assert torch.equal(backbone.predict(z, 300, condition).eps, plain)
    assert all(before[name] is processor for name, processor in backbone.network.attn_processors.items())


def test_no_reference_image(backbone: Backbone) -> None:
    with pytest.raises(ConfigError) as refusal:
        backbone.condition(["a"], torch.zeros(1, 3, 32, 32))
    assert refusal.value.code == "E273"
