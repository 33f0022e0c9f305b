"""The description of a clip: plain data, from which `World` renders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from retake.errors import ConfigError, did_you_mean
from retake.synthetic.grounds import GROUNDS
from retake.synthetic.motion import Pose
from retake.synthetic.shapes import SHAPES
from retake.synthetic.texture import PALETTES, SKINS


@dataclass(frozen=True)
class Sprite:
    """One textured body.

    shape: a name of `shapes.SHAPES`. radius: body units (pixels at scale 1). hue: 0..1 round the colour
    circle. seed: of the texture. texture: a name of `texture.SKINS`. nose: how strongly a light spot marks the front
    (the body's +x side), 0..1. order: nearer is larger; the background lies below every order, and of two
    equal orders the later sprite is nearer. poses: one per frame, body to world (world = frame pixels while
    the camera rests). light: brightness factor per frame, or None for constant light.
    """

    shape: str
    radius: float
    hue: float
    seed: int
    order: int
    poses: tuple[Pose, ...]
    light: tuple[float, ...] | None = None
    texture: str = "marbled"
    nose: float = 0.0


@dataclass(frozen=True)
class Scene:
    """A clip: size in pixels, number of frames, frames per second, sprites and a camera.

    camera: one pose per frame that moves background and sprites together: scale and angle about the middle of
    the frame, then a shift in pixels (no shear). palette and seed: the background's colours and texture;
    ground: its kind, a name of `grounds.GROUNDS`. noise: standard deviation of the sensor noise in 8-bit
    levels. light: the background's brightness per frame, or None.

    Raises ConfigError E241 where the numbers or names do not describe a clip.
    """

    width: int
    height: int
    frames: int
    fps: float
    sprites: tuple[Sprite, ...]
    camera: tuple[Pose, ...]
    palette: str = "dune"
    seed: int = 0
    noise: float = 0.0
    light: tuple[float, ...] | None = None
    ground: str = "terrain"

    def __post_init__(self) -> None:
        _require(min(self.width, self.height) >= 16, f"the frame is {self.width}x{self.height}", "16x16 at least")
        _require(self.frames >= 1, f"the clip has {self.frames} frames", "1 at least")
        _require(0 < self.fps < np.inf, f"fps is {self.fps}", "a positive number")
        _require(0 <= self.noise < np.inf, f"noise is {self.noise}", "0 or more levels")
        _require(self.seed >= 0, f"the seed is {self.seed}", "0 or more")
        _among("the ground", self.ground, GROUNDS)
        _among("the palette", self.palette, PALETTES)
        self._check("the camera", self.camera, self.light)
        _require(all(p.shear == 0 for p in self.camera), "the camera shears", "shift, angle and scale only")
        for k, sprite in enumerate(self.sprites):
            _among(f"the shape of sprite {k}", sprite.shape, SHAPES)
            _among(f"the texture of sprite {k}", sprite.texture, SKINS)
            _require(0 <= sprite.nose <= 1, f"sprite {k} has nose {sprite.nose}", "0 to 1")
            _require(sprite.radius > 0, f"sprite {k} has radius {sprite.radius}", "a positive number")
            _require(sprite.seed >= 0, f"sprite {k} has seed {sprite.seed}", "0 or more")
            self._check(f"sprite {k}", sprite.poses, sprite.light)

    def _check(self, who: str, poses: tuple[Pose, ...], light: Sequence[float] | None) -> None:
        _require(
            len(poses) == self.frames,
            f"{who} has {len(poses)} poses",
            f"one for each of {self.frames} frames",
        )
        _require(bool(np.isfinite(np.array(poses)).all()), f"{who} has a pose that is not finite", "numbers")
        _require(all(p.scale > 0 for p in poses), f"{who} has a scale of 0 or less", "positive scales")
        if light is not None:
            fits = len(light) == self.frames and all(0 <= v < np.inf for v in light)
            _require(fits, f"{who} has a light that does not fit", f"{self.frames} factors of 0 or more")


def _among(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        hint = did_you_mean(name, list(known))
        raise ConfigError("E241", f"The scene is not a clip: {what} is unknown, '{name}'.", hint)


def _require(holds: bool, found: str, expected: str) -> None:
    if not holds:
        raise ConfigError("E241", f"The scene is not a clip: {found}.", f"Expected: {expected}.")
