"""SAM 2 masks: objects shown by box, points or words, segmented on one frame and found again on every other.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024: a memory of the prompted frames and of the last six
attends to each new frame, so an object that was hidden can come back. Two backends run the same network: transformers'
Sam2VideoModel (safetensors), and the predictor of the `sam2` package (the publisher's .pt files). Words go through
Grounding DINO first, which draws the boxes.

    params.py     its settings
    follower.py   what both backends share        memory.py     what is kept from frame to frame, and for how long
    streaming.py  the transformers backend        windows.py    the sam2 backend
    package.py    the sam2 package's network, built without its Hydra
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from retake.errors import ConfigError
from retake.networks.grounding_dino import phrases
from retake.priors.masks.prompt import Tracker, check_places, check_prompts
from retake.priors.masks.sam2.package import settings_file
from retake.priors.masks.sam2.params import Params as Params
from retake.priors.masks.sam2.params import reference
from retake.weights.local import locate, require

VERSION = 1
NEEDS: tuple[str, ...] = ()


def weights(params: Params) -> dict[str, str]:
    """References of the weights that are used, by role. `settings` is the JSON beside a .pt file, which shapes the
    network as its tensors do (package.py). Raises ConfigError E250 for weights that are none."""
    used = {"sam2": reference(params)} | ({"detector": params.detector} if params.text is not None else {})
    path = locate(reference(params)) if params.backend == "sam2" else None
    if path is not None and path.is_file() and (beside := settings_file(path)).is_file():
        used["settings"] = str(beside)
    return used


def check_settings(params: Params) -> None:
    """Refuse prompts that cannot work, whatever the clip.

    Raises what `check_prompts` raises, and ConfigError E225 (text beside other prompts) or E227 (text without words).
    """
    if params.text is not None:
        if params.prompts():
            raise ConfigError(
                "E225",
                "masks.text cannot be combined with masks.box, masks.points or masks.objects",
                "Words find the objects by themselves: give one or the other.",
            )
        if not phrases(params.text):
            raise ConfigError("E227", f"masks.text={params.text!r} holds no words", "Name the object: masks.text=dog")
    check_prompts(params, "sam2", text=params.text is not None)


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Refuse prompts that the clip has no place for: see `check_places`."""
    check_places(params, frames)


def tracker(params: Params, size: tuple[int, int], state: dict[str, np.ndarray] | None, reverse: bool) -> Tracker:
    """Follows objects in one direction of time (see prompt.py). `size` = (width, height) of the working frames.

    Raises MachineError E302 for weights that are not here, E304 for a GPU that is not there, ConfigError E262 for
    weights of something else, E263 for weights that want code of theirs to run.
    """
    paths = {role: require(name) for role, name in weights(params).items()}
    if params.backend == "transformers":
        from retake.priors.masks.sam2.streaming import Streaming as Backend
    else:
        from retake.priors.masks.sam2.windows import Windows as Backend
    return Backend(params, size, paths, state, reverse)
