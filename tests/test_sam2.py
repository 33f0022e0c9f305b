"""masks=sam2: two libraries, one small checkpoint of random weights, equal masks; and what a tracker promises."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sam2")

from helpers.forked import Forked  # noqa: E402
from helpers.small_sam2 import (  # noqa: E402
    CLICK,
    CORRECTED,
    FRAMES,
    HEIGHT,
    PROMPTS,
    SIZE,
    WIDTH,
    as_package,
    followed,
    frames,
    params,
    saved,
    small_model,
    times_of,
)

from retake.errors import ConfigError  # noqa: E402
from retake.priors.masks import sam2  # noqa: E402
from retake.priors.masks.prompt import Moment, Prompt  # noqa: E402
from retake.priors.masks.sam2 import memory, package, windows  # noqa: E402
from retake.priors.masks.sam2.follower import pixels  # noqa: E402
from retake.weights.catalogue import CATALOGUE  # noqa: E402


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("sam2"), small_model())


@pytest.fixture(scope="module")
def clip():
    return frames()


@pytest.fixture(scope="module")
def whole(small, clip):
    """What `followed` makes without stops, by backend and direction."""
    made = {}

    def run(backend, reverse):
        if (backend, reverse) not in made:
            made[backend, reverse] = followed(params(small, backend), clip, reverse)
        return made[backend, reverse]

    return run


BACKENDS = pytest.mark.parametrize("backend", ["transformers", "sam2"])
DIRECTIONS = pytest.mark.parametrize("reverse", [False, True])

# ---- what both libraries say --------------------------------------------------------------------------------------


@DIRECTIONS
def test_both_backends_make_the_same_masks(small, clip, whole, reverse):
    (ours, our_logits), (theirs, their_logits) = whole("transformers", reverse), whole("sam2", reverse)
    share = ours.mean(axis=(2, 3))
    assert share.min() > 0.01
    assert share.max() < 0.9
    assert (ours[1:] != ours[:-1]).any(axis=(2, 3)).all()  # masks change from frame to frame,
    assert (our_logits[:, 0] != our_logits[:, 1]).any(axis=(1, 2)).all()  # and objects differ
    assert (ours[:, 0] != ours[:, 1]).any(axis=(1, 2)).mean() > 0.8
    np.testing.assert_allclose(our_logits, their_logits, atol=1e-3 * np.abs(our_logits).max())
    union = (ours | theirs).sum(axis=(2, 3))
    assert ((ours & theirs).sum(axis=(2, 3)) / union).min() >= 0.99

    changed = (followed(params(small, "transformers"), clip, reverse, correct=False)[1] != our_logits).any(axis=(2, 3))
    assert not changed[:CORRECTED].any()
    assert changed[CORRECTED:, 0].all()
    assert not changed[:, 1].any()


@DIRECTIONS
def test_streaming_is_what_transformers_does_when_it_keeps_everything(small, clip, reverse):
    p = params(small, "transformers")
    tracker = sam2.tracker(p, SIZE, None, reverse)
    session = tracker.processor.init_video_session()
    times = times_of(clip, reverse)
    for i, prompt in PROMPTS.items():
        tracker.processor.add_inputs_to_inference_session(
            session,
            times[0],
            i,
            input_points=[[[[x, y] for x, y, _ in prompt.points]]] if prompt.points else None,
            input_labels=[[[label for *_, label in prompt.points]]] if prompt.points else None,
            input_boxes=[[list(prompt.box)]] if prompt.box else None,
            original_size=(HEIGHT, WIDTH),
        )
    session.obj_with_new_inputs = [1, 2]
    kept = []
    for t in times:
        frame = tracker.processor(images=clip[t], return_tensors="pt")["pixel_values"][0]
        out = tracker.model(session, frame=frame, frame_idx=t, reverse=reverse)
        kept.append(tracker.processor.post_process_masks([out.pred_masks], [[HEIGHT, WIDTH]])[0][:, 0].numpy())
    assert len(session.processed_frames) == FRAMES
    np.testing.assert_array_equal(followed(p, clip, reverse, correct=False)[0], np.stack(kept))


@DIRECTIONS
def test_windows_are_what_the_package_does_with_the_whole_clip(small, clip, reverse):
    p = params(small, "sam2")
    tracker = sam2.tracker(p, SIZE, None, reverse)
    whole = windows.inference_state(torch.stack([pixels(tracker.processor, f) for f in clip]), SIZE, tracker.device)
    times = times_of(clip, reverse)
    for i, prompt in PROMPTS.items():
        given = np.array(prompt.points, np.float32).reshape(-1, 3)
        points = {"points": given[:, :2], "labels": given[:, 2].astype(np.int32)} if prompt.points else {}
        tracker.predictor.add_new_points_or_box(whole, times[0], i, box=prompt.box, **points)
    kept = {
        t: (logits[:, 0] > 0).numpy() for t, _, logits in tracker.predictor.propagate_in_video(whole, reverse=reverse)
    }
    np.testing.assert_array_equal(followed(p, clip, reverse, correct=False)[0], np.stack([kept[t] for t in times]))


@pytest.mark.parametrize("name", ["sam2_tiny", "sam2_small", "sam2_large"])
def test_real_configurations_have_the_parameters_of_the_catalogue(name):
    from transformers import Sam2VideoConfig, Sam2VideoModel

    size = name.removeprefix("sam2_")
    stages = {"tiny": [1, 2, 7, 2], "small": [1, 2, 11, 2], "large": [2, 6, 36, 4]}[size]
    trunk = {"model_type": "sam2_hiera_det_model", "blocks_per_stage": stages}
    vision = {"model_type": "sam2_vision_model", "backbone_config": trunk}
    if size == "large":
        widths = [144, 288, 576, 1152]
        trunk |= {"hidden_size": 144, "num_attention_heads": 2, "embed_dim_per_stage": widths}
        trunk |= {"num_attention_heads_per_stage": [2, 4, 8, 16], "window_size_per_stage": [8, 4, 16, 8]}
        vision |= {"backbone_channel_list": widths[::-1]}
    with torch.device("meta"):
        ours = Sam2VideoModel(Sam2VideoConfig(vision_config=vision))
    linspace = torch.linspace  # the package reads numbers out of one while it builds
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(torch, "linspace", lambda *a: linspace(*a, device="cpu"))
        theirs = package.build(package.configuration(Path(f"sam2.1_hiera_{size}.pt")))
    counts = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert counts[0] == counts[1]
    assert counts[0] * 4e-6 == pytest.approx(CATALOGUE[name].megabytes, rel=0.02)
    assert {n for n, _ in theirs.named_parameters()} == set(as_package(dict(ours.named_parameters())))


def test_importing_loads_nothing():
    code = """
