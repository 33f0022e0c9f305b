"""The sprite world: frames, and the exact motion, occlusion, order and masks behind them.

Every surface (background or sprite) is rigid up to an affine pose per frame, so the motion of the point under
any pixel between any two frames is a product of two matrices. Nothing here is estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from retake.errors import ConfigError
from retake.synthetic import grounds, motion, shapes, texture
from retake.synthetic.scene import Scene

Image = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

BACKGROUND = -1
SUPERSAMPLE = 2  # colour samples per pixel and axis


@dataclass(frozen=True, eq=False)
class World:
    """A rendered `Scene`. Frames are computed on demand and never kept: memory does not grow with length.

    Every method takes frame numbers 0..frames-1 in any order and gives the same bytes each time.
    Raises ConfigError E242 for a frame or a sprite that does not exist.
    """

    scene: Scene
    pictures: Mapping[int, Image] = field(default_factory=dict, repr=False)

    @property
    def width(self) -> int:
        return self.scene.width

    @property
    def height(self) -> int:
        return self.scene.height

    @property
    def frames(self) -> int:
        return self.scene.frames

    @property
    def fps(self) -> float:
        return self.scene.fps

    def frame(self, t: int) -> Image:
        """Frame `t`, uint8 [H, W, 3] RGB. Edges carry their coverage, colours are means over each pixel."""
        self._check_frame(t)
        scene = self.scene
        view = self._colours(BACKGROUND, self.pose(t), (0, 0, self.width, self.height))
        canvas = view.astype(np.float32) * (1.0 if scene.light is None else scene.light[t])
        for k in self._back_to_front:
            pose = self.pose(t, k)
            box = self._reach(k, pose)
            if box is None:
                continue
            x0, y0, x1, y1 = box
            light = scene.sprites[k].light
            colour = self._colours(k, pose, box) * np.float32(1 if light is None else light[t])
            scale = motion.magnification(pose)
            cover = np.clip(0.5 - self._distance(k, pose, _grid(*box)) * scale, 0, 1).astype(np.float32)[..., None]
            canvas[y0:y1, x0:x1] += cover * (colour - canvas[y0:y1, x0:x1])
        if scene.noise:
            rng = np.random.default_rng([scene.seed, 3, t])
            canvas += scene.noise * rng.standard_normal(canvas.shape, dtype=np.float32)
        return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)

    def surfaces(self, t: int) -> NDArray[np.int16]:
        """Which sprite is on top at each pixel's centre, int16 [H, W]; `BACKGROUND` (-1) where none is."""
        self._check_frame(t)
        top = np.full((self.height, self.width), BACKGROUND, np.int16)
        for k in self._back_to_front:
            pose = self.pose(t, k)
            box = self._reach(k, pose)
            if box is not None:
                x0, y0, x1, y1 = box
                top[y0:y1, x0:x1][self._distance(k, pose, _grid(*box)) <= 0] = k
        return top

    def mask(self, t: int, sprite: int) -> Bools:
        """The visible part of a sprite, bool [H, W]: coverage of at least one half, and nothing nearer."""
        self._check_sprite(sprite)
        return self.surfaces(t) == sprite

    def box(self, t: int, sprite: int) -> tuple[int, int, int, int] | None:
        """The box x0, y0, x1, y1 (pixels, ends exclusive) of a sprite's visible part, None when it is hidden."""
        rows, columns = np.nonzero(self.mask(t, sprite))
        if not len(rows):
            return None
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1

    def depth(self, t: int) -> Floats:
        """Relative inverse depth by order, float32 [H, W] in (0, 1]; nearer is larger, the same in every frame."""
        rank = np.empty(len(self.scene.sprites) + 1, np.float32)
        rank[BACKGROUND] = 1
        for place, k in enumerate(self._back_to_front):
            rank[k] = place + 2
        return (rank / np.float32(len(rank)))[self.surfaces(t)]

    def flow(self, t: int, s: int) -> Floats:
        """Motion float32 [H, W, 2] (dx, dy) in pixels of the top surface at each pixel of `t` towards `s`.

        `flow(t, t + 1)` is the forward flow of `t`, `flow(t + 1, t)` the backward flow. Hidden points have
        their true motion, too: see `occlusion`.
        """
        grid = _grid(0, 0, self.width, self.height)
        return (self._carried(self.surfaces(t), grid, t, s) - grid).astype(np.float32)

    def occlusion(self, t: int, s: int) -> Bools:
        """True [H, W] where the point seen at `t` is not seen at `s`: covered, or outside the frame.

        The frame reaches half a pixel beyond the outermost pixels' centres.
        """
        if t == s:
            self._check_frame(t)
            return np.zeros((self.height, self.width), bool)
        top = self.surfaces(t)
        return ~self._visible(top, self._carried(top, _grid(0, 0, self.width, self.height), t, s), s)

    def tracks(
        self, points: NDArray, query: int = 0, frames: Sequence[int] | None = None
    ) -> tuple[NDArray[np.float32], Bools]:
        """Follow points that are fixed to the bodies they lie on.

        points: [P, 2] (x, y) in pixels of frame `query`, on whichever surface is on top there. frames: N frame
        numbers, by default all. Returns positions float32 [N, P, 2] and visibility bool [N, P].
        """
        self._check_frame(query)
        points = np.asarray(points, np.float64).reshape(-1, 2)
        top = self._top(query, points)
        numbers = range(self.frames) if frames is None else frames
        xy = np.empty((len(numbers), len(points), 2), np.float32)
        visible = np.empty((len(numbers), len(points)), bool)
        for n, s in enumerate(numbers):
            at = self._carried(top, points, query, s)
            xy[n], visible[n] = at, self._visible(top, at, s)
        return xy, visible

    def anchors(self, t: int, points: NDArray) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
        """What points [P, 2] (x, y) in pixels of frame `t` are fixed to, for `follow`.

        Returns the surface on top at each, int16 [P], and the place on it in body coordinates, float64 [P, 2].
        """
        self._check_frame(t)
        points = np.asarray(points, np.float64).reshape(-1, 2)
        top = self._top(t, points)
        body = np.empty(points.shape)
        for k in np.unique(top):
            body[top == k] = motion.apply(motion.invert(self.pose(t, int(k))), points[top == k])
        return top, body

    def follow(
        self, surfaces: NDArray, body: NDArray, frames: Sequence[int] | None = None
    ) -> tuple[NDArray[np.float32], Bools]:
        """Follow points by what they are fixed to: a point need not be visible in any frame.

        surfaces: [P] sprites, or `BACKGROUND`; body: [P, 2] coordinates on them. frames: N frame numbers, by default
        all. Returns positions float32 [N, P, 2] and visibility bool [N, P].
        """
        surfaces = np.asarray(surfaces, np.int16).reshape(-1)
        body = np.asarray(body, np.float64).reshape(-1, 2)
        present = [int(k) for k in np.unique(surfaces)]
        numbers = range(self.frames) if frames is None else frames
        xy = np.empty((len(numbers), len(body), 2), np.float32)
        visible = np.empty((len(numbers), len(body)), bool)
        for n, s in enumerate(numbers):
            at = np.empty(body.shape)
            for k in present:  # a sprite that does not exist is refused by `pose`
                at[surfaces == k] = motion.apply(self.pose(s, k), body[surfaces == k])
            xy[n], visible[n] = at, self._visible(surfaces, at, s)
        return xy, visible

    def pose(self, t: int, sprite: int = BACKGROUND) -> motion.Matrix:
        """The matrix float64 [2, 3] from body coordinates to pixels of frame `t`, camera included.

        The background's body coordinates are the pixels of a frame whose camera rests.
        """
        self._check_frame(t)
        camera = motion.about(self.scene.camera[t], (self.width - 1) / 2, (self.height - 1) / 2)
        if sprite == BACKGROUND:
            return camera
        self._check_sprite(sprite)
        return motion.compose(camera, motion.matrix(self.scene.sprites[sprite].poses[t]))

    def with_sprite_texture(self, sprite: int, image: Image) -> World:
        """The same world with a picture uint8 [h, w, 3 or 4] on one sprite: the exact result of that edit.

        The picture is stretched over the bounding box of the sprite's outline in body coordinates. In a frame
        whose pose neither turns nor scales the sprite, it therefore covers `box(t, sprite)`. Where its alpha
        (0..255, not premultiplied) is below 255 the sprite's own texture shows through; the outline, and with
        it every flow, mask and track, stays. Raises ConfigError E243 for anything that is no such picture.
        """
        self._check_sprite(sprite)
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4) or not image.size:
            raise ConfigError(
                "E243",
                f"The picture for sprite {sprite} is {image.dtype} {list(image.shape)}.",
                "Give uint8 [height, width, 3 or 4]: RGB or RGBA, 0..255.",
            )
        own = image.copy()
        own.flags.writeable = False
        return replace(self, pictures={**self.pictures, sprite: own})

    @cached_property
    def _textures(self) -> dict[int, texture.Texture]:
        scene = self.scene
        below = grounds.ground(scene.ground, scene.width, scene.height, scene.palette, scene.seed)
        textures = {BACKGROUND: below}
        for k, sprite in enumerate(scene.sprites):
            textures[k] = texture.skin(
                sprite.shape, sprite.radius, sprite.hue, sprite.seed, sprite.texture, sprite.nose
            )
            if k in self.pictures:
                textures[k] = texture.paint(textures[k], self.pictures[k])
        return textures

    @cached_property
    def _back_to_front(self) -> tuple[int, ...]:
        return tuple(sorted(range(len(self.scene.sprites)), key=lambda k: self.scene.sprites[k].order))

    def _colours(self, texture_of: int, pose: motion.Matrix, box: tuple[int, int, int, int]) -> Image:
        """One surface's colours over a rectangle x0, y0, x1, y1 of the frame, uint8 [height, width, 3]."""
        import cv2

        x0, y0, x1, y1 = box
        n, width, height = SUPERSAMPLE, x1 - x0, y1 - y0
        sample_to_pixel = np.array([[1 / n, 0, x0 + 0.5 / n - 0.5], [0, 1 / n, y0 + 0.5 / n - 0.5]])
        to_body = motion.compose(motion.invert(pose), sample_to_pixel)
        fine = self._textures[texture_of].sample(to_body, width * n, height * n)
        return np.asarray(cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def _distance(self, sprite: int, pose: motion.Matrix, points: NDArray) -> NDArray[np.float64]:
        """Signed distance in body units from a sprite's outline, of pixels [..., 2] of a frame that has that pose."""
        body = motion.apply(motion.invert(pose), points)
        return shapes.distance(self.scene.sprites[sprite].shape, self.scene.sprites[sprite].radius, body)

    def _reach(self, sprite: int, pose: motion.Matrix) -> tuple[int, int, int, int] | None:
        """The rectangle of the frame that a sprite may touch, one pixel of soft edge included, or None."""
        x0, y0, x1, y1 = shapes.bounds(self.scene.sprites[sprite].shape, self.scene.sprites[sprite].radius)
        corners = motion.apply(pose, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]))
        low = np.floor(corners.min(0)).astype(int) - 1
        high = np.ceil(corners.max(0)).astype(int) + 2
        left, top = max(int(low[0]), 0), max(int(low[1]), 0)
        right, bottom = min(int(high[0]), self.width), min(int(high[1]), self.height)
        return (left, top, right, bottom) if left < right and top < bottom else None

    def _top(self, t: int, points: NDArray) -> NDArray[np.int16]:
        """Which surface is on top at points [P, 2] of frame `t`, int16 [P]."""
        top = np.full(len(points), BACKGROUND, np.int16)
        for k in self._back_to_front:
            top[self._distance(k, self.pose(t, k), points) <= 0] = k
        return top

    def _carried(self, top: NDArray, points: NDArray, t: int, s: int) -> NDArray[np.float64]:
        """Where points [..., 2] of frame `t`, fixed to the surfaces `top` [...], are in frame `s`."""
        carried = np.empty(points.shape)
        for k in np.unique(top):
            on = top == k
            step = motion.compose(self.pose(s, int(k)), motion.invert(self.pose(t, int(k))))
            carried[on] = motion.apply(step, points[on])
        return carried

    def _visible(self, top: NDArray, at: NDArray, s: int) -> Bools:
        """Whether points `at` [..., 2] of frame `s`, on the surfaces `top` [...], are inside and uncovered."""
        x, y = at[..., 0], at[..., 1]
        seen = (x >= -0.5) & (x <= self.width - 0.5) & (y >= -0.5) & (y <= self.height - 0.5)
        place = {k: n for n, k in enumerate((BACKGROUND, *self._back_to_front))}
        depth = np.array([place[k] for k in (*range(len(self.scene.sprites)), BACKGROUND)])[top]
        for k in self._back_to_front:
            below = seen & (depth < place[k])
            seen[below] = self._distance(k, self.pose(s, k), at[below]) > 0
        return seen

    def _check_frame(self, t: int) -> None:
        if not 0 <= t < self.frames:
            last = self.frames - 1
            raise ConfigError("E242", f"The clip has no frame {t}.", f"Its frames are 0 to {last}.")

    def _check_sprite(self, sprite: int) -> None:
        count = len(self.scene.sprites)
        if not 0 <= sprite < count:
            raise ConfigError("E242", f"The scene has no sprite {sprite}.", f"It has {count}, counted from 0.")


def _grid(x0: int, y0: int, x1: int, y1: int) -> NDArray[np.float64]:
    """Pixel centres (x, y) of a rectangle, float64 [y1 - y0, x1 - x0, 2]."""
    grid = np.empty((y1 - y0, x1 - x0, 2))
    grid[..., 0], grid[..., 1] = np.arange(x0, x1), np.arange(y0, y1)[:, None]
    return grid
