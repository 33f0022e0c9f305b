"""MoCA-Video's numbers, and the three sets of them: what the text says, what the published code does, and what we
recommend. All are said in the preset's formulas (steps.py)."""

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
    level. look: whether the model is shown the reference, where it reads pictures. eta: of the DDIM step.
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


# From the paper's text alone; what it leaves open (gamma, guidance) as its first code has it.
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
)
# The newest published revision, its order of things included: see mixing.code.
CODE = replace(PAPER, masks="attention", iou=0.0, weight=0.8, falling=False, drift=0.05)
RECOMMENDED = replace(
    PAPER, enter=300, masks="region", drift=0.05, gamma=0.3, place="object", hold=True, look=True, guidance=7.5
)
# One in so many frames of a window is only looked at. Half of them is FIFO-Diffusion's; with a quarter the network is
# asked about a third fewer frames, and nothing that was measured is lost (docs/benchmarks.md, moca).
LOOKED_AT: dict[Preset, int] = {"recommended": 4, "paper": 2, "code": 2}
RULES: dict[Preset, Rule] = {"recommended": RECOMMENDED, "paper": PAPER, "code": CODE}


def rule_of(preset: Preset, given: dict[str, Any]) -> Rule:
    """The preset's numbers, and in their places those that are given (not None). With `below` given and `enter` not, a
    preset whose frames enter at t' lets them enter at the new one."""
    base = RULES[preset]
    own = {name: value for name, value in given.items() if value is not None}
    if "below" in own and "enter" not in own and base.enter == base.below:
        own["enter"] = own["below"]
    return replace(base, **own)
