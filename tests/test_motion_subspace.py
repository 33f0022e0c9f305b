"""What MoAlign learns motion from: clips with features and flow, and the subspace from which flow is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import VideoMAEConfig, VideoMAEModel

from retake.errors import ConfigError
from retake.networks import video_mae as video_encoder
from retake.networks.video_mae import Grid, VideoMAE
from retake.synthetic import clips, grammar
from retake.synthetic.world import World
from retake.training import motion_clips, motion_subspace, video_mae
from retake.weights.catalogue import CATALOGUE

PLACES = 8


def encode(frames: np.ndarray) -> Tensor:
    """A latent frame for the first, and one for every four."""
    return torch.zeros(len(frames), 5, 2, 4, 4)


def features(frames: np.ndarray) -> Tensor:
    """Mean colours of each place in each tube's first frame."""
    pixels = torch.from_numpy(frames[:, :: motion_clips.TUBE]).float() / 255
    size = pixels.shape[2] // PLACES
    means = pixels.unflatten(3, (PLACES, size)).unflatten(2, (PLACES, size)).mean((3, 5))
    return means


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> motion_clips.Clips:
    folder = tmp_path_factory.mktemp("studied")
    assert motion_clips.render(folder, 24, encode, features)
    return motion_clips.read(motion_clips.shards(folder, 24))


@pytest.fixture(scope="module")
def encoder() -> VideoMAE:
    torch.manual_seed(0)
    return VideoMAE(video_mae.network().videomae, "fresh", torch.device("cpu"))


def test_flow_is_the_worlds_own_from_tube_to_tube(studied):
    world = World(clips.draw(motion_clips.SEED + 3, motion_clips.LIMITS).scene)
    flow, shown = (part[0].float() for part in studied.take([3])[2:])
    shown = shown.bool()
    assert flow.shape == (7, 2, 32, 32)
    for n, t in enumerate(range(1, 15, 2)):
        true = world.flow(t, t + 2) * motion_clips.SCALE / world.width
        inner = ~world.occlusion(t, t + 2).reshape(32, 2, 32, 2).any((1, 3)) & shown[n].numpy()
        wanted = true.reshape(32, 2, 32, 2, 2).mean((1, 3))
        assert inner.mean() > 0.5
        np.testing.assert_allclose(flow[n].permute(1, 2, 0).numpy()[inner], wanted[inner], atol=2e-3)


def test_what_is_hidden_in_the_next_tube_is_left_out():
    flow = torch.zeros(1, 2, 2, 4)
    flow[..., :2] = 3.0
    seen = torch.ones(1, 2, 4, dtype=torch.bool)
    seen[0, 0, 2:] = False  # half of the right cell
    seen[0, :, 0] = False  # half of the left one
    flow[0, :, :, 0] = 99.0
    mean, shown = motion_clips.pooled(flow, seen, 2)
    torch.testing.assert_close(mean, torch.tensor([[[[3.0, 0.0]], [[3.0, 0.0]]]]))
    assert shown.tolist() == [[[False, False]]]  # no more than half


def test_what_is_there_is_not_made_again(tmp_path):
    made: list[int] = []

    def counted(frames: np.ndarray) -> Tensor:
        made.append(1)
        return features(frames)

    assert motion_clips.render(tmp_path, 3, encode, counted)
    assert not motion_clips.render(tmp_path / "late", 3, encode, counted, until=0)
    assert motion_clips.render(tmp_path, 3, encode, counted)
    assert len(made) == 3


def test_clips_are_read_from_their_files_as_they_are_asked_for(studied):
    some = studied.take([5, 0, 5])
    assert torch.equal(some.features[0], some.features[2])
    assert not torch.equal(some.features[0], some.features[1])
    assert torch.equal(some.flow[1], studied.take([0]).flow[0])
    assert studied.captions[5] == motion_clips.drawn(motion_clips.SEED + 5).caption
    assert studied.width == 3


