"""Networks of metrics: the genuine classes at small size through the loading code, and weights that cannot be."""

from __future__ import annotations

import importlib.util
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.scored import H, W, box, pictures, run

from retake.errors import ConfigError, MachineError
from retake.metrics import (
    cass,
    clip_score,
    consistency,
    dynamics,
    fid,
    lpips,
    smoothness,
    ssim,
    temporal_consistency,
)
from retake.networks import checkpoint, clip, dino, inception, interpolation
from retake.networks import lpips as lpips_network
from retake.weights.catalogue import CATALOGUE

# Genuine classes, small, with random weights, through the loading code


def test_clip_is_the_genuine_one_with_its_own_processor(clip_folder):
    import torch
    from transformers import CLIPModel, CLIPProcessor

    network, frames = clip.load(str(clip_folder), "cpu"), pictures()
    model, processor = CLIPModel.from_pretrained(clip_folder), CLIPProcessor.from_pretrained(clip_folder)
    inputs = processor(
        text=["a b", "c"], images=list(frames), return_tensors="pt", padding=True, input_data_format="channels_last"
    )
    with torch.inference_mode():
        expected = model(**inputs)
    for ours, theirs in (
        (network.images(frames), expected.image_embeds),
        (network.texts(["a b", "c"]), expected.text_embeds),
    ):
        unit = ours / np.linalg.norm(ours, axis=1, keepdims=True)
        np.testing.assert_allclose(unit, theirs.numpy(), atol=1e-6)
        assert abs(np.linalg.norm(ours, axis=1) - 1).max() > 0.01  # not normalised
    assert network.name == f"CLIP {clip_folder.name}"
    one_by_one = np.concatenate([network.images(frames[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(network.images(frames), one_by_one, atol=1e-5)
    assert not np.allclose(network.texts(["a"]), network.texts(["b"]), atol=1e-3)
    assert network.texts(["a b c d e f a b c d e f"]).shape == (1, 16)  # longer than its 8 places: cut


def without_antialiasing(frames: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    import torch

    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    found = torch.nn.functional.interpolate(pixels, size, mode=mode, align_corners=False, antialias=False)
    return found.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def test_vbench_prepares_as_the_processor_does_where_nothing_is_resized(clip_folder):
    plain, other = (clip.load(str(clip_folder), "cpu", preparation) for preparation in ("processor", "vbench"))
    same, larger = pictures(2, 32, 40), pictures(2, 96, 120)
    np.testing.assert_allclose(plain.images(same), other.images(same), atol=1e-5)
    resized = without_antialiasing(larger, (32, 40), "bicubic")
    np.testing.assert_allclose(other.images(larger), other.images(resized), atol=1e-5)
    assert np.abs(plain.images(larger) - other.images(larger)).max() > 1e-3
    assert "VBench" in other.name
    assert "VBench" not in plain.name


def test_dino_sees_the_whole_frame_at_a_short_side_of_its_own_size(dino_folder):
    import torch
    from transformers import ViTModel

    network, model = dino.load(str(dino_folder), "cpu"), ViTModel.from_pretrained(dino_folder, add_pooling_layer=False)
    frames = pictures(2, 32, 48)  # nothing to resize, 4 x 6 patches
    mean, std = np.array(dino.MEAN, np.float32), np.array(dino.STD, np.float32)
    pixels = torch.from_numpy((frames.astype(np.float32) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]
    np.testing.assert_allclose(network.images(frames), expected.numpy(), atol=1e-5)
    changed = frames.copy()
    changed[:, :, 40:] = 0  # a centre crop of 32 x 32 would not see it
    assert np.abs(network.images(changed) - network.images(frames)).max() > 1e-3
    large = pictures(2, 96, 144)
    resized = without_antialiasing(large, (32, 48), "bilinear")
    np.testing.assert_allclose(network.images(large), network.images(resized), atol=1e-5)
    assert network.images(pictures(1, 48, 90)).shape == (1, 32)
    assert network.name == f"DINO {dino_folder.name}"


@pytest.mark.parametrize("trunk", ["alex", "squeeze"])
def test_lpips_equals_the_lpips_package_on_one_trunk(trunk: str, trunks):
    import lpips as package
    import torch

    network = lpips_network.load(str(trunks[trunk]), "cpu")
    assert trunk in network.name
    theirs = package.LPIPS(net=trunk, pnet_rand=True, verbose=False)
    found = torch.load(trunks[trunk], weights_only=True)
    parts = theirs.net.state_dict()
    theirs.net.load_state_dict({key: found["features." + key.split(".", 1)[1]] for key in parts})
    first, second = pictures(2, 72, 96), pictures(2, 72, 96, seed=1)
    a, b = (torch.from_numpy(part).permute(0, 3, 1, 2).float() / 127.5 - 1 for part in (first, second))
    with torch.inference_mode():
        expected = theirs(a, b).flatten().numpy()
    assert expected.min() > 1e-3
    np.testing.assert_allclose(network.pairs(first, second), expected, atol=1e-5)
    np.testing.assert_allclose(network.pairs(second, first), expected, atol=1e-5)
    assert (network.pairs(first, first) == 0).all()
    assert np.isfinite(network.pairs(first[:, :5, :9], second[:, :5, :9])).all()  # a tiny region


def test_lpips_takes_every_layer_of_the_real_vgg_trunk():
    import torch
    import torchvision
    from torchmetrics.functional.image.lpips import _LPIPS

    with torch.device("meta"):
        network = _LPIPS(pretrained=False, net="vgg", pnet_rand=True)
        real = torchvision.models.vgg16(weights=None).state_dict()
    names = [lpips_network.torchvision_key(key) for key in network.net.state_dict()]
    assert len(set(names)) == 26  # 13 convolutions
    assert set(names) <= set(real)
    assert lpips_network.identify_trunk(real, Path("vgg.pth")) == "vgg"


def blank_inception():
    """The genuine class with random weights; its constructor insists on a file, so it reads an empty one."""
    import io

    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Blank(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_args, **_settings):
            return None

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    return Blank("inception", ["2048"], feature_extractor_weights_path=empty)


def test_inception_is_the_genuine_one(tmp_path):
    import torch

    torch.manual_seed(0)
    model, path = blank_inception(), tmp_path / "inception.pth"
    torch.save(model.state_dict(), path)
    network, frames = inception.load(str(path), "cpu"), pictures(2)
    features = network.images(frames)
    assert features.shape == (2, 2048)
    expected = model(torch.from_numpy(frames).permute(0, 3, 1, 2))[0].numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert "inception.pth" in network.name


def real(name: str):
    """The network of a catalogue entry, at its real size, without memory."""
    import torchvision
    from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

    match name:
        case "clip_vit_b_32":
            return CLIPModel(CLIPConfig())
        case "dino_vit_b_16":
            return ViTModel(ViTConfig(), add_pooling_layer=False)
        case "inception_fid":
            return blank_inception()
        case "amt_s":
            return interpolation.amt_class()()
    return {
        "lpips_alex": torchvision.models.alexnet,
        "lpips_vgg": torchvision.models.vgg16,
        "lpips_squeeze": torchvision.models.squeezenet1_1,
    }[name](weights=None)


needs_vbench = pytest.mark.skipif(importlib.util.find_spec("vbench") is None, reason="the package vbench has AMT-S")
ENTRIES = ("clip_vit_b_32", "dino_vit_b_16", "lpips_alex", "lpips_vgg", "lpips_squeeze", "inception_fid")


@pytest.mark.parametrize("name", [*ENTRIES, pytest.param("amt_s", marks=needs_vbench)])
def test_real_sizes_are_those_of_the_catalogue(name: str):
    import torch

    with torch.device("meta"):
        parameters = sum(p.numel() for p in real(name).parameters())
    assert parameters * 4 / 1e6 == pytest.approx(CATALOGUE[name].megabytes, rel=0.02)


@needs_vbench
def test_amt_s_through_its_loading_code(tmp_path):
    import torch

    torch.manual_seed(0)
    model, path = interpolation.amt_class()().eval(), tmp_path / "amt-s.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    network = interpolation.load_amt(str(path), "cpu")
    first, second = pictures(2, 70, 90)
    found = network.midpoint(first, second)
    assert found.shape == first.shape
    assert found.dtype == np.uint8
    assert found.std() > 1
    edged = [np.pad(frame, ((29, 29), (19, 19), (0, 0)), "edge") for frame in (first, second)]  # to 128 x 128
    np.testing.assert_array_equal(found, network.midpoint(edged[0], edged[1])[29:-29, 19:-19])
    first, second = pictures(2, 128, 144)  # needs no padding: the network itself
    a, b = (torch.from_numpy(frame).permute(2, 0, 1)[None] / 255.0 for frame in (first, second))
    with torch.inference_mode():
        half = torch.full((1, 1, 1, 1), 0.5)
        expected = model(a, b, half, eval=True)["imgt_pred"][0].permute(1, 2, 0).numpy()
    difference = network.midpoint(first, second) - (expected * 255).clip(0, 255)
    assert difference.max() < 1e-3
    assert difference.min() > -1.001  # levels are cut off


# Missing and wrong weights


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    for name in ("HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


@pytest.mark.parametrize(
    ("module", "settings", "name"),
    [
        (temporal_consistency, {}, "clip_vit_b_32"),
        (consistency, {}, "dino_vit_b_16"),
        (consistency, {"dimensions": ("background",)}, "clip_vit_b_32"),
        (smoothness, {}, "amt_s"),
        (lpips, {}, "lpips_alex"),
        (lpips, {"weights": "lpips_vgg"}, "lpips_vgg"),
        (clip_score, {"prompt": "a b"}, "clip_vit_b_32"),
        (cass, {"source_prompt": "a b"}, "clip_vit_b_32"),
        (fid, {}, "inception_fid"),
    ],
)
def test_missing_weights_are_named_with_the_command(module, settings, name, nothing_here):
    params = module.Params(**settings)
    assert name in module.weights(params).values()
    with pytest.raises(MachineError, match="E302") as caught:
        module.networks(params)
    assert f"retake weights {name}" in caught.value.hint


def test_settings_without_a_network_ask_for_no_weights(nothing_here):
    still = ((smoothness, {"interpolator": "flow"}), (clip_score, {}), (cass, {}))
    for module, settings in still:
        params = module.Params(**settings)
        assert module.weights(params) == {}
        module.Metric(params, **module.networks(params))
    for module in (dynamics, ssim):  # which have none, whatever the settings
        assert not hasattr(module, "weights")
        module.Metric(module.Params())
    assert set(consistency.weights(consistency.Params(dimensions=("subject",)))) == {"subject"}


def test_both_weights_are_looked_for_before_one_is_loaded(dino_folder, nothing_here):
    code = (
        "import sys; from retake.metrics import consistency; from retake.errors import MachineError\n"
        f"try: consistency.networks(consistency.Params(subject_weights={str(dino_folder)!r}))\n"
        "except MachineError as error: print(error.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["E302", "False"]


def test_metrics_load_their_networks_by_role(clip_folder, dino_folder, trunks):
    tc = temporal_consistency.Params(weights=str(clip_folder), device="cpu")
    two = consistency.Params(subject_weights=str(dino_folder), background_weights=str(clip_folder), device="cpu")
    look = lpips.Params(weights=str(trunks["squeeze"]), device="cpu")
    words = clip_score.Params(prompt="a b", weights=str(clip_folder), device="cpu")
    ours = cass.Params(source_prompt="a b", weights=str(clip_folder), device="cpu")
    modules = (temporal_consistency, tc), (consistency, two), (lpips, look), (clip_score, words), (cass, ours)
    for module, params in modules:
        metric = module.Metric(params, **module.networks(params))
        values = run(metric, pictures(3), inside=box(10, 5, 30, 30), flow=np.zeros((H, W, 2), np.float32)).summary()
        assert set(values) == set(module.DESCRIPTIONS) == set(metric.networks())
        wanted = {n for n in values if not n.startswith("clip_i") and n not in ("cass", "relcass", "cass_image")}
        assert all(math.isfinite(values[name]) for name in wanted)


def test_weights_of_something_else_are_refused(clip_folder, dino_folder, trunks, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    def refused(load, path):
        with pytest.raises(ConfigError, match="E262") as caught:
            load(str(path), "cpu")
        assert str(path) in caught.value.message

    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "odd.pth")
    (tmp_path / "torn.pth").write_bytes(trunks["squeeze"].read_bytes()[:1000])
    partial = torch.load(trunks["alex"], weights_only=True)
    del partial["features.10.bias"]
    torch.save(partial, tmp_path / "partial.pth")
    for name in ("odd.pth", "torn.pth", "partial.pth"):
        refused(lpips_network.load, tmp_path / name)
    refused(inception.load, trunks["squeeze"])
    refused(dino.load, clip_folder)
    refused(clip.load, dino_folder)
    refused(clip.load, tmp_path)
    hollow = tmp_path / "hollow"
    hollow.mkdir()
    (hollow / "config.json").write_bytes((dino_folder / "config.json").read_bytes())
    found = load_file(dino_folder / "model.safetensors")
    del found[sorted(found)[0]]
    save_file(found, hollow / "model.safetensors", {"format": "pt"})
    refused(dino.load, hollow)  # transformers would put random numbers there
    nameless = tmp_path / "no words"
    nameless.mkdir()
    for file in clip_folder.iterdir():
        if "token" not in file.name and "vocab" not in file.name:
            (nameless / file.name).write_bytes(file.read_bytes())
    network = clip.load(str(nameless), "cpu")
    assert network.images(pictures(1)).shape == (1, 16)
    with pytest.raises(ConfigError, match=r"E262 .*tokenizer"):
        network.texts(["a"])


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("load", [lpips_network.load, inception.load])
def test_a_pickle_that_would_run_something_is_refused(load, tmp_path):
    path, mark = tmp_path / "trap.pth", tmp_path / "it ran"
    path.write_bytes(pickle.dumps({"features.0.weight": Trap(mark)}, protocol=2))
    with pytest.raises(ConfigError, match="E262"):
        load(str(path), "cpu")
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()  # the trap was a real one


def test_titles_say_what_produced_a_number(tmp_path):
    commit = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
    assert checkpoint.display_name("clip_vit_b_32", tmp_path / commit) == "openai/clip-vit-base-patch32@3d74acf9"
    assert checkpoint.display_name("amt_s", tmp_path / commit / "amt-s.pth") == "lalala125/AMT@3d74acf9/amt-s.pth"
    assert checkpoint.display_name("lpips_alex", tmp_path / "x") == "alexnet-owt-7be5be79.pth"
    assert checkpoint.display_name(str(tmp_path), tmp_path) == tmp_path.name
