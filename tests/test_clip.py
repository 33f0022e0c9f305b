"""Clips of every kind: what they are called, known by, and which frames they give."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import zoo

from retake.clip import FolderClip, SpriteClip, VideoClip, open_clip, select_indices, slug
from retake.errors import ConfigError, MediaError
from retake.store import Store
from retake.video import Selection


def write(path, rgb):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgb[..., ::-1])


def grey(value, size=(32, 24)):
    return np.full((size[1], size[0], 3), value, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Twelve images whose names sort rightly by number only; frame k is grey 10 k."""
    for k in range(12):
        write(tmp_path / "images" / f"shot{k}.png", grey(10 * k))
    return tmp_path / "images"


@pytest.fixture
def davis(tmp_path):
    for k in range(5):
        write(tmp_path / "DAVIS" / "JPEGImages" / "480p" / "bear" / f"{k:05d}.png", grey(40 * k))
        write(tmp_path / "DAVIS" / "JPEGImages" / "Full-Resolution" / "bear" / f"{k:05d}.png", grey(40 * k, (64, 48)))
    return tmp_path / "DAVIS"


def test_the_kind_follows_from_what_is_there(tmp_path, folder, davis):
    zoo.make_clip(tmp_path / "clip.mp4", frames=3)
    assert isinstance(open_clip(str(tmp_path / "clip.mp4")), VideoClip)
    assert isinstance(open_clip(str(folder)), FolderClip)
    assert isinstance(open_clip(f"{davis}:bear"), FolderClip)
    assert isinstance(open_clip("sprites:drift:3"), SpriteClip)
    assert open_clip("sprites:captioned:7:40").info(24.0).frames == 40


def test_a_folder_is_read_in_the_order_of_its_numbers(folder):
    frames = list(open_clip(str(folder)).read(Selection(), None, 12.0))
    assert [int(rgb[0, 0, 0]) for _, rgb in frames] == [10 * k for k in range(12)]
    assert [seconds for seconds, _ in frames] == pytest.approx([k / 12 for k in range(12)])


def test_a_davis_tree_gives_480p_first_and_names_what_it_has(davis):
    clip = open_clip(f"{davis}:bear")
    info = clip.info(24.0)
    assert (info.width, info.height, info.frames) == (32, 24, 5)
    assert clip.name == "bear"
    with pytest.raises(MediaError, match="Did you mean bear") as refusal:
        open_clip(f"{davis}:beer")
    assert refusal.value.code == "E400"


def test_images_of_two_sizes_are_refused(folder):
    write(folder / "shot5.png", grey(0, (30, 24)))
    with pytest.raises(MediaError) as refusal:
        list(open_clip(str(folder)).read(Selection(), None, 24.0))
    assert refusal.value.code == "E412"
    assert "shot5.png" in refusal.value.message


def named(folder, *names):
    for name in names:
        write(folder / name, grey(7))
    return open_clip(str(folder))


def test_missing_numbers_of_a_sequence_are_told(tmp_path, own_store):
    left = [f"{k:04d}.png" for k in range(24) if k not in (9, 10, 11, 20)]
    clip = named(tmp_path / "gap", *left)
    (note,) = clip.info(24.0).notes
    assert "9 to 11, 20" in note
    assert "20 images" in note
    others = {
        "whole": [f"{k:04d}.png" for k in range(20)],
        "twos": [f"shot2_{k:03d}.png" for k in range(0, 40, 2)],
        "times": [f"{k * k * 37}.png" for k in range(20)],
        "takes": [f"{take}_{k}.png" for take in "AB" for k in (1, 2, 3)],
        "one": ["5.png"],
    }
    for folder, names in others.items():
        assert named(tmp_path / folder, *names).info(24.0).notes == (), folder
    store = Store(own_store)  # the note is part of the frames, so the numbers are part of the clip
    assert clip.digest(store) != open_clip(str(tmp_path / "whole")).digest(store)


def test_a_frame_that_is_there_twice_is_refused(tmp_path):
    for folder, names in (("kinds", ("0001.jpg", "0001.png", "0002.png")), ("zeros", ("1.png", "01.png", "2.png"))):
        with pytest.raises(MediaError) as refusal:
            named(tmp_path / folder, *names).info(24.0)
        assert refusal.value.code == "E418"
        assert "1 of its frames" in refusal.value.message


def test_digits_that_are_no_numbers_sort_as_letters(tmp_path):
    names = [f"{mark}{k}.png" for mark in "\u00b2\u2460" for k in range(12)]
    assert [p.name for p in named(tmp_path / "marks", *names).images] == names


