"""The control branch of the video transformer: nothing at first, what learns, and real sizes on the meta device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import small_cogvideox

from retake.diffusion.cost import measure
from retake.diffusion.families.cogvideox.control import ControlBranch
from retake.diffusion.families.cogvideox.transformer import evaluate

WIRINGS = ["classic", "published"]


@pytest.fixture(scope="module")
def base() -> Any:
    torch.manual_seed(0)
    return small_cogvideox.transformer().eval().requires_grad_(False)


def given(base: Any, batch: int = 2, frames: int = 3, videos: int = 3) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    config = base.config
    side = 2 * config.patch_size * 2
    z = torch.randn(batch, frames, config.in_channels, side, side, generator=random)
    text = torch.randn(batch, 4, config.text_embed_dim, generator=random)
    control = torch.randn(batch, frames, videos * config.in_channels, side, side, generator=random)
    return {"z": z, "t": torch.full((batch, frames), 500.0), "text": text, "control": control}


def out(base: Any, branch: ControlBranch | None, given: dict[str, torch.Tensor]) -> torch.Tensor:
    control = given["control"] if branch is not None else None
    return evaluate(base, given["z"], given["t"], given["text"], None, branch, control)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_fresh_branch_changes_nothing(base, wiring):
    with torch.no_grad():
        assert torch.equal(out(base, ControlBranch.of(base, 3, 1, wiring), given(base)), out(base, None, given(base)))


def steps(base: Any, branch: ControlBranch, count: int, rate: float = 1e-2) -> list[set[str]]:
    """Names of the parameters that get a gradient, step by step, while the branch learns a target."""
    told = given(base)
    target = torch.randn(told["z"].shape, generator=torch.Generator().manual_seed(2))
    optimiser = torch.optim.AdamW(branch.parameters(), rate)
    reached = []
    for _ in range(count):
        (out(base, branch, told) - target).square().mean().backward()
        moved = {n for n, p in branch.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        reached.append({name.partition(".")[0] for name in moved})
        optimiser.step()
        optimiser.zero_grad()
    return reached


@pytest.mark.parametrize("wiring", WIRINGS)
def test_half_of_a_branch_adds_half(base, wiring):
    torch.manual_seed(3)
    branch = ControlBranch.of(base, 3, 2, wiring)
    for projection in branch.projections:
        torch.nn.init.normal_(projection.weight, std=0.2)
    added: dict[float, list[torch.Tensor]] = {}
    for branch.scale in (1.0, 0.5):
        with torch.no_grad():
            video, text = torch.ones(1, 12, base.config.num_attention_heads * base.config.attention_head_dim), None
            text = torch.ones(1, 4, video.shape[-1])
            embedding = torch.ones(1, 4, base.config.time_embed_dim)
            c, first = branch.stepped(0, video, text, embedding, None, False)
            added[branch.scale] = [first, branch.stepped(1, c, text, embedding, None, False)[1]]
    for whole, half in zip(added[1.0], added[0.5], strict=True):
        assert torch.allclose(half, whole / 2)
        assert whole.abs().max() > 0


def test_the_projections_learn_first_and_then_all_of_the_branch(base):
    classic = steps(base, ControlBranch.of(base, 3, 2), 2)
    assert classic == [{"projections"}, {"projections", "copies", "embed"}]
    published = steps(base, ControlBranch.of(base, 3, 2, "published"), 3)
    assert published[0] == {"projections"}
    assert "embed" not in published[1]
    assert published[2] == {"projections", "copies", "entry", "embed"}


def test_the_base_does_not_learn_and_the_branch_does(base):
    before = {name: value.clone() for name, value in base.state_dict().items()}
    branch = ControlBranch.of(base, 3, 2)
    steps(base, branch, 3)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    with torch.no_grad():
        assert not torch.allclose(out(base, branch, given(base)), out(base, None, given(base)))


def test_the_videos_are_told_apart(base):
    branch = ControlBranch.of(base, 3, 2)
    steps(base, branch, 3)
    told = given(base)
    first, second, third = told["control"].chunk(3, dim=2)
    with torch.no_grad():
        swapped = out(base, branch, {**told, "control": torch.cat([second, first, third], 2)})
        assert not torch.allclose(swapped, out(base, branch, told), atol=1e-5)


def test_a_branch_that_is_run_again_gives_the_same_gradients(base):
    branch, found = ControlBranch.of(base, 3, 2), []
    steps(base, branch, 2)
    for again in (False, True):
        base.gradient_checkpointing = again
        out(base, branch, given(base)).square().mean().backward()
        found.append({name: p.grad.clone() for name, p in branch.named_parameters() if p.grad is not None})
        branch.zero_grad()
    base.gradient_checkpointing = False
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


def test_a_branch_is_saved_and_read_as_any_model(base, tmp_path):
    branch = ControlBranch.of(base, 3, 2, "published")
    steps(base, branch, 2)
    branch.save_pretrained(tmp_path / "branch")
    read = ControlBranch.from_pretrained(tmp_path / "branch")
    with torch.no_grad():
        assert torch.equal(out(base, read, given(base)), out(base, branch, given(base)))


@pytest.mark.parametrize(("name", "depth", "billions"), [("cogvideox_2b", 13, 0.8), ("cogvideox_5b", 18, 2.55)])
def test_it_fits_the_real_transformers(name, depth, billions):
    backbone = measure.built(measure.PUBLISHED[name])
    base = backbone.parts.use("network")
    branch = ControlBranch.of(base, 3)
    assert len(branch.copies) == depth
    assert sum(p.numel() for p in branch.parameters()) / 1e9 == pytest.approx(billions, rel=0.05)
    grid = backbone.grid(9, backbone.height, backbone.width)
    z = torch.empty(1, *grid, device="meta", dtype=base.dtype)
    text = torch.empty(1, 226, base.config.text_embed_dim, device="meta", dtype=base.dtype)
    made = evaluate(base, z, torch.zeros(1, grid.frames, device="meta"), text, None, branch, z.repeat(1, 1, 3, 1, 1))
    assert made.shape == z.shape
