"""Metrics with networks: the genuine classes at small size, saved and loaded again, and formulas on known networks."""

from __future__ import annotations

import importlib.util
import math
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.known_networks import Colours, Grid, Levels, Mean

from retake.errors import ConfigError, MachineError, MediaError
from retake.formats import unpack
from retake.metrics import (
    cass,
    clip_score,
    consistency,
    dynamics,
    fid,
    lpips,
    smoothness,
    ssim,
    summary,
    temporal_consistency,
)
from retake.metrics.common import guard
from retake.metrics.common.crop import BLANK, box_of, square, tight, whole
from retake.metrics.common.sample import NO_REGION, Sample, cosine
from retake.networks import checkpoint, clip, dino, inception, interpolation
from retake.networks import lpips as lpips_network
from retake.video import write_png
from retake.weights.catalogue import CATALOGUE

MODULES = (temporal_consistency, consistency, smoothness, ssim, lpips, clip_score, cass, dynamics, fid)
H, W = 40, 56


def pictures(count: int = 3, height: int = H, width: int = W, seed: int = 0) -> np.ndarray:
    """Smooth random uint8 [count, height, width, 3]."""
    noise = np.random.default_rng(seed).random((count, height, width, 3), dtype=np.float32)
    return np.stack([np.rint(255 * cv2.GaussianBlur(one, (0, 0), 1.5)).astype(np.uint8) for one in noise])


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def run(metric, results, sources=None, inside=None, flow=None, fps=8.0):
    """The metric's result over a clip; the source is the result unless given."""
    for t, frame in enumerate(results):
        source = frame if sources is None else sources[t]
        metric.update(Sample(t, source, frame, inside, flow if t else None, fps))
    return metric.result()


class Known:
    """A network that knows a vector for each grey level."""

    name = "known vectors"

    def __init__(self, vectors: dict[int, tuple[float, ...]]) -> None:
        self.vectors = vectors

    def images(self, frames):
        return np.array([self.vectors[int(frame[0, 0, 0])] for frame in frames], np.float32)


def grey(level: int) -> np.ndarray:
    return np.full((H, W, 3), level, np.uint8)


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


# Temporal consistency and consistency


def test_temporal_consistency_of_known_vectors():
    network = Known({10: (1, 0), 20: (0, 2), 30: (-1, 0), 123: (1, 1)})
    found = run(
        temporal_consistency.Metric(temporal_consistency.Params(), clip=network),
        [grey(10), grey(20), grey(20), grey(30)],
        [grey(10)] * 4,
    )
    values = found.summary()
    assert found.per_frame()["tc_full"] == pytest.approx({0: 0, 1: 1, 2: 0})
    assert (values["tc_full"], values["tc_full_source"]) == pytest.approx((1 / 3, 1))
    assert values["tc_full_delta"] == pytest.approx(-2 / 3)


def test_temporal_consistency_ignores_direction_and_falls_when_frames_are_shuffled():
    wide = pictures(1, H, 160)[0]
    frames = [wide[:, 8 * t : 8 * t + W] for t in range(12)]

    def tc(order):
        metric = temporal_consistency.Metric(temporal_consistency.Params(), clip=Grid())
        return run(metric, [frames[i] for i in order]).summary()["tc_full"]

    order = np.random.default_rng(0).permutation(12)
    assert tc(range(12)) == pytest.approx(tc(range(11, -1, -1)), abs=1e-12)
    assert tc(order) < tc(range(12)) - 0.05


def test_tc_edit_sees_only_the_region():
    frames, inside = pictures(3), box(10, 8, 30, 28) & (np.arange(W) < np.arange(H)[:, None] + 5)  # a slanted edge
    steady = [np.where(inside[..., None], frames[0], frame) for frame in frames]
    metric = temporal_consistency.Metric(temporal_consistency.Params(), clip=Grid())
    values = run(metric, steady, list(frames), inside).summary()
    assert values["tc_edit"] == pytest.approx(1, abs=1e-6)
    assert values["tc_full"] < 0.99
    assert values["tc_edit_source"] < 0.99


