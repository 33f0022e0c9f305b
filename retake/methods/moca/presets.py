"""MoCA-Video's numbers, and the three sets of them: what the text says, what one revision of the published code does,
and what we recommend. All are said in the preset's formulas (steps.py)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

Preset = Literal["recommended", "paper", "code"]
Masks = Literal["region", "segmenter", "attention"]
Place = Literal["object", "frame"]

TIMESTEPS = 1000  # the paper's; levels and weights are given in these, whatever the schedule's own length


@dataclass(frozen=True)
class Rule:
    """What one edit does. Timesteps are of 1000.

    below: frames at this timestep and cleaner ones are mixed (the paper's t'). enter: the timestep at which source
    frames enter the queue. masks, iou: where masks come from, and the overlap above which a new one is taken; 0 takes
    every one. weight, falling: lambda, times t/1000 or constant. beta, kappa, drift: of the momentum, its average, its
    strength and the share of the step's direction in it; None: t/1000, the text's lambda. gamma: residual noise.
    place: where in the frame the reference lies. hold: whether what the edge does not touch is the source's at every
    level. look: whether the model is shown the reference, where it reads pictures. eta: of the DDIM step. diagonal:
    whether frames pass through a queue, or all stand at one level and go through overlapping windows; None: windows
    for clips of up to TOGETHER frames.
    """

    below: float
    enter: float
    masks: Masks
    iou: float
    weight: float
    falling: bool
    beta: float
    kappa: float
    drift: float | None
    gamma: float
    place: Place
    hold: bool
    look: bool
    eta: float
    guidance: float
    diagonal: bool | None


# From the paper's text alone; what it leaves open (kappa, gamma, guidance) as revision e1b313e of its code has it, but
# kappa, which is 2 there: 0.1, as in 8761732 and in CODE_OF.
PAPER = Rule(
    below=300,
    enter=1000,
    masks="segmenter",
    iou=0.5,
    weight=1.0,
    falling=True,
    beta=0.9,
    kappa=0.1,
    drift=None,
    gamma=0.5,
    place="frame",
    hold=False,
    look=False,
    eta=1.0,
    guidance=12.0,
    diagonal=True,
)
# `ddim_step` of the newest revision that was read, its order of things included (steps.code). From it: weight 0.8, the
# momentum's clamp at 2, attention above 0.4 of its range, gamma 0.5 times the step's own noise added, drift 0.05, kappa
# 0.1, beta 0.9, t' = 300: all defaults in its code. Ours, because an edit needs them or windows end where ours do not:
# source frames instead of a generated clip, a mask for each frame (there one for a window, averaged over its frames),
# none that covers over 80 % of the frame, the chain of frames (steps.code), and timesteps that end clean.
# Of the other revisions of lvdm/models/samplers/ddim.py that were read, 2e95ff9 has the same order with weight 1,
# attention above 0.3, no clamp and no noise; in 8761732, e1b313e and b2c8425 what is injected is given back and not
# used, so that the reference picture never reaches the video.
CODE_OF = "github.com/ZhangT-tech/MoCA-Video da537982eb3f40d2d31f8e7faf77d4d5016e52a5"
CODE = replace(PAPER, masks="attention", iou=0.0, weight=0.8, falling=False, drift=0.05)
RECOMMENDED = replace(
    PAPER,
    enter=300,
    masks="region",
    drift=0.05,
    gamma=0.3,
    place="object",
    hold=True,
    look=True,
    guidance=7.5,
    diagonal=None,
)
# One in so many frames of a window is only looked at (by a queue), or shared with the window before it. Half of them is
# FIFO-Diffusion's; with a quarter the network is asked about a third fewer frames, by windows instead of a queue about
# a quarter fewer again, and nothing that was measured is lost (docs/benchmarks.md, fifo and moca).
LOOKED_AT: dict[Preset, int] = {"recommended": 4, "paper": 2, "code": 2}
RULES: dict[Preset, Rule] = {"recommended": RECOMMENDED, "paper": PAPER, "code": CODE}


# Frames of a clip that are taken down together. About ten copies of their latents are in memory: of 512x320 pixels
# 0.4 MB a frame, 0.8 GB for so many. A queue holds as much whatever the length, and asks for a third more evaluations.
TOGETHER = 2000


def diagonally(rule: Rule, frames: int) -> bool:
    """Whether a clip of so many frames passes through the queue."""
    return frames > TOGETHER if rule.diagonal is None else rule.diagonal


def rule_of(preset: Preset, given: dict[str, Any]) -> Rule:
    """The preset's numbers, and in their places those that are given (not None). With `below` given and `enter` not, a
    preset whose frames enter at t' lets them enter at the new one."""
    base = RULES[preset]
    own = {name: value for name, value in given.items() if value is not None}
    if "below" in own and "enter" not in own and base.enter == base.below:
        own["enter"] = own["below"]
    return replace(base, **own)
