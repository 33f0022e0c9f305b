"""RAFT: torchvision's own networks through the loading code, at small size with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retake.errors import ConfigError, MachineError
from retake.priors.optical_flow import raft
from retake.synthetic import World, scene

FRAMES = [World(scene("drift", width=140, height=132, frames=4)).frame(t) for t in range(4)]


def settings(path: Path, **more) -> raft.Params:
    return raft.Params(weights=str(path), updates=2, device="cpu", **more)


def test_pairs_are_what_torchvision_computes_in_each_direction(small_raft):
    import torch
    from torchvision.models.optical_flow import raft_small

    found = list(raft.pairs(iter(FRAMES), settings(small_raft)))
    assert len(found) == 3
    network = raft_small(weights=None)
    network.load_state_dict(torch.load(small_raft, weights_only=True))
    a, b = (torch.from_numpy(f).permute(2, 0, 1)[None].float() / 127.5 - 1 for f in FRAMES[1:3])
    # 140x132 continued to 144x136 at the right and at the bottom: pixel (0, 0) stays where it is
    a, b = (torch.nn.functional.pad(x, (0, 4, 0, 4), mode="replicate") for x in (a, b))
    with torch.inference_mode():
        expected = [network.eval()(*pair, num_flow_updates=2)[-1][0, :, :132, :140] for pair in ((a, b), (b, a))]
    for ours, theirs in zip(found[1], expected, strict=True):
        assert ours.shape == (132, 140, 2)
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs.permute(1, 2, 0).numpy()).max() < 1e-3
    assert np.abs(found[1][0] - found[1][1]).max() > 0.01


def test_more_updates_and_lower_precision(small_raft):
    one, more = (
        next(raft.pairs(iter(FRAMES), raft.Params(weights=str(small_raft), updates=n, device="cpu"))) for n in (1, 3)
    )
    assert np.abs(one[0] - more[0]).max() > 0.01
    exact = next(raft.pairs(iter(FRAMES), settings(small_raft)))[0]
    half = next(raft.pairs(iter(FRAMES), settings(small_raft, dtype="bfloat16")))[0]
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.1 * np.abs(exact).max() + 0.1


def test_small_frames_are_enlarged_and_their_flow_divided(small_raft, monkeypatch):
    import torch

    class Constant(torch.nn.Module):
        """Sees every pixel move by (8, -4) at the size that it is given."""

        def forward(self, first, second, num_flow_updates):
            assert first.shape == second.shape == (2, 3, 160, 200)
            assert float(first.min()) >= -1
            assert float(first.max()) <= 1
            return [torch.tensor([8.0, -4.0]).view(1, 2, 1, 1).expand(2, 2, 160, 200)]

    monkeypatch.setattr(raft, "load", lambda path: Constant())
    tiny = [f[:40, :50] for f in FRAMES[:2]]  # short side 40: four times as large
    forward, backward = next(raft.pairs(iter(tiny), settings(small_raft)))
    assert forward.shape == backward.shape == (40, 50, 2)
    assert np.allclose(forward, (2, -1))


def test_the_network_is_seen_from_its_tensors(small_raft, tmp_path):
    import torch
    from torchvision.models.optical_flow import raft_large

    assert sum(p.numel() for p in raft.load(small_raft).parameters()) == 990162
    torch.save(raft_large(weights=None).state_dict(), tmp_path / "large.pth")
    assert sum(p.numel() for p in raft.load(tmp_path / "large.pth").parameters()) == 5257536
    assert not raft.load(small_raft).training


@pytest.mark.parametrize("name", ["raft_large", "raft_small"])
def test_networks_are_as_large_as_the_catalogue_says(name):
    import torch
    from torchvision.models import optical_flow

    from retake.weights.catalogue import CATALOGUE

    with torch.device("meta"):
        network = getattr(optical_flow, name)(weights=None)
    assert 4 * sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(CATALOGUE[name].megabytes, rel=0.02)


def test_missing_and_foreign_weights_fail_before_a_frame_is_read(small_raft, tmp_path, monkeypatch):
    import pickle

    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert raft.weights(raft.Params()) == {"raft": "raft_large"}

    def never():
        raise AssertionError("a frame was read")
        yield

    with pytest.raises(MachineError) as missing:
        next(raft.pairs(never(), raft.Params()))
    assert missing.value.code == "E302"
    assert "retake weights raft_large" in missing.value.hint

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    torch.save({"feature_encoder.convnormrelu.0.weight": Evil()}, tmp_path / "evil2.pth")
    (tmp_path / "cut.pth").write_bytes(small_raft.read_bytes()[:1000])
    for name in ("other.pth", "evil.pth", "evil2.pth", "cut.pth"):
        with pytest.raises(ConfigError) as foreign:
            next(raft.pairs(never(), settings(tmp_path / name)))
        assert foreign.value.code == "E262"
    assert not (tmp_path / "ran").exists()


def test_frames_of_two_sizes_are_refused(small_raft):
    with pytest.raises(ValueError, match="one size"):
        list(raft.pairs(iter([FRAMES[0], FRAMES[1][:, :128]]), settings(small_raft)))
