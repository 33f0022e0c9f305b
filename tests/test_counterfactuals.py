"""Counterfactual pairs of real clips: what they show, where their points lie, and what is kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.command import Shell

from flows.upkeep import counterfactuals as flow
from retake.errors import MediaError
from retake.track_edits import program as programs
from retake.training import counterfactuals, motionv2v
from retake.training.counterfactuals import Seen

SIZE = 64


def dots(rng: np.random.Generator, frames: int = 5, points: int = 3) -> Seen:
    """A black clip of 96x72 px with a bright spot at every point, which walks."""
    start, step = rng.uniform(25, 45, (points, 2)), rng.uniform(-1, 1, (points, 2))
    xy = (start[None] + np.arange(frames)[:, None, None] * step).astype(np.float32)
    y, x = np.mgrid[:72, :96]
    bright = np.exp(-(np.square(x - xy[..., 0, None, None]) + np.square(y - xy[..., 1, None, None])) / 8)
    picture = np.zeros((frames, 72, 96, 3), np.uint8)
    picture[..., :points] = np.rint(255 * bright).transpose(0, 2, 3, 1)  # a channel each
    return Seen(picture, xy, np.ones((frames, points), bool))


def test_points_go_through_a_window_with_what_they_lie_on():
    for seed in range(12):
        rng = np.random.default_rng(seed)
        clip = dots(rng)
        first, last = (counterfactuals.window(rng, 96, 72) for _ in range(2))
        seen = counterfactuals.through(clip, counterfactuals.slid(first, last, 5), SIZE)
        y, x = np.mgrid[:SIZE, :SIZE]
        for t in range(5):
            for p in range(3):
                weight = seen.frames[t, ..., p].astype(float)
                where = seen.xy[t, p]
                if not seen.visible[t, p] or where.min() < 10 or where.max() > SIZE - 11:
                    continue
                found = [(weight * at).sum() / weight.sum() for at in (x, y)]
                assert np.abs(where - found).max() < 0.6, (seed, t, p)


def test_a_window_lies_within_the_frame():
    rng = np.random.default_rng(0)
    for _ in range(200):
        x, y, half, angle = counterfactuals.window(rng, 96, 72)
        reach = half * (abs(np.cos(angle)) + abs(np.sin(angle)))
        assert x - reach + 1e-9 >= -0.5
        assert x + reach <= 95.5 + 1e-9
        assert y - reach + 1e-9 >= -0.5
        assert y + reach <= 71.5 + 1e-9
        assert half >= 0.25 * 36


def test_a_target_is_in_a_row_and_a_source_from_anywhere_either_way():
    ways = set()
    for seed in range(40):
        target, source = counterfactuals.moments(np.random.default_rng(seed), 50, 17)
        assert (np.diff(target) == 1).all()
        assert min(target.min(), source.min()) >= 0
        assert max(target.max(), source.max()) < 50
        ways.add(int(np.sign(source[-1] - source[0])))
    assert {-1, 1} <= ways


def test_random_programs_are_edits_that_any_clip_takes():
    kinds = set()
    for seed in range(60):
        edits = counterfactuals.program(np.random.default_rng(seed), 30, 320, 180)
        program = programs.parse({"edits": edits}, "here")
        programs.check(program, 30, 320, 180, (1,))
        kinds |= {one.do for one in program.edits}
    assert kinds == {"move", "rotate", "scale", "reverse", "freeze", "retime"}


def test_points_of_a_pair_are_those_that_both_videos_show():
    rng = np.random.default_rng(0)
    clip = dots(rng, points=3)
    assert counterfactuals.framed(rng, clip, clip, SIZE) is None  # three are few
    many = Seen(clip.frames, np.repeat(clip.xy, 3, 1), np.repeat(clip.visible, 3, 1))
    hidden = many.visible.copy()
    hidden[:, 0] = False
    found = next(f for _ in range(50) if (f := counterfactuals.framed(rng, many, many._replace(visible=hidden), SIZE)))
    target, source = found
    assert target.xy.shape == source.xy.shape
    assert target.xy.shape[1] <= 8
    assert target.visible.any(0).all()
    assert source.visible.any(0).all()
    assert target.frames.shape == (5, SIZE, SIZE, 3)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Pairs of a scene, twice asked for, uncoded."""
    folder = tmp_path_factory.mktemp("pairs")
    manifest = folder / "clips.jsonl"
    row = {"id": "drift", "clip": "sprites:drift", "masks.box": [40, 40, 130, 130], "frames.last": 23}
    manifest.write_text(json.dumps(row) + "\n")
    return folder, manifest


class Shop:
    """What the flow asks of a workshop, with a code of pairs that is the pictures themselves."""

    def __init__(self, folder):
        self.folder, self.asked = folder, 0

    def pair_coding(self):
        import torch

        from retake.training.workshop import PairCoding

        def encode(pictures):
            self.asked += 1
            return torch.from_numpy(pictures.astype(np.float32) / 255).permute(0, 1, 4, 2, 3).contiguous()

        return PairCoding(encode, SIZE, 4)


def test_pairs_of_a_clip_are_made_once_and_learnt_from_beside_sprite_pairs(written, monkeypatch):
    folder, manifest = written
    monkeypatch.setenv("RETAKE_STORE", str(folder / "store"))
    shop, lines = Shop(folder / "training"), []
    console = type("Console", (), {"say": lambda self, line: lines.append(line)})()
    assert not flow.render(str(manifest), shop, 6, console, until=0.0)  # type: ignore[arg-type]
    assert shop.asked == 0  # its time was over
    assert flow.render(str(manifest), shop, 6, console)  # type: ignore[arg-type]
    assert shop.asked == 6
    assert lines == ["drift: 6 pairs"]
    assert flow.render(str(manifest), shop, 6, console)  # type: ignore[arg-type]
    assert shop.asked == 6
    assert len(list((folder / "training" / "pairs").iterdir())) == 1
    data = motionv2v.read(folder / "training" / "pairs", 0)
    assert data["target"].shape == (6, 17, 3, SIZE, SIZE)
    apart = (data["target"].float() - data["source"].float()).abs().flatten(1).mean(1)
    assert (apart > 0.01).sum() >= 4  # now and then nothing differs but a little
    told = data["target_tracks"].float().flatten(1).amax(1)
    assert (told > 0.5).all()


def test_a_clip_that_is_too_short_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RETAKE_STORE", str(tmp_path / "store"))
    manifest = tmp_path / "clips.jsonl"
    row = {"id": "short", "clip": "sprites:drift", "masks.box": [40, 40, 130, 130], "frames.last": 9}
    manifest.write_text(json.dumps(row) + "\n")
    console = type("Console", (), {"say": lambda self, line: None})()
    with pytest.raises(MediaError, match="10 frames") as caught:
        flow.render(str(manifest), Shop(tmp_path), 2, console)  # type: ignore[arg-type]
    assert caught.value.code == "E439"


def test_only_the_control_branch_learns_from_clips(tmp_path):
    for words in (["embedded"], ["motionv2v", "--part", "vae"]):
        result = Shell(tmp_path)("train", *words, "--clips", str(tmp_path))
        assert result.code == 2
        assert "retake train motionv2v" in result.err
