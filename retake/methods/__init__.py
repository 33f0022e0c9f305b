"""Editing methods. One file each; a name in the settings is a file here, and no other line changes.

A method module states

    VERSION   raised by hand when its output changes for equal inputs
    NEEDS     names of the priors it reads ("optical_flow", "depth", "masks", "region", "tracks", "edited_tracks"), and
              of what it takes from a diffusion model: "latents", "inversion"
    Params    a frozen pydantic model; fields that hold a path are marked `file`
    edit(latents, backbone, priors, inputs, params, rng) -> iterator of Patch, one for each chunk of 16 frames
    needs(params)                optional: the part of NEEDS that these settings read
    check_settings(params, beside)   optional: refuse before anything runs what settings alone tell; `beside` holds
                                 those of the groups "model", "inversion" and "masks"
    check(params, frames_meta)   optional: refuse early, before any prior is computed
    asked(params, steps, window, frames)   optional, for plans of methods that ask their model otherwise than once a
                                 step: (levels, overlap, guidance, whether by a queue), for a model of windows of so
                                 many latent frames; steps: of the inversion
    gradients(params, steps)     optional, for plans: how often the network's features are taken a gradient of
    branch(params, model)        optional, for plans: what works beside the network (control_branch.Beside)
    one_by_one(params)           optional: settings of several stages in place of one; each but the first is given what
                                 the one before it made as priors["before"]
    describe(params)             optional: what the settings come to, in words, for plans and reports
    weights(params)              optional: references of weights of its own that it loads, by role

A method that NEEDS latents is given the clip's latents and the backbone that the group `model` describes, and
priors["inversion"] where it NEEDS that; for methods that work on pixels both are None. Methods never import one
another, and their modules import nothing heavy at the top: a plan reads VERSION, NEEDS and Params.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retake.formats import FrameSeries, Tensors


class Patch(NamedTuple):
    """The edit of one chunk, cropped to where it is. Outside the box, and where alpha is 0, the source stays."""

    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 in working pixels, x1 and y1 exclusive; all zero when nothing is edited."""
    rgb: np.ndarray
    """uint8 [n, h, w, 3]."""
    alpha: np.ndarray
    """uint8 [n, h, w], opacity, 255 = the edit alone."""


@dataclass(frozen=True)
class Inputs:
    """What every method may read besides its priors."""

    frames: FrameSeries
    scratch: Path
    """A folder for temporary files, removed after the stage."""
    first_chunk: int = 0
    """Chunks before this one are committed already (a resumed run); the iterator starts here."""
    progress: Callable[[int, int], None] = lambda done, total: None
    """(done, of how many), for what a method does before its first chunk."""
    batch: int = 1
    """How many windows of a long clip may go through the backbone at once."""
    keep: Callable[[Iterable[Tensors]], None] = lambda parts: None
    """Makes what a method needs to go on from where it is durable, in parts of which one at a time is in memory."""
    tell: Callable[[str], None] = lambda note: None
    """Takes a note for the result, such as what could not be done: the same one after a kill."""
    kept: Callable[[], Iterator[Tensors]] = lambda: iter(())
    """What a run that was killed gave `keep` last, part by part; nothing at the start."""