def test_the_encoder_is_transformers_own_and_reads_other_sizes(encoder):
    frames = np.random.default_rng(0).integers(0, 255, (1, 16, 64, 64, 3), np.uint8)
    found = encoder.clips(frames)
    pixels = torch.from_numpy(frames).float() / 255
    pixels = ((pixels - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])).movedim(-1, 2)
    with torch.inference_mode():
        own = encoder.model(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(found.flatten(1, 3), own)
    assert encoder.clips(np.zeros((2, 8, 32, 48, 3), np.uint8)).shape == (2, 4, 4, 6, 128)
    # Halving a grid leaves the table's slow waves where they were.
    table, half = encoder.positions(encoder.grid()), encoder.positions(Grid(4, 8, 8))
    assert half.shape == (1, 256, 128)
    slow = slice(100, 128)
    wanted = table.unflatten(1, (4, 2, 64)).mean(2).flatten(1, 2)
    torch.testing.assert_close(half[..., slow], wanted[..., slow], atol=1e-4, rtol=0)


def test_of_each_clip_as_many_tokens_are_hidden():
    hidden = video_mae.masked(torch.Generator().manual_seed(0), 3, 512)
    assert hidden.sum(1).tolist() == [round(video_mae.MASKED * 512)] * 3
    assert not torch.equal(hidden[0], hidden[1])


def test_a_video_encoder_learns_from_pixels_and_words(tmp_path):
    frames, said = data = video_mae.pool(tmp_path, 8)
    assert frames.shape == (8, 17, 64, 64, 3)
    assert (said[:: video_mae.NATURAL] == -100).all()  # of stills that move nothing is said
    subject = motion_clips.drawn(video_mae.SEED + 1).subject
    assert said[1, 0] == grammar.SHAPES.index(subject.shape)
    assert said[1, 1] == list(grammar.HUES).index(subject.hue)
    assert (said[:, 5] >= 0).tolist() == [row[3] in range(8) for row in said.tolist()]
    torch.manual_seed(0)
    model = video_mae.network()
    value, told = video_mae.loss(model, data, 4, 0, "cpu")(0)
    assert float(value) == pytest.approx(video_mae.PIXELS * told["pixels"] + told["words"], rel=1e-5)
    value.backward()
    for part in (model.words, model.videomae.encoder, model.mae.decoder):
        assert all(weight.grad is not None for weight in part.parameters())


def test_flow_is_learnt_where_features_tell_it(studied, tmp_path):
    """Features that hold the flow of each place among channels of noise."""
    torch.manual_seed(0)
    own = studied.take(range(len(studied)))
    noise = torch.randn(len(studied), 8, 8, 8, 6, generator=torch.Generator().manual_seed(1))
    noise[:, :7, ..., :2] = 4 * F.avg_pool2d(own.flow.float().flatten(0, 1), 4).unflatten(0, (-1, 7)).movedim(2, -1)
    path = tmp_path / "told.safetensors"
    clips = [motion_clips.Study(*some) for some in zip(*own._replace(features=noise.half()), strict=True)]
    motion_clips.write(path, clips, studied.captions)
    told = motion_clips.read([path])
    model = motion_subspace.network(6)
    assert model.motion(told.take([0, 1]).features.float()).shape == (2, 8, 8, 8, motion_subspace.WIDTH)
    loss = motion_subspace.loss(model, told, 12, 0, "cpu")
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    for step in range(80):
        value, figures = loss(step)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert figures["epe"] < 0.6 * figures["still"]


def test_what_is_not_seen_does_not_count():
    flow, seen = torch.randn(1, 2, 2, 4, 4), torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    seen[0, 0] = True
    made = flow.clone()
    made[0, 1] += 100
    assert float(motion_subspace.distance(made, flow, seen)) == 0
    made[0, 0, 0] += 1
    assert float(motion_subspace.distance(made, flow, seen)) == pytest.approx(0.5)


def as_version_2(model: Any, folder: Path) -> None:
    """A VideoMAEModel in the layout of VideoMAE V2's own folders."""
    config, own = model.config, {}
    names = {there: here for here, there in video_encoder.PARTS.items()}
    for name, tensor in model.state_dict().items():
        if name.startswith("embeddings."):
            own[name.replace("embeddings.patch_embeddings.projection", "model.patch_embed.proj")] = tensor
            continue
        number, part = name.removeprefix("encoder.layer.").split(".", 1)
        block = f"model.blocks.{number}."
        if part.startswith("attention.attention.") and part.endswith(".weight"):
            continue
        module, _, kind = part.rpartition(".")
        own[block + (names[part] if part in names else f"{names[module]}.{kind}")] = tensor
    for n, layer in enumerate(model.encoder.layer):
        three = [getattr(layer.attention.attention, kind).weight for kind in ("query", "key", "value")]
        own[f"model.blocks.{n}.attn.qkv.weight"] = torch.cat(three)
    own |= {f"model.fc_norm.{kind}": torch.ones(config.hidden_size) for kind in ("weight", "bias")}
    said = {name: getattr(config, name) for name in ("patch_size", "num_frames")}
    said |= {"img_size": config.image_size, "tubelet_size": config.tubelet_size, "embed_dim": config.hidden_size}
    said |= {"depth": config.num_hidden_layers, "num_heads": config.num_attention_heads}
    said |= {"mlp_ratio": 4, "layer_norm_eps": 1e-6}
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in own.items()}, folder / "model.safetensors")
    auto_map = {"AutoModel": "modeling_videomaev2.VideoMAEv2"}
    (folder / "config.json").write_text(json.dumps({"auto_map": auto_map, "model_config": said}))


def test_a_folder_of_version_2_is_read_without_its_code(tmp_path):
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        layer_norm_eps=1e-6,
        use_mean_pooling=True,
    )
    model = VideoMAEModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():  # biases are zeros, or nobody would see them exchanged
            weight.add_(0.05 * torch.randn(weight.shape))
    as_version_2(model, tmp_path / "v2")
    frames = np.random.default_rng(0).integers(0, 255, (1, 4, 32, 32, 3), np.uint8)
    own = VideoMAE(model, "own", torch.device("cpu")).clips(frames)
    torch.testing.assert_close(video_encoder.load(str(tmp_path / "v2"), "cpu").clips(frames), own)

    config = json.loads((tmp_path / "v2" / "config.json").read_text())
    config["model_config"]["depth"] = 3
    (tmp_path / "v2" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        video_encoder.load(str(tmp_path / "v2"), "cpu")
    assert caught.value.code == "E262"


def test_the_published_encoder_has_its_size():
    """VideoMAEv2-Base's config.json (revision 78c337a), on the meta device; the catalogue's size is its file's."""
    with torch.device("meta"):
        config = VideoMAEConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, use_mean_pooling=True)
        count = sum(weight.numel() for weight in VideoMAEModel(config).parameters())
    assert 4 * count / 1e6 == pytest.approx(CATALOGUE["video_mae_v2_base"].megabytes, rel=0.01)