def test_vbench_consistency_compares_with_the_frame_before_and_with_the_first():
    network = Known({1: (1, 0, 0), 2: (0, 3, 0), 3: (-1, 0, 0)})
    metric = consistency.Metric(consistency.Params(), subject=network, background=network)
    found = run(metric, [grey(1), grey(2), grey(1)], [grey(1)] * 3)
    # t = 1: orthogonal to both, 0; t = 2: orthogonal to the one before, the first itself: (0 + 1) / 2
    assert found.per_frame()["subject_consistency"] == {1: 0, 2: 0.5}
    for name in ("subject", "background"):
        values = found.summary()
        assert values[f"{name}_consistency"] == 0.25
        assert values[f"{name}_consistency_delta"] == -0.75
    opposite = consistency.Metric(consistency.Params(), subject=network)
    assert run(opposite, [grey(1), grey(3)]).summary() == {
        "subject_consistency": 0.0,  # cos = -1 counts as 0
        "subject_consistency_source": 0.0,
        "subject_consistency_delta": 0.0,
    }


# Smoothness


@pytest.mark.parametrize("interpolator", [Mean(), interpolation.Flow()])
def test_a_repeated_frame_is_smooth(interpolator):
    metric = smoothness.Metric(smoothness.Params(), interpolator=interpolator)
    assert run(metric, [pictures(1)[0]] * 5).summary()["smoothness"] == 1


def test_smoothness_of_fades_and_of_alternating_frames():
    def score(levels):
        metric = smoothness.Metric(smoothness.Params(), interpolator=Mean())
        return run(metric, [grey(level) for level in levels])

    fade = score([10, 20, 30, 40, 50, 200])
    assert fade.summary()["smoothness"] == 1  # the last frame of an even number is never guessed
    assert list(fade.per_frame()["smoothness"]) == [1, 3]
    assert score([60, 77, 60, 77, 60]).summary()["smoothness"] == pytest.approx(1 - 17 / 255, abs=1e-12)
    assert score([60, 77]).reasons()["smoothness"] == "the clip is too short"


def test_midpoints_along_the_flow_follow_a_motion_that_a_mean_blurs():
    wide = pictures(1, 64, 120)[0]
    first, between, second = (wide[:, shift : shift + 96] for shift in (0, 3, 6))
    inner = np.s_[8:-8, 12:-12]

    def error(interpolator):
        found = interpolator.midpoint(first, second).astype(int)
        return np.abs(found - between)[inner].mean()

    assert error(interpolation.Flow()) < 2 < 0.3 * error(Mean())


def test_flow_midpoints_are_named_as_what_they_are():
    params = smoothness.Params(interpolator="flow")
    metric = smoothness.Metric(params, **smoothness.networks(params))
    assert set(metric.networks().values()) == {"DIS midpoints, not VBench's AMT-S"}


@pytest.mark.skipif(importlib.util.find_spec("vbench") is not None, reason="the package vbench is here")
def test_amt_s_without_its_package_says_what_to_install(tmp_path):
    (tmp_path / "amt-s.pth").touch()
    with pytest.raises(ConfigError, match="E261") as caught:
        smoothness.networks(smoothness.Params(weights=str(tmp_path / "amt-s.pth"), device="cpu"))
    assert "pip install --no-deps vbench" in caught.value.hint
    assert "interpolator=flow" in caught.value.hint


# LPIPS-T


def test_lpips_t_grows_with_noise_and_its_warped_form_forgives_motion(trunks):
    network = lpips_network.load(str(trunks["squeeze"]), "cpu")
    wide = pictures(1, 64, 120)[0]
    frames = [wide[:, 4 * t : 4 * t + 64] for t in range(3)]
    flow, rng = np.full((64, 64, 2), (-4, 0), np.float32), np.random.default_rng(0)
    found = []
    for sigma in (0, 10, 40):
        noisy = [np.clip(f + rng.normal(0, sigma, f.shape), 0, 255).astype(np.uint8) for f in frames]
        metric = lpips.Metric(lpips.Params(), lpips=network)
        found.append(run(metric, noisy, frames, flow=flow).summary())
    for name in ("lpips", "lpips_t", "lpips_t_delta", "lpips_t_warped"):
        values = [row[name] for row in found]
        assert values == sorted(values)
        assert values[0] < values[2]
    clean = found[0]
    assert clean["lpips"] == clean["lpips_t_delta"] == 0
    assert clean["lpips_t_warped"] == clean["lpips_t_warped_source"] < 0.1 * clean["lpips_t"]


