"""The CogVideoX adapter against diffusers' own pipeline and autoencoder, on tiny models of the genuine classes."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import small_cogvideox as small

from retake.diffusion.families.cogvideox import transformer as network
from retake.diffusion.families.cogvideox.adapter import CogVideoX
from retake.diffusion.loading.load import load, load_coder
from retake.diffusion.loading.offload import Parts
from retake.diffusion.model import Model
from retake.diffusion.schedule import Schedule
from retake.errors import ConfigError

SIZE = (9, 32, 48)


def backbone_of(pipe, **settings) -> CogVideoX:
    parts = {
        "network": pipe.transformer,
        "vae": pipe.vae,
        "text_encoder": pipe.text_encoder,
        "tokenizer": pipe.tokenizer,
    }
    return CogVideoX(Parts(parts), Schedule.from_config(pipe.scheduler.config), **settings)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=[False, True], ids=["sincos", "rotary"])
def pipe(request):
    return small.pipeline(request.param)


@pytest.fixture(scope="module")
def backbone(pipe):
    return backbone_of(pipe)


# ---- equality with diffusers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "height", "width"), [(3, 8, 12), (2, 8, 12), (5, 12, 8), (1, 4, 20)])
def test_one_timestep_a_clip_is_the_ordinary_forward(pipe, backbone, frames, height, width):
    z, text, t = random(2, frames, 4, height, width), random(2, 6, 16, seed=1), torch.tensor([999, 40])
    rotary = None
    if pipe.transformer.config.use_rotary_positional_embeddings:
        rotary = pipe._prepare_rotary_positional_embeddings(height * 4, width * 4, frames, z.device)
    with torch.no_grad():
        theirs = pipe.transformer(z, text, t, image_rotary_emb=rotary, return_dict=False)[0]
        ours = backbone.forward(z, t[:, None].expand(2, frames), {"states": text})
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5


def test_a_guided_prediction_at_the_last_timestep_is_that_of_the_pipeline(pipe, backbone):
    """alpha is 0 there: x0 comes from v alone, and both stay finite."""
    z = random(1, 3, 4, 8, 12)
    condition = backbone.condition(["a b"], negative="c")
    found = backbone.predict(z, 999, condition, guidance=6.0)
    wanted, unwanted = pipe.encode_prompt("a b", "c", max_sequence_length=6)
    assert torch.equal(condition.positive["states"], wanted)
    rotary = None
    if pipe.transformer.config.use_rotary_positional_embeddings:
        rotary = pipe._prepare_rotary_positional_embeddings(32, 48, 3, z.device)
    with torch.no_grad():
        v = pipe.transformer(
            torch.cat([z, z]), torch.cat([unwanted, wanted]), torch.tensor([999, 999]), image_rotary_emb=rotary
        ).sample
    v = v[:1] + 6.0 * (v[1:] - v[:1])
    pipe.scheduler.set_timesteps(10)
    theirs = pipe.scheduler.step(v, 999, z).pred_original_sample
    assert (found.x0 - theirs).abs().max() <= 1e-4
    assert torch.isfinite(found.eps).all()
    assert torch.equal(found.eps, z)


def test_ten_guided_steps_are_those_of_the_pipeline(pipe, backbone):
    z = random(1, 3, 4, 8, 12)
    theirs = pipe(
        "a b",
        negative_prompt="c",
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=10,
        guidance_scale=6.0,
        latents=z.clone(),
        output_type="latent",
        max_sequence_length=6,
    ).frames
    condition = backbone.condition(["a b"], negative="c")
    with torch.no_grad():
        for t, to in backbone.schedule.step_pairs(10):
            z = backbone.schedule.step(*backbone.predict(z, t, condition, 6.0), t, to)
    assert (z - theirs).abs().max() <= 1e-4
    pixels = pipe.video_processor.postprocess_video(pipe.decode_latents(theirs), output_type="pt")
    assert (backbone.decode(z) / 2 + 0.5 - pixels).abs().max() <= 1e-4


def test_of_an_even_count_of_latent_frames_latents_are_those_of_the_pipeline_and_frames_as_many_as_asked_for(pipe):
    z = random(1, 2, 4, 8, 12)
    asked = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2, "guidance_scale": 6.0}
    theirs = pipe("a b", latents=z.clone(), output_type="latent", max_sequence_length=6, **asked).frames
    parts = {"network": pipe.transformer, "vae": pipe.vae, "text_encoder": pipe.text_encoder}
    backbone = CogVideoX(Parts(parts | {"tokenizer": pipe.tokenizer}), Schedule.from_config(pipe.scheduler.config), 5)
    condition = backbone.condition(["a b"])
    with torch.no_grad():
        for t, to in backbone.schedule.step_pairs(2):
            z = backbone.schedule.step(*backbone.predict(z, t, condition, 6.0), t, to)
    assert (z - theirs).abs().max() <= 1e-4
    assert backbone.decode(z).shape[1] == 5


# ---- a timestep a frame ----------------------------------------------------------------------------------------------


def test_the_timestep_of_one_frame_reaches_its_tokens_first(backbone):
    z, text = random(1, 3, 4, 8, 12), {"states": random(1, 6, 16, seed=1)}
    with torch.no_grad():
        level = backbone.forward(z, torch.tensor([[500, 500, 500]]), text)
        mixed = backbone.forward(z, torch.tensor([[500, 500, 900]]), text)
    change = (mixed - level).abs().mean((0, 2, 3, 4))
    assert change[2] > 2 * change[:2].max()
    assert change.min() > 0  # attention and the text carry it to the others


def test_frames_of_different_timesteps_keep_their_order(backbone):
    """Batches are independent, whatever timesteps stand beside one another."""
    z, text = random(2, 3, 4, 8, 12), random(2, 6, 16, seed=1)
    t = torch.tensor([[0, 500, 999], [999, 3, 70]])
    with torch.no_grad():
        both = backbone.forward(z, t, {"states": text})
        alone = torch.cat([backbone.forward(z[i : i + 1], t[i : i + 1], {"states": text[i : i + 1]}) for i in (0, 1)])
    assert (both - alone).abs().max() <= 1e-5


def test_gradients_reach_the_latents_and_the_weights_with_and_without_checkpointing():
    model = small.transformer(rotary=True)
    z, text, t = random(1, 3, 4, 8, 12).requires_grad_(), random(1, 6, 16, seed=1), torch.tensor([[7, 500, 999]])
    inputs = [z, *model.parameters()]
    plain = torch.autograd.grad(network.evaluate(model, z, t, text).square().mean(), inputs)
    assert all(gradient.abs().sum() > 0 for gradient in plain)
    model.train()
    model.enable_gradient_checkpointing()
    again = torch.autograd.grad(network.evaluate(model, z, t, text).square().mean(), inputs)
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


# ---- sites and attention ---------------------------------------------------------------------------------------------


def test_sites_are_the_blocks_with_the_text_taken_off(pipe, backbone):
    assert [site.name for site in backbone.sites()] == [f"transformer_blocks.{n}" for n in range(3)]
    z = random(2, 3, 4, 8, 12)
    condition = backbone.condition(["a", "b"])
    seen = {}
    hooks = [
        block.register_forward_hook(lambda module, given, out, n=n: seen.update({n: out[0]}))
        for n, block in enumerate(pipe.transformer.transformer_blocks)
    ]
    rotary = None
    if pipe.transformer.config.use_rotary_positional_embeddings:
        rotary = pipe._prepare_rotary_positional_embeddings(32, 48, 3, z.device)
    with torch.no_grad():
        pipe.transformer(z, condition.positive["states"], torch.tensor([300, 300]), image_rotary_emb=rotary)
        for hook in hooks:
            hook.remove()
        found = backbone.features(z, 300, condition, ["transformer_blocks.2", "transformer_blocks.0"])
    for site in backbone.sites()[::2]:
        features = found[site.name]
        assert features.shape == (2, site.grid.frames, site.grid.channels, site.grid.height, site.grid.width)
        tokens = features.permute(0, 1, 3, 4, 2).flatten(1, 3)
        assert (tokens - seen[int(site.name[-1])]).abs().max() <= 1e-5


def test_features_stop_at_the_last_site_and_let_gradients_through(backbone):
    z = random(1, 3, 4, 8, 12).requires_grad_()
    condition = backbone.condition(["a"])
    blocks = backbone.parts.look("network").transformer_blocks
    ran = []
    hooks = [
        block.ff.register_forward_hook(lambda module, given, out, n=n: ran.append(n)) for n, block in enumerate(blocks)
    ]
    try:
        found = backbone.features(z, 300, condition, ["transformer_blocks.1"])["transformer_blocks.1"]
    finally:
        for hook in hooks:
            hook.remove()
    assert ran == [0, 1]
    (gradient,) = torch.autograd.grad(found.square().mean(), z)
    assert gradient.abs().sum() > 0
    with pytest.raises(ConfigError) as error:
        backbone.features(z, 300, condition, ["transformer_blocks.3"])
    assert error.value.code == "E274"


def test_replaced_attention_is_used_and_put_back(backbone):
    z, condition = random(1, 3, 4, 8, 12), backbone.condition(["a"])
    before = backbone.predict(z, 300, condition)
    model = backbone.parts.look("network")
    processors = dict(model.attn_processors)
    shapes = []

    def silent(attn, hidden_states, encoder_hidden_states, **others):
        shapes.append(tuple(hidden_states.shape))
        return torch.zeros_like(hidden_states), torch.zeros_like(encoder_hidden_states)

    with backbone.attention({"transformer_blocks.1.*": silent}):
        assert (backbone.predict(z, 300, condition).x0 - before.x0).abs().max() > 1e-4
    with pytest.raises(KeyError), backbone.attention({"*": silent}):
        raise KeyError
    assert shapes == [(1, 3 * 4 * 6, 32)]
    assert model.attn_processors == processors
    assert torch.equal(backbone.predict(z, 300, condition).x0, before.x0)


# ---- the causal autoencoder ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def causal():
    return backbone_of(small.pipeline())


@pytest.mark.parametrize("frames", [1, 5, 9, 21, 25, 33])
def test_chunks_encode_as_the_whole_clip_does(causal, frames):
    coder = causal.parts.look("vae")
    pixels = random(1, frames, 3, 16, 16).clamp(-1, 1)
    with torch.no_grad():
        whole = coder.encode(pixels.transpose(1, 2)).latent_dist.mode().transpose(1, 2) * coder.config.scaling_factor
    assert (causal.encode(pixels) - whole).abs().max() <= 1e-4
    assert whole.shape[1] == causal.grid(frames, 16, 16).frames


@pytest.mark.parametrize("count", [1, 3, 5, 13])
def test_chunks_decode_as_the_whole_clip_does(causal, count):
    coder, latents = causal.parts.look("vae"), random(1, count, 4, 4, 4)
    with torch.no_grad():
        whole = coder.decode(latents.transpose(1, 2) / coder.config.scaling_factor).sample.transpose(1, 2)
    assert (causal.decode(latents) - whole.clamp(-1, 1)).abs().max() <= 1e-4


@pytest.mark.parametrize("frames", [1, 5, 9, 13, 29])
def test_a_clip_comes_back_with_as_many_frames(causal, frames):
    """diffusers' own decoder makes 8 frames of the two latent frames of a clip of 5."""
    assert causal.decode(causal.encode(random(1, frames, 3, 16, 16).clamp(-1, 1))).shape == (1, frames, 3, 16, 16)


