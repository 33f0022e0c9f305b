"""edit: run the chosen method."""

from __future__ import annotations

from typing import Any

import numpy as np

from retake.artifact import Artifact, Edited, Frames
from retake.diffusion.model import Model, Modelled
from retake.formats import CHUNK
from retake.lookup import lookup
from retake.methods import Inputs
from retake.stage import Work, stage
from retake.weights.catalogue import CATALOGUE, Shipped
from tasks.pool import backbone_of


@stage("edit", version=1, makes="edited", backends=("opencv-python-headless",), group="methods")
def stage_edit(work: Work, params: Any, frames: Frames, latents: Artifact | None = None, **priors: Artifact) -> Edited:
    """Every chunk that the method yields is committed at once; a resumed run asks it to start after those. The model is
    loaded only for methods that NEED latents: their params come with it."""
    model = params.model if isinstance(params, Modelled) else None
    settings: Any = params.settings if isinstance(params, Modelled) else params
    series = work.open(frames)
    method = lookup("methods", settings.name)
    told = [method.describe(settings)] if hasattr(method, "describe") else []
    inputs = Inputs(
        series,
        work.scratch,
        first_chunk=len(work.done),
        progress=work.progress,
        batch=model.batch if model else 1,
        keep=work.keep,
        kept=work.kept,
        tell=told.append,
    )
    opened = {name: work.open(artifact) for name, artifact in priors.items()}
    z = work.open(latents) if latents else None
    patches = method.edit(z, backbone_of(model) if model else None, opened, inputs, settings, np.random.default_rng(0))
    for index, patch in enumerate(patches, start=inputs.first_chunk):
        tensors = {"box": np.array(patch.box, np.int32), "rgb": patch.rgb, "alpha": patch.alpha}
        work.commit(index, tensors)
        work.progress(min((index + 1) * CHUNK, len(series)), len(series))
    told += notes(model) if model else []
    about = {"notes": told} if told or model else {}
    return work.finish(count=len(series), width=series.width, height=series.height, name=settings.name, **about)  # type: ignore[return-value]


def notes(model: Model) -> list[str]:
    """What stands in for what is always said."""
    entry = CATALOGUE.get(model.weights)
    if entry is None or not isinstance(entry.source, Shipped):
        return []
    return [
        "Edited by a small model that ships with Retake and knows sprites only. For real pictures: a published model "
        "(docs/models.md); or edit=propagate or edit=move, which need none."
    ]
