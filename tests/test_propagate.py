"""`propagate` against the exact render of the edited world, and the promises of its settings."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.editing import edit
from flows.places import open_store
from retake.clip import SpriteClip
from retake.errors import ConfigError, MediaError
from retake.formats import open_series
from retake.methods.propagate.object_motion import ObjectMotion, robust_affine
from retake.store import Store
from retake.synthetic import World, reference_image, scene
from retake.video import write_png

LAST = 24


def boxed(world: World, margin: int = 6) -> str:
    x0, y0, x1, y1 = world.box(0, 0)
    return f"masks.box=[{x0 - margin},{y0 - margin},{x1 + margin},{y1 + margin}]"


def edited(spec: str, folder: Path, *settings: str):
    """(result frames, edit, masks) of an edit until decode."""
    world = SpriteClip(spec).world
    done = edit.edit(spec, [f"frames.last={LAST}", boxed(world), *settings], until="decode", folder=folder)
    store = open_store()
    return [open_series(store, done.made[name]) for name in ("decode", "edit", "masks")]


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    return float(-10 * np.log10(np.square((a[where].astype(float) - b[where]) / 255).mean()))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    write_png(path, cv2.GaussianBlur(reference_image("patchwork", 96)[..., :3], (0, 0), 1.5))
    return path


@pytest.mark.parametrize(("name", "least"), [("still", 24.0), ("drift", 21.0), ("zoom", 18.0)])
def test_a_reference_is_carried_as_the_exact_render_shows_it(name, least, picture, tmp_path):
    """The same world with the picture as the sprite's texture is the truth; a static paste is far from it."""
    result, _, masks = edited(f"sprites:{name}", tmp_path, f"edit.reference={picture}", "edit.fit=stretch")
    world = World(scene(name))
    truth = world.with_sprite_texture(0, cv2.imread(str(picture))[..., ::-1])
    inside = world.mask(LAST, 0) & masks[LAST]
    carried = psnr(result[LAST], truth.frame(LAST), inside)
    assert carried > least
    assert carried > psnr(world.frame(LAST), truth.frame(LAST), inside) + 8


def test_a_later_anchor_helps_the_frames_near_it(tmp_path):
    """Painted frames: the exact render on the first frame, or on the first and the last."""
    world = World(scene("zoom"))
    truth = world.with_sprite_texture(0, cv2.GaussianBlur(reference_image("patchwork", 96)[..., :3], (0, 0), 1.5))
    for t in (0, LAST):
        write_png(tmp_path / f"{t}.png", truth.frame(t))
    one, _, _ = edited("sprites:zoom", tmp_path, f"edit.anchors={{0: {tmp_path / '0.png'}}}")
    both = f"edit.anchors={{0: {tmp_path / '0.png'}, {LAST}: {tmp_path / f'{LAST}.png'}}}"
    two, _, _ = edited("sprites:zoom", tmp_path, both)
    near = LAST - 4
    inside = world.mask(near, 0)
    assert psnr(two[near], truth.frame(near), inside) > psnr(one[near], truth.frame(near), inside) + 1


def test_paint_beyond_the_mask_is_carried_along(tmp_path):
    """A hat stands outside the object's mask on the painted frame; it must move with the object."""
    world = World(scene("still"))
    painted = world.frame(0).copy()
    x0, y0, x1, _ = world.box(0, 0)
    middle = (x0 + x1) // 2
    painted[y0 - 14 : y0 + 4, middle - 10 : middle + 10] = (250, 40, 220)
    write_png(tmp_path / "hat.png", painted)
    result, _, _ = edited("sprites:still", tmp_path, f"edit.anchors={{0: {tmp_path / 'hat.png'}}}")
    moved = world.box(LAST, 0)
    dx, dy = moved[0] - x0, moved[1] - y0
    assert abs(dx) + abs(dy) > 10
    hat = result[LAST][y0 - 10 + dy : y0 - 2 + dy, middle - 6 + dx : middle + 6 + dx].reshape(-1, 3)
    assert np.abs(hat.mean(0) - (250, 40, 220)).max() < 12


def test_what_covers_the_object_covers_the_edit(tmp_path):
    """The true masks leave out the sprite that passes in front; there the result is the source, bit for bit."""
    world = World(scene("cross"))
    for t in range(LAST + 1):
        write_png(
            tmp_path / "masks" / f"{t:05d}.png", np.repeat(world.mask(t, 0)[..., None], 3, 2).astype(np.uint8) * 255
        )
    write_png(tmp_path / "red.png", np.full((8, 8, 3), (255, 0, 0), np.uint8))
    given = ["masks=given", f"masks.path={tmp_path / 'masks'}", f"edit.reference={tmp_path / 'red.png'}"]
    done = edit.edit("sprites:cross", [f"frames.last={LAST}", *given], until="decode", folder=tmp_path / "out")
    result = open_series(open_store(), done.made["decode"])
    hidden_some = 0
    for t in range(0, LAST + 1, 4):
        front = world.mask(t, 1)
        far = cv2.distanceTransform((~world.mask(t, 0)).astype(np.uint8), cv2.DIST_L2, 5) > 5
        hidden_some += int((front & ~far).sum())
        assert np.array_equal(result[t][front & far], world.frame(t)[front & far])
    assert hidden_some


