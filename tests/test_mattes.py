"""Given masks as programs write them: what is an id, what an opacity, what an alpha that says nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import zoo
from PIL import Image

from flows import graph
from flows.runners import Local
from flows.settings.compose import settings
from retake import video
from retake.clip import open_clip
from retake.errors import MediaError
from retake.exchange.masks import write_index_png
from retake.formats import open_series
from retake.priors.masks import given
from retake.store import Store

SIZE = 96, 72


def square(t: int = 0) -> np.ndarray:
    """uint8 [72, 96], 0 or 255."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[20:50, 20 + 2 * t : 60 + 2 * t] = 255
    return mask


def rimmed(t: int) -> np.ndarray:
    mask = cv2.dilate(square(t), np.ones((3, 3), np.uint8)) // 3
    mask[20:50, 60 + 2 * t] = 170
    return np.maximum(mask, square(t))


def blurred(t: int) -> np.ndarray:
    return cv2.GaussianBlur(square(t), (0, 0), 6)


def rgb(mask: np.ndarray) -> np.ndarray:
    return np.dstack([mask] * 3)


def write(folder, drawn, suffix=".png", count=3, **options):
    folder.mkdir()
    for t in range(count):
        Image.fromarray(drawn(t)).save(folder / f"{t}{suffix}", **options)
    return folder


def read(folder, count=3, **params):
    masks = given.masks(folder, given.Params(**params), count, SIZE)
    return list(masks), masks.notes


def opaque(mask: np.ndarray, *channels: np.ndarray) -> np.ndarray:
    return np.dstack([*channels, np.full_like(mask, 255)])


@pytest.mark.parametrize(
    "drawn",
    [
        lambda t: opaque(square(t), rgb(square(t))),
        lambda t: opaque(square(t), square(t)),
        lambda t: opaque(square(t), rgb(square(t))) * (1, 1, 1, 0),
    ],
    ids=["RGBA", "LA", "transparent"],
)
def test_an_alpha_that_is_the_same_everywhere_is_no_mask(tmp_path, drawn):
    found, notes = read(write(tmp_path / "m", lambda t: drawn(t).astype(np.uint8)))
    assert all(np.array_equal(f[1], square(t) > 0) for t, f in enumerate(found))
    assert any("alpha is the same everywhere" in note for note in notes)


def test_an_alpha_that_differs_between_pictures_is_the_mask(tmp_path):
    whole = np.full(SIZE[::-1], 255, np.uint8)
    found, _ = read(write(tmp_path / "m", lambda t: np.dstack([rgb(square(t)), whole * (t != 1)])))
    assert [f[1].mean() for f in found] == [1, 0, 1]


def test_pictures_of_a_mask_video_hold_the_region_of_the_video(tmp_path):
    video.encode(tmp_path / "mask.mp4", (rgb(square(t)) for t in range(3)), 10.0, crf=30)
    frames = [frame for _, frame in video.decode(tmp_path / "mask.mp4")]
    assert len(np.unique(frames[1])) > 2, "the codec left the picture as it was: nothing is tested"
    folder = write(tmp_path / "png", lambda t: frames[t])
    (pictures, _), (moving, _) = read(folder), read(tmp_path / "mask.mp4")
    assert all(list(f) == [1] for f in pictures)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(pictures, moving, strict=True))
    assert all(np.array_equal(f[1], square(t) > 0) for t, f in enumerate(pictures))


def test_a_grey_rim_is_the_edge_of_one_object(tmp_path):
    folder = write(tmp_path / "m", rimmed)
    found, notes = read(folder)
    assert all(np.array_equal(f[1], rimmed(t) > 127) for t, f in enumerate(found))
    assert "masks.values=ids" in notes[0]
    assert given.ids(folder, given.Params(values="ids")) == (85, 170, 255)


