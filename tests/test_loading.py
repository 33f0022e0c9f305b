"""Models by path: what diffusers saves loads, with LoRA, IP-Adapter and own checkpoints; what is wrong is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from helpers import small_diffusion as small
from helpers.command import CHECKOUT
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from retake.diffusion.backbone import Backbone, Condition
from retake.diffusion.loading.load import load, load_coder
from retake.diffusion.loading.offload import Parts
from retake.diffusion.model import Model, Noise, weights_of
from retake.errors import ConfigError, RetakeError
from retake.params import keyed_params


@pytest.fixture(scope="module")
def animatediff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.save_animatediff(tmp_path_factory.mktemp("animatediff"))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.save_embedded_like(tmp_path_factory.mktemp("embedded"))


@pytest.fixture(scope="module")
def modelscope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.save_modelscope(tmp_path_factory.mktemp("modelscope"))


@pytest.fixture
def copy(tmp_path: Path, embedded: Path) -> Path:
    """A folder to spoil."""
    shutil.copytree(embedded, tmp_path / "model")
    return tmp_path / "model"


def opened(weights: Path, **more: object) -> Backbone:
    return load(Model(**small.settings(weights, **more)))


@cache
def plain(weights: Path) -> Backbone:
    """A model as it comes, loaded once for all who only compare with it."""
    return opened(weights)


def latents() -> torch.Tensor:
    return torch.randn(1, 8, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def eps(backbone: Backbone, condition: Condition | None = None) -> torch.Tensor:
    with torch.no_grad():
        return backbone.predict(latents(), 600, condition or backbone.condition(["red"])).eps


def refused(ask: Callable[[], object]) -> RetakeError:
    with pytest.raises(RetakeError) as refusal:
        ask()
    assert refusal.value.hint
    return refusal.value


# ---- settings ------------------------------------------------------------------------------------------------------


def test_settings_need_no_torch() -> None:
    code = "import sys; from retake.diffusion.model import Model; Model(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True)


def test_references_by_role() -> None:
    assert weights_of(Model()) == {"weights": "embedded"}
    model = Model(weights="a", parts="b", motion="c", image_adapter="d", lora="e", checkpoint="f")
    assert list(weights_of(model).values()) == ["a", "b", "c", "d", "e", "f"]


def test_how_it_runs_is_no_part_of_a_key() -> None:
    same = Model(name="mine", device="cpu", offload="model", batch=4)
    keyed = [keyed_params(model, str) for model in (Model(), same, Model(schedule=Noise(spacing="trailing")))]
    assert keyed[0] == keyed[1] != keyed[2]


@pytest.mark.parametrize(
    "wrong",
    [{"family": "unet3d", "motion": "x"}, {"family": "cogvideox", "image_adapter": "x"}, {"frames": 0}, {"size": 3}],
)
def test_settings_that_contradict_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Model(**wrong)


# ---- what loads ----------------------------------------------------------------------------------------------------


def test_folders_of_one_model_are_one_model(animatediff: Path, embedded: Path, tmp_path: Path) -> None:
    """Saved whole by a pipeline, as an image model with its adapter, or with the parts or the adapter elsewhere."""
    whole = eps(plain(animatediff))
    bare = small.save_embedded_like(tmp_path / "bare", joint=False)
    assert torch.equal(eps(opened(bare)), whole)
    shutil.copytree(bare, tmp_path / "parts")
    for role in ("unet", "motion_adapter"):
        shutil.rmtree(tmp_path / "parts" / role)
        shutil.move(bare / role, tmp_path / "net" / role)
    assert torch.equal(eps(opened(tmp_path / "net", parts=str(tmp_path / "parts"))), whole)
    shutil.move(tmp_path / "net/motion_adapter", tmp_path / "adapter")
    net = {"parts": str(tmp_path / "parts"), "motion": str(tmp_path / "adapter")}
    assert torch.equal(eps(opened(tmp_path / "net", **net)), whole)
    assert (eps(plain(embedded)) - whole).abs().max() > 1e-4  # it also reads an image: 17 states more


def test_the_older_names_of_a_vaes_attention_load(copy: Path, embedded: Path) -> None:
    """Stable Diffusion 1.5's own VAE has them."""
    (path,) = (copy / "vae").glob("*.safetensors")
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(name: str) -> str:
        for new, old in older.items():
            name = name.replace(f"mid_block.attentions.0.{new}.", f"mid_block.attentions.0.{old}.")
        return name

    state = {renamed(name): value.clone() for name, value in load_file(path).items()}
    assert any("proj_attn" in name for name in state)
    save_file(state, path)
    pixels = torch.rand(1, 2, 3, 32, 32)
    assert torch.equal(opened(copy).encode(pixels), plain(embedded).encode(pixels))


