"""`move` against the exact render of the world in which the sprite moves as the edited tracks say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.stages import StopAfter, run

from flows.editing import edit, export, track_preview
from flows.places import open_store
from flows.settings.compose import settings
from retake.errors import ConfigError
from retake.formats import open_series
from retake.recomposition.background import Background
from retake.synthetic import World, scene
from retake.synthetic.motion import Pose
from retake.video import probe, read_image

LAST = 31


def moved(name: str, pose: Callable[[int, tuple[Pose, ...]], Pose], sprite: int = 0) -> World:
    """The world of a scene in which a sprite stands elsewhere. pose: (frame, its poses) to its pose."""
    given = scene(name)
    sprites = list(given.sprites)
    poses = tuple(pose(t, sprites[sprite].poses) for t in range(given.frames))
    sprites[sprite] = replace(sprites[sprite], poses=poses)
    return World(replace(given, sprites=tuple(sprites)))


def edited(spec: str, folder, *edits: dict, more: tuple[str, ...] = (), last: int = LAST):
    """Result and edit series, and the edit, of a move until decode."""
    words = [f"frames.last={last}", "edit=move", f"edited_tracks.edits={json.dumps(list(edits))}", *more]
    done = edit.edit(spec, words, until="decode", folder=folder)
    store = open_store()
    return open_series(store, done.made["decode"]), open_series(store, done.made["edit"]), done


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """In dB; 99 for equal pixels."""
    error = np.square((a[where].astype(float) - b[where]) / 255).mean()
    return float(-10 * np.log10(max(error, 10**-9.9)))


def agree(result, truth: World, sprite: int = 0, times=(0, 9, 20, LAST)) -> float:
    """The least PSNR over some frames, in dB, where the sprite shall be."""
    return min(psnr(result[t], truth.frame(t), truth.mask(t, sprite)) for t in times)


def shifted(by: tuple[float, float], over: int = 0) -> Callable[[int, tuple[Pose, ...]], Pose]:
    def pose(t: int, poses: tuple[Pose, ...]) -> Pose:
        s = min(t / over, 1.0) if over else 1.0
        return poses[t]._replace(x=poses[t].x + s * by[0], y=poses[t].y + s * by[1])

    return pose


@pytest.mark.parametrize("name", ["drift", "still", "fast"])
def test_a_moved_object_is_where_the_exact_render_has_it(name, tmp_path):
    """Beside it, what the source scores: the edit did something."""
    move = {"do": "move", "by": [60, 10], "frames": [0, 16], "easing": "linear"}
    result, _, _ = edited(f"sprites:{name}", tmp_path, move)
    truth, source = moved(name, shifted((60, 10), 16)), World(scene(name))
    found = agree(result, truth)
    assert found > 26
    assert found > psnr(source.frame(LAST), truth.frame(LAST), truth.mask(LAST, 0)) + 8


def test_with_our_own_masks_it_is_nearly_as_good(tmp_path):
    world = World(scene("drift"))
    found = world.box(0, 0)
    assert found is not None
    x0, y0, x1, y1 = found
    box = f"masks.box=[{x0 - 6},{y0 - 6},{x1 + 6},{y1 + 6}]"
    result, _, _ = edited("sprites:drift", tmp_path, {"do": "move", "by": [60, 10]}, more=(box,))
    assert agree(result, moved("drift", shifted((60, 10)))) > 24


def test_pixels_outside_both_places_are_the_sources(tmp_path):
    result, _, _ = edited("sprites:drift", tmp_path, {"do": "move", "by": [60, 10]})
    truth, source = moved("drift", shifted((60, 10))), World(scene("drift"))
    for t in (0, 13, LAST):
        near = np.zeros((180, 320), bool)
        rows, columns = np.nonzero(truth.mask(t, 0) | source.mask(t, 0))
        for y in range(-10, 11):
            for x in range(-10, 11):
                near[(rows + y).clip(0, 179), (columns + x).clip(0, 319)] = True
        assert np.array_equal(result[t][~near], source.frame(t)[~near])
        assert not np.array_equal(result[t], source.frame(t))


def test_time_runs_half_as_fast_for_the_object_alone(tmp_path):
    """At every second frame the half-speed object stands where it stood at half the time."""
    result, _, _ = edited("sprites:fast", tmp_path, {"do": "retime", "speed": 0.5})
    camera = scene("fast").camera

    def pose(t: int, poses: tuple[Pose, ...]) -> Pose:  # tracks speak of the screen, poses of the world
        s = t // 2
        x, y = camera[s].x - camera[t].x, camera[s].y - camera[t].y
        return poses[s]._replace(x=poses[s].x + x, y=poses[s].y + y)

    assert agree(result, moved("fast", pose), times=(2, 10, 20, 30)) > 26


def test_between_stabilise_and_reapply_time_is_that_of_the_scene(tmp_path):
    """The object stands where it stood in the world at half the time, before the camera of now."""
    edits = [{"do": "stabilise", "model": "translation"}, {"do": "retime", "speed": 0.5}, {"do": "reapply"}]
    result, series, _ = edited("sprites:fast", tmp_path, *edits, more=("tracks.queries=grid",))
    assert agree(result, moved("fast", lambda t, poses: poses[t // 2]), times=(2, 10, 20, 30)) > 24
    x0, _, x1, _ = series[20][0]
    assert x1 - x0 < 320  # the background was put back where it was, and is the source's


@pytest.mark.parametrize(
    ("one", "pose"),
    [
        ({"do": "reverse"}, lambda t, poses: poses[LAST - t] if t <= LAST else poses[t]),
        ({"do": "freeze", "at": 4, "frames": [4, LAST]}, lambda t, poses: poses[4] if t >= 4 else poses[t]),
        ({"do": "rotate", "by": 60}, lambda t, p: p[t]._replace(angle=p[t].angle + np.pi / 3)),
        ({"do": "scale", "by": 1.5}, lambda t, p: p[t]._replace(scale=1.5 * p[t].scale)),
        ({"do": "scale", "by": 0.5}, lambda t, p: p[t]._replace(scale=0.5 * p[t].scale)),
    ],
    ids=["reverse", "freeze", "rotate", "larger", "smaller"],
)
def test_other_ways_to_move(one, pose, tmp_path):
    result, _, _ = edited("sprites:still", tmp_path, one)
    assert agree(result, moved("still", pose)) > 24


def test_a_hidden_object_leaves_the_scene_behind_it(tmp_path):
    """The object passes on, so that all of the scene is seen at some time: nothing is made up, and no note says so."""
    result, series, done = edited("sprites:fast", tmp_path, {"do": "hide"}, last=47)
    given = scene("fast")
    empty, source = World(replace(given, sprites=())), World(given)
    assert min(psnr(result[t], empty.frame(t), source.mask(t, 0)) for t in (0, 20, 47)) > 30
    assert not done.made["edit"].meta.get("notes")
    assert (series[20][2] > 0).sum() >= source.mask(20, 0).sum()


def test_what_is_hidden_is_not_brought_back_by_an_order(tmp_path):
    both = ("masks=given", "masks.own=true", "edit.order=[2,1]")
    one, _, _ = edited("sprites:cross", tmp_path, {"do": "hide", "points": {"object": 1}}, more=both, last=4)
    source = World(scene("cross"))
    assert psnr(one[0], source.frame(0), source.mask(0, 0)) < 20
    assert psnr(one[0], source.frame(0), source.mask(0, 1)) == 99


def test_an_edit_that_changes_nothing_says_so(tmp_path):
    _, _, done = edited("sprites:drift", tmp_path, {"do": "move", "by": [9, 0], "points": {"object": 0}}, last=3)
    (note,) = done.made["edited_tracks"].meta["notes"]
    assert note.startswith("nothing moves")
    assert "tracks.queries=grid" in note


def test_what_no_frame_shows_is_made_up_steadily_and_told(tmp_path):
    """An object that rests before a camera that rests hides the same place for ever."""
    words = ("tracks.reseed=0",)
    result, _, done = edited("sprites:still", tmp_path, {"do": "move", "by": [0, 500]}, more=words)
    filled, gone = done.made["edit"].meta["notes"]
    assert filled.endswith("of the background behind what moved is seen in no frame: filled from its surroundings")
    assert gone == f"object 1 is moved out of the picture on {len(result)} of {len(result)} frames"
    world = World(scene("still"))
    inside = world.mask(0, 0) & world.mask(LAST, 0)
    assert np.array_equal(result[3][inside], result[LAST][inside])  # it does not flicker
    assert psnr(result[3], world.frame(3), inside) < 20  # nor is it the object


def test_of_two_objects_one_moves_and_the_order_says_which_is_in_front(tmp_path):
    both = ("masks=given", "masks.own=true")
    source, one = World(scene("cross")), {"object": 1}
    result, _, _ = edited("sprites:cross", tmp_path / "a", {"do": "move", "by": [-30, 0], "points": one}, more=both)
    truth = moved("cross", shifted((-30, 0)))
    assert agree(result, truth, times=(0, 4)) > 24
    assert agree(result, source, 1, times=(0,)) == 99  # the other one was not touched

    apart = source.scene.sprites[1].poses[0].x - source.scene.sprites[0].poses[0].x
    onto = {"do": "move", "by": [apart, 0], "points": one}
    front, behind = (
        edited("sprites:cross", tmp_path / order, onto, more=(*both, f"edit.order={order}"), last=4)[0][0]
        for order in ("[2,1]", "[1,2]")
    )
    other = source.mask(0, 1)
    assert np.array_equal(behind[other], source.frame(0)[other])
    assert psnr(front, source.frame(0), other) < 20


def test_a_stabilised_picture_rests_and_its_edges_come_from_other_frames(tmp_path):
    grid = ("tracks.queries=grid",)
    result, _, _done = edited("sprites:drift", tmp_path, {"do": "stabilise", "model": "similarity"}, more=grid)
    given = scene("drift")
    steady = replace(given, camera=tuple(Pose() for _ in given.camera))
    truth = World(steady)
    inner = np.zeros((180, 320), bool)
    inner[12:-12, 12:-12] = True
    before = psnr(World(given).frame(LAST), truth.frame(LAST), inner)
    assert psnr(result[LAST], truth.frame(LAST), inner) > max(24, before + 6)


def test_given_edited_tracks_do_what_the_program_did(tmp_path):
    """Written by export, as JSON and as npz, read back by ids: the same picture to the last bit."""
    move = {"do": "move", "by": [40, -6], "frames": [3, 20]}
    words = [f"frames.last={LAST}", f"edited_tracks.edits={json.dumps([move])}"]
    whole, _, _ = edited("sprites:drift", tmp_path / "a", move)
    for kind in ("json", "npz"):
        out = tmp_path / kind
        export.export("sprites:drift", ["edited_tracks"], out, words, formats=export.Formats(tracks=kind))
        file = out / f"edited_tracks.{kind}"
        given = [f"frames.last={LAST}", "edit=move", "edited_tracks=given", f"edited_tracks.path={file}"]
        done = edit.edit("sprites:drift", given, until="decode", folder=tmp_path / f"{kind}-edit")
        result = open_series(open_store(), done.made["decode"])
        assert all(np.array_equal(result[t], whole[t]) for t in (0, 8, 20, LAST))


@pytest.mark.parametrize("width", [24, 37])
def test_what_hides_the_background_is_known_pixel_by_pixel(tmp_path, width: int):
    """Near the frame that is worked on and far from it."""
    rng = np.random.default_rng(width)
    holes = rng.random((80, 16, width)) < 0.5
    stills: Any = Stills(width)
    behind = Background(stills, iter(holes), tmp_path)
    rows, columns = np.mgrid[:16, :width].reshape(2, -1)
    for u in (0, 5, 79):
        assert np.array_equal(behind.hole(u), holes[u])
        assert np.array_equal(behind.hidden(u, rows, columns, 1), holes[u].ravel())


class Stills(list):
    """Eighty frames without anything that could be followed."""

    def __init__(self, width: int) -> None:
        super().__init__([np.zeros((16, width, 3), np.uint8)] * 80)
        self.width, self.height = width, 16


def test_the_preview_draws_where_points_shall_be(tmp_path):
    move = {"do": "move", "by": [80, 0]}
    words = [f"frames.last={LAST}", f"edited_tracks.edits={json.dumps([move])}"]
    done = track_preview.show("sprites:drift", words, tmp_path / "out")
    assert done["moved"] == done["points"] > 20
    assert done["hidden"] == done["retimed"] == 0
    assert done["longest_px"] == pytest.approx(80, abs=0.1)
    assert (done["frames"], done["lost"], done["outside"]) == (LAST + 1, 0, 0)
    strip = read_image(tmp_path / "out" / "tracks.png")
    assert strip.shape[1] > strip.shape[0]
    assert (tmp_path / "out" / "tracks.mp4").stat().st_size > 1000


def test_the_preview_says_where_the_edit_has_nothing_to_go_by(tmp_path):
    away = [f"frames.last={LAST}", "edited_tracks.edits=[{do: move, by: [4000, 0], frames: [0, 20]}]"]
    done = track_preview.show("sprites:drift", away, tmp_path / "away")
    assert 10 < done["outside"] <= LAST
    small = ["edited_tracks.edits=[{do: move, by: [16, 10], frames: [0, 16]}]"]
    done = track_preview.show("sprites:path_source:2005", small, tmp_path / "lost")
    assert 0 < done["lost"] < done["frames"]
    assert probe(tmp_path / "lost" / "tracks.mp4").width == 384  # drawn enlarged
    hidden = track_preview.show("sprites:drift", ["edited_tracks.edits=[{do: hide}]"], tmp_path / "hidden")
    assert hidden["hidden"] == hidden["points"]
    assert hidden["lost"] == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), "E237", "nothing says how the tracks shall move"),
        (("edited_tracks.edits=[{do: hop}]",), "E237", "has no operator 'hop'"),
        (("edited_tracks.edits=[{do: freeze, at: 900}]",), "E238", "The clip has frames 0 to 31"),
        (("edited_tracks.edits=[{do: hide, points: {object: 9}}]",), "E238", "there is no object 9"),
        (("edited_tracks.edits=[{do: hide}]", "edit.order=[4]"), "E238", "there is no object 4"),
        (("edited_tracks.edits=[{do: stabilise}]",), "E239", "too few points"),
        (("edited_tracks.edits=edit.json",), "E205", "give edited_tracks.path=edit.json"),
        (("edited_tracks.edits={{do: hide}",), "E205", "in quotes"),
        (("edited_tracks.edits=[{do: hide}]", "edit=propagate"), "E237", "edit=propagate moves nothing"),
        (("edited_tracks.edits=[{do: hide}]", f"edited_tracks.path={__file__}"), "E237", "both edits and a path"),
    ],
)
def test_what_cannot_be_done_is_told(words, code, said, tmp_path):
    with pytest.raises(ConfigError) as error:
        edit.edit("sprites:drift", [f"frames.last={LAST}", "edit=move", *words], until="edit", folder=tmp_path)
    assert error.value.code == code
    assert said in f"{error.value.message} {error.value.hint}"


@pytest.mark.parametrize("stop", [1, 2])
def test_a_killed_edit_goes_on_bit_for_bit(stop, tmp_path):
    """What was made up before the kill is what comes after it."""
    words = [f"frames.last={LAST + 12}", "edit=move", "edited_tracks.edits=[{do: move, by: [0, 60]}]"]
    calls = run(tmp_path, "sprites:drift", settings(words, "sprites:drift"), "edit")
    whole = calls.made["edit"].digest
    calls.record("edit").unlink()
    with pytest.raises(KeyboardInterrupt):
        calls.again("edit", StopAfter(stop))
    assert calls.again("edit").digest == whole


def test_scores_compare_with_where_things_shall_be(tmp_path):
    """Not with where they were: a move that did what was asked for scores as such, on the page and in a ranking."""
    words = [f"frames.last={LAST}", "edit=move", "edited_tracks.edits=[{do: move, by: [60, 0], frames: [0, 20]}]"]
    done = edit.edit("sprites:drift", words, until="metrics", folder=tmp_path)
    values = json.loads(open_store().read(done.made["metrics"]["metrics.json"]))
    assert values["motion_fidelity"] > 0.99
    assert values["track_error"] < 0.5
    assert values["psnr_unedited"] == 100
    assert values["change_edited"] > 0.1
