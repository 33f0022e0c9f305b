"""The cost model: known operations, the published configurations, the table that plans read, and what stages take."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers import small_cogvideox as small

from retake.diffusion.cost import CONFIGURATIONS, measure, predict
from retake.diffusion.cost.meta_counter import tally
from retake.diffusion.model import Model
from retake.weights.catalogue import CATALOGUE

MODELS = Path(__file__).parent.parent / "params" / "model"
GIB = 2**30


def meta(*shape, dtype=torch.float16):
    return torch.empty(shape, device="meta", dtype=dtype)


# ---- following tensors -----------------------------------------------------------------------------------------------


def test_a_product_counts_its_operations_and_its_result():
    a, b = meta(64, 32), meta(32, 16)
    assert tally(lambda: a @ b, [a, b]) == (2 * 64 * 32 * 16, 2 * 64 * 16)


def test_what_is_let_go_no_longer_counts_and_views_never_do():
    def chain():
        x = meta(1000)  # 2 kB
        for _ in range(5):
            x = x.view(10, 100).t() + 1
            x = x.reshape(1000)
        return x

    assert tally(chain).peak <= 3 * 2000


def test_attention_makes_no_matrix_of_weights():
    q = meta(1, 2, 4096, 64)
    found = tally(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q), [q])
    assert found.flops == 2 * 2 * 2 * 4096 * 4096 * 64
    assert found.peak < 2 * q.numel() * 2 < 4096 * 4096
    mask = meta(1, 1, 4096, 4096)
    masked = tally(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask), [q, mask])
    assert masked.flops == found.flops


def test_a_gradient_keeps_what_it_will_need():
    layers = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(10))).to("meta").requires_grad_(False)
    x = meta(100, 64, dtype=torch.float32).requires_grad_()
    there = [x, *layers.parameters()]

    def work():
        y = x
        for layer in layers:
            y = torch.nn.functional.gelu(layer(y))
        return torch.autograd.grad(y.sum(), x)

    with torch.no_grad():
        forward = tally(lambda: layers(x), there)
    both, one = tally(work, there), x.numel() * 4
    assert both.flops == 2 * forward.flops
    assert forward.peak == 2 * one
    assert 10 * one <= both.peak <= 14 * one


# ---- the published configurations ------------------------------------------------------------------------------------

# Millions, as model cards, papers and the sizes of the published files have them.
KNOWN = {
    "sd15_unet": 859.52,
    "motion_v1_5_2": 453.2,
    "motion_v3": 417.1,
    "sd_vae": 83.65,
    "mimicbrush_unet": 859.55,
    "clip_l_text": 123.06,
    "openclip_h_image": 632.08,
    "openclip_h_text": 340.39,
    "unet3d": 1411,
    "cogvideox_2b": 1694,
    "cogvideox_5b": 5570,
    "cogvideox_2b_vae": 215.6,
    "cogvideox_5b_vae": 215.6,
    "t5_xxl_encoder": 4762,
}


def test_every_configuration_is_known():
    assert {file.stem for file in CONFIGURATIONS.glob("*.json")} == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_configurations_have_the_published_number_of_parameters(name):
    facts = measure.configuration(name)
    count = sum(parameter.numel() for parameter in measure.component(name).parameters())
    assert count == facts["parameters"]
    assert count / 1e6 == pytest.approx(KNOWN[name], rel=1e-3)
    assert facts["source"].startswith(("https://huggingface.co/", "https://github.com/"))


@pytest.mark.parametrize(
    ("name", "count", "site", "grid"),
    [
        ("animatediff", 30, "up_blocks.1", (16, 1280, 32, 32)),
        ("ivediff_sd15", 30, "up_blocks.1", (16, 1280, 21, 21)),
        ("zeroscope", 30, "up_blocks.1", (24, 1280, 20, 36)),
        ("cogvideox_2b", 30, "transformer_blocks.18", (13, 1920, 30, 45)),
        ("cogvideox_5b", 42, "transformer_blocks.41", (13, 3072, 30, 45)),
    ],
)
def test_sites_of_the_real_models(name, count, site, grid):
    backbone = measure.built(measure.PUBLISHED[name])
    sites = {one.name: one.grid for one in backbone.sites()}
    assert len(sites) >= count
    assert sites[site] == grid
    assert predict.table()[name].site in sites
    family = measure.adapter_of(measure.PUBLISHED[name].family)
    assert family.site(backbone.parts.look("network").config) == predict.table()[name].site


# What is tallied anew in the test, so that it stays short; of models that are not here, everything.
CHECKED = {
    "ivediff_sd15": ("text", "evaluation"),
    "modelscope": ("text",),
    "zeroscope": ("evaluation",),
    "cogvideox_2b": ("evaluation", "decode"),
    "cogvideox_5b": ("gradient",),
}


def found(name: str, *works) -> predict.Cost:
    return measure.cost(measure.known()[name], works)


@pytest.mark.parametrize("name", measure.known())
def test_the_table_is_what_the_models_cost(name):
    """After a change of an adapter: python -m retake.diffusion.cost.measure --write"""
    now, kept = found(name, *CHECKED.get(name, predict.WORKS)), predict.table()[name]
    assert dataclasses.replace(now, works=kept.works) == kept
    for work, tallied in now.works.items():
        assert tallied.flops == pytest.approx(kept.works[work].flops, rel=1e-6), work
        assert tallied.peak == pytest.approx(kept.works[work].peak, rel=0.02), work  # torch's own kernels may change


def test_the_table_holds_the_models_that_are_known():
    assert set(predict.table()) == set(measure.known())


@pytest.mark.parametrize(
    ("name", "resident", "offloaded", "teraflops"),
    [  # GiB with everything on the device, GiB with offload=model, and one evaluation of the network
        ("animatediff", (4.5, 7.5), (2.5, 5), (15, 20)),
        ("zeroscope", (5, 8), (2.5, 6), (19, 24)),
        # diffusers' documentation: 19 GB to decode, 36 GB without offload; here without cuDNN's workspaces.
        ("cogvideox_2b", (25, 34), (14, 19), (115, 125)),
        ("cogvideox_5b", (32, 42), (14, 19), (325, 340)),
    ],
)
def test_memory_and_operations_of_the_real_models(name, resident, offloaded, teraflops):
    one = predict.table()[name]
    works = (("text", 1), ("evaluation", 2), ("decode", 1), ("encode", 1))
    for offload, (low, high) in (("none", resident), ("model", offloaded)):
        assert low <= max(one.memory(work, offload, batch) for work, batch in works) / GIB <= high
    assert teraflops[0] <= one.works["evaluation"].flops / 1e12 <= teraflops[1]
    assert one.memory("evaluation", "sequential") < one.memory("evaluation", "model") < one.memory("evaluation")
    # Layer by layer comes the denoiser alone (loading/offload.py).
    for work in ("text", "decode"):
        assert one.memory(work, "sequential") == one.memory(work, "model")
    assert one.works["gradient"].peak > 1.5 * one.works["evaluation"].peak  # blocks are run again, not kept


def test_operations_of_the_transformer_are_those_of_its_products():
    """Tokens times twice the weights that every token meets, and joint attention of all tokens."""
    tokens, width, layers = 13 * 30 * 45 + 226, 3072, 42
    products = layers * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width)
    assert predict.table()["cogvideox_5b"].works["evaluation"].flops == pytest.approx(products, rel=0.01)


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_costs_what_its_configurations_say(tmp_path):
    folder, parts = small.save_embedded(tmp_path)
    made = measure.of_folder("cogvideox", folder, parts, frames=16, height=64, width=64, dtype="float32")
    assert made.states == 8 + 5
    one = measure.cost(made, ("evaluation", "gradient"))
    weights = sum(
        parameter.numel()
        for parameter in small.transformer(
            in_channels=8, out_channels=8, patch_size=4, temporal_compression_ratio=1, sample_frames=16
        ).parameters()
    )
    assert one.parameters["network"] == weights
    assert set(one.parameters) == {"network", "vae", "text_encoder", "image_encoder"}
    assert 0 < one.works["evaluation"].flops < one.works["gradient"].flops * 2


def test_a_prompt_is_as_long_as_the_configurations_say(tmp_path):
    """T5 has no positions to count: the transformer says what it reads."""
    folder, size = small.save(tmp_path), {"frames": 9, "height": 32, "width": 48}
    made = measure.of_folder("cogvideox", folder, **size, dtype="float32")
    assert made.states == 6
    short = measure.cost(made, ("text", "evaluation"))
    config = json.loads((folder / "transformer/config.json").read_text())
    for length, states in ((60, 60), (None, 226)):
        config["max_text_seq_length"] = length
        kept = {name: value for name, value in config.items() if value is not None}
        (folder / "transformer/config.json").write_text(json.dumps(kept))
        longer = measure.of_folder("cogvideox", folder, **size, dtype="float32")
        assert longer.states == states
    found = measure.cost(longer, ("text", "evaluation"))
    for work in ("text", "evaluation"):
        assert found.works[work].flops > short.works[work].flops


@pytest.mark.parametrize("name", measure.PUBLISHED)
def test_the_published_prompts_are_those_of_the_configurations(name):
    assert measure.PUBLISHED[name].states == measure.prompt_states(
        measure.PUBLISHED[name].family, measure.PUBLISHED[name].parts
    )


# ---- what stages take ------------------------------------------------------------------------------------------------


def model(**changes) -> Model:
    return Model(**yaml.safe_load((MODELS / "cogvideox_2b.yaml").read_text()) | changes)


def test_plans_read_the_table_without_torch():
    script = "import sys; from retake.diffusion.cost import predict; predict.table(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_operations_follow_steps_guidance_windows_and_refinements():
    one = predict.table()["cogvideox_2b"]
    asked = one.works["evaluation"].flops
    plain = predict.predicted(model(), "inversion", 49, steps=10)
    assert plain.evaluations == 10
    assert plain.flops == one.works["text"].flops + 10 * asked
    assert predict.predicted(model(), "inversion", 49, steps=10, iterations=3).evaluations == 40
    assert predict.predicted(model(), "inversion", 97, steps=10).evaluations == 20  # 25 latent frames in windows of 13
    assert predict.predicted(model(), "inversion", 97, steps=10, overlap=4).evaluations == 30
    edit = predict.predicted(model(), "edit", 49, steps=10, guidance=6.0)
    assert edit.evaluations == 20
    assert edit.flops == 2 * one.works["text"].flops + 20 * asked + one.works["decode"].flops
    assert (
        predict.predicted(model(), "edit", 49, steps=10, gradients=4).flops
        > predict.predicted(model(), "edit", 49, steps=10).flops
    )
    latents = predict.predicted(model(), "latents", 98)
    assert latents.evaluations == 0
    assert latents.flops == 2 * one.works["encode"].flops


def test_memory_follows_offload_batch_and_precision():
    offloaded = predict.predicted(model(), "inversion", 49)
    resident = predict.predicted(model(offload="none"), "inversion", 49)
    assert resident.memory - offloaded.memory > 3 * GIB
    assert predict.predicted(model(offload="none", dtype="float32"), "inversion", 49).memory > 1.9 * resident.memory
    assert predict.predicted(model(offload="none", batch=4), "inversion", 49) == resident  # one window alone
    assert predict.predicted(model(offload="none", batch=4), "inversion", 490).memory > resident.memory + 2 * GIB
    gradients = predict.predicted(model(), "edit", 49, gradients=1)
    assert gradients.flops > predict.predicted(model(), "edit", 49).flops
    assert gradients.memory >= predict.predicted(model(), "edit", 49).memory


@pytest.mark.parametrize("changes", [{"name": "mine"}, {"height": 240}, {"frames": 25}, {"family": "unet3d"}])
def test_what_was_not_tallied_is_unknown(changes):
    assert predict.predicted(model(**changes), "edit", 49) is None


def sentence(found: predict.Cost) -> str:
    """The memory of an edit in words, as the files of params/model/ say it."""

    def most(offload: str) -> float:
        works: tuple[tuple[predict.Work, int], ...] = (("text", 1), ("encode", 1), ("evaluation", 2), ("decode", 1))
        return max(found.memory(work, offload, clips) for work, clips in works) / 2**30

    return f"{most('none'):.1f} GiB in {found.dtype}, {most('model'):.1f} with offload=model (predicted)."


@pytest.mark.parametrize("file", sorted(MODELS.glob("*.yaml")), ids=lambda file: file.stem)
def test_models_of_the_settings_have_their_cost_and_say_it(file):
    text = file.read_text()
    chosen = Model(**yaml.safe_load(text))
    assert chosen.name == file.stem
    if file.stem.startswith("embedded"):
        return
    one = predict.table()[chosen.name]
    assert (one.family, one.frames, one.height, one.width, one.dtype) == (
        chosen.family, chosen.frames, chosen.height, chosen.width, chosen.dtype
    )  # fmt: skip
    assert sentence(one) in " ".join(text.replace("\n#", "").split())
    for reference in (chosen.weights, chosen.motion):
        assert reference is None or f"retake weights {reference}" in text


@pytest.mark.parametrize("name", ["modelscope", "zeroscope", "cogvideox_2b", "cogvideox_5b"])
def test_downloads_are_as_large_as_their_parameters(name):
    size = 4 if name == "modelscope" else 2
    parameters = sum(predict.table()[name].parameters.values())
    assert CATALOGUE[name].megabytes * 1e6 == pytest.approx(parameters * size, rel=0.01)


def test_animatediff_is_two_downloads():
    motion = json.loads((CONFIGURATIONS / "motion_v1_5_2.json").read_text())["parameters"]
    rest = sum(predict.table()["animatediff"].parameters.values()) - motion
    assert CATALOGUE["stable_diffusion_v1_5"].megabytes * 1e6 == pytest.approx(4 * rest, rel=0.01)
    assert CATALOGUE["animatediff_v1_5_2"].megabytes * 1e6 == pytest.approx(4 * motion, rel=0.01)
