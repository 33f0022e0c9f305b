"""Edits of tracks: what every operator does to points whose places are known, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.errors import ConfigError, MediaError
from retake.track_edits import program
from retake.track_edits.evaluate import Edit
from retake.track_edits.keys import eased

COUNT, SIZE = 24, (64, 48)


@dataclass
class Known:
    """Three objects' worth of points that drift, the background's under a camera that pans and turns."""

    count: int = COUNT
    size: tuple[int, int] = SIZE
    turn: float = 0.01  # of the camera, radians a frame

    def __post_init__(self) -> None:
        rng = np.random.default_rng(3)
        self.start = rng.uniform(8, 40, (40, 2))
        self.labels = np.repeat([0, 1, 2, 3], 10)
        self.ways = np.array([[0, 0], [1, 0.5], [-0.7, 0.2], [0, -0.4]])[self.labels]

    def camera(self, t: int, xy: np.ndarray) -> np.ndarray:
        cos, sin = np.cos(self.turn * t), np.sin(self.turn * t)
        return xy @ np.array([[cos, sin], [-sin, cos]]) + np.array([0.5, -0.25]) * t

    def points(self, t: int):
        return np.arange(40), self.camera(t, self.start + self.ways * t), np.ones(40, bool), self.labels

    def middles(self, t: int):
        xy = self.points(t)[1]
        return {k: tuple(xy[self.labels == k].mean(0)) for k in (1, 2, 3)}


def edited(*edits: dict, source: Known | None = None) -> Edit:
    return Edit(program.parse({"edits": list(edits)}, "test"), source or Known())


def places(edit: Edit, t: int, *objects: int) -> np.ndarray:
    points = edit.at(t)
    return points.xy[np.isin(points.objects, objects or (1, 2, 3))]


def source(t: int, *objects: int) -> np.ndarray:
    return places(edited(), t, *objects)


pairs = st.tuples(*[st.floats(-50, 50)] * 2)
frames = st.integers(0, COUNT - 1)
spans = st.tuples(frames, frames).map(sorted)
easings = st.sampled_from(["linear", "ease_in", "ease_out", "ease_in_out", "hold"])


@given(t=frames)
def test_no_edit_leaves_every_point(t):
    points = edited().at(t)
    ids, xy, _visible, labels = Known().points(t)
    assert np.array_equal(points.ids, ids)
    assert np.array_equal(points.xy, xy)
    assert points.visible.all()
    assert np.array_equal(points.objects, labels)
    assert not points.hidden.any()
    assert (points.time == t).all()


@given(by=pairs, span=spans, easing=easings, t=frames)
def test_a_move_and_its_opposite_are_nothing(by, span, easing, t):
    there = {"do": "move", "by": by, "frames": span, "easing": easing}
    back = there | {"by": [-by[0], -by[1]]}
    assert np.allclose(places(edited(there, back), t), source(t), atol=1e-9)


@given(a=pairs, b=pairs, t=frames)
def test_two_moves_are_the_move_of_their_sum(a, b, t):
    both = edited({"do": "move", "by": a}, {"do": "move", "by": b})
    assert np.allclose(places(both, t), places(edited({"do": "move", "by": np.add(a, b).tolist()}), t))


@given(by=pairs, span=spans, t=frames)
def test_a_move_grows_over_its_frames_and_stays(by, span, t):
    moved = places(edited({"do": "move", "by": by, "frames": span, "easing": "linear"}), t) - source(t)
    whole = (t - span[0]) / max(span[1] - span[0], 1) if t < span[1] else 1
    assert np.allclose(moved, np.clip(whole, 0, 1) * np.array(by))
    assert np.array_equal(places(edited({"do": "move", "by": by, "frames": span}), t, 0), source(t, 0))


@given(angle=st.floats(-360, 360), factor=st.floats(0.2, 5), t=frames)
def test_turning_and_scaling_keep_the_middle_and_undo_themselves(angle, factor, t):
    turn, grow = {"do": "rotate", "by": angle}, {"do": "scale", "by": factor}
    for k in (1, 2, 3):
        once = places(edited(turn, grow), t, k)
        middle = source(t, k).mean(0)
        assert np.allclose(once.mean(0), middle)
        assert np.allclose(
            np.linalg.norm(once - middle, axis=1), factor * np.linalg.norm(source(t, k) - middle, axis=1)
        )
    back = ({"do": "scale", "by": 1 / factor}, {"do": "rotate", "by": -angle})
    assert np.allclose(places(edited(turn, grow, *back), t), source(t), atol=1e-6)


def test_a_quarter_turn_is_clockwise_on_the_screen():
    turned = places(edited({"do": "rotate", "by": 90, "about": [20, 20]}), 0, 1)
    x, y = (source(0, 1) - 20).T
    assert np.allclose(turned - 20, np.stack([-y, x], 1))  # right goes down


def test_what_turns_about_its_middle_is_followed_to_where_it_was_moved():
    ways = [{"do": "move", "by": [30, 0]}, {"do": "rotate", "by": 50}]
    assert np.allclose(places(edited(*ways), 5, 2), places(edited(*reversed(ways)), 5, 2))


@given(
    axis=st.sampled_from(["horizontal", "vertical"]), about=st.sampled_from(["centre", "frame", (9.0, 4.0)]), t=frames
)
def test_a_mirror_twice_is_nothing_and_once_is_not(axis, about, t):
    mirror = {"do": "mirror", "axis": axis, "about": about}
    assert np.allclose(places(edited(mirror, mirror), t), source(t))
    assert not np.allclose(places(edited(mirror), t), source(t))


@given(t=frames)
def test_keys_stand_on_their_frames_and_between_them(t):
    keys = [{"frame": 4, "by": [2, 0]}, {"frame": 10, "by": [8, 4], "rotate": 30, "scale": 2}, {"frame": 20}]
    edit = edited({"do": "keys", "keys": keys})
    for key in keys:
        alone = {"do": "keys", "keys": [{**key, "frame": 0}]}
        assert np.allclose(places(edit, key["frame"]), places(edited(alone), key["frame"]))
    shift = (places(edit, t) - source(t)).mean(0)
    assert -1e-9 <= shift[0] <= 8 + 1e-9
    assert -1e-9 <= shift[1] <= 4 + 1e-9


@given(s=st.floats(0, 1), easing=easings)
def test_an_easing_starts_and_ends_where_it_must(s, easing):
    assert eased(0, easing) == 0
    assert 0 <= eased(s, easing) <= 1
    if easing != "hold":
        assert eased(1, easing) == 1
        assert eased(s, easing) <= eased(min(1, s + 0.01), easing) + 1e-12


# ---- time ------------------------------------------------------------------------------------------------------------


@given(span=spans, t=frames)
def test_backwards_twice_is_forwards(span, t):
    back = {"do": "reverse", "frames": span}
    once = edited(back)
    mirrored = sum(span) - t if span[0] <= t <= span[1] else t
    assert np.array_equal(places(once, t), source(mirrored))
    assert (once.at(t).time[10:] == mirrored).all()
    assert (once.at(t).time[:10] == t).all()
    assert np.array_equal(places(edited(back, back), t), source(t))


def test_speed_delay_and_the_ends_of_the_clip():
    assert np.allclose(places(edited({"do": "retime", "speed": 2}), 5), source(10))
    assert np.allclose(places(edited({"do": "retime", "speed": 2}), 20), source(COUNT - 1))
    assert np.allclose(places(edited({"do": "retime", "speed": 0.5, "start": 4}), 10), source(7))
    assert np.allclose(places(edited({"do": "retime", "delay": 3}), 10), source(7))
    assert np.allclose(places(edited({"do": "retime", "delay": 3}), 2), source(0))
    assert np.allclose(places(edited({"do": "retime", "delay": -3}), 10), source(13))
    half = edited({"do": "retime", "speed": 0.5})
    assert np.allclose(places(half, 5), (source(2) + source(3)) / 2)
    assert set(half.at(5).time[10:]) == {2.5}


def test_freeze_holds_a_moment_and_a_move_before_it_is_held_too():
    edits = [{"do": "move", "by": [10, 0], "frames": [0, 10], "easing": "linear"}]
    edits += [{"do": "freeze", "at": 5, "frames": [5, 15]}]
    for t in (5, 9, 15):
        assert np.allclose(places(edited(*edits), t), np.add(source(5), [5, 0]))
    assert np.allclose(places(edited(*edits), 16), np.add(source(16), [10, 0]))
    late = edited(*reversed(edits))  # the other way round it moves while its moment is held
    assert np.allclose(places(late, 9), np.add(source(5), [9, 0]))


# ---- which points ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "taken"),
    [
        ({"object": 2}, range(20, 30)),
        ({"object": 0}, range(10)),
        ({"ids": [3, 15]}, [3, 15]),
        ("all", range(40)),
        ("objects", range(10, 40)),
    ],
)
def test_only_the_chosen_points_move(points, taken):
    moved = edited({"do": "move", "by": [7, 0], "points": points})
    way = np.abs(moved.at(6).xy - edited().at(6).xy).max(1)
    assert np.flatnonzero(way > 1e-9).tolist() == list(taken)


def test_a_box_takes_what_lies_in_it_on_its_frame():
    inside = edited({"do": "hide", "points": {"box": [0, 0, 30, 30], "frame": 4}}).at(9)
    at = edited().at(4).xy
    assert np.array_equal(inside.hidden, ((at >= 0) & (at <= 30)).all(1))
    assert np.array_equal(inside.visible, ~inside.hidden)


def test_a_falloff_moves_near_points_more_and_far_ones_not():
    moved = edited({"do": "move", "by": [10, 0], "points": "all", "falloff": {"centre": [20, 20], "radius": 12}}).at(0)
    at = edited().at(0).xy
    far, way = np.linalg.norm(at - 20, axis=1), (moved.xy - at)[:, 0]
    assert (way[far >= 12] == 0).all()
    assert (way[far < 11] > 0).all()
    order = np.argsort(far)
    assert (np.diff(way[order]) <= 1e-9).all()


def test_an_anchor_undoes_what_was_said_before_on_its_frames():
    edits = [{"do": "move", "by": [9, 9]}, {"do": "reverse"}, {"do": "anchor", "frames": [3, 8]}]
    assert np.array_equal(places(edited(*edits), 5), source(5))
    assert not np.allclose(places(edited(*edits), 9), source(9))


# ---- the camera ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "turn"), [("translation", 0.0), ("similarity", 0.01), ("affine", 0.01), ("homography", 0.01)]
)
def test_what_is_stabilised_rests_and_the_camera_comes_back(model, turn):
    steady = {"do": "stabilise", "to": 6, "model": model}
    known = Known(turn=turn)
    edit = edited(steady, source=known)
    for t in (0, 6, 20):
        assert np.allclose(places(edit, t, 0), places(edited(source=known), 6, 0), atol=1e-3)
    both = edited(steady, {"do": "reapply"}, source=known)
    assert np.allclose(places(both, 17, 0, 1, 2, 3), places(edited(source=known), 17, 0, 1, 2, 3), atol=1e-3)


def test_a_move_between_stabilise_and_reapply_is_one_in_the_scene():
    known = Known()
    edits = [{"do": "stabilise"}, {"do": "move", "by": [5, 0]}, {"do": "reapply"}]
    truth = known.camera(12, known.start + known.ways * 12 + [5, 0])
    assert np.allclose(places(edited(*edits, source=known), 12, 1), truth[known.labels == 1], atol=1e-3)


def test_without_points_to_fit_it_is_told():
    with pytest.raises(ConfigError, match="too few points") as error:
        edited({"do": "stabilise", "reference": {"ids": [0]}, "model": "affine"})
    assert error.value.code == "E239"
    assert "tracks.queries=grid" in error.value.hint


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ([{"do": "mve", "by": [1, 0]}], "Did you mean move?"),
        ([{"by": [1, 0]}], "Operators:"),
        ([{"do": "move"}], "edits.0.by"),
        ([{"do": "move", "by": [1]}], "edits.0.by"),
        ([{"do": "move", "by": [1, "NaN"]}], "edits.0.by"),
        ([{"do": "hide"}, {"do": "move", "by": [1, 0], "frames": [9, 3]}], "edits.1: the last frame comes before"),
        ([{"do": "keys", "keys": [{"frame": 5}, {"frame": 5}]}], "key 5 comes behind key 5"),
        ([{"do": "keys", "keys": []}], "edits.0.keys"),
        ([{"do": "move", "by": [1, 0], "speed": 3}], "edits.0.speed"),
        ([{"do": "move", "by": [1, 0], "points": {"object": 1, "ids": [3]}}], "name one of object, ids and box"),
        ([{"do": "scale", "by": 0}], "edits.0.by"),
        ([{"do": "move", "by": [1, 0], "frame": [0, 9]}], "Did you mean frames?"),
        ([{"do": "move", "to": [1, 0]}], "there is no field edits.0.to"),
        ([{"do": "hide", "points": {"box": [9, 9, 3, 3]}}], "its top left, then its bottom right"),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused_with_its_place(edits, said):
    with pytest.raises(ConfigError) as error:
        program.parse({"edits": edits}, "file.json")
    assert error.value.code == "E237"
    assert said in f"{error.value.message} {error.value.hint}"
    assert "file.json" in error.value.message


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"do": "freeze", "at": 24}, "at: there is no frame 24"),
        ({"do": "move", "by": [1, 0], "frames": [0, 99]}, "frames: there is no frame 99"),
        ({"do": "keys", "keys": [{"frame": 3}, {"frame": 30}]}, "keys.1.frame: there is no frame 30"),
        ({"do": "rotate", "by": 5, "about": [80, 2]}, "about (80, 2) is outside"),
        ({"do": "hide", "points": {"box": [0, 0, 10, 99]}}, "points.box (10, 99) is outside"),
        ({"do": "move", "by": [1, 0], "falloff": {"centre": [-3, 2], "radius": 4}}, "falloff.centre (-3, 2)"),
        ({"do": "hide", "points": {"object": 7}}, "there is no object 7"),
        ({"do": "stabilise", "reference": {"object": 9}}, "there is no object 9"),
    ],
)
def test_what_the_clip_has_no_place_for_is_refused(edit, said):
    with pytest.raises(ConfigError) as error:
        program.check(program.parse({"edits": [edit]}, "file"), COUNT, *SIZE, (1, 2, 3))
    assert error.value.code == "E238"
    assert said in error.value.message
    assert "edits.0" in error.value.message


def test_reapply_needs_something_to_put_back():
    with pytest.raises(ConfigError, match="nothing before it was stabilised"):
        edited({"do": "reapply"})


def test_a_file_is_read_or_refused_by_name(tmp_path):
    path = tmp_path / "edit.json"
    path.write_text(json.dumps({"version": 1, "edits": [{"do": "hide"}]}))
    assert program.read(path).edits[0].do == "hide"
    path.write_text(json.dumps([{"do": "hide"}]))
    assert program.read(path).edits[0].do == "hide"
    for text in ("{", "[1]", '{"version": 2, "edits": []}', '{"edit": []}', "[" * 100_000, "NaN"):
        path.write_text(text)
        with pytest.raises(ConfigError) as error:
            program.read(path)
        assert error.value.code == "E237"
        assert str(path) in error.value.message
    with pytest.raises(MediaError, match="no file"):
        program.read(tmp_path / "nothing.json")


def test_a_file_of_tracks_in_place_of_edits_is_told_so(tmp_path):
    path = tmp_path / "tracks.json"
    path.write_text('{"ids": [0], "visible": [[1]], "xy": [[[3, 4]]]}')
    with pytest.raises(ConfigError) as error:
        program.read(path)
    assert "edited_tracks=given" in error.value.hint


def test_a_box_without_points_is_told():
    with pytest.raises(ConfigError, match="no point lies in the box") as error:
        edited({"do": "hide", "points": {"box": [60, 44, 63, 47]}})
    assert error.value.code == "E239"


def test_the_schema_names_every_operator():
    names = {
        one["properties"]["do"]["const"] for one in program.schema()["$defs"].values() if "do" in one["properties"]
    }
    assert names == set(program.names())
    assert len(names) == 12