def test_the_edge_is_as_wide_as_it_was_asked_to_be(picture, tmp_path):
    _, sharp, masks = edited("sprites:drift", tmp_path, f"edit.reference={picture}", "edit.feather=4", "edit.grow=0")
    _, soft, _ = edited("sprites:drift", tmp_path, f"edit.reference={picture}", "edit.feather=12", "edit.grow=0")
    for series, width in ((sharp, 4), (soft, 12)):
        box, _, alpha = series[8]
        whole = np.zeros(masks[8].shape, np.uint8)
        whole[box[1] : box[3], box[0] : box[2]] = alpha
        outside = cv2.distanceTransform((~masks[8]).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert outside[whole > 0].max() <= width / 2 + 1
        between = ((whole > 0) & (whole < 255)).sum() / max(
            1, cv2.Canny(masks[8].astype(np.uint8) * 255, 1, 2).sum() / 255
        )
        assert width / 3 <= between <= 2 * width + 1


def test_no_strength_is_no_edit(picture, tmp_path):
    result, _, _ = edited("sprites:drift", tmp_path, f"edit.reference={picture}", "edit.strength=0")
    assert np.array_equal(result[5], World(scene("drift")).frame(5))


def test_transparent_parts_of_a_reference_show_the_source(tmp_path):
    image = np.zeros((40, 40, 4), np.uint8)
    image[:, :20] = (0, 0, 255, 255)
    write_png(tmp_path / "half.png", image)
    result, _, masks = edited("sprites:still", tmp_path, f"edit.reference={tmp_path / 'half.png'}", "edit.fit=stretch")
    ys, xs = np.nonzero(masks[0])
    middle, row = (xs.min() + xs.max()) // 2, (ys.min() + ys.max()) // 2
    source = World(scene("still")).frame(0)
    assert np.array_equal(result[0][row, middle + 6 : xs.max() - 6], source[row, middle + 6 : xs.max() - 6])
    assert (result[0][row, xs.min() + 6 : middle - 6] == (0, 0, 255)).all()


@pytest.mark.parametrize(
    ("settings", "code"),
    [([], "E230"), (["edit.frame=99", "edit.reference={picture}"], "E231"), (["edit.anchors={{0: {same}}}"], "E232")],
)
def test_what_cannot_be_carried_is_refused(settings, code, picture, tmp_path):
    write_png(tmp_path / "same.png", World(scene("drift")).frame(0))
    filled = [s.format(picture=picture, same=tmp_path / "same.png") for s in settings]
    with pytest.raises(ConfigError) as refusal:
        edited("sprites:drift", tmp_path, *filled)
    assert refusal.value.code == code


def test_a_painted_frame_of_another_shape_is_refused(tmp_path):
    write_png(tmp_path / "square.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(MediaError) as refusal:
        edited("sprites:drift", tmp_path, f"edit.anchors={{0: {tmp_path / 'square.png'}}}")
    assert refusal.value.code == "E431"


def test_an_affine_is_found_among_outliers():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 200, (60, 2)).astype(np.float32)
    truth = np.array([[1.1, -0.2, 5.0], [0.15, 0.95, -3.0]])
    moved = points @ truth[:, :2].T + truth[:, 2] + rng.normal(0, 0.05, points.shape)
    moved[::4] += rng.uniform(-40, 40, moved[::4].shape)
    found = robust_affine(points, moved.astype(np.float32))
    assert found is not None
    assert np.abs(found - truth).max() < 0.1
    assert robust_affine(points[:0], moved[:0]) is None
    assert np.allclose(robust_affine(points[:2], points[:2] + 3), [[1, 0, 3], [0, 1, 3]])


class Truth:
    """The world's own priors, as the readers give them."""

    def __init__(self, world: World, points: int = 60) -> None:
        self.world, self.width, self.height = world, world.width, world.height
        ys, xs = np.nonzero(world.mask(0, 0))
        chosen = np.random.default_rng(0).permutation(len(xs))[:points]
        self.points = np.stack([xs, ys], 1)[chosen].astype(np.float32)
        self.xy, self.seen = world.tracks(self.points, 0, range(world.frames))
        self.ids = np.arange(len(self.points))

    def __getitem__(self, t):
        return self.ids, self.xy[t], self.seen[t]


class TruthFlow(Truth):
    def backward(self, t):
        return self.world.flow(t + 1, t)

    def forward(self, t):
        return self.world.flow(t, t + 1)

    def occluded_backward(self, t):
        return self.world.occlusion(t + 1, t)

    def occluded_forward(self, t):
        return self.world.occlusion(t, t + 1)


class TruthMasks(Truth):
    def __getitem__(self, t):
        return self.world.mask(t, 0)


@pytest.mark.parametrize("name", ["drift", "zoom", "fast"])
@pytest.mark.parametrize("residual", [0.0, 1.0])
def test_with_true_priors_the_map_to_the_anchor_is_exact(name, residual, tmp_path):
    """Rigid objects: the affine says it all, and the flow residual must add nothing, however fast the motion."""
    world = World(scene(name))
    motion = ObjectMotion(0, range(1, 30), Truth(world), TruthFlow(world), TruthMasks(world), residual, tmp_path)
    t = 29
    inside = cv2.erode(world.mask(t, 0).astype(np.uint8), np.ones((5, 5))) > 0
    where = motion.to_anchor_map(t, (0, 0, world.width, world.height))
    ys, xs = np.nonzero(inside)
    back = world.flow(t, 0)[ys, xs] + np.stack([xs, ys], 1)
    assert np.abs(where[ys, xs] - back).max() < 0.2


def test_the_recipe_and_the_sound_travel_with_the_video(tmp_path, own_store, picture):
    """Sound is copied from the source; the comment tag holds the recipe, unless it is switched off."""
    import json

    import av
    import zoo

    clip = tmp_path / "clip.mp4"
    zoo.make_clip(clip, frames=20, size=(128, 96), audio=True)
    settings = ["masks.box=[20,10,100,80]", f"edit.reference={picture}", "masks.support=0"]
    done = edit.edit(str(clip), settings, until="decode", folder=tmp_path / "out")
    with av.open(done.outputs["video"]) as shown:
        recipe = json.loads(shown.metadata["comment"])["retake"]
        assert recipe["settings"]["edit"]["reference"] == str(picture)
        assert {"stage": "decode", "key": done.outcomes[-1].key} in recipe["keys"]
        assert [s.type for s in shown.streams] == ["video", "audio"]
        sound = [bytes(p) for p in shown.demux(audio=0) if p.size]
    with av.open(str(clip)) as source:
        original = [bytes(p) for p in source.demux(audio=0) if p.size]
    assert sound == original[: len(sound)]
    assert len(sound) >= 0.8 * len(original)
    again = edit.edit(str(clip), [*settings, "decode.recipe_tag=false"], until="decode", folder=tmp_path / "out2")
    assert {o.status for o in again.outcomes} == {"cached"}  # how it is handed out is no ingredient
    with av.open(again.outputs["video"]) as shown:
        assert "comment" not in shown.metadata
    assert Store(own_store).find("decode", done.outcomes[-1].key)


def test_a_clip_of_uneven_times_keeps_them(tmp_path, picture):
    """Variable frame rate: each frame of the result is shown when the source's was."""
    import av
    import zoo

    clip = tmp_path / "clip.mp4"
    zoo.make_clip(clip, frames=20, size=(128, 96), vfr=True)
    settings = ["masks.box=[20,10,100,80]", f"edit.reference={picture}", "masks.support=0"]
    done = edit.edit(str(clip), settings, until="decode", folder=tmp_path / "out")

    def times(path: object) -> list[float]:
        with av.open(str(path)) as shown:
            found = [float(f.time) for f in shown.decode(video=0)]
        return [t - found[0] for t in found]

    assert times(done.outputs["video"]) == pytest.approx(times(clip), abs=1e-3)
    assert done.made["frames"].meta["variable"]


class TwoParts:
    """Tracks of an object whose two halves move apart, and its masks (never asked while tracks live)."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.start = rng.uniform(0, 100, (80, 2))
        self.noise = rng.normal(0, 0.15, (40, 80, 2))

    def __getitem__(self, t):
        left = self.start[:, :1] < 50
        moved = self.start + np.where(left, [[-0.3 * t, 0.5 * t]], [[0.5 * t, -0.2 * t]]) + self.noise[t]
        return np.arange(80), moved.astype(np.float32), np.ones(80, bool)


def test_an_object_that_bends_moves_steadily():
    """Each half has an affine of its own. The answer must not jump between them from frame to frame."""
    from retake.methods.propagate.object_motion import apply, follow

    corners = np.array([[0, 0], [100, 0], [0, 100], [100, 100]], np.float32)
    steps, before = [], corners
    for _, matrix in follow(0, range(1, 40), TwoParts(), None):
        here = apply(matrix, corners)
        steps.append(np.abs(here - before).max())
        before = here
    assert max(steps) < 3 * np.median(steps)
    assert max(steps) < 2.0
