"""masks=sam2: two libraries, one small checkpoint of random weights, equal masks; and what a tracker promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sam2")

from retake.errors import ConfigError, MachineError, RetakeError  # noqa: E402
from retake.formats import pack, unpack  # noqa: E402
from retake.networks.grounding_dino import Detected, GroundingDino, phrases, surest  # noqa: E402
from retake.priors.masks import sam2  # noqa: E402
from retake.priors.masks.prompt import Correction, Moment, Prompt  # noqa: E402
from retake.priors.masks.sam2 import memory, package, windows  # noqa: E402
from retake.priors.masks.sam2.follower import pixels  # noqa: E402
from retake.synthetic.scenes import scene  # noqa: E402
from retake.synthetic.world import World  # noqa: E402
from retake.weights.catalogue import CATALOGUE  # noqa: E402

WIDTH, HEIGHT, FRAMES = 96, 64, 20
SIZE = (WIDTH, HEIGHT)
PROMPTS = {1: Prompt(box=(20, 20, 50, 50)), 2: Prompt(points=((70, 30, 1), (10, 10, 0)))}
CORRECTED = 9  # frames after the prompt
CLICK = Prompt(points=((60, 40, 1),))
META = {"count": FRAMES, "width": WIDTH, "height": HEIGHT, "source_width": WIDTH, "source_height": HEIGHT}

# ---- a small checkpoint, under the names of both libraries --------------------------------------------------------

SMALL = {
    "base": "sam2.1_hiera_small",
    "model": {
        "image_size": 128,
        "image_encoder": {
            "trunk": {
                "embed_dim": 16,
                "stages": [1, 1, 2, 1],
                "global_att_blocks": [3],
                "window_spec": [8, 4, 4, 4],
                "window_pos_embed_bkg_spatial_size": [4, 4],
            },
            "neck": {
                "d_model": 128,
                "backbone_channel_list": [128, 64, 32, 16],
                "position_encoding": {"num_pos_feats": 128},
            },
        },
        "memory_attention": {
            "d_model": 128,
            "num_layers": 2,
            "layer": {
                "d_model": 128,
                "dim_feedforward": 128,
                "self_attention": {"embedding_dim": 128, "feat_sizes": [8, 8]},
                "cross_attention": {"embedding_dim": 128, "feat_sizes": [8, 8]},
            },
        },
        "memory_encoder": {
            "in_dim": 128,
            "mask_downsampler": {"embed_dim": 128},
            "fuser": {"layer": {"dim": 128}},
        },
    },
}
HEADS = {"proj_in": "layers.0", "layers.0": "layers.1", "proj_out": "layers.2"}
NAMES = (  # transformers' names, and the sam2 package's
    (r"^no_memory_embedding", "no_mem_embed"),
    (r"^no_memory_positional_encoding", "no_mem_pos_enc"),
    (r"^memory_temporal_positional_encoding", "maskmem_tpos_enc"),
    (r"^no_object_pointer", "no_obj_ptr"),
    (r"^occlusion_spatial_embedding_parameter", "no_obj_embed_spatial"),
    (r"^temporal_positional_encoding_projection_layer", "obj_ptr_tpos_proj"),
    (r"^vision_encoder\.backbone", "image_encoder.trunk"),
    (r"^vision_encoder\.neck\.convs\.(\d)", r"image_encoder.neck.convs.\1.conv"),
    (r"patch_embed\.projection", "patch_embed.proj"),
    (r"shared_embedding\.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"),
    (r"mask_embed\.conv(\d)", lambda m: f"mask_downscaling.{3 * int(m[1]) - 3}"),
    (r"mask_embed\.layer_norm(\d)", lambda m: f"mask_downscaling.{3 * int(m[1]) - 2}"),
    (r"upscale_conv1", "output_upscaling.0"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"upscale_conv2", "output_upscaling.3"),
    (r"(mlps\.\d|_head|object_pointer_proj)\.(proj_in|layers\.0|proj_out)", lambda m: f"{m[1]}.{HEADS[m[2]]}"),
    (r"mlp\.proj_in", "mlp.layers.0"),
    (r"mlp\.proj_out", "mlp.layers.1"),
    (r"downsampler\.layers\.(\d)\.conv", lambda m: f"downsampler.encoder.{3 * int(m[1])}"),
    (r"downsampler\.layers\.(\d)\.layer_norm", lambda m: f"downsampler.encoder.{3 * int(m[1]) + 1}"),
    (r"downsampler\.final_conv", "downsampler.encoder.12"),
    (r"memory_encoder\.feature_projection", "memory_encoder.pix_feat_proj"),
    (r"memory_encoder\.projection", "memory_encoder.out_proj"),
    (r"memory_fuser", "fuser"),
    (r"\.scale$", ".gamma"),
    (r"depthwise_conv", "dwconv"),
    (r"pointwise_conv", "pwconv"),
    (r"^object_pointer_proj", "obj_ptr_proj"),
    (r"layer_norm", "norm"),
    (r"\.o_proj", ".out_proj"),
    (r"^(prompt_encoder|mask_decoder)", r"sam_\1"),
)


def as_package(tensors):
    """A transformers checkpoint under the names of the sam2 package."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        if name.endswith("point_embed.weight") and "not_a" not in name:
            renamed |= {name.replace("embed.", f"embeddings.{k}."): row[None].clone() for k, row in enumerate(tensor)}
        elif not name.startswith("shared_image_embedding"):  # the same matrix once more
            renamed[name] = tensor.clone()
    return renamed