def test_loading_says_nothing(
    embedded: Path,
    animatediff: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = image_adapter(tmp_path / "ip")
    capfd.readouterr()
    caplog.clear()
    opened(embedded)
    opened(animatediff, dtype="bfloat16", image_adapter=str(folder))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_another_motion_adapter_replaces_a_networks_own(animatediff: Path, tmp_path: Path) -> None:
    small.motion(seed=99).save_pretrained(tmp_path)
    assert (eps(opened(animatediff, motion=str(tmp_path))) - eps(plain(animatediff))).abs().max() > 1e-4


def test_schedule_is_the_weights_own_with_changes(animatediff: Path) -> None:
    plain, changed = opened(animatediff).schedule, opened(animatediff, schedule={"spacing": "trailing"}).schedule
    assert (plain.spacing, changed.spacing) == ("leading", "trailing")
    assert torch.equal(plain.alphas_cumprod, changed.alphas_cumprod)
    more = {"zero_terminal_snr": True, "prediction": "v_prediction", "beta_schedule": "linear"}
    other = opened(animatediff, schedule=more).schedule
    assert other.alphas_cumprod[-1] == 0
    assert other.prediction == "v_prediction"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(animatediff: Path, dtype: str) -> None:
    backbone, exact = opened(animatediff, dtype=dtype), opened(animatediff)
    assert next(backbone.parts.look("network").parameters()).dtype == getattr(torch, dtype) == backbone.dtype
    assert eps(backbone).dtype == torch.float32
    assert (eps(backbone) - eps(exact)).abs().max() < 0.05


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offload_changes_nothing_without_a_gpu(animatediff: Path, offload: str) -> None:
    assert torch.equal(eps(opened(animatediff, offload=offload)), eps(plain(animatediff)))


def test_an_outline_has_nothing_to_bring_layer_by_layer() -> None:
    """What `load_coder` makes of a network, with an offload that only a GPU has."""
    with torch.device("meta"):
        network = small.unet2d()
    parts = Parts({"network": network, "tokenizer": "words"}, "meta", offload="sequential")
    assert parts.offload == "sequential"
    assert parts.look("network") is parts.use("network") is network


def test_nothing_of_a_random_state_is_used(animatediff: Path) -> None:
    before = torch.random.get_rng_state()
    opened(animatediff)
    assert torch.equal(torch.random.get_rng_state(), before)


# ---- LoRA ----------------------------------------------------------------------------------------------------------


def lora(pipeline, path: Path, targets: str, network=None) -> Path:
    """A LoRA of rank 3 with random weights, made with peft and saved by the pipeline's own class."""
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

    network = network or pipeline.unet
    network = inject_adapter_in_model(LoraConfig(r=3, lora_alpha=6, target_modules=targets), network)
    generator = torch.Generator().manual_seed(7)
    layers = {
        name: torch.randn(w.shape, generator=generator) * 0.3 for name, w in get_peft_model_state_dict(network).items()
    }
    assert layers
    pipeline.save_lora_weights(path, unet_lora_layers=layers)
    return path


@pytest.mark.parametrize("targets", [r".*attentions.*to_[qv]", r".*motion_modules.*to_[kv]"], ids=["image", "motion"])
def test_lora_is_diffusers(animatediff: Path, tmp_path: Path, targets: str) -> None:
    folder = lora(small.animatediff(), tmp_path / "lora", targets)
    pipeline = small.animatediff()
    pipeline.load_lora_weights(folder, adapter_name="x")
    pipeline.set_adapters("x", 0.7)
    merged = opened(animatediff, lora=str(folder), lora_scale=0.7)
    condition = merged.condition(["red"])
    with torch.no_grad():
        states = condition.positive["states"].repeat_interleave(8, dim=0)
        theirs = pipeline.unet(latents().transpose(1, 2), 600, encoder_hidden_states=states).sample.transpose(1, 2)
    found, plain = eps(merged, condition), eps(opened(animatediff), condition)
    assert (found - theirs).abs().max() < 1e-5
    assert (found - plain).abs().max() > 1e-3
    assert torch.equal(eps(opened(animatediff, lora=str(folder), lora_scale=0.0), condition), plain)
    one = next(folder.glob("*.safetensors"))
    assert torch.equal(eps(opened(animatediff, lora=str(one), lora_scale=0.7), condition), found)
    assert not any("lora" in name for name, _ in merged.network.named_modules())
    assert type(merged.network).__name__ == "UNetMotionModel"


def test_lora_of_a_3d_unet(modelscope: Path, tmp_path: Path) -> None:
    from diffusers import UNet3DConditionModel

    folder = lora(small.animatediff(), tmp_path / "lora", r".*attentions.*to_[qv]", small.unet3d())
    settings = {"family": "unet3d", "lora_scale": 0.5}
    merged, plain = opened(modelscope, lora=str(folder), **settings), opened(modelscope, **settings)
    assert type(merged.network) is UNet3DConditionModel
    state = load_file(next(folder.glob("*.safetensors")))
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
    down, up = (state[f"unet.{name}.lora_{half}.weight"] for half in "AB")
    expected = plain.network.get_submodule(name).weight + 0.5 * up @ down  # saved without alpha: it counts as the rank
    assert (merged.network.get_submodule(name).weight - expected).abs().max() < 1e-6
    assert (eps(merged) - eps(plain)).abs().max() > 1e-4


def test_loras_that_do_not_fit(animatediff: Path, modelscope: Path, tmp_path: Path) -> None:
    for name, state in {
        "shape": {
            f"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.lora_{half}.weight": torch.ones(shape)
            for half, shape in (("A", (3, 999)), ("B", (999, 3)))
        },
        "other": {f"unet.nowhere.to_q.lora_{half}.weight": torch.ones(3, 3) for half in "AB"},
        "none": {"something": torch.ones(3)},
    }.items():
        save_file(state, tmp_path / f"{name}.safetensors")
        for folder, family in ((animatediff, "unet_motion"), (modelscope, "unet3d")):
            model = Model(**small.settings(folder, family=family, lora=str(tmp_path / f"{name}.safetensors")))
            assert refused(partial(load, model)).code == "E287", name
    torch.save({"x": torch.ones(1)}, tmp_path / "lora.bin")
    assert refused(lambda: opened(animatediff, lora=str(tmp_path / "lora.bin"))).code == "E282"
    assert refused(lambda: opened(animatediff, lora=str(tmp_path))).code == "E281"  # three of them


def test_loras_that_fit_in_part_are_refused_with_what_does_not(
    animatediff: Path, modelscope: Path, tmp_path: Path
) -> None:
    """diffusers takes what fits, and says the rest in its log."""
    from diffusers import UNet2DConditionModel

    deeper = UNet2DConditionModel.from_config(dict(small.unet2d().config) | {"layers_per_block": 2})
    folder = lora(small.animatediff(), tmp_path / "deeper", r".*attentions.*to_[qv]", deeper)
    names = list(load_file(next(folder.glob("*.safetensors"))))
    there = {f"unet.{name}" for name, _ in small.unet_motion().named_modules()}
    beyond = [name for name in names if name.partition(".lora_")[0] not in there]
    assert 0 < len(beyond) < len(names)
    error = refused(lambda: opened(animatediff, lora=str(folder)))
    assert error.code == "E287"
    assert f"{len(beyond)} of its {len(names)} weights have no place" in error.message
    assert any(name in error.message for name in beyond)

    video = lora(small.animatediff(), tmp_path / "video", r".*attentions.*to_[qv]", small.unet3d())
    error = refused(lambda: opened(animatediff, lora=str(video)))
    assert error.code == "E287"
    assert "temp_attentions" in error.message
    motion = lora(small.animatediff(), tmp_path / "motion", r".*motion_modules.*to_[kv]", small.unet_motion())
    error = refused(lambda: opened(modelscope, family="unet3d", lora=str(motion)))
    assert error.code == "E287"
    assert "none of its" in error.message
    assert "motion_modules" in error.message


def without_a_factor(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if "attn1.to_q.lora_A" not in name}


def with_scales(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return state | {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.dora_scale": torch.ones(16)}


def with_another_encoder(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    own = "encoder.layers.0.self_attn.q_proj.lora_A.weight"
    return state | {f"text_encoder_2.{own}": torch.ones(3, small.WIDTH)}


def with_words_too_deep(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    own = "text_encoder.text_model.encoder.layers.{}.self_attn.q_proj.lora_{}.weight"
    return state | {
        own.format(layer, half): torch.ones(shape)
        for layer in (1, 9)
        for half, shape in (("A", (3, small.WIDTH)), ("B", (small.WIDTH, 3)))
    }


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_a_factor, "layers lack a factor"),
        (with_scales, "attn1.to_q.dora_scale"),
        (with_another_encoder, "text_encoder_2.encoder.layers.0"),
        (with_words_too_deep, "text_encoder.encoder.layers.9"),
    ],
)
def test_loras_of_which_something_would_be_left_out(
    animatediff: Path, tmp_path: Path, spoil: Callable, said: str
) -> None:
    folder = lora(small.animatediff(), tmp_path / "lora", r".*attentions.*to_[qv]")
    file = next(folder.glob("*.safetensors"))
    state = {name: value.clone() for name, value in load_file(file).items()}
    save_file(spoil(state), file)
    error = refused(lambda: opened(animatediff, lora=str(file)))
    assert error.code == "E287"
    assert said in error.message


@pytest.mark.parametrize("form", ["older", "kohya"])
def test_loras_in_other_formats_are_the_same_lora(animatediff: Path, tmp_path: Path, form: str) -> None:
    """Of network and text encoder: as diffusers saved them before peft, and as kohya's trainer saves them."""
    folder = lora(small.animatediff(), tmp_path / "lora", r".*attentions.*to_[qv]")
    file = next(folder.glob("*.safetensors"))
    words = "text_encoder.encoder.layers.1.self_attn.{}_proj.lora_{}.weight"
    shapes = {"A": (3, small.WIDTH), "B": (small.WIDTH, 3)}
    state = {name: value.clone() for name, value in load_file(file).items()}
    state |= {words.format(layer, half): torch.full(shapes[half], 0.1) for layer in ("q", "out") for half in "AB"}
    save_file(state, file)

    def renamed(name: str) -> str:
        half = "down" if "lora_A" in name else "up"
        part, _, layer = name.rpartition(".lora_")[0].partition(".")
        layer = layer if part == "unet" else f"text_model.{layer}"
        if form == "kohya":
            prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[part]
            return f"{prefix}{layer.replace('.', '_')}.lora_{half}.weight"
        return f"{part}.{layer}.{'lora' if part == 'unet' else 'lora_linear_layer'}.{half}.weight"

    other = tmp_path / f"{form}.safetensors"
    save_file({renamed(name): value for name, value in state.items()}, other)
    one, two = (opened(animatediff, lora=str(path)) for path in (file, other))
    assert torch.equal(eps(one), eps(two))
    assert (eps(one) - eps(plain(animatediff))).abs().max() > 1e-3


# ---- IP-Adapter ----------------------------------------------------------------------------------------------------


def image_adapter(path: Path, width: int = small.WIDTH) -> Path:
    """An IP-Adapter with random weights for the tiny U-Net: 4 tokens of a 12-wide image embedding."""
    generator = torch.Generator().manual_seed(11)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.5

    state = {
        "image_proj.proj.weight": random(4 * width, 12),
        "image_proj.proj.bias": random(4 * width),
        "image_proj.norm.weight": random(width),
        "image_proj.norm.bias": random(width),
    }
    network = small.unet_motion()
    read = [name for name in network.attn_processors if "attn2" in name and "motion" not in name]
    for i, name in enumerate(read):
        hidden = network.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for half in "kv":
            state[f"ip_adapter.{2 * i + 1}.to_{half}_ip.weight"] = random(hidden, width)
    path.mkdir(parents=True)
    save_file(state, path / "ip-adapter.safetensors")
    small.image_encoder(projected=True).save_pretrained(path / "image_encoder")
    return path


def test_image_adapter_is_diffusers(animatediff: Path, tmp_path: Path) -> None:
    folder = image_adapter(tmp_path / "ip")
    backbone = opened(animatediff, image_adapter=str(folder))
    image = torch.rand(1, 3, small.SIZE, small.SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    condition = backbone.condition(["red"], image)

    state: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in load_file(folder / "ip-adapter.safetensors").items():
        head, _, rest = name.partition(".")
        state[head][rest] = value
    pipeline = small.animatediff()
    pipeline.load_ip_adapter(state, subfolder="", weight_name="", image_encoder_folder=None)
    from transformers import CLIPImageProcessor

    pixels = (image[0] / 2 + 0.5).permute(1, 2, 0).numpy()
    ready = CLIPImageProcessor(size={"shortest_edge": small.SIZE}, crop_size=small.SIZE, do_rescale=False)(
        images=pixels, return_tensors="pt", input_data_format="channels_last"
    ).pixel_values
    with torch.no_grad():
        embedded = small.image_encoder(projected=True)(ready).image_embeds
        expected = pipeline.unet(
            latents().transpose(1, 2),
            600,
            encoder_hidden_states=condition.positive["states"].repeat_interleave(8, dim=0),
            added_cond_kwargs={"image_embeds": [embedded[:, None]]},
        ).sample.transpose(1, 2)
    assert (eps(backbone, condition) - expected).abs().max() < 1e-5
    # Without an image the adapter is silent, and the model is the one without it.
    assert (eps(backbone) - eps(plain(animatediff))).abs().max() < 1e-6
    assert (eps(backbone, condition) - eps(backbone)).abs().max() > 1e-3
    with torch.no_grad():
        assert torch.isfinite(backbone.predict(latents(), 600, condition, 5.0).eps).all()
    only = backbone.condition(image=image)
    assert only.positive["image"].shape == (1, 1, 12)
    assert [site.name for site in backbone.sites()] == [site.name for site in plain(animatediff).sites()]
    assert not backbone.joint


def test_the_image_encoder_beside_an_adapter_is_part_of_the_key(tmp_path: Path) -> None:
    folder = image_adapter(tmp_path / "models" / "ip")
    file = folder / "ip-adapter.safetensors"
    for reference in (folder, file):
        assert weights_of(Model(image_adapter=str(reference)))["image_encoder"] == str(folder / "image_encoder")
    shutil.move(folder / "image_encoder", folder.parent)
    for reference in (folder, file):
        assert weights_of(Model(image_adapter=str(reference)))["image_encoder"] == str(folder.parent / "image_encoder")
    shutil.rmtree(folder.parent / "image_encoder")
    assert "image_encoder" not in weights_of(Model(image_adapter=str(file)))


def test_image_adapters_that_do_not_fit(animatediff: Path, tmp_path: Path) -> None:
    wrong = image_adapter(tmp_path / "wide", width=24)
    assert refused(lambda: opened(animatediff, image_adapter=str(wrong))).code == "E288"
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.ones(1)}, other)
    assert refused(lambda: opened(animatediff, image_adapter=str(other))).code == "E288"
    alone = image_adapter(tmp_path / "alone")
    shutil.rmtree(alone / "image_encoder")
    assert refused(lambda: opened(animatediff, image_adapter=str(alone))).code == "E281"


# ---- own checkpoints -----------------------------------------------------------------------------------------------


def test_checkpoint_lies_over_the_network(embedded: Path, tmp_path: Path) -> None:
    trained = {name: value + 0.01 for name, value in plain(embedded).network.state_dict().items()}
    save_file(trained, tmp_path / "all.safetensors")
    part = {name: value for name, value in trained.items() if "motion_modules" in name}
    (tmp_path / "part").mkdir()
    save_file(part, tmp_path / "part/model.safetensors")
    whole = opened(embedded, checkpoint=str(tmp_path / "all.safetensors"))
    some = opened(embedded, checkpoint=str(tmp_path / "part"))
    assert all(torch.equal(value, trained[name]) for name, value in whole.network.state_dict().items())
    for name, value in some.network.state_dict().items():
        assert torch.equal(value, trained[name]) == (name in part), name


def test_checkpoints_that_do_not_fit(embedded: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    for state in ({"conv_in.weight": torch.ones(16, 9, 3, 3)}, {"conv_inn.weight": torch.ones(3)}):
        save_file(state, path)
        error = refused(lambda: opened(embedded, checkpoint=str(path)))
        assert error.code == "E286"
        assert next(iter(state)) in error.message
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 damaged")
    assert refused(lambda: opened(embedded, checkpoint=str(path))).code == "E289"
    torch.save({}, tmp_path / "c.pt")
    assert refused(lambda: opened(embedded, checkpoint=str(tmp_path / "c.pt"))).code == "E282"


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_weights_that_are_not_here() -> None:
    error = refused(lambda: load(Model(weights="nobody/nothing")))
    assert error.code == "E302"
    assert "retake weights nobody/nothing" in error.hint


def test_wrong_folders(tmp_path: Path, animatediff: Path, modelscope: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    for folder in ("empty", "file.txt"):
        assert refused(partial(opened, tmp_path / folder)).code == "E280"
    assert refused(lambda: opened(animatediff, family="cogvideox")).code == "E280"
    assert "UNet3DConditionModel" in refused(lambda: opened(modelscope)).message
    error = refused(lambda: opened(animatediff, family="unet3d"))
    assert error.code == "E280"
    assert "UNetMotionModel" in error.message


@pytest.mark.parametrize("role", ["vae", "text_encoder", "tokenizer", "scheduler", "motion_adapter"])
def test_missing_components(copy: Path, role: str) -> None:
    shutil.rmtree(copy / role)
    error = refused(lambda: opened(copy))
    assert error.code == "E281"
    assert role.replace("_", " ") in error.message.replace("_", " ")


@pytest.mark.parametrize("role", ["unet", "vae", "text_encoder", "image_encoder", "motion_adapter"])
def test_pickled_weights_are_refused_with_their_name(copy: Path, role: str) -> None:
    (found,) = (copy / role).glob("*.safetensors")
    torch.save(load_file(found), found.with_suffix(".bin"))
    found.unlink()
    error = refused(lambda: opened(copy))
    assert error.code == "E282"
    assert f"{role}/{found.stem}.bin" in error.message
    (copy / role / f"{found.stem}.bin").unlink()
    assert refused(lambda: opened(copy)).code == "E281"


CODE = "import pathlib; pathlib.Path('was_run').touch()\nclass Mine: pass\n"


@pytest.mark.parametrize(
    ("file", "change", "code"),
    [
        ("unet/config.json", {"auto_map": {"AutoModel": "mine.Mine"}}, "E263"),
        ("vae/config.json", {"auto_map": {"AutoModel": "mine.Mine"}}, "E263"),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "mine.Mine"}}, "E263"),
        ("image_encoder/config.json", {"auto_map": {"AutoModel": "mine.Mine"}}, "E263"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}}, "E263"),
        ("unet/config.json", {"_class_name": "Mine"}, "E283"),
        ("unet/config.json", {"_class_name": ["mine", "Mine"]}, "E283"),
        ("vae/config.json", {"_class_name": "AsymmetricAutoencoderKL"}, "E283"),
        ("text_encoder/config.json", {"architectures": ["Mine"]}, "E283"),
        ("tokenizer/tokenizer_config.json", {"tokenizer_class": "Mine"}, "E283"),
        ("model_index.json", {"_class_name": ["mine", "Mine"]}, "E283"),
        ("model_index.json", {"_class_name": "AnimateDiffPipeline", "unet": ["mine", "Mine"]}, "E283"),
        ("model_index.json", {"_class_name": "AnimateDiffPipeline", "unet": ["mine", "UNetMotionModel"]}, "E283"),
        ("model_index.json", {"_class_name": "AnimateDiffPipeline", "vae": ["transformers", "AutoencoderKL"]}, "E283"),
    ],
)
def test_code_that_comes_with_weights_is_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch, file: str, change: dict, code: str
) -> None:
    monkeypatch.chdir(copy)
    for folder in (copy, (copy / file).parent):
        (folder / "mine.py").write_text(CODE)
    path = copy / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | change))
    assert refused(lambda: opened(copy)).code == code
    assert not list(copy.rglob("was_run"))
    assert "mine" not in sys.modules


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"in_channels": "four"}', "{}"])
def test_damaged_configurations(copy: Path, text: str) -> None:
    for file in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        before = (copy / file).read_text() if (copy / file).is_file() else None
        (copy / file).write_text(text)
        if file.startswith("scheduler") and text in ("{}", '{"in_channels": "four"}'):
            opened(copy)  # a schedule of nothing but defaults
        else:
            assert refused(lambda: opened(copy)).code in ("E280", "E283", "E289")
        (copy / file).unlink() if before is None else (copy / file).write_text(before)


