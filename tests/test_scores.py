"""Scores through the stage and the command: weights that are there or not, any two videos, numbers of a dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.command import Shell, reference, sprite_clip

from flows.datasets import outputs
from retake.artifact import Metrics
from retake.formats import pack
from retake.metrics import fid
from retake.store import Store
from retake.video import decode, encode, write_png
from retake.weights.catalogue import CATALOGUE, Url

BOX = ("--box", "20,20,80,80")
SMALL = ("report.tile=64", "report.columns=2", "decode.preset=veryfast")


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    return Shell(tmp_path_factory.mktemp("scores"))


@pytest.fixture(scope="module")
def clip(shell):
    return sprite_clip(shell.home / "clip.mp4", frames=10)


@pytest.fixture(scope="module")
def edit(shell, clip):
    """Words of an edit, and its answer."""
    words = ("edit", clip, *BOX, f"edit.reference={reference(shell.home / 'patch.png')}", *SMALL, "--json")
    return words, shell(*words).data


def values_of(result: dict) -> dict:
    return json.loads(Path(result["outputs"]["metrics"]).read_text())


def meta_of(shell: Shell, result: dict) -> dict:
    """What the metrics artifact says beside its values."""
    key = next(s["key"] for s in result["stages"] if s["stage"] == "metrics")
    record = Store(shell.home / "store" / "retake").find("metrics", key)
    assert record is not None
    return dict(record.artifact.meta)


# ---- networks that are there, and that are not -------------------------------------------------------------------


def test_without_weights_a_value_says_what_to_get_and_once_they_are_there_it_is_measured(shell, edit, trunks, tmp_path):
    words, _ = edit
    home = {"TORCH_HOME": str(tmp_path)}
    asked = (*words, "metrics.names=[region,lpips]")
    lacking = shell(*asked, **home).data
    values, meta = values_of(lacking), meta_of(shell, lacking)
    assert values["lpips"] is None
    assert values["psnr_unedited"] == 100
    assert meta["reasons"]["lpips"] == (
        "unavailable: needs lpips_alex (244 MB, BSD-3-Clause), get it with: retake weights lpips_alex"
    )
    assert "lpips" not in meta["networks"]
    page = Path(lacking["outputs"]["report"]).read_text()
    assert "retake weights lpips_alex" in page

    source = CATALOGUE["lpips_alex"].source
    assert isinstance(source, Url)
    place = tmp_path / "hub" / "checkpoints" / source.file
    place.parent.mkdir(parents=True)
    shutil.copy(trunks["alex"], place)
    there = shell(*asked, **home)
    assert there.ran() == ["metrics"]
    values, meta = values_of(there.data), meta_of(shell, there.data)
    assert values["lpips"] > 0
    assert values["lpips_edit"] > values["lpips"]
    assert "alex" in meta["networks"]["lpips"].lower()
    assert not meta["reasons"]
    assert shell(*asked, **home).ran() == []


def test_clip_compares_with_the_edits_own_reference_and_a_prompt(shell, edit, clip_folder, dino_folder):
    words, _ = edit
    result = shell(
        *words,
        "metrics.names=[clip_score,consistency,temporal_consistency,dynamics]",
        f"metrics.clip_score.weights={clip_folder}",
        "metrics.clip_score.prompt=a b c",
        f"metrics.temporal_consistency.weights={clip_folder}",
        f"metrics.consistency.subject_weights={dino_folder}",
        HF_HOME=str(shell.home / "empty"),
    ).data
    values, meta = values_of(result), meta_of(shell, result)
    for name in ("clip_i", "clip_t", "clip_t_edit", "subject_consistency", "tc_full", "tc_edit"):
        assert values[name] is not None, name
        assert meta["networks"][name]
    # One metric, two networks: what DINO sees is there, what CLIP should see is not.
    assert values["background_consistency"] is None
    assert "retake weights clip_vit_b_32" in meta["reasons"]["background_consistency"]
    key = next(s["key"] for s in result["stages"] if s["stage"] == "metrics")
    record = Store(shell.home / "store" / "retake").find("metrics", key)
    assert record is not None
    assert record.recipe["weights"]["consistency.background"] == "absent"
    assert record.recipe["weights"]["clip_score.clip"].startswith("sha256:")
    assert str(clip_folder) not in json.dumps(record.recipe)


# ---- any two videos ----------------------------------------------------------------------------------------------


def test_scoring_the_lossless_result_gives_the_edits_own_numbers(shell, clip, edit):
    words, done = edit
    folder = shell.home / "export"
    shell("export", clip, *words[2:-1], "--what", "masks,result", "--out", folder, "--json").data  # noqa: B018
    masks = next((folder / "Annotations" / "480p").iterdir())
    result = shell("metrics", clip, folder / "result", "--mask", masks, "metrics=default", "--json").data
    ours = values_of(done)
    assert set(result["values"]) == set(ours)
    for name in ("psnr_unedited", "ssim_unedited", "l1_unedited", "warp_error_full", "warp_error_edit", "flicker_edit"):
        assert result["values"][name] == pytest.approx(ours[name], rel=1e-9), name
    assert Path(result["outputs"]["report"]).exists()


def test_without_a_mask_the_whole_frame_is_scored_and_the_rest_says_why(shell, clip, edit):
    view = edit[1]["outputs"]["video"]
    result = shell("metrics", clip, view, "--json").data
    assert result["values"]["warp_error_full"] is not None
    assert result["values"]["motion_fidelity"] > 0.5
    assert result["values"]["psnr_unedited"] is None
    assert "region" in result["reasons"]["psnr_unedited"]
    lines = shell("metrics", clip, view).out
    assert "warp_error_full" in lines
    assert "source" in lines
    itself = shell("metrics", clip, clip, "--json").data["values"]
    assert itself["motion_fidelity"] == 1
    assert itself["flicker_delta"] == 0


def test_videos_that_cannot_be_compared_are_refused(shell, clip, tmp_path):
    short = sprite_clip(tmp_path / "short.mp4", frames=7)
    result = shell("metrics", clip, short, "--json")
    assert (result.code, result.error["code"]) == (4, "E441")
    assert "frames.last=6" in result.error["hint"]
    assert shell("metrics", clip, short, "frames.last=6", "--json").code == 0
    wide = sprite_clip(tmp_path / "wide.mp4", frames=10, size=(200, 96))
    assert shell("metrics", clip, wide, "--json").error["code"] == "E441"
    result = shell("metrics", clip, short, "tracks.queries=mask", "--json")
    assert (result.code, result.error["code"]) == (2, "E229")


def test_a_larger_result_of_the_same_shape_is_scored_at_working_size(shell, clip, tmp_path):
    large = tmp_path / "large.mp4"
    encode(large, (cv2.resize(rgb, (320, 192)) for _, rgb in decode(clip)), 24.0)
    result = shell("metrics", clip, large, *BOX, "--json").data
    assert result["values"]["psnr_unedited"] > 30


def test_the_padding_of_an_odd_size_is_cropped_and_told(shell, tmp_path):
    (tmp_path / "odd").mkdir()
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(0, 255, (18, 24, 3), np.uint8), (103, 79), interpolation=cv2.INTER_CUBIC)
    frames = [np.ascontiguousarray(texture[k : k + 71, k : k + 95]) for k in range(5)]
    for k, frame in enumerate(frames):
        write_png(tmp_path / "odd" / f"{k}.png", frame)
    encode(tmp_path / "padded.mp4", frames, 24.0, crf=12)
    words = ("metrics.names=[ssim]", "tracks.queries=grid", *SMALL[:2])
    result = shell("metrics", tmp_path / "odd", tmp_path / "padded.mp4", *words, "-v")
    assert "cropped from 96x72" in result.err
    (tmp_path / "cropped").mkdir()
    for k, (_, frame) in enumerate(decode(tmp_path / "padded.mp4")):
        write_png(tmp_path / "cropped" / f"{k}.png", np.ascontiguousarray(frame[:71, :95]))
    values = [
        shell("metrics", tmp_path / "odd", tmp_path / other, *words, "--json").data["values"]["ssim"]
        for other in ("padded.mp4", "cropped")
    ]
    assert values[0] == values[1] > 0.9


# ---- numbers of a dataset ----------------------------------------------------------------------------------------


def test_fid_and_kid_are_of_all_clips_together(tmp_path):
    rng = np.random.default_rng(0)
    store = Store(tmp_path / "store")
    sides = {"source": [], "result": []}
    for clip in ("a", "b"):
        features = {side: rng.normal(size=(40, 8)).astype(np.float32) + (side == "result") for side in sides}
        for side in sides:
            sides[side].append(features[side])
        files = (
            store.put("metrics.json", b'{"psnr_unedited": 1.0}'),
            store.put("metrics.tsv", b"frame\tpsnr_unedited\n0\t1\n"),
            store.put("features.safetensors", pack(features)),
        )
        outputs.hand_out(store, tmp_path / clip / "ball", Metrics(files, {"format": 1}))
    outputs.write_scores(tmp_path, [("a", "ball"), ("b", "ball")], {"ball": fid.Params()})
    scores = json.loads((tmp_path / "scores.json").read_text())
    wanted, _ = fid.score(np.concatenate(sides["source"]), np.concatenate(sides["result"]))
    assert scores["all clips"]["ball"] == wanted
    assert scores["all clips"]["ball"]["fid"] == pytest.approx(8, rel=0.3)
    assert set(scores) == {"a", "b", "all clips"}
    assert json.loads((tmp_path / "notes.json").read_text()) == {"ball": {}}  # 80 frames are plenty for 8 features