@pytest.mark.parametrize("deep", [False, True])
def test_a_soft_matte_is_its_opacity(tmp_path, deep):
    found, notes = read(write(tmp_path / "m", lambda t: blurred(t) * np.uint16(257) if deep else blurred(t)))
    assert all(np.array_equal(f[1], blurred(t)) for t, f in enumerate(found))
    assert notes == [given.SOFT_NOTE]


def test_ids_stay_ids(tmp_path):
    def ids(t, *values):
        index = np.zeros(SIZE[::-1], np.uint8)
        for k, value in enumerate(values):
            index[20 * k : 20 * k + 15, 10 + t : 50 + t] = value
        return index

    assert given.ids(write(tmp_path / "small", lambda t: ids(t, 1, 2, 3)), given.Params()) == (1, 2, 3)
    areas = write(tmp_path / "areas", lambda t: ids(t, 85, 170, 255))
    assert given.ids(areas, given.Params()) == (85, 170, 255)
    assert "masks.values=matte" in read(areas)[1][0]
    assert given.ids(areas, given.Params(values="matte")) == (1,)
    assert given.ids(write(tmp_path / "void", lambda t: ids(t, 1, 255)), given.Params()) == (1, 255)
    (tmp_path / "palette").mkdir()
    write_index_png(tmp_path / "palette" / "0.png", rimmed(0))
    assert given.ids(tmp_path / "palette", given.Params()) == (85, 170, 255)


def test_a_palette_of_black_and_white_holds_them_in_either_order(tmp_path):
    (tmp_path / "m").mkdir()
    for t in range(3):
        image = Image.fromarray((square(t) == 0).astype(np.uint8))
        image.putpalette([255, 255, 255, 0, 0, 0])
        image.save(tmp_path / "m" / f"{t}.png")
    assert all(np.array_equal(f[1], square(t) > 0) for t, f in enumerate(read(tmp_path / "m")[0]))


def test_masks_of_other_kinds_are_read_or_named(tmp_path):
    found, notes = read(write(tmp_path / "jpg", square, ".jpg", quality=80))
    assert all(np.array_equal(f[1], square(t) > 0) for t, f in enumerate(found))
    assert "3 other images" in notes[0]
    with pytest.raises(MediaError, match=r"0 masks \(3 \.tga files there are not read\)") as refusal:
        read(write(tmp_path / "tga", square, ".tga"))
    assert refusal.value.code == "E430"


def test_missing_numbers_of_masks_are_told(tmp_path):
    folder = write(tmp_path / "shift", square, count=5)
    (folder / "2.png").unlink()
    found, notes = read(folder, 4)
    assert len(found) == 4
    assert "numbers are missing: 2;" in notes[0]
    with pytest.raises(MediaError, match=r"4 masks, the clip has 5 frames; numbers are missing: 2\n"):
        read(folder, 5)


def test_the_opacity_of_a_matte_is_the_edge_of_the_edit(tmp_path, own_store):
    zoo.make_clip(tmp_path / "clip.mp4", frames=3, size=SIZE)
    write(tmp_path / "m", blurred)
    Image.new("RGB", (32, 32), (0, 200, 0)).save(tmp_path / "green.png")
    words = ["masks=given", f"masks.path={tmp_path / 'm'}", f"edit.reference={tmp_path / 'green.png'}"]

    def made(*more):
        runner = Local(Store(own_store))
        done = graph.edit_graph(runner, open_clip(str(tmp_path / "clip.mp4")), settings([*words, *more]), until="edit")
        return open_series(runner.store, done["region"]), open_series(runner.store, done["edit"])

    region, edited = made()
    (x0, y0, x1, y1), _, alpha = edited[0]
    assert np.array_equal(region[0], blurred(0) > 127)
    laid = np.zeros(SIZE[::-1], np.uint8)
    laid[y0:y1, x0:x1] = alpha
    assert np.array_equal(laid, blurred(0))
    region, edited = made("region.steps=[rectangle]", "edit.feather=1", "edit.grow=0")
    assert region.opacity(0) is None
    assert np.unique(edited[0][2]).tolist() in ([0, 255], [255])
