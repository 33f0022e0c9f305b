"""What motion is studied on in clips of one's own, against the sprite world's own flow; and when it is made again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.command import Shell
from safetensors.numpy import load_file
from transformers import VideoMAEConfig, VideoMAEModel

from flows.runners import Local
from flows.upkeep import motion_studies
from retake import video
from retake.errors import MediaError
from retake.store import Store
from retake.synthetic.world import World
from retake.training import motion_clips, video_mae
from retake.training.motion_clips import LIMITS, SCALE
from tasks.motion_study import carried, middle

SEED = 5


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    video_mae.network().mae.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """A folder of a clip of 40 frames, which is the 17 of a sprite clip, forth, back and forth; and one too short."""
    folder = tmp_path_factory.mktemp("clips")
    world = World(motion_clips.drawn(SEED).scene)
    frames = [world.frame(t) for t in range(LIMITS.frames)]
    turned = [*frames, *frames[-2::-1], *frames[1:8]]
    assert len(turned) == 40
    for name, some in (("long", turned), ("short", frames[:9])):
        for n, frame in enumerate(some):
            (folder / name).mkdir(exist_ok=True)
            video.write_png(folder / name / f"{n:05d}.png", frame)
    return folder


@dataclass
class Desk:
    store: Path
    said: list[str] = field(default_factory=list)

    def study(self, manifest: Path, encoder: str) -> tuple[list[tuple[Path, list[str]]], list[str]]:
        """Files, and the stages that ran."""
        runner = Local(Store(self.store, lambda line: None))
        files = motion_studies.study(str(manifest), runner, encoder, self.said.append)
        assert files is not None
        return files, [f"{o.stage}" for o in runner.outcomes if o.status == "ran"]


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path / "store")


def test_windows_hold_what_sprite_clips_hold(desk, clips, encoder):
    files, ran = desk.study(clips, encoder)
    assert len(files) == 2  # of 17 frames each, the last frame of one the first of the next
    assert ran.count("motion_study") == 1
    assert "short is left out: E439" in desk.said[0]
    world = World(motion_clips.drawn(SEED).scene)
    own = motion_clips.one(
        SEED, lambda frames: torch.zeros(1, 5, 16, 16, 16), lambda frames: torch.zeros(1, 8, 8, 8, 128)
    )
    found = load_file(files[0][0])
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        name: ((1, *tensor.shape), np.dtype(str(tensor.dtype).removeprefix("torch.")))
        for name, tensor in own._asdict().items()
    }
    frames = np.stack([world.frame(t) for t in range(17)])
    torch.manual_seed(0)
    model = VideoMAEModel.from_pretrained(encoder).eval()
    pixels = (torch.from_numpy(frames[None, 1:]) / 255 - torch.tensor(video_mae.MEAN)) / torch.tensor(video_mae.STD)
    with torch.inference_mode():
        read = model(pixel_values=pixels.movedim(-1, 2)).last_hidden_state.unflatten(1, (8, 8, 8))
    np.testing.assert_allclose(found["features"], read.numpy(), atol=2e-2)

    pixel = LIMITS.size / SCALE
    flow, true = found["flow"][0].astype(float) * pixel, own.flow.float().numpy() * pixel
    both = found["seen"][0] & own.seen.numpy()
    assert both.mean() > 0.7
    moves = both & (np.linalg.norm(true, axis=1) > 1)
    off = np.linalg.norm(flow - true, axis=1)
    assert off[both].mean() < 0.3
    assert off[moves].mean() < 0.5 * np.linalg.norm(true, axis=1)[moves].mean()  # DIS, on a small and smooth picture


def test_flow_lies_on_the_same_cells_whatever_the_encoders_patches(desk, clips, tmp_path):
    torch.manual_seed(0)
    sizes = {"image_size": 128, "patch_size": 16, "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    VideoMAEModel(VideoMAEConfig(**sizes, intermediate_size=64)).save_pretrained(tmp_path / "other")
    files, _ = desk.study(clips, str(tmp_path / "other"))
    some = motion_clips.Clips(files).take([0, 1])
    assert some.flow.shape == (2, 7, 2, 32, 32)
    assert some.features.shape == (2, 8, 8, 8, 48)


def test_what_leaves_the_part_that_is_read_is_not_seen(tmp_path):
    """A wide picture that moves 8 pixels to the right: of the middle square, the right edge's cells."""
    flow = np.zeros((32, 64, 2), np.float32)
    flow[..., 0] = 4
    still = SimpleNamespace(forward=lambda t: flow, occluded_forward=lambda t: np.zeros((32, 64), bool))
    found, seen = carried(still, 0, 2, middle((32, 64), (8, 8)), (8, 8))
    assert seen.all(0).tolist() == [True] * 6 + [False] * 2
    np.testing.assert_allclose(found[:, :6], [[[8 / 32, 0]] * 6] * 8)


def test_nothing_is_made_twice_and_nothing_stale_is_read(desk, clips, encoder, tmp_path):
    manifest = tmp_path / "clips.csv"
    line = f"a,{clips / 'long'}"
    manifest.write_text(f"id,clip,edit.prompt\n{line},a red disc\n")
    first, _ = desk.study(manifest, encoder)
    again, ran = desk.study(manifest, encoder)
    assert (again, ran) == (first, [])
    assert first[0][1] == ["a red disc"]
    manifest.write_text(f"id,clip,frames.short_side\n{line},48\n")
    smaller, ran = desk.study(manifest, encoder)
    assert ran == ["frames", "optical_flow", "motion_study"]
    assert not {path for path, _ in smaller} & {path for path, _ in first}
    other = tmp_path / "other"
    torch.manual_seed(1)
    video_mae.network().mae.save_pretrained(other)
    read, ran = desk.study(manifest, str(other))
    assert ran == ["motion_study"]
    assert not {path for path, _ in read} & {path for path, _ in smaller}
    moved = tmp_path / "moved"
    Path(other).rename(moved)
    assert desk.study(manifest, str(moved)) == (read, [])  # a folder is known by what it holds


def test_a_manifest_of_which_nothing_can_be_studied_is_refused(desk, clips, encoder, tmp_path):
    manifest = tmp_path / "clips.csv"
    manifest.write_text(f"id,clip\na,{clips / 'short'}\n")
    with pytest.raises(MediaError) as caught:
        desk.study(manifest, encoder)
    assert caught.value.code == "E439"


def test_only_moaligns_later_stages_learn_from_clips(tmp_path, clips):
    for words in (("embedded",), ("moalign", "--stage", "teacher")):
        result = Shell(tmp_path)("train", *words, "--folder", str(tmp_path), "--clips", str(clips))
        assert result.code == 2
        assert "E206" in result.err