def test_damaged_and_incomplete_weights(copy: Path) -> None:
    (path,) = (copy / "unet").glob("*.safetensors")
    state = {name: value.clone() for name, value in load_file(path).items()}  # load_file maps what is overwritten here
    path.write_bytes(path.read_bytes()[:1000])
    assert refused(lambda: opened(copy)).code == "E289"
    save_file({name: value for name, value in state.items() if name != "conv_in.weight"}, path)
    error = refused(lambda: opened(copy))
    assert error.code == "E289"
    save_file(state | {"conv_in.weight": torch.ones(16, 9, 3, 3)}, path)
    assert refused(lambda: opened(copy)).code == "E289"
    save_file(state, path)
    (path,) = (copy / "text_encoder").glob("*.safetensors")
    state = {name: value.clone() for name, value in load_file(path).items()}
    save_file(dict(list(state.items())[1:]), path, metadata={"format": "pt"})
    assert refused(lambda: opened(copy)).code in ("E262", "E289")


def test_parts_that_do_not_go_together(tmp_path: Path) -> None:
    channels = small.save_embedded_like(tmp_path / "channels", vae=small.vae(channels=8))
    error = refused(lambda: opened(channels))
    assert error.code == "E284"
    assert "8 channels" in error.message
    width = small.save_embedded_like(tmp_path / "width", text_encoder=small.text_encoder(width=32))
    error = refused(lambda: opened(width))
    assert error.code == "E285"
    assert "32" in error.message
    from diffusers import MotionAdapter

    other = MotionAdapter(block_out_channels=(16, 32, 32), motion_layers_per_block=1, motion_norm_num_groups=4)
    blocks = small.save_embedded_like(tmp_path / "blocks", motion_adapter=other)
    assert refused(lambda: opened(blocks)).code == "E289"