def small_model(seed=1, score=3.0):
    """Sam2VideoModel with random weights that make masks of some pixels; `score` is what objects score at least."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    trunk = {"model_type": "sam2_hiera_det_model", "hidden_size": 16, "image_size": [128, 128]}
    trunk |= {"blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [16, 32, 64, 128]}
    trunk |= {"window_size_per_stage": [8, 4, 4, 4], "global_attention_blocks": [3]}
    trunk |= {"window_positional_embedding_background_size": [4, 4]}
    vision = {"model_type": "sam2_vision_model", "backbone_config": trunk, "fpn_hidden_size": 128}
    vision |= {"backbone_channel_list": [128, 64, 32, 16], "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]}
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": 128},
        mask_decoder_config={"hidden_size": 128},
        image_size=128,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=512,
    )
    model, draw = Sam2VideoModel(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" not in name:
                spread = p[0].numel() ** -0.5 if p.ndim > 1 else 0.1
                p.copy_(torch.randn(p.shape, generator=draw) * spread)
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(score)
        matrix = model.prompt_encoder.shared_embedding.positional_embedding
        matrix.copy_(torch.randn(matrix.shape, generator=draw))
        model.shared_image_embedding.positional_embedding.copy_(matrix)
    return model.eval()


def saved(folder, model):
    """Paths of the checkpoint by backend."""
    from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor

    side = {"height": 128, "width": 128}
    model.save_pretrained(folder / "small")
    Sam2VideoProcessor(Sam2ImageProcessor(size=side), Sam2VideoVideoProcessor(size=side)).save_pretrained(
        folder / "small"
    )
    torch.save({"model": as_package(model.state_dict())}, folder / "small.pt")
    (folder / "small.json").write_text(json.dumps(SMALL))
    return {"transformers": folder / "small", "sam2": folder / "small.pt"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("sam2"), small_model())


@pytest.fixture(scope="module")
def clip():
    world = World(scene("cross", width=WIDTH, height=HEIGHT, frames=FRAMES))
    return [world.frame(t) for t in range(FRAMES)]


def times_of(clip, reverse):
    return list(range(len(clip)))[:: -1 if reverse else 1]


def params(small, backend, **others):
    return sam2.Params(backend=backend, weights=str(small[backend]), **others)


def followed(p, clip, reverse, correct=True, stops=False):
    """Masks bool [T, 2, H, W] from the prompt on, and the network's logits. With `stops` every frame has a tracker of
    its own, made from the state after the one before, by way of the bytes that a store would keep."""
    tracker, masks, logits = sam2.tracker(p, SIZE, None, reverse), [], []
    for k, t in enumerate(times_of(clip, reverse)):
        moment = Moment(t, clip[t])
        found = tracker.begin(moment, PROMPTS) if k == 0 else tracker.step(moment)
        if correct and k == CORRECTED:
            found[1] = tracker.correct(moment, 1, CLICK)
        masks.append(np.stack([found[i].mask for i in (1, 2)]))
        logits.append(np.stack([memory.at(tracker.outputs[i], t)["pred_masks"].float()[0, 0].numpy() for i in (1, 2)]))
        if stops:
            tracker = sam2.tracker(p, SIZE, unpack(pack(tracker.state())), reverse)
    return np.stack(masks), np.stack(logits)


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


def test_hydra_is_left_as_it_was_and_importing_loads_nothing(small):
    code = f"""
