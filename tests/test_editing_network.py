"""IVEDiff's network: what it is before it learns, what carries features along flow, what a reference is read for, and
what learns in which of its trainings."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from helpers import small_diffusion as small
from helpers import small_ivediff as tiny

from retake.diffusion import attention
from retake.diffusion.cost import measure
from retake.diffusion.families.common.conditioning import clip_pixels
from retake.diffusion.families.ivediff.motion_reference import Carried, fitted, motion_modules, warped
from retake.diffusion.families.ivediff.network import sites, widened
from retake.diffusion.loading.load import load, load_coder
from retake.diffusion.model import Model
from retake.errors import ConfigError
from retake.synthetic import clips
from retake.synthetic.motion import Pose
from retake.synthetic.world import World
from retake.training import autoencoder, editing_clips, ivediff
from retake.training.loop import Plan, Slice, train


def run(network, inputs, seed: int = 5, t: float = 300.0) -> torch.Tensor:
    z = torch.randn(inputs["masked"].shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return network(z, torch.full(z.shape[:2], t), inputs)


# ---- the network ---------------------------------------------------------------------------------------------------


def test_before_it_learns_the_network_of_clips_is_that_of_pictures():
    given = tiny.inputs()
    assert torch.allclose(run(tiny.of_clips(), given), run(tiny.of_pictures(), given), atol=1e-5)
    assert not torch.allclose(run(tiny.of_clips(silent=False), given), run(tiny.of_pictures(), given), atol=1e-3)


def test_one_frame_is_a_clip():
    given = tiny.inputs(frames=1)
    assert run(tiny.of_clips(silent=False), given).shape == (2, 1, 4, 8, 8)


def test_it_reads_every_input_and_the_reference_of_those_that_are_told_alone():
    given, network = tiny.inputs(), tiny.of_clips(silent=False)
    made = run(network, given)
    for name in ("mask", "masked", "depth", "states", "flow"):
        assert not torch.allclose(run(network, {**given, name: given[name].flip(0)}), made), name
    other = run(network, {**given, "reference": given["reference"] + 1})
    assert not torch.allclose(other[0], made[0], atol=1e-4)
    assert torch.equal(other[1], made[1])  # the second is not told


def test_a_batch_gives_what_its_clips_give_alone():
    given, network = tiny.inputs(), tiny.of_clips(silent=False)
    made = run(network, given)
    z = torch.randn(given["masked"].shape, generator=torch.Generator().manual_seed(5))
    for n in range(2):
        one = {name: value[n : n + 1] for name, value in given.items()}
        with torch.no_grad():
            alone = network(z[n : n + 1], torch.full((1, 3), 300.0), one)
        assert torch.allclose(alone[0], made[n], atol=1e-5)


def test_frame_by_frame_motion_costs_nothing():
    network, given, ran = tiny.of_clips(silent=False), tiny.inputs(), []
    hooks = [module.norm.register_forward_hook(lambda *_: ran.append(1)) for module in motion_modules(network.unet)]
    moving = run(network, given)
    assert len(ran) == len(hooks)
    network.frame_wise = True
    assert not torch.equal(run(network, given), moving)
    assert len(ran) == len(hooks)
    network.frame_wise = False
    assert torch.equal(run(network, given), moving)


def test_half_of_what_a_layer_gives_is_read_from_the_reference_too():
    """h + 0.5 attention(own, own and kept) + 0.5 attention(own, own), in the middle and on the way up alone."""
    network, given = tiny.of_pictures(), tiny.inputs(batch=1, frames=1)
    name = sites(network.unet)[-1]
    assert all(site.startswith(("mid_block", "up_blocks")) for site in sites(network.unet))
    layer = attention.layers(network.unet)[name]
    kept = network.tokens(torch.tensor([300.0]), given)[name]
    seen: dict[str, torch.Tensor] = {}
    hook = layer.register_forward_hook(lambda module, given, out: seen.update(own=given[0], out=out))
    run(network, given)
    hook.remove()
    before = layer.processor
    with torch.no_grad():
        expected = 0.5 * before(layer, seen["own"]) + 0.5 * before(
            layer, seen["own"], torch.cat([seen["own"], kept], 1)
        )
    assert torch.allclose(seen["out"], expected, atol=1e-6)
    assert kept.shape == seen["own"].shape


def test_after_a_pass_and_after_an_error_nothing_is_left_in_the_networks():
    network, given = tiny.of_clips(silent=False), tiny.inputs()
    before = [layer.processor for layer in attention.layers(network).values()]
    made = run(network, given)
    with pytest.raises(RuntimeError):
        run(network, {**given, "states": torch.randn(2, 17, 5)})
    assert [layer.processor for layer in attention.layers(network).values()] == before
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in motion_modules(network.unet))
    assert torch.equal(run(network, given), made)


def test_a_widened_network_draws_as_before():
    narrow, wide = small.unet2d(), widened(small.unet2d(), tiny.READS)
    x, states = torch.randn(1, 4, 8, 8), torch.randn(1, 3, small.WIDTH)
    more = torch.cat([x, torch.randn(1, tiny.READS - 4, 8, 8)], 1)
    with torch.no_grad():
        assert torch.allclose(wide(more, 3, states).sample, narrow(x, 3, states).sample, atol=1e-6)


# ---- the motion reference network ------------------------------------------------------------------------------------


def shifted() -> tuple[torch.Tensor, torch.Tensor]:
    """Features [1, 4, 6, 12, 12] that go 2 cells to the right and 1 up from frame to frame, and their backward flow."""
    wide = torch.randn(6, 24, 24, generator=torch.Generator().manual_seed(0))
    frames = [torch.roll(wide, (-t, 2 * t), (1, 2))[:, 6:18, 6:18] for t in range(4)]
    flow = torch.tensor([-2.0, 1.0])[:, None, None].expand(1, 4, 2, 12, 12)
    return torch.stack(frames)[None], flow


def test_with_the_true_backward_flow_the_frame_before_is_carried_onto_this_one():
    h, flow = shifted()
    site = Carried(6, 8, "difference", "flow")
    site.gate.data.fill_(1.0)
    with torch.no_grad():
        made = site(h.flatten(0, 1), flow).unflatten(0, (1, 4))
        forward = site(h.flatten(0, 1), -flow).unflatten(0, (1, 4))
    inner = (slice(None), slice(1, None), slice(None), slice(2, -2), slice(2, -2))
    assert torch.allclose(made[inner], h[inner], atol=1e-5)
    assert (forward[inner] - h[inner]).square().mean() > 0.5  # the other way round it is another clip


@pytest.mark.parametrize("form", ["difference", "literal"])
def test_the_first_frame_is_untouched_and_nothing_runs_through_the_clip(form):
    h, flow = shifted()
    site = small.seeded(lambda: Carried(6, 8, form, "flow"), 1)
    site.gate.data.fill_(0.7)
    with torch.no_grad():
        made = site(h.flatten(0, 1), flow)
        other = site(torch.cat([h[0, :1] + 1, h[0, 1:]]), flow)
    assert torch.equal(made[0], h[0, 0])
    assert not torch.allclose(other[1], made[1], atol=1e-3)
    assert torch.equal(other[2:], made[2:])  # neighbours as they came in


def test_at_first_it_changes_nothing_and_the_literal_reading_replaces_frames():
    h, flow = shifted()
    x = h.flatten(0, 1)
    with torch.no_grad():
        assert torch.equal(Carried(6, 8, "difference", "flow")(x, flow), x)
        literal = Carried(6, 8, "literal", "learnt")
        literal.gate.data.fill_(0.0)  # as "all layers with zero" says
        assert torch.allclose(literal(x, flow)[1:], x[:-1], atol=1e-6)


def test_flow_keeps_its_length_on_a_coarser_grid():
    flow = torch.zeros(1, 2, 16, 16)
    flow[:, 0] = 4.0
    assert torch.allclose(fitted(flow, 4, 4)[:, 0], torch.ones(1, 4, 4))
    assert fitted(flow, 5, 6).shape == (1, 2, 5, 6)


def test_a_warp_of_nothing_is_the_picture():
    x = torch.randn(1, 3, 5, 7)
    assert torch.allclose(warped(x, torch.zeros(1, 2, 5, 7)), x, atol=1e-5)


# ---- loading, and the published sizes --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("ivediff"))


def model(folder, **more) -> Model:
    return Model(**small.settings(folder, family="ivediff", **more))


def test_a_folder_loads_as_it_was_saved(folder):
    backbone, given = load(model(folder)), tiny.inputs()
    z = torch.randn(given["masked"].shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        made = backbone.forward(z, torch.full((2, 3), 300.0), given)
    assert torch.allclose(made, run(tiny.of_clips(silent=False), given), atol=1e-5)
    assert load_coder(model(folder)).grid(8, 32, 32) == backbone.grid(8, 32, 32) == (8, 4, 8, 8)
    assert {"mid_block", "up_blocks.1"} <= {site.name for site in backbone.sites()}


def test_guidance_of_one_is_what_the_picture_says(folder):
    backbone, given = load(model(folder)), tiny.inputs(batch=1)
    picture = backbone.condition(None, torch.rand(1, 3, 32, 32) * 2 - 1)
    clip = {name: given[name] for name in ("mask", "masked", "depth", "flow")}
    told = type(picture)({**picture.positive, **clip}, {**picture.negative, **clip})
    untold = type(picture)({**picture.negative, **clip})
    z = torch.randn(1, 3, 4, 8, 8)
    alone, guided, without = (
        backbone.predict(z, 300.0, condition, guidance).x0
        for condition, guidance in ((told, 1.0), (told, 3.0), (untold, 1.0))
    )
    assert torch.allclose(guided, without + 3 * (alone - without), atol=1e-4)
    assert not torch.allclose(alone, without, atol=1e-3)


@pytest.mark.parametrize("penultimate", [True, False])
def test_states_of_a_picture_come_from_the_layer_that_the_projection_names(folder, penultimate):
    backbone = load(model(folder))
    backbone.network.image_projection.register_to_config(penultimate=penultimate)
    picture = torch.rand(2, 3, 32, 32) * 2 - 1
    shown, none = backbone.states(picture)
    assert shown.shape == none.shape == (2, *backbone.seen)
    assert bool(none.any()) == penultimate
    encoder = backbone.parts.need("image_encoder")
    with torch.no_grad():
        states = encoder(clip_pixels(picture, encoder), output_hidden_states=True).hidden_states
    assert torch.allclose(shown, states[-2], atol=1e-5) == penultimate


@pytest.mark.parametrize(
    ("role", "code"), [("reference_unet", "E281"), ("motion_reference", "E281"), ("motion_adapter", "E281")]
)
def test_a_folder_without_a_part_is_refused(folder, tmp_path, role, code):
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / role)
    with pytest.raises(ConfigError) as caught:
        load(model(tmp_path / "copy"))
    assert caught.value.code == code
    assert role in str(caught.value) or "motion adapter" in str(caught.value)


def test_parts_of_two_networks_are_refused(folder, tmp_path):
    import shutil

    from retake.diffusion.families.ivediff.motion_reference import MotionReference

    shutil.copytree(folder, tmp_path / "copy")
    MotionReference([4, 4]).save_pretrained(tmp_path / "copy" / "motion_reference")
    with pytest.raises(ConfigError) as caught:
        load(model(tmp_path / "copy"))
    assert caught.value.code == "E289"


def test_more_frames_than_the_motion_modules_know_are_refused(folder):
    known = load(model(folder)).config.motion_max_seq_length
    with pytest.raises(ConfigError, match=f"E272 {known + 1} frames"):
        load(model(folder, frames=known + 1))


def test_text_and_loras_are_refused(folder):
    backbone = load(model(folder))
    with pytest.raises(ConfigError) as caught:
        backbone.condition(["a red ball"])
    assert caught.value.code == "E273"
    with pytest.raises(ConfigError) as caught:
        load(model(folder, lora=str(folder)))
    assert caught.value.code == "E287"


def test_the_published_sizes_are_those_of_the_paper():
    """Thirteen channels, twenty motion modules and none in the middle, on a clip of 16 frames of 336 x 336."""
    network = measure.built(measure.PUBLISHED["ivediff_sd15"]).network
    assert network.unet.conv_in.in_channels == 13
    assert len(motion_modules(network.unet)) == len(network.motion_reference.sites) == 20
    assert len(sites(network.unet)) == 1 + 9
    assert sites(network.unet) == sites(network.reference_unet)


# ---- training --------------------------------------------------------------------------------------------------------

FEW = {"rate": 1e-3, "muon": 0.01, "warmup": 1, "average": 0.0}


@pytest.fixture(scope="module")
def eyes() -> ivediff.Eyes:
    torch.manual_seed(0)
    coder = autoencoder.network().eval().requires_grad_(False)
    return ivediff.Eyes(coder, small.image_encoder(width=64), "cpu")


@pytest.fixture(scope="module")
def data(eyes, tmp_path_factory) -> editing_clips.Clips:
    folder = tmp_path_factory.mktemp("editing")
    assert editing_clips.render(folder, 3, autoencoder.frame_by_frame(eyes.vae), 4)
    return editing_clips.Clips(editing_clips.shards(folder, 3))


@pytest.fixture
def pictures():
    from diffusers import UNet2DConditionModel

    def drawn() -> UNet2DConditionModel:
        return UNet2DConditionModel(
            sample_size=16,
            in_channels=8,
            out_channels=8,
            block_out_channels=(48, 96, 96),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            cross_attention_dim=64,
            attention_head_dim=4,
            norm_num_groups=8,
        )

    torch.manual_seed(0)
    return ivediff.image_network(drawn(), drawn()).train()


def test_clips_are_what_the_world_renders(data, eyes):
    clip = data.take([0])
    scene, sprite = editing_clips.drawn(editing_clips.SEED)
    world = World(scene)
    assert np.array_equal(clip.frames[0, 3].numpy(), world.frame(3))
    assert np.array_equal(clip.mask[0, 3].numpy() > 0, world.mask(3, sprite))
    assert not clip.flow[0, 0].any()
    back = world.flow(3, 2).reshape(16, 4, 16, 4, 2).mean((1, 3)) / 4
    assert np.abs(clip.flow[0, 3].numpy() - back.transpose(2, 0, 1)).max() < 0.01
    assert clip.pictures.shape == (1, 3, 64, 64, 3)
    assert np.array_equal(clip.pictures[0, 0].numpy(), clips.portrait(scene, sprite))


def test_grids_hide_their_share_of_every_frame_exactly():
    random = torch.Generator().manual_seed(0)
    for ratio in (0.0, 0.25, 0.5, 0.75):
        hidden = ivediff.grid_masks(3, 6, ivediff.Masking(ratio), random)
        assert (hidden.sum((2, 3)) == round(ratio * 64)).all()
    apart = ivediff.grid_masks(2, 6, ivediff.Masking(0.5), random)
    alike = ivediff.grid_masks(2, 6, ivediff.Masking(0.5, frame_wise=False), random)
    assert not torch.equal(apart[:, 0], apart[:, 1])
    assert torch.equal(alike[:, 0], alike[:, 5])
    assert not torch.equal(alike[0], alike[1])


def test_rectangles_are_the_smallest_around_a_mask():
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[0, 2, 3] = mask[0, 5, 1] = True
    found = ivediff.rectangles(mask)
    assert found[0, 2:6, 1:4].all()
    assert found[0].sum() == 12
    assert not found[1].any()


@pytest.mark.parametrize("stride", [2, 4])
def test_flow_over_a_stride_is_the_way_that_its_steps_lead(stride):
    """Of a sprite that turns and grows, so that a step is another one where the step before it leads."""
    poses = tuple(Pose(32 + 1.5 * t, 30 + 0.2 * t * t, 0.12 * t, 1 + 0.02 * t) for t in range(9))
    sprite = replace(clips.draw(editing_clips.SEED).scene.sprites[0], poses=poses, radius=18.0)
    world = World(replace(clips.draw(editing_clips.SEED, clips.Limits(frames=9)).scene, sprites=(sprite,)))
    steps = np.stack([world.flow(t + 1, t) for t in range(8)]).transpose(0, 3, 1, 2)
    flow = torch.from_numpy(np.concatenate([np.zeros_like(steps[:1]), steps]))[None]
    found = ivediff.strided(flow, stride)[0, 0].numpy().transpose(1, 2, 0)
    true, summed = world.flow(stride, 0), flow[0, 1 : stride + 1].sum(0).numpy().transpose(1, 2, 0)
    # Inside the body all steps are those of one surface, but at its rim.
    inside = cv2.erode(world.mask(stride, 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert inside.sum() > 100
    apart, unled = (np.abs(one - true).max(-1)[inside] for one in (found, summed))
    assert np.median(apart) < 0.02
    assert np.median(unled) > 4 * np.median(apart)  # steps added where they stand lead elsewhere


def test_in_the_first_training_all_but_motion_learns_and_in_the_second_motion_alone(pictures, eyes, data):
    with (
        torch.no_grad()
    ):  # as after a first step: what is new in the first layer begins at zero, and lets nothing through
        pictures.unet.conv_in.weight += 0.01
    first = ivediff.image_loss(pictures, eyes, data, 4, 0.6, 0)
    loss, figures = first(0)
    loss.backward()
    assert set(figures) == {"plain", "hidden"}
    for part in ("unet", "reference_unet", "image_projection", "depth_guider"):
        assert any(p.grad is not None and p.grad.any() for p in getattr(pictures, part).parameters()), part
    whole = ivediff.clip_network(pictures)
    for name, p in whole.named_parameters():
        assert p.requires_grad == ("motion" in name), name
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    whole.zero_grad()
    second = ivediff.clip_loss(whole, eyes, data, ivediff.Masking(strides=(2,)), 2, 0.6, 0)
    loss, figures = second(0)
    loss.backward()
    gates = [site.gate.grad for site in whole.motion_reference.sites]
    assert all(grad is not None and grad != 0 for grad in gates)
    assert not any(site.offset[0].weight.grad.any() for site in whole.motion_reference.sites)  # at step 0 alone
    torch.optim.SGD([p for p in whole.parameters() if p.grad is not None], 0.1).step()
    moved = {name for name, value in whole.state_dict().items() if not torch.equal(before[name], value)}
    assert moved
    assert all("motion" in name for name in moved)


@pytest.mark.parametrize("where", ["condition", "noise", "both"])
def test_what_is_masked_is_what_is_said(pictures, eyes, data, where):
    whole, seen = ivediff.clip_network(pictures), []
    real = whole.forward

    def watched(z, t, inputs):
        seen.append((z, inputs))
        return real(z, t, inputs)

    whole.forward = watched
    ivediff.clip_loss(whole, eyes, data, ivediff.Masking(0.5, where=where), 2, 0.6, 0)(0)
    z, inputs = seen[0]
    hidden = ivediff.grid_masks(1, 1, ivediff.Masking(0.5), torch.Generator()).mean()
    assert float((z == 0).all(2).float().mean()) == pytest.approx(0.0 if where == "condition" else float(hidden))
    assert float(inputs["mask"].mean()) == pytest.approx(0.0 if where == "noise" else float(hidden))
    shown = inputs["masked"].abs().sum(2)
    assert float((shown == 0).float().mean()) == pytest.approx(0.0 if where == "noise" else float(hidden))
    assert not (inputs["masked"] * inputs["mask"]).any()


def test_a_stopped_training_goes_on_to_the_bit(eyes, data, tmp_path, pictures):
    whole = ivediff.clip_network(pictures)
    start = {name: value.clone() for name, value in whole.state_dict().items()}
    plan = Plan(4, **FEW)

    def learnt(folder, *sittings: float) -> dict[str, torch.Tensor]:
        for minutes in sittings:
            whole.load_state_dict(start)
            loss = ivediff.clip_loss(whole, eyes, data, ivediff.Masking(), 2, 0.6, 0)
            train(tmp_path / folder, whole, loss, plan, Slice(minutes), str)
        return {name: value.clone() for name, value in whole.state_dict().items()}

    once, often = learnt("once", 9), learnt("often", 0, 0, 0, 0)
    assert all(torch.equal(once[name], often[name]) for name in once)
    assert not all(torch.equal(once[name], start[name]) for name in once)
