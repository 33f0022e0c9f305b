"""Networks whose answers are known, for metrics that ask one."""

from __future__ import annotations

import cv2
import numpy as np


class Grid:
    """A picture as 4 x 4 mean colours, centred: known vectors that see motion and noise. Texts are colours by name."""

    name = "a grid of colours"
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}  # noqa: RUF012

    def images(self, frames):
        cells = [cv2.resize(frame, (4, 4), interpolation=cv2.INTER_AREA) for frame in frames]
        return (np.stack(cells).astype(np.float32) - 127.5).reshape(len(frames), -1)

    def texts(self, texts):
        return self.images(np.stack([np.full((8, 8, 3), self.colours[text], np.uint8) for text in texts]))


class Levels:
    """Root mean square difference of levels, 0..1."""

    name = "a difference of levels"

    def pairs(self, first, second):
        difference = (first.astype(np.float32) - second) / 255
        return np.sqrt(np.square(difference).mean((1, 2, 3))).astype(np.float32)


class Mean:
    """The linear interpolator."""

    name = "a mean of two frames"

    def midpoint(self, first, second):
        return np.rint((first.astype(np.float32) + second) / 2).astype(np.uint8)


class Colours:
    """Eight statistics of a picture: mean and spread of its channels, and of its mean over channels."""

    name = "eight statistics"

    def images(self, frames):
        pixels = frames.reshape(len(frames), -1, 3).astype(np.float32) / 255
        gray = pixels.mean(2, keepdims=True)
        both = np.concatenate([pixels, gray], 2)
        return np.concatenate([both.mean(1), both.std(1)], 1)