import sys
from retake.priors.masks import sam2
assert not {{"torch", "transformers", "sam2", "hydra"}} & set(sys.modules)
sam2.tracker(sam2.Params(backend="sam2", weights={str(small["sam2"])!r}), (96, 64), None, False)
from hydra.core.global_hydra import GlobalHydra
assert not GlobalHydra.instance().is_initialized()
from flows.config import compose
assert compose(["masks=sam2"])["masks"]["name"] == "sam2"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


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


# ---- words --------------------------------------------------------------------------------------------------------

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "red", "ball", "dog")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Grounding DINO in small, with random weights that draw boxes of all sizes."""
    from transformers import (
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    swin = {"model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    bert = {"model_type": "bert", "vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 1}
    config = GroundingDinoConfig(
        backbone_config=swin | {"window_size": 4, "out_indices": [2, 3, 4]},
        text_config=bert | {"num_attention_heads": 2, "intermediate_size": 16},
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=30,
    )
    model, draw = GroundingDinoForObjectDetection(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            last = "bbox_embed" in name and "layers.2" in name
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=draw) * p[0].numel() ** -0.5 * (0.1 if last else 1.0))
            elif last:
                p.copy_(torch.tensor([0.0, 0.0, 1.2, 1.2]))
    folder = tmp_path_factory.mktemp("detector")
    model.save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: k for k, word in enumerate(VOCABULARY)})
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def test_words_find_the_objects_that_are_followed(small, detector, clip):
    p = params(small, "transformers", text="A red ball. dog", detector=str(detector), max_objects=2, box_threshold=0.2)
    sam2.check(p, META)
    assert sam2.weights(p) == {"sam2": str(small["transformers"]), "detector": str(detector)}
    tracker = sam2.tracker(p, SIZE, None, False)
    found = tracker.begin(Moment(3, clip[3]), {})
    assert sorted(found) == [1, 2]

    detected = GroundingDino(detector, tracker.device).detect(clip[3], "a red ball. dog.")
    assert [one.score for one in detected] == sorted((one.score for one in detected), reverse=True)
    words = {word for one in detected for phrase in one.words.split(", ") for word in phrase.split()}
    assert "dog" in words <= {"a", "red", "ball", "dog"}
    boxes = {i: Prompt(box=one.box) for i, one in enumerate(surest(detected, 0.2, 2), 1)}
    by_box = sam2.tracker(params(small, "transformers"), SIZE, None, False).begin(Moment(3, clip[3]), boxes)
    for i in (1, 2):
        np.testing.assert_array_equal(found[i].mask, by_box[i].mask)
    assert sorted(tracker.step(Moment(4, clip[4]))) == [1, 2]


def test_words_that_find_nothing_say_how_near_they_came(small, detector, clip):
    p = params(small, "transformers", text="dog", detector=str(detector), box_threshold=1.0)
    tracker = sam2.tracker(p, SIZE, None, False)
    best = GroundingDino(detector, tracker.device).detect(clip[0], "dog")[0].score
    with pytest.raises(ConfigError, match="E226") as caught:
        tracker.begin(Moment(0, clip[0]), {})
    assert f"{best:.3f}" in caught.value.message
    assert "masks.box_threshold=0." in caught.value.hint
    unnamed = params(small, "transformers", text="dog", detector=str(detector), box_threshold=0.0, text_threshold=1.0)
    with pytest.raises(ConfigError, match="E226") as caught:
        sam2.tracker(unnamed, SIZE, None, False).begin(Moment(0, clip[0]), {})
    assert "Lower masks.text_threshold" in caught.value.hint


def test_a_correction_of_an_object_that_words_did_not_find(small, detector, clip):
    fix = Correction(frame=5, object=9, points=((4, 4, 1),))
    p = params(small, "transformers", text="dog", detector=str(detector), box_threshold=0.01, corrections=(fix,))
    sam2.check(p, META)
    with pytest.raises(ConfigError, match="E224"):
        sam2.tracker(p, SIZE, None, False).begin(Moment(0, clip[0]), {})


def test_the_surest_of_overlapping_boxes_stays():
    boxes = [
        Detected((0, 0, 10, 10), 0.9, "dog"),
        Detected((1, 0, 11, 10), 0.8, "dog"),  # the same object
        Detected((0, 0, 10, 10), 0.7, ""),  # nothing that was asked for
        Detected((50, 0, 60, 10), 0.6, "ball"),
        Detected((80, 0, 90, 10), 0.5, "ball"),
        Detected((30, 0, 40, 10), 0.2, "ball"),
    ]
    assert surest(boxes, 0.3, 9) == [boxes[0], boxes[3], boxes[4]]
    assert surest(boxes, 0.3, 2) == [boxes[0], boxes[3]]
    assert surest(boxes, 0.95, 9) == []
    assert phrases(" A red  ball.. Dog. ") == ["a red ball", "dog"]


def test_the_real_detector_has_the_parameters_of_the_catalogue():
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    with torch.device("meta"):
        model = GroundingDinoForObjectDetection(GroundingDinoConfig())
    size = sum({id(p): p.numel() for p in model.parameters()}.values()) * 4e-6
    assert size == pytest.approx(CATALOGUE["grounding_dino_tiny"].megabytes, rel=0.02)


# ---- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"text": "dog", "box": (1, 1, 40, 40)}, "E225"),
        ({"text": "dog", "objects": {2: PROMPTS[1]}}, "E225"),
        ({"text": " . "}, "E227"),
        ({}, "E222"),
        ({"box": (1, 1, 2, 2)}, "E221"),
        ({"text": "dog", "frame": 99}, "E231"),
    ],
)
def test_prompts_that_cannot_work(settings, code):
    with pytest.raises(ConfigError, match=code):
        sam2.check(sam2.Params(**settings), META)


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({}, "sam2_small"),
        ({"backend": "sam2"}, "sam2_small_pt"),
        ({"weights": "sam2_large"}, "sam2_large"),
        ({"weights": "org/other@1a2b"}, "org/other@1a2b"),
        ({"text": "dog"}, "grounding_dino_tiny"),
    ],
)
def test_missing_weights_say_what_to_type(small, tmp_path, monkeypatch, settings, missing):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    here = {"weights": str(small["transformers"])} if "text" in settings else {}
    with pytest.raises(MachineError, match="E302") as caught:
        sam2.tracker(sam2.Params(**settings, **here), SIZE, None, False)
    assert caught.value.hint == f"Get it: retake weights {missing}"


@pytest.mark.parametrize("case", ["swapped", "folder", "other", "lacking", "pickle", "class", "name"])
def test_weights_of_something_else(small, detector, tmp_path, case):
    from safetensors.torch import load_file, save_file

    folder, file = saved(tmp_path, small_model()).values()
    backend, path = ("transformers", folder) if case in ("swapped", "other", "lacking") else ("sam2", file)
    if case == "swapped":
        path = file
    elif case == "folder":
        path = folder
    elif case == "other":
        path = detector
    elif case == "lacking":
        tensors = load_file(folder / "model.safetensors")
        tensors.pop("no_object_pointer")
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    elif case == "pickle":
        torch.save({"model": as_package(small_model().state_dict()), "more": subprocess.Popen}, file)
    elif case == "class":
        path.with_suffix(".json").write_text(json.dumps({"model": {"image_encoder": {"_target_": "os.system"}}}))
    else:
        path.with_suffix(".json").unlink()
    with pytest.raises(RetakeError, match="E262") as caught:
        sam2.tracker(sam2.Params(backend=backend, weights=str(path)), SIZE, None, False)
    told = {"swapped": "backend=sam2", "folder": "backend=transformers", "lacking": "no_object_pointer"}
    assert told.get(case, "") in caught.value.message


def test_a_file_may_hold_the_shared_matrix_once(small, clip, whole, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path, small_model())["transformers"]
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("prompt_encoder.shared_embedding.positional_embedding")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    found = sam2.tracker(sam2.Params(weights=str(folder)), SIZE, None, False).begin(Moment(0, clip[0]), PROMPTS)
    np.testing.assert_array_equal(found[1].mask, whole("transformers", False)[0][0, 0])


def test_the_params_file_states_the_defaults():
    file = Path(__file__).parent.parent / "params/masks/sam2.yaml"
    assert yaml.safe_load(file.read_text()) == sam2.Params().model_dump(mode="json")
