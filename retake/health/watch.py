"""Signals gathered over a clip, frame after frame: nothing of a frame is kept but its masks until the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retake.health.signals import Mask, Signals, signals
from retake.health.verdict import Verdict, doubt, verdict


class Watch:
    """Of every object's masks, by id."""

    def __init__(self) -> None:
        self.signals: dict[int, list[Signals]] = {}
        self._before: Mapping[int, Mask] = {}

    def add(
        self, rgb: NDArray[np.uint8], masks: Mapping[int, Mask], backward: NDArray[np.float32] | None = None
    ) -> None:
        """The next frame, uint8 RGB [H, W, 3], with every object's mask, bool [H, W], and the motion into the frame
        before, float32 [H, W, 2] in pixels."""
        for identity, mask in masks.items():
            found = signals(rgb, mask, self._before.get(identity), backward)
            self.signals.setdefault(identity, []).append(found)
        self._before = dict(masks)

    def verdicts(self) -> dict[int, Verdict]:
        """On each object, from the frames that were added."""
        return {identity: verdict(found) for identity, found in self.signals.items()}

    def as_json(self) -> dict[str, Any]:
        """By object and frame: the doubt and every signal, rounded."""
        return {
            str(identity): [
                {name: None if v is None else round(v, 3) for name, v in {"doubt": doubt(one), **asdict(one)}.items()}
                for one in found
            ]
            for identity, found in self.signals.items()
        }