def test_an_even_count_of_latent_frames_begins_as_the_odd_one_before_it(causal):
    latents = random(1, 6, 4, 4, 4)
    assert torch.equal(causal.decode(latents)[:, :17], causal.decode(latents[:, :5]))


def test_no_chunk_is_longer_than_diffusers_own(causal):
    lengths = []
    hook = causal.parts.look("vae").encoder.register_forward_pre_hook(
        lambda m, given: lengths.append(given[0].shape[2])
    )
    try:
        causal.encode(torch.zeros(1, 61, 3, 8, 8))
    finally:
        hook.remove()
    assert lengths == [13, 8, 8, 8, 8, 8, 8]


def test_a_sample_of_the_posterior_depends_on_its_generator_alone(causal):
    pixels = random(1, 9, 3, 16, 16).clamp(-1, 1)
    first, again, other = (causal.encode(pixels, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, causal.encode(pixels))


def test_tiles_are_those_of_diffusers():
    tiled = backbone_of(small.pipeline())
    coder = tiled.parts.look("vae")
    coder.enable_tiling(tile_sample_min_height=16, tile_sample_min_width=24)
    pixels = random(1, 9, 3, 32, 48).clamp(-1, 1)
    with torch.no_grad():
        theirs = coder.encode(pixels.transpose(1, 2)).latent_dist.mode().transpose(1, 2) * coder.config.scaling_factor
        back = coder.decode(theirs.transpose(1, 2) / coder.config.scaling_factor).sample.transpose(1, 2)
    assert (tiled.encode(pixels) - theirs).abs().max() <= 1e-5
    assert (tiled.decode(theirs) - back.clamp(-1, 1)).abs().max() <= 1e-5


@pytest.mark.parametrize("clip", [(8, 32, 48), (9, 30, 48), (9, 36, 48)])
def test_clips_that_do_not_fit_are_refused(causal, clip):
    with pytest.raises(ConfigError) as error:
        causal.grid(*clip)
    assert error.value.code == "E272"


# ---- the small model that ships --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    folder, parts = small.save_embedded(tmp_path_factory.mktemp("embedded"))
    return load(Model(family="cogvideox", weights=str(folder), parts=str(parts), device="cpu"))


def test_frames_are_latent_frames_with_an_image_autoencoder(embedded):
    assert (embedded.time, embedded.space, embedded.channels) == (1, 4, 8)
    assert (embedded.frames, embedded.height, embedded.width) == (16, 64, 64)
    pixels = random(1, 16, 3, 64, 64).clamp(-1, 1)
    latents = embedded.encode(pixels)
    assert latents.shape == (1, *embedded.grid(16, 64, 64))
    assert embedded.decode(latents).shape == pixels.shape


def test_text_and_image_are_read_as_one_sequence(embedded):
    image = random(2, 3, 64, 64).clamp(-1, 1)
    both = embedded.condition(["a", "b"], image)
    words, picture = embedded.condition(["a", "b"]), embedded.condition(image=image)
    assert both.positive["states"].shape == (2, 8 + 5, 16)
    assert torch.equal(both.positive["states"][:, :8], words.positive["states"][:, :8])
    assert torch.equal(both.positive["states"][:, 8:], picture.positive["states"][:, 8:])
    assert not words.positive["states"][:, 8:].any()
    assert torch.equal(both.negative["states"], embedded.condition(["", ""]).positive["states"])
    z = random(2, 16, 8, 16, 16)
    found = [embedded.predict(z, 500, condition, guidance=3.0).x0 for condition in (both, words, picture)]
    assert (found[0] - found[1]).abs().max() > 1e-4
    assert (found[0] - found[2]).abs().max() > 1e-4


def test_a_model_of_text_alone_takes_no_picture(backbone):
    for inputs in ({"text": ["a"], "image": torch.zeros(1, 3, 32, 48)}, {}):
        with pytest.raises(ConfigError) as error:
            backbone.condition(**inputs)
        assert error.value.code == "E273"


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_size_t": 2},
        {"in_channels": 8},
        {"in_channels": 8, "out_channels": 8},
        {"use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True},
        {"temporal_compression_ratio": 1},
    ],
)
def test_variants_that_are_not_supported_are_refused(changes):
    parts = Parts({"network": small.transformer(**changes), "vae": small.causal_vae()})
    with pytest.raises(ConfigError) as error:
        CogVideoX(parts, Schedule(torch.linspace(0.99, 0, 10).double()))
    assert error.value.code == "E279"


