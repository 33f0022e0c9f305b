"""The alignment of a video transformer with a motion subspace: what learns, from what, and what stays as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.alignment import on_meta
from retake.diffusion.cost.meta_counter import tally
from retake.training import alignment, motion_clips, motion_subspace, transformer
from retake.training.alignment import Aligned, How, Projection, apart, loss, needed, wanted, width_of
from retake.training.motion_clips import Clips, Study

CHANNELS = 24  # of the encoder's features
HOWS = [How(), How("margin", "raw"), How("cosine", "raw"), How("none"), How(features="random"), How(of="another")]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Clips:
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).half()

    captions = ["a red disc moving left", "a blue box", "a green star moving up", ""]
    shown = torch.ones(7, 32, 32, dtype=torch.bool)
    path = tmp_path_factory.mktemp("clips") / "clips-000000.safetensors"
    clips = [Study(drawn(5, 16, 16, 16), drawn(8, 8, 8, CHANNELS), drawn(7, 2, 32, 32), shown) for _ in captions]
    motion_clips.write(path, clips, captions)
    return motion_clips.read([path])


@pytest.fixture(scope="module")
def subspace() -> motion_subspace.MotionSubspace:
    torch.manual_seed(0)
    return motion_subspace.network(CHANNELS, 6)


def aligned(out: int) -> Aligned:
    torch.manual_seed(1)
    return Aligned(transformer.Student(transformer.network(), transformer.text_tower()), out, 32)


def test_a_projection_meets_the_encoders_grid():
    """CogVideoX-2B's tokens and VideoMAE's at 160 x 240 (MoAlign, A.4), and the embedded ones."""
    with torch.device("meta"):
        assert Projection(1920, 64, stride=3)(torch.zeros(1, 13, 30, 45, 1920)).shape == (1, 24, 10, 15, 64)
        assert Projection(192, 16)(torch.zeros(2, 5, 8, 8, 192)).shape == (2, 8, 8, 8, 16)


def test_a_tube_is_told_by_its_own_latent_frame_and_its_neighbours():
    torch.manual_seed(0)
    projection, tokens = Projection(6, 4), torch.randn(1, 5, 2, 2, 6)
    other = tokens.clone()
    other[:, 4] += 1
    changed = (projection(tokens) != projection(other)).flatten(2).any(2)[0]
    assert changed.tolist() == [False] * 3 + [True] * 5  # latent frames 3 and 4, and half of 2 by interpolation


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_the_transformer_and_the_projection_learn_and_nothing_else(data, subspace, how):
    model = aligned(width_of(how, data, subspace))
    kept = {name: value.clone() for name, value in subspace.state_dict().items()}
    value, told = loss(model, data, subspace, how, 2, 0.5, 0, "cpu")(0)
    value.backward()
    learns = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert any(name.startswith("student.transformer") for name in learns)
    assert any(name.startswith("projection") for name in learns) == (how.loss != "none")
    assert not any(name.startswith("student.text") for name in learns)
    assert all(torch.equal(subspace.state_dict()[name], value) for name, value in kept.items())
    assert all(weight.grad is None for weight in subspace.parameters())
    assert float(value) == pytest.approx(told["denoising"] + alignment.WEIGHT * told.get("alignment", 0.0), rel=1e-5)


def test_every_way_of_aligning_sees_the_same_data(data, subspace):
    """Twins differ in nothing but the alignment: their first losses of denoising are equal."""
    told = [loss(aligned(6), data, subspace, how, 2, 0.5, 3, "cpu")(5)[1] for how in (How(), How("none"))]
    assert told[0]["denoising"] == told[1]["denoising"]


def test_controls_take_anothers_features_or_another_order(data, subspace):
    features, random = data.take([0, 1]).features, torch.Generator().manual_seed(0)
    own, another, shuffled = (
        wanted(features, How(features="raw", of=of), subspace, random) for of in ("own", "another", "shuffled")
    )
    torch.testing.assert_close(another, features[[1, 0]].float())
    assert not torch.equal(own, shuffled)
    torch.testing.assert_close(own.sum(1), shuffled.sum(1), atol=1e-3, rtol=0)


def test_reading_a_block_leaves_the_output_as_it_is(data):
    from retake.diffusion.families.cogvideox.transformer import evaluate, evaluate_and_read, states

    torch.manual_seed(0)
    network, z = transformer.network().eval(), data.take([0]).latents.float()
    t, text = torch.full((1, 5), 300), torch.randn(1, 20, transformer.WIDTH)
    with torch.no_grad():
        made, read = evaluate_and_read(network, z, t, text, 3)
        assert torch.equal(made, evaluate(network, z, t, text))
        assert torch.equal(read.permute(0, 1, 4, 2, 3), states(network, z, t, text, [3])[3])


@pytest.mark.parametrize(("name", "block"), [("cogvideox_2b", 17), ("cogvideox_5b", 24)])
def test_it_fits_the_real_transformers(name, block):
    """On the meta device, against VideoMAE's tubes of 48 frames at 160 x 240."""
    model, z = on_meta(name)
    with torch.no_grad():
        made, read = model(z, torch.zeros(1, device="meta"), torch.zeros(1, 226, device="meta"))
    assert model.block == block
    assert made.shape == z.shape
    assert read.shape == (1, 24, 10, 15, 64)


def test_what_a_step_of_the_published_model_needs():
    """CogVideoX-2B, one clip, blocks run again: a LoRA needs a fraction of the optimiser's memory, and the loss of
    relations less than 2 GiB."""
    teacher, tokens = torch.empty(1, 24, 10, 15, 64, device="meta"), torch.zeros(1, 226, device="meta")
    whole, small = (needed(*on_meta("cogvideox_2b", lora), tokens, teacher) for lora in (None, 128))
    assert whole.weights / 2 == pytest.approx(1.7e9, rel=0.05)
    assert whole.moments == pytest.approx(4 * whole.weights, rel=0.01)
    assert small.moments < 0.1 * whole.moments
    assert small.passes < whole.passes
    read = torch.empty(1, 24, 10, 15, 64, device="meta", requires_grad=True)
    assert tally(lambda: apart("soft", read, teacher).backward(), [read, teacher]).peak < 2 << 30
