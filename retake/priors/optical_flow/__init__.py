"""Optical flow: dense motion between neighbouring frames. Beside what every prior states (retake/priors) a module has

    pairs(frames, params, first=0) -> iterator of (forward, backward), one for each frame and its successor

frames: uint8 RGB [H, W, 3] at working size, beginning with frame number `first`; N frames give N - 1 pairs. forward and
backward are float32 [H, W, 2] in pixels, x right, y down, without a limit (kept as float16): forward on the grid of the
first frame, with first(p) ~ second(p + forward(p)), backward on the grid of the second, pointing into the first. A pair
must not depend on `first`: a run that was interrupted goes on at a chunk's start. Which pixels are occluded is told
from both by the stage (tasks/optical_flow.py).
"""