@pytest.mark.parametrize("of", [load, load_coder])
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"in_channels": 8, "out_channels": 4, "use_learned_positional_embeddings": True}, "image-to-video"),
        ({"in_channels": 8, "out_channels": 4}, "image-to-video"),
        ({"in_channels": 8, "out_channels": 8, "patch_size_t": 2}, "1.5"),
    ],
)
def test_a_folder_of_such_a_variant_is_refused_for_what_it_is(tmp_path, of, changes, why):
    """Its channels do not fit its VAE either, which says nothing of the reason."""
    folder = small.save(tmp_path / "saved", rotary=True)
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ConfigError, match=why) as error:
        of(clip_of(folder))
    assert error.value.code == "E279"


# ---- folders ---------------------------------------------------------------------------------------------------------


def clip_of(folder, **changes) -> Model:
    size = {"frames": 9, "height": 32, "width": 48}
    return Model(family="cogvideox", weights=str(folder), device="cpu", **size, **changes)


def lora_of(pipe, folder):
    """A LoRA made as people make them: peft's layers on the transformer, saved by the pipeline."""
    from peft import LoraConfig, get_peft_model_state_dict

    pipe.transformer.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v", "to_out.0"]))
    layers = get_peft_model_state_dict(pipe.transformer)
    layers = {name: random(*value.shape, seed=5) * 0.3 for name, value in layers.items()}
    pipe.save_lora_weights(folder, transformer_lora_layers=layers)
    return folder