@pytest.mark.parametrize("size", [{"height": 30}, {"width": 34}, {"frames": 17}])
def test_clip_sizes_that_the_model_cannot_take(embedded: Path, size: dict) -> None:
    assert refused(lambda: opened(embedded, **size)).code == "E272"


def test_unknown_schedules(copy: Path) -> None:
    path = copy / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_schedule": "sigmoid"}))
    error = refused(lambda: opened(copy))
    assert isinstance(error, ConfigError)
    assert error.code == "E276"


@pytest.mark.parametrize("family", ["unet_motion", "unet3d"])
def test_a_coder_reads_the_autoencoder_and_no_network(tmp_path, family):
    save = small.save_animatediff if family == "unet_motion" else small.save_modelscope
    model = Model(family=family, **small.settings(save(tmp_path / "model")))
    pixels = torch.rand(1, 5, 3, small.SIZE, small.SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = load(model).encode(pixels)
    for weights in (tmp_path / "model" / "unet").glob("*.safetensors"):
        weights.unlink()
    coder = load_coder(model)
    assert torch.equal(coder.encode(pixels), wanted)
    assert torch.isfinite(coder.decode(wanted)).all()
    with pytest.raises(ConfigError, match="E281"):
        load(model)


def test_a_coder_of_another_models_autoencoder_is_refused(tmp_path):
    path = small.save_embedded_like(tmp_path / "model", vae=small.vae(channels=6))
    with pytest.raises(ConfigError, match="E284"):
        load_coder(Model(**small.settings(path)))