import sys
from retake.priors.masks import sam2
assert not {"torch", "transformers", "sam2", "hydra"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_hydra_is_left_as_it_was(small):
    """The package initialises Hydra when it is imported, so it is imported for the first time here: in a fork that
    forgets it, Hydra and all of Retake, and keeps torch."""

    def anew() -> None:
        for name in [*sys.modules]:
            if name.partition(".")[0] in ("sam2", "hydra", "omegaconf", "retake", "tasks", "flows"):
                del sys.modules[name]
        fresh = importlib.import_module("retake.priors.masks.sam2")
        assert "hydra" not in sys.modules
        fresh.tracker(fresh.Params(backend="sam2", weights=str(small["sam2"])), SIZE, None, False)
        assert "sam2" in sys.modules
        hydra = importlib.import_module("hydra.core.global_hydra")
        assert not hydra.GlobalHydra.instance().is_initialized()
        compose = importlib.import_module("flows.settings.compose").compose
        assert compose(["masks=sam2"])["masks"]["name"] == "sam2"

    assert Forked(anew).wait() == 0


# ---- what a tracker promises --------------------------------------------------------------------------------------


@BACKENDS
@DIRECTIONS
def test_a_tracker_goes_on_from_its_state_bit_for_bit(small, clip, whole, backend, reverse):
    resumed = followed(params(small, backend), clip, reverse, stops=True)
    np.testing.assert_array_equal(whole(backend, reverse)[0], resumed[0])
    np.testing.assert_array_equal(whole(backend, reverse)[1], resumed[1])


@BACKENDS
def test_half_precision_goes_on_from_its_state_too(small, clip, whole, backend):
    p = params(small, backend, dtype="bfloat16")
    half, resumed = followed(p, clip[:12], False), followed(p, clip[:12], False, stops=True)
    np.testing.assert_array_equal(half[1], resumed[1])
    exact = whole(backend, False)[0][:12]
    assert 0.5 < (half[0] == exact).mean() < 1  # another precision, much the same picture


def held(thing, seen):
    """Bytes of every tensor that can be reached from a session, each storage once."""
    if isinstance(thing, torch.Tensor):
        seen[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    elif isinstance(thing, dict | list | tuple | set):
        for one in thing.values() if isinstance(thing, dict) else thing:
            held(one, seen)
    elif hasattr(thing, "__dict__"):
        held(vars(thing), seen)
    return sum(seen.values())


@pytest.mark.parametrize(("backend", "reverse"), [("transformers", False), ("sam2", True)])
def test_memory_does_not_grow_with_the_clip(small, clip, backend, reverse):
    tracker = sam2.tracker(params(small, backend), SIZE, None, reverse)
    way = -1 if reverse else 1
    tracker.begin(Moment(100, clip[0]), PROMPTS)
    size = {}
    for k in range(1, 41):
        tracker.step(Moment(100 + way * k, clip[k % FRAMES]))
        session = tracker.session if backend == "transformers" else tracker.inference
        size[k] = held(session, {}), len(tracker.outputs[1][memory.RECENT])
    assert size[40] == size[20]
    assert size[40][0] - size[8][0] <= 2 * 8 * 4 * 128  # pointers alone: two objects, eight frames, 128 numbers
    assert len(tracker.state()["1.recent.pointers"]) == 15
    assert len(tracker.state()["1.recent.features"]) == 6


def test_a_state_takes_under_four_megabytes_an_object_at_the_real_size():
    output = {"p": torch.zeros(1, 256), memory.FEATURES: torch.zeros(4096, 1, 64, dtype=torch.bfloat16)}
    output |= {memory.POSITIONS: None}
    outputs = {memory.CONDITION: {0: output}, memory.RECENT: dict.fromkeys(range(1, 40), output)}
    reach = memory.Reach(6, 15, "p")
    arrays = memory.pack({1: memory.later(outputs, 39, reach)}, reach)
    assert sum(a.nbytes for a in arrays.values()) == pytest.approx(3.69e6, rel=0.01)


@BACKENDS
def test_an_object_that_is_lost_comes_back(tmp_path, clip, backend):
    """With scores moved to around zero the network sees the object on some frames and not on others."""
    model = small_model()
    tracker = sam2.tracker(params(saved(tmp_path / "sure", model), backend), SIZE, None, False)
    tracker.begin(Moment(0, clip[0]), PROMPTS)
    scores = np.array([tracker.step(Moment(t, clip[t]))[2].overlap for t in range(1, FRAMES)])
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.bias -= float(np.median(np.log(scores / (1 - scores))))
    tracker = sam2.tracker(params(saved(tmp_path / "unsure", model), backend), SIZE, None, False)
    tracker.begin(Moment(0, clip[0]), PROMPTS)
    found = [tracker.step(Moment(t, clip[t]))[2] for t in range(1, FRAMES)]
    seen = [bool(one.mask.any()) for one in found]
    assert not all(seen)
    assert any(seen[seen.index(False) :])
    assert [one.overlap > 0.5 for one in found] == seen


@BACKENDS
def test_a_prompt_that_shows_nothing_is_refused(tmp_path, clip, backend):
    tracker = sam2.tracker(params(saved(tmp_path, small_model(score=-9.0)), backend), SIZE, None, False)
    with pytest.raises(ConfigError, match="E220"):
        tracker.begin(Moment(0, clip[0]), PROMPTS)


@BACKENDS
def test_a_box_may_reach_over_the_frame(small, clip, backend):
    wide, cut = (
        sam2.tracker(params(small, backend), SIZE, None, False).begin(Moment(0, clip[0]), {1: Prompt(box=box)})[1]
        for box in ((-30, 8, 200, 64), (0, 8, 96, 64))
    )
    np.testing.assert_array_equal(wide.mask, cut.mask)
    assert wide.mask.shape == (HEIGHT, WIDTH)
    assert wide.mask.dtype == bool


@BACKENDS
def test_a_correction_names_an_object_that_is_followed(small, clip, backend):
    tracker = sam2.tracker(params(small, backend), SIZE, None, False)
    tracker.begin(Moment(0, clip[0]), PROMPTS)
    with pytest.raises(ConfigError, match="E224"):
        tracker.correct(Moment(0, clip[0]), 7, CLICK)


def test_a_file_may_hold_the_shared_matrix_once(small, clip, whole, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path, small_model())["transformers"]
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("prompt_encoder.shared_embedding.positional_embedding")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    found = sam2.tracker(sam2.Params(weights=str(folder)), SIZE, None, False).begin(Moment(0, clip[0]), PROMPTS)
    np.testing.assert_array_equal(found[1].mask, whole("transformers", False)[0][0, 0])