def test_bringing_back_leaves_out_what_leaves_the_frame():
    before, after = pictures(2)
    flow = np.full((H, W, 2), (10.0, 0), np.float32)
    flow[3, 4] = np.nan
    back = lpips.brought_back(before, after, flow)
    assert (back[:, W - 10 :] == before[:, W - 10 :]).all()
    assert (back[3, 4] == before[3, 4]).all()
    assert (back[5, : W - 10] == after[5, 10:]).all()


def test_lpips_edit_looks_into_the_box_of_the_region():
    source, inside = pictures(1)[0], box(10, 5, 30, 25)
    outside = np.where(inside[..., None], source, 255 - source)
    metric = lpips.Metric(lpips.Params(), lpips=Levels())
    values = run(metric, [outside], [source], inside).summary()
    assert values["lpips"] > 0.1
    assert values["lpips_edit"] == 0


# CLIP scores


def test_clip_i_is_100_for_the_reference_itself_and_clip_t_follows_the_words(tmp_path):
    red, blue = (np.full((H, W, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    inside = box(10, 5, 30, 25)
    result = np.where(inside[..., None], red, blue)
    write_png(tmp_path / "red.png", np.full((9, 9, 3), (255, 0, 0), np.uint8))
    params = clip_score.Params(reference=str(tmp_path / "red.png"), prompt="red")
    values = run(clip_score.Metric(params, clip=Grid()), [result] * 2, [blue] * 2, inside).summary()
    assert values["clip_i"] == pytest.approx(100, abs=1e-4)
    assert values["clip_t_edit"] == pytest.approx(100, abs=1e-4)
    # centred colours (1, -1, -1) and (-1, -1, 1): cosine -1/3. It is not cut at 0.
    assert values["clip_i_source"] == values["clip_t_source"] == pytest.approx(-100 / 3, abs=1e-4)
    assert values["clip_t_source"] < values["clip_t"] < values["clip_t_edit"]


def test_clip_scores_do_not_depend_on_the_length_of_vectors():
    class Longer(Grid):
        def images(self, frames):
            return super().images(frames) * np.float32(7)

    params = clip_score.Params(prompt="green")
    first, second = (
        run(clip_score.Metric(params, clip=network), pictures(2)).summary() for network in (Grid(), Longer())
    )
    assert first["clip_t"] == pytest.approx(second["clip_t"], abs=1e-5)


def test_what_was_not_given_is_named_and_never_made_up():
    nothing = clip_score.Metric(clip_score.Params())
    found = run(nothing, pictures(2), inside=box(1, 1, 9, 9))
    assert set(found.reasons()) == set(clip_score.DESCRIPTIONS)
    assert "metrics.clip_score.reference=" in found.reasons()["clip_i"]
    assert "metrics.clip_score.prompt=" in found.reasons()["clip_t"]
    assert set(summary.summarise([found]).values()) == {None}
    only_words = run(clip_score.Metric(clip_score.Params(prompt="red"), clip=Grid()), pictures(2))
    assert set(only_words.reasons()) == {"clip_i", "clip_i_source", "clip_t_edit", "clip_t_edit_source"}
    assert only_words.reasons()["clip_t_edit"] == NO_REGION


def test_an_unreadable_reference_is_refused_before_any_frame(tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(MediaError, match="E420"):
        clip_score.Metric(clip_score.Params(reference=str(tmp_path / "x.png")), clip=Grid())


# CASS, our definition


def scored(params: cass.Params, result, source, inside=None, network=None):
    return run(cass.Metric(params, clip=network or Grid()), result, source, inside)


@pytest.fixture
def red(tmp_path) -> str:
    """A reference picture that is red."""
    write_png(tmp_path / "red.png", np.full((9, 9, 3), (255, 0, 0), np.uint8))
    return str(tmp_path / "red.png")


def test_cass_follows_its_formula_on_vectors_of_a_clip_asked_apart(clip_folder, tmp_path):
    import torch
    from transformers import CLIPModel, CLIPProcessor

    source, result, picture = pictures(3), 255 - pictures(3) // 2, pictures(1, 32, 32, seed=2)[0]
    write_png(tmp_path / "reference.png", picture)
    model, processor = CLIPModel.from_pretrained(clip_folder), CLIPProcessor.from_pretrained(clip_folder)

    def embedded(frames):
        inputs = processor(
            text=["a b"], images=list(frames), return_tensors="pt", padding=True, input_data_format="channels_last"
        )
        with torch.inference_mode():
            found = model(**inputs)  # of unit length already
        return found.image_embeds.double().numpy(), found.text_embeds.double().numpy()[0]

    (seen, words), (before, _), (wanted, _) = embedded(result), embedded(source), embedded(picture[None])
    image, text = 100 * (seen - before) @ wanted[0], 100 * (seen - before) @ words
    own = 100 * np.mean(before @ wanted[0] + before @ words)
    reference = str(tmp_path / "reference.png")
    params = cass.Params(reference=reference, source_prompt="a b", weights=str(clip_folder), device="cpu")
    metric = cass.Metric(params, **cass.networks(params))
    found = run(metric, result, source)
    assert found.per_frame()["cass_image"] == pytest.approx(dict(enumerate(image)), abs=1e-3)
    assert found.per_frame()["cass_text"] == pytest.approx(dict(enumerate(text)), abs=1e-3)
    expected = {"cass_image": image.mean(), "cass_text": text.mean(), "cass": (image - text).mean()}
    assert abs(expected["cass"]) > 0.1
    assert found.summary() == pytest.approx(expected | {"relcass": expected["cass"] / own}, abs=1e-3)
    assert set(found.summary()) == set(cass.DESCRIPTIONS) == set(metric.networks())
    assert set(metric.networks().values()) == {f"CLIP {clip_folder.name}"}


def test_the_reference_in_the_frames_raises_cass_and_no_edit_leaves_it_at_zero(clip_folder, tmp_path):
    source, picture, inside = list(pictures(3)), pictures(1, 20, 20, seed=2)[0], box(20, 10, 40, 30)
    write_png(tmp_path / "reference.png", picture)
    placed = [frame.copy() for frame in source]
    for frame in placed:
        frame[10:30, 20:40] = picture
    network, found = clip.load(str(clip_folder), "cpu"), {}
    for where in ("frame", "edit"):
        params = cass.Params(reference=str(tmp_path / "reference.png"), source_prompt="a b", where=where)
        for name, result in (("copy", source), ("placed", placed)):
            found[where, name] = scored(params, result, source, inside, network).summary()
        nothing = {"cass": 0, "cass_image": 0, "cass_text": 0}
        assert {name: found[where, "copy"][name] for name in nothing} == pytest.approx(nothing, abs=1e-3)
        assert found[where, "placed"]["cass_image"] > 0.1
    assert found["edit", "placed"]["cass_image"] > found["frame", "placed"]["cass_image"]  # nothing else is in sight


def test_relcass_divides_by_what_the_source_had_if_there_is_anything(red):
    colours = {name: np.full((H, W, 3), level, np.uint8) for name, level in Grid.colours.items()}
    params = cass.Params(reference=red, source_prompt="green")
    # centred colours: cosine 1 with itself, -1/3 with another one
    values = scored(params, [colours["red"]] * 2, [colours["green"]] * 2).summary()
    expected = {"cass_image": 400 / 3, "cass_text": -400 / 3, "cass": 800 / 3, "relcass": (800 / 3) / (200 / 3)}
    assert values == pytest.approx(expected, abs=1e-4)
    # the source is like neither: -1/3 - 1/3
    found = scored(params, [colours["red"]] * 2, [colours["blue"]] * 2)
    assert found.summary()["cass"] == pytest.approx(400 / 3, abs=1e-4)
    assert math.isnan(found.summary()["relcass"])
    assert found.reasons() == {
        "relcass": "the source's own likeness to reference and words is -66.67: nothing to divide by"
    }
    # a ratio of means, so one frame whose own likeness is below zero does no harm
    mixed = scored(params, [colours["red"]] * 3, [colours["green"]] * 2 + [colours["blue"]]).summary()
    assert mixed["relcass"] == pytest.approx(mixed["cass"] / ((200 / 3 * 2 - 200 / 3) / 3), rel=1e-5)


def test_cass_says_what_it_was_not_given(red):
    frames, inside = pictures(2), box(5, 5, 30, 30)

    def reasons(network=None, inside=None, **settings):
        return run(cass.Metric(cass.Params(**settings), clip=network), frames, inside=inside).reasons()

    nothing = reasons()
    assert set(nothing) == set(cass.DESCRIPTIONS)
    assert nothing["cass_image"] == cass.NO_REFERENCE
    assert nothing["cass_text"] == cass.NO_PROMPT
    assert nothing["cass"] == nothing["relcass"] == f"{cass.NO_REFERENCE}; {cass.NO_PROMPT}"
    without = {"cass", "relcass"}
    assert reasons(Grid(), source_prompt="red") == dict.fromkeys({*without, "cass_image"}, cass.NO_REFERENCE)
    assert reasons(Grid(), reference=red) == dict.fromkeys({*without, "cass_text"}, cass.NO_PROMPT)
    both = {"reference": red, "source_prompt": "red"}
    assert reasons(Grid(), where="edit", **both) == dict.fromkeys(cass.DESCRIPTIONS, NO_REGION)
    assert not {"cass", "cass_image", "cass_text"} & set(reasons(Grid(), inside, where="edit", **both))


def test_every_value_of_cass_says_that_it_is_our_definition():
    assert all("our definition" in text for text, _ in cass.DESCRIPTIONS.values())


# The edited region as a picture


def test_squares_are_centred_blanked_and_padded():
    frame = pictures(1)[0]
    region = box(50, 0, 56, 10)  # at the corner: 6 x 10, so the square reaches 2 px out on the right
    region[0, 50] = False
    picture = square(frame, region)
    assert picture is not None
    assert picture.shape == (10, 10, 3)
    assert (picture[1:, 2:8] == frame[1:10, 50:56]).all()
    assert (picture[:, :2] == BLANK).all()
    assert (picture[:, 8:] == BLANK).all()
    assert (picture[0, 2] == BLANK).all()
    seen = square(frame, region, blank=False)
    assert seen is not None
    assert (seen[:, :8] == frame[:10, 48:56]).all()
    assert (seen[:, 8:] == BLANK).all()
    cut = tight(frame, region)
    assert cut is not None
    assert (cut == frame[:10, 50:56]).all()
    assert box_of(region) == (50, 0, 56, 10)
    nothing = np.zeros_like(region)
    assert box_of(nothing) is square(frame, nothing) is square(frame, None) is tight(frame, None) is None


def test_a_reference_of_any_shape_is_shown_whole_on_the_blank_colour():
    picture = np.zeros((4, 8, 4), np.uint8)
    picture[..., :3], picture[:, :4, 3] = 200, 255
    shown = whole(picture)
    assert shown.shape == (8, 8, 3)
    assert (shown[2:6, :4] == 200).all()
    assert (shown[2:6, 4:] == BLANK).all()
    assert (shown[:2] == BLANK).all()


# Dynamics and the guard


def slide(frames: int, step: int, seed: int = 0) -> list[np.ndarray]:
    wide = pictures(1, H, W + frames * step, seed)[0]
    return [wide[:, step * t : step * t + W] for t in range(frames)]


def test_motion_is_measured_between_looks_an_eighth_of_a_second_apart():
    source, flow = slide(13, 1), np.full((H, W, 2), (-1, 0), np.float32)
    found = run(dynamics.Metric(dynamics.Params()), source, flow=flow, fps=24)
    assert list(found.per_frame()["motion"]) == [0, 3, 6, 9]
    values = found.summary()
    assert values["motion_source"] == pytest.approx(100 * 3 / H, rel=1e-5)  # three links of one pixel
    assert values["motion"] == pytest.approx(100 * 3 / H, rel=0.1)  # three links of DIS
    assert values["dynamic_degree"] == values["dynamic_degree_source"] == 1  # 3 px > 6 * 40 / 256
    every = run(dynamics.Metric(dynamics.Params()), source, flow=flow, fps=None)
    assert every.summary()["motion_source"] == pytest.approx(100 / H, rel=1e-5)


def test_motion_of_the_region_is_that_of_its_own_pixels():
    moving, still = slide(5, 2), pictures(1, seed=3)[0]
    clip = [np.concatenate([still[:, : W // 2], frame[:, W // 2 :]], 1) for frame in moving]
    flow = np.zeros((H, W, 2), np.float32)
    flow[:, W // 2 :, 0] = -2
    for region, expected in ((box(4, 8, 16, 32), 0), (box(40, 8, 52, 32), 100 * 2 / H)):
        values = run(dynamics.Metric(dynamics.Params()), clip, inside=region, flow=flow).summary()
        assert values["motion_edit_source"] == expected
        assert values["motion_edit"] == pytest.approx(expected, rel=0.2, abs=0.2)
        assert values["motion_source"] == 100 * 2 / H


def test_equal_clips_move_alike_when_the_prior_is_the_same_flow():
    from retake.priors.optical_flow import dis

    clip = slide(9, 2)
    metric = dynamics.Metric(dynamics.Params())
    before = None
    for t, frame in enumerate(clip):
        flow = dis.estimate(before, frame, dis.Params(preset="medium"))[0] if before is not None else None
        metric.update(Sample(t, frame, frame, None, flow, 24))
        before = frame
    values = metric.result().summary()
    assert values["motion"] == values["motion_source"] > 1


def test_chained_flows_add_along_the_path():
    first = np.zeros((H, W, 2), np.float32)
    first[..., 0] = 5
    second = np.zeros((H, W, 2), np.float32)
    second[:, 25:, 1] = 2  # only what has come to x >= 25 moves down
    both = dynamics.chained(first, second, fresh=False)
    assert both is not None
    assert (both[:, 20:] == (5, 2)).all()
    assert (both[:, :20] == (5, 0)).all()
    assert dynamics.chained(None, second, fresh=False) is None
    assert dynamics.chained(first, None, fresh=True) is None


def test_dynamic_degree_counts_pairs_as_vbench_does():
    needed = {3: 1, 9: 2, 17: 4}  # frames looked at -> round(4 n / 16), Python's rounding
    for count, pairs in needed.items():
        lengths = [10.0] * pairs + [0.0] * (count - 1 - pairs)
        assert dynamics.degree(lengths, 256) == 1
        assert dynamics.degree([*lengths[1:], 0.0], 256) == 0
    assert dynamics.degree([0.0], 256) == 0  # VBench's own code calls any two frames dynamic
    assert dynamics.degree([6.0] * 8, 256) == 0  # more than, not at least
    assert math.isnan(dynamics.degree([], 256))


def test_top_is_the_mean_of_the_largest_twentieth():
    lengths = np.zeros((20, 10))
    lengths.flat[[3, 50, 77]] = 8.0
    assert dynamics.top(lengths) == pytest.approx(8 * 3 / 10)
    assert dynamics.top(np.array([4.0])) == 4
    assert math.isnan(dynamics.top(np.array([])))


def test_the_guard_tells_a_frozen_frame_a_frozen_region_and_a_slow_edit():
    still = {"motion": 0.1, "motion_source": 2.0, "motion_edit": 0.1, "motion_edit_source": 2.0}
    moves = {"motion": 1.9, "motion_source": 2.0, "motion_edit": 1.0, "motion_edit_source": 2.0}
    scores = {"flicker": 1.0, "flicker_source": 0.9, "tc_edit": 1.0, "smoothness": None, "warp_error_full": 0.1}
    kept, reasons = guard.guarded(scores | still)
    assert set(reasons) == {"flicker", "tc_edit"}  # what is None already needs no second reason
    assert kept["flicker_source"] == 0.9
    assert kept["warp_error_full"] == 0.1
    assert "0.10 %" in reasons["flicker"]
    kept, reasons = guard.guarded(scores | moves)
    assert reasons == {}
    assert kept == scores | moves
    kept, reasons = guard.guarded(scores | moves | {"motion_edit": 0.1})
    assert set(reasons) == {"tc_edit"}
    assert "edited region" in reasons["tc_edit"]
    for resting in ({"motion": 0.0, "motion_source": 0.1}, {"motion": None, "motion_source": 2.0}, {}):
        assert guard.guarded(scores | resting)[1] == {}
    assert {*guard.WHOLE, *guard.EDIT} <= set(summary.DESCRIPTIONS)


# FID and KID


def features(count: int, seed: int = 0, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, width)).astype(np.float32)


def test_fid_has_its_closed_forms():
    x = features(4000)
    assert fid.frechet(x, x) < 1e-6
    assert fid.frechet(x, x + np.float32(0.5)) == pytest.approx(8 * 0.25, rel=1e-5)
    # covariances S and 4 S: Tr(S + 4 S - 2 * 2 S) = Tr S, about 8; and the mean doubles
    assert fid.frechet(x, 2 * x) == pytest.approx(np.trace(np.cov(x.T)) + np.sum(x.mean(0) ** 2), rel=1e-4)
    assert fid.frechet(x, 2 * x) == pytest.approx(8, rel=0.02)
    y = features(3000, 1) * 1.3 + 0.2
    assert fid.frechet(x, y) == pytest.approx(fid.frechet(y, x), rel=1e-6)
    assert fid.frechet(x, y) == pytest.approx(fid.frechet(x[::-1], y[np.argsort(y[:, 0])]), rel=1e-6)


def test_fid_equals_pytorch_fid_and_torchmetrics():
    import torch
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = features(300), features(200, 1) @ features(8, 2) * 0.3 + 0.1
    found = fid.frechet(x, y.astype(np.float32))
    moments = [part for side in (x, y) for part in (side.mean(0), np.cov(side, rowvar=False))]
    assert found == pytest.approx(calculate_frechet_distance(*moments), rel=1e-5)

    class Eight(torch.nn.Module):
        num_features = 8

        def forward(self, pixels):
            return pixels[:, :, 0, 0]

    theirs = FrechetInceptionDistance(feature=Eight()).set_dtype(torch.float64)
    for side, batches in ((x, 3), (y, 4)):
        for part in np.array_split(side, batches):
            theirs.update(torch.from_numpy(part).double()[:, :, None, None], real=side is x)
    assert found == pytest.approx(float(theirs.compute()), rel=1e-5)


def test_fid_of_a_singular_covariance_agrees_with_pytorch_fid_and_says_so():
    from pytorch_fid.fid_score import calculate_frechet_distance

    x, y = features(5), features(6, 1) + 0.5
    values, notes = fid.score(x, y)
    moments = [part for side in (x, y) for part in (side.mean(0), np.cov(side, rowvar=False))]
    assert values["fid"] == pytest.approx(calculate_frechet_distance(*moments), rel=1e-3)
    assert "5 frames for 8 features" in notes["fid"]
    assert values["fid_frames"] == 5
    assert fid.score(features(50), features(50, 1))[1] == {}
    values, notes = fid.score(features(1), features(50))
    assert values["fid"] is values["kid"] is None
    assert "at least 2" in notes["fid"]


def test_kid_equals_torchmetrics_and_repeats():
    import torch
    from torchmetrics.image.kid import KernelInceptionDistance

    x, y = features(60), features(60, 1) + 0.3

    class Given(torch.nn.Module):
        def forward(self, values):
            return values

    with pytest.warns(UserWarning, match="save all extracted features"):
        theirs = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=60)
    for side, is_real in ((x, True), (y, False)):
        theirs.update(torch.from_numpy(side).double(), real=is_real)
    assert fid.kernel(x, y) == pytest.approx((float(theirs.compute()[0]), 0), rel=1e-6)
    more = features(90, 2)
    state = torch.get_rng_state()
    assert fid.kernel(x, more, seed=0) == fid.kernel(x, more, seed=0) != fid.kernel(x, more, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert fid.kernel(x, more)[1] > 0
    assert fid.kernel(x, y)[0] > abs(fid.kernel(x, features(60, 3))[0])


def test_fid_gathers_features_of_source_and_result():
    frames = pictures(4)
    found = run(fid.Metric(fid.Params(), inception=Colours()), 255 - frames, frames)
    assert isinstance(found, fid.Result)
    np.testing.assert_array_equal(found.source, Colours().images(frames))
    np.testing.assert_array_equal(found.result, Colours().images(255 - frames))
    assert found.per_frame() == {}
    assert found.reasons() == dict.fromkeys(fid.DESCRIPTIONS, fid.OF_A_DATASET)
    assert all(math.isnan(found.summary()[name]) for name in fid.DESCRIPTIONS)
    kept = unpack(found.files()[fid.FEATURES])
    np.testing.assert_array_equal(kept["source"], found.source)
    np.testing.assert_array_equal(kept["result"], found.result)


# All of them


def known():
    """Every metric with a known network."""
    return {
        temporal_consistency: temporal_consistency.Metric(temporal_consistency.Params(), clip=Grid()),
        consistency: consistency.Metric(consistency.Params(), subject=Grid(), background=Grid()),
        smoothness: smoothness.Metric(smoothness.Params(), interpolator=Mean()),
        lpips: lpips.Metric(lpips.Params(), lpips=Levels()),
        clip_score: clip_score.Metric(clip_score.Params(prompt="red"), clip=Grid()),
        cass: cass.Metric(cass.Params(source_prompt="red"), clip=Grid()),
        ssim: ssim.Metric(ssim.Params()),
        dynamics: dynamics.Metric(dynamics.Params()),
    }


def test_without_a_region_the_whole_frame_is_still_scored():
    flow = np.zeros((H, W, 2), np.float32)
    for module, metric in known().items():
        found = run(metric, pictures(3), flow=flow)
        values = found.summary()
        assert set(values) == set(module.DESCRIPTIONS)
        for name, value in values.items():
            inside = "_edit" in name or name.startswith("clip_i") or name in ("cass", "relcass", "cass_image")
            assert math.isnan(value) == inside, name
            assert (name in found.reasons()) == inside
        assert all(direction in ("lower", "higher") for _, direction in module.DESCRIPTIONS.values())


def test_without_flow_only_what_needs_it_is_missing():
    inside = box(5, 5, 30, 30)
    assert set(run(known()[lpips], pictures(3), inside=inside).reasons()) == {
        "lpips_t_warped",
        "lpips_t_warped_source",
    }
    missing = run(known()[dynamics], pictures(3), inside=inside).reasons()
    assert set(missing) == {"dynamic_degree_source", "motion_source", "motion_edit_source"}
    assert all("flow" in text for text in missing.values())


def test_regions_may_come_and_go():
    inside, nothing = box(5, 5, 30, 30), np.zeros((H, W), bool)
    for metric in known().values():
        for t, frame in enumerate(pictures(5)):
            metric.update(Sample(t, frame, frame, nothing if t == 2 else inside, np.zeros((H, W, 2), np.float32)))
        assert "tc_edit" not in metric.result().reasons()
    frames = temporal_consistency.Metric(temporal_consistency.Params(), clip=Grid())
    for t, frame in enumerate(pictures(5)):
        frames.update(Sample(t, frame, frame, nothing if t == 2 else inside))
    series = frames.result().per_frame()["tc_edit"]
    assert [math.isnan(series[t]) for t in range(4)] == [False, True, True, False]


def test_rows_of_the_table_stand_at_the_first_frame_of_a_pair():
    rows = summary.frame_rows([run(known()[lpips], pictures(3))], 3)
    assert rows[0]["lpips_t"] is not None
    assert rows[2]["lpips_t"] is None
    assert rows[2]["lpips"] is not None


def test_memory_does_not_grow_with_the_clip():
    flow, inside = np.zeros((H, W, 2), np.float32), box(5, 5, 30, 30)

    def size(count: int) -> dict[str, int]:
        metrics, frames = known(), pictures(4)
        for metric in metrics.values():
            run(metric, [frames[t % 4] for t in range(count)], inside=inside, flow=flow)
        return {module.__name__: len(pickle.dumps(metric.__dict__)) for module, metric in metrics.items()}

    short, long = size(9), size(49)
    for name, held in long.items():
        assert held - short[name] < 40 * 200, name  # numbers of 40 frames; one frame has 6,720 bytes


def test_sizes_that_differ_are_refused():
    frame, small = pictures(1)[0], pictures(1, 20, 20)[0]
    for metric in known().values():
        with pytest.raises(MediaError, match="E440"):
            metric.update(Sample(0, frame, small, None, None))


def test_every_metric_says_what_a_graph_must_know_and_imports_nothing_heavy():
    for module in MODULES:
        assert isinstance(module.VERSION, int)
        assert set(module.NEEDS) <= {"optical_flow", "region"}
        assert module.Params().name == module.__name__.rpartition(".")[2]
        assert all(field.description for field in module.Params.model_fields.values())
    names = ", ".join(module.__name__ for module in (*MODULES, guard, clip, dino, inception, interpolation))
    code = f"import sys, {names}, retake.networks.lpips; print(*{{'torch', 'transformers', 'cv2'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_cosine_of_nothing_is_no_number():
    assert math.isnan(cosine(np.zeros(3), np.ones(3)))
    assert cosine(np.array([1e-3, 0], np.float32), np.array([5, 0], np.float32)) == 1
