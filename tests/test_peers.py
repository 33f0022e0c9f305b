"""The comparison with diffusers' loops on tiny configurations: the path that a GPU takes at real sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import small_cogvideox
from helpers import small_diffusion as small

from benchmarks import diffusion, round_trip
from retake.diffusion.cost.measure import of_folder
from retake.diffusion.sampling.windows import Windows


@pytest.fixture(params=["unet_motion", "cogvideox"])
def case(request, tmp_path):
    if request.param == "unet_motion":
        for role, part in {"unet": small.unet2d(), "motion_adapter": small.motion(), "vae": small.vae()}.items():
            part.save_pretrained(tmp_path / role)
        small.text_encoder().save_pretrained(tmp_path / "text_encoder")
        size, schedule = (small.FRAMES, small.SIZE, small.SIZE), diffusion.PUBLISHED["animatediff"]
    else:
        small_cogvideox.save(tmp_path)
        size, schedule = (9, 32, 48), diffusion.PUBLISHED["cogvideox_2b"]
    frames, height, width = size
    architecture = of_folder(request.param, tmp_path, frames=frames, height=height, width=width, dtype="float32")
    return diffusion.randomised("tiny", architecture, schedule, torch.device("cpu"))


def test_both_loops_ask_as_often_and_agree(case):
    rows = list(diffusion.compared(case, steps=4, rounds=1))
    assert {row["evaluations"] for row in rows} == {4}
    ours = {row["what"]: row for row in rows if row["difference"] is not None}
    for what, row in ours.items():
        if what.startswith("sampling"):
            assert float(row["difference"]) < 1e-4, what
        elif case.backbone.schedule.prediction == "epsilon" or what.endswith("read as noise"):
            assert float(row["difference"]) < 5e-3, what  # levels are rounded to float16
    assert case.flops > 0


def test_a_seam_is_a_change_at_the_edge_of_a_window():
    windows = Windows(12, 8, 4)
    even = np.arange(12)[:, None] * np.ones(3)
    assert round_trip.seam(even, windows) == pytest.approx(1)
    cut = even + 5 * (np.arange(12) >= windows.spans[1].start)[:, None]
    assert round_trip.seam(cut, windows) == pytest.approx(3.5)