@pytest.mark.parametrize(("alpha", "notes"), [(255, []), (0, ["transparency is dropped, as 0.png has none"])])
def test_dropped_transparency_of_a_folder_is_told_once(tmp_path, alpha, notes):
    for k in range(3):
        rgba = np.dstack([grey(50), np.full((24, 32), 255, np.uint8)])
        rgba[:4, :, 3] = alpha
        cv2.imwrite(str(tmp_path / f"{k}.png"), rgba if k else rgba[..., :3])
    told = []
    frames = list(open_clip(str(tmp_path)).read(Selection(), None, 24.0, on_note=told.append))
    assert {rgb.shape for _, rgb in frames} == {(24, 32, 3)}
    assert told == notes


def test_a_folder_is_known_by_its_pictures(folder, own_store):
    store = Store(own_store)
    before = open_clip(str(folder)).digest(store)
    moved = folder.rename(folder.with_name("moved"))
    assert open_clip(str(moved)).digest(store) == before
    write(moved / "shot3.png", grey(1))
    assert open_clip(str(moved)).digest(store) != before


def test_a_scene_is_known_by_its_name_and_seed(own_store):
    store = Store(own_store)
    specs = ["sprites:drift", "sprites:drift:1", "sprites:zoom"]
    assert len({open_clip(s).digest(store) for s in specs}) == 3
    short, long = (open_clip(f"sprites:captioned:7{count}") for count in ("", ":40"))
    assert short.digest(store) != long.digest(store)
    assert np.array_equal(short.world.frame(0), long.world.frame(0))  # as far in more frames
    assert np.array_equal(short.world.frame(15), long.world.frame(39))
    assert open_clip("sprites:drift").digest(store) == open_clip("sprites:drift:0").digest(store)


@pytest.mark.parametrize(
    ("wish", "wanted"),
    [
        (Selection(), list(range(24))),
        (Selection(first=3, last=6), [3, 4, 5, 6]),
        (Selection(start=0.25, end=0.5), [6, 7, 8, 9, 10, 11]),
        (Selection(fps=12), list(range(0, 24, 2))),
        (Selection(fps=48, last=3), [0, 0, 1, 1, 2, 2, 3, 3]),
        (Selection(start=0.5, fps=8), [12, 15, 18, 21]),
    ],
)
def test_a_selection_means_the_same_for_every_kind_of_clip(wish, wanted, tmp_path):
    """The video decoder selects by timestamps, folders and scenes by arithmetic: both must pick the same frames."""
    assert [index for _, index in select_indices(wish, 24, 24.0)] == wanted
    zoo.make_clip(tmp_path / "clip.mp4", frames=24, fps=24)
    decoded = list(open_clip(str(tmp_path / "clip.mp4")).read(wish, None, 24.0))
    assert [zoo.read_barcode(rgb) for _, rgb in decoded] == wanted
    times = [seconds for seconds, _ in select_indices(wish, 24, 24.0)]
    assert [seconds for seconds, _ in decoded] == pytest.approx(times, abs=1e-3)


def test_an_empty_selection_is_refused():
    with pytest.raises(ConfigError, match="E211"):
        select_indices(Selection(first=30), 24, 24.0)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a b/c", "Ünï cödé", "x" * 300, "...", "a\nb"])
def test_a_slug_is_safe_everywhere(name):
    import re

    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", slug(name))


def test_given_masks_of_a_davis_tree_make_an_edit(davis, tmp_path, own_store):
    """Palette annotations, object 2 of two, through the whole graph."""
    from PIL import Image

    from flows.editing import edit

    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(0, 255, (12, 16, 3)).astype(np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    for k in range(5):
        picture = texture.copy()
        picture[40:80, 30 + 4 * k : 80 + 4 * k] = texture[0:40, 60:110]
        write(davis / "JPEGImages" / "480p" / "square" / f"{k:05d}.png", picture)
        index = np.zeros((120, 160), np.uint8)
        index[40:80, 30 + 4 * k : 80 + 4 * k] = 2
        index[:10] = 1
        image = Image.fromarray(index, "P")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        (davis / "Annotations" / "480p" / "square").mkdir(parents=True, exist_ok=True)
        image.save(davis / "Annotations" / "480p" / "square" / f"{k:05d}.png")
    write(tmp_path / "reference.png", grey(200))
    masks = davis / "Annotations" / "480p" / "square"
    done = edit.edit(
        f"{davis}:square",
        ["masks=given", f"masks.path={masks}", "masks.object=2", f"edit.reference={tmp_path / 'reference.png'}"],
        until="edit",
        folder=tmp_path / "out",
    )
    from retake.formats import open_series

    store = Store(own_store)
    given, edited = open_series(store, done.made["masks"]), open_series(store, done.made["edit"])
    for t in range(5):
        assert np.array_equal(np.argwhere(given[t]).min(0), [40, 30 + 4 * t])
        box, rgb, alpha = edited[t]
        inside = alpha[42 - box[1] : 78 - box[1], 34 + 4 * t - box[0] : 76 + 4 * t - box[0]]
        assert (inside == 255).all()
        assert abs(int(rgb[20, 30 + 4 * t - box[0] + 10, 0]) - 200) <= 1
