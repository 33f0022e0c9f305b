"""What an edit of a clip of the sprite world shows, beside what it should: for pairs that say in words what their
picture shows, over `sprites:captioned:SEED`.

    shows_hue, shows_shape   whether the object has the hue, the shape, of the picture, 0 or 1                higher
    keeps_shape              whether it has the shape of the source's object, 0 or 1
    psnr_exact               PSNR to the exact render of the edit, in the region of the edit, dB              higher

Hue and shape are read by the world's detector, from the result alone. The exact render is the source's scene in which
the object looks as the picture's, in its own shape or in the picture's, as the pair says; where it turns is the
source's choice, which no picture says, so that of a changed shape the value says little.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retake.errors import ConfigError
from retake.metrics.common.values import mean, unit
from retake.metrics.region import psnr
from retake.synthetic import detector, grammar, mixes
from retake.synthetic.world import World

DESCRIPTIONS = {
    "shows_hue": ("share whose object has the picture's hue, by the sprite world's detector", "higher"),
    "shows_shape": ("share whose object has the picture's shape, by the detector", "higher"),
    "keeps_shape": ("share whose object has the source's shape, by the detector", ""),
    "psnr_exact": ("PSNR to the exact render of the edit, where the object is or was, dB", "higher"),
}


def scores(seed: int, told: str, keeps: bool, shown: Iterable[NDArray[np.uint8]]) -> dict[str, float | None]:
    """Scores of a result, frames uint8 [H, W, 3], of `sprites:captioned:<seed>` edited by a picture of what `told`
    says; keeps: whether the edit should keep the object's shape. Nothing for words that the world does not make, and
    for other frames than the scene's own."""
    try:
        wanted = grammar.parse(told)
    except ConfigError:
        return {}
    source, exact = mixes.exact(seed, wanted, keeps)
    before, after = World(source.scene), World(exact)
    frames = np.stack(list(shown))
    if frames.shape[:3] != (before.frames, before.height, before.width):
        return {}
    seen = detector.read(frames)
    errors = []
    for t, frame in enumerate(frames):
        where = before.mask(t, 0) | after.mask(t, 0)
        errors.append(np.square(unit(frame) - unit(after.frame(t))).mean(-1)[where])
    return {
        "shows_hue": float(seen.hue == wanted.hue),
        "shows_shape": float(seen.shape == wanted.shape),
        "keeps_shape": float(seen.shape == source.subject.shape),
        "psnr_exact": psnr(mean(np.concatenate(errors))),
    }


def told_of(pair: Any) -> str | None:
    """What a pair's picture shows, in words, where the pair is one of a captioned clip."""
    spec = pair.clip.split(":")
    return pair.settings.get("edit.reference_text") if spec[:2] == ["sprites", "captioned"] and len(spec) == 3 else None