def test_a_folder_saved_by_diffusers_loads_by_path_with_a_lora(tmp_path):
    folder = small.save(tmp_path / "saved", rotary=True)
    lora = lora_of(small.pipeline(rotary=True), tmp_path / "lora")
    plain, adapted = load(clip_of(folder)), load(clip_of(folder, lora=str(lora), lora_scale=0.5))
    pipe = small.pipeline(rotary=True)
    z = random(1, 3, 4, 8, 12)
    settings = {"height": 32, "width": 48, "num_frames": 9, "num_inference_steps": 2, "guidance_scale": 6.0}
    made = []
    for backbone in (plain, adapted):
        if backbone is adapted:
            pipe.load_lora_weights(lora, adapter_name="own")
            pipe.set_adapters("own", 0.5)
        condition, latents = backbone.condition(["a b"]), z
        with torch.no_grad():
            for t, to in backbone.schedule.step_pairs(2):
                latents = backbone.schedule.step(*backbone.predict(latents, t, condition, 6.0), t, to)
        theirs = pipe("a b", latents=z.clone(), output_type="latent", max_sequence_length=6, **settings).frames
        assert (latents - theirs).abs().max() <= 1e-4
        made.append(latents)
    assert (made[0] - made[1]).abs().max() > 1e-3


def test_half_precision_stays_near_single(tmp_path):
    folder = small.save(tmp_path)
    z, t = random(1, 3, 4, 8, 12), torch.tensor([[100, 500, 999]])
    found = []
    for dtype in ("float32", "bfloat16"):
        backbone = load(clip_of(folder, dtype=dtype))
        found.append(backbone.predict(z, t, backbone.condition(["a b"]), guidance=2.0).x0)
    assert found[1].dtype == torch.float32
    assert (found[0] - found[1]).abs().mean() < 0.05 * found[0].abs().mean()
