"""edit: run the chosen method."""

from __future__ import annotations

from typing import Any

import numpy as np

from retake.artifact import Artifact, Edited, Frames
from retake.formats import CHUNK
from retake.lookup import lookup
from retake.methods import Inputs
from retake.stage import Work, stage


@stage("edit", version=1, makes="edited", backends=("opencv-python-headless",), group="methods")
def stage_edit(work: Work, params: Any, frames: Frames, **priors: Artifact) -> Edited:
    """Every chunk that the method yields is committed at once; a resumed run asks it to start after those."""
    series = work.open(frames)
    method = lookup("methods", params.name)
    inputs = Inputs(series, work.scratch, first_chunk=len(work.done))
    opened = {name: work.open(artifact) for name, artifact in priors.items()}
    patches = method.edit(None, None, opened, inputs, params, np.random.default_rng(0))
    for index, patch in enumerate(patches, start=inputs.first_chunk):
        tensors = {"box": np.array(patch.box, np.int32), "rgb": patch.rgb, "alpha": patch.alpha}
        work.commit(index, tensors)
        work.progress(min((index + 1) * CHUNK, len(series)), len(series))
    return work.finish(count=len(series), width=series.width, height=series.height, name=params.name)  # type: ignore[return-value]
