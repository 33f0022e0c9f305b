"""Tracks: queries on the region, on a grid and picked by hand; tracks that are given; the files they come in."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.runners import Local
from retake.artifact import Artifact
from retake.clip import SpriteClip, open_clip
from retake.errors import RetakeError
from retake.exchange import tracks as files
from retake.formats import CHUNK, TrackSeries, open_series, pack_bits
from retake.priors.tracks import given, lucas_kanade
from retake.priors.tracks.lucas_kanade import Params
from retake.stage import Silent, Work, stage
from retake.store import Store
from retake.synthetic.world import World
from tasks import frames as frames_stage
from tasks.tracks import stage_tracks

CROSS, DRIFT = "sprites:cross", "sprites:drift"
META = {"count": 48, "width": 320, "height": 180, "source_width": 320, "source_height": 180}


class Clip:
    """A sprite clip with its frames in a store of its own, and the region of its near sprite."""

    def __init__(self, root: Path, spec: str, **params: Any) -> None:
        self.store, self.spec = Store(root, lambda line: None), spec
        opened = open_clip(spec)
        assert isinstance(opened, SpriteClip)
        self.world: World = opened.world
        self.frames = Local(self.store)(frames_stage.stage_frames, frames_stage.Params(**params), clip=opened)

    def region(self, frame: int) -> Artifact:
        @stage("truth", version=1, makes="region")
        def truth(work: Work, params: Any, frames: Artifact) -> Artifact:
            count = frames.meta["count"]
            for index in range(-(-count // CHUNK)):
                span = range(index * CHUNK, min(count, (index + 1) * CHUNK))
                work.commit(index, {"mask": pack_bits(np.stack([self.world.mask(t, 1) for t in span]))})
            return work.finish(count=count, width=320, height=180, frame=frame)

        return Local(self.store)(truth, Params(frame=frame), frames=self.frames)

    def made(self, params: Any, observer: Any = None, **inputs: Artifact) -> TrackSeries:
        run = Local(self.store, observer or Silent())
        return open_series(self.store, run(stage_tracks, params, frames=self.frames, **inputs))


@pytest.fixture(scope="module")
def cross(tmp_path_factory) -> Clip:
    return Clip(tmp_path_factory.mktemp("cross"), CROSS, last=40)


@pytest.fixture(scope="module")
def drift(tmp_path_factory) -> Clip:
    return Clip(tmp_path_factory.mktemp("drift"), DRIFT, last=40)


def dense(series: TrackSeries) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """id -> (frames on which it is seen, its places there)."""
    found: dict[int, tuple[list, list]] = {}
    for t in range(len(series)):
        ids, xy, visible = series[t]
        for i, place in zip(ids[visible], xy[visible], strict=True):
            times, places = found.setdefault(int(i), ([], []))
            times.append(t)
            places.append(place)
    return {i: (np.array(times), np.array(places)) for i, (times, places) in found.items()}


def errors(series: TrackSeries, world: World, scale: float = 1.0) -> np.ndarray:
    """Distance in source px of every point to where its first place was carried, on frames where that is visible."""
    found = []
    for times, places in dense(series).values():
        source = (places + 0.5) / scale - 0.5
        truth, visible = world.tracks(source[:1], int(times[0]), times.tolist())
        found.append(np.hypot(*(truth[:, 0] - source).T)[visible[:, 0]])
    return np.concatenate(found)


# ---- picked by hand ----------------------------------------------------------------------------------------------


def picked(world: World, frame: int, sprite: int = 1, count: int = 4) -> tuple[tuple[float, float], ...]:
    """Points well inside a sprite."""
    ys, xs = np.nonzero(world.mask(frame, sprite))
    near = np.argsort(np.hypot(xs - xs.mean(), ys - ys.mean()), kind="stable")[: len(xs) // 3]
    return tuple((float(xs[k]), float(ys[k])) for k in near[:: len(near) // count][:count])


def test_picked_points_keep_their_ids_both_ways_and_lie_where_the_world_puts_them(cross):
    points = (*picked(cross.world, 20), (12.25, 150.5))
    series = cross.made(Params(queries="points", points=points, frame=20))
    assert series.artifact.meta["count"] == 41
    for index in range(series.chunks()):  # every chunk lists every point
        assert series.chunk(index)["ids"].tolist() == list(range(len(points)))
    _, xy, visible = series[20]
    assert np.array_equal(xy, np.array(points, np.float32))
    assert visible.all()
    assert np.median(errors(series, cross.world)) < 0.5
    assert all(times.min() < 16 and times.max() > 31 for times, _ in dense(series).values())


def test_a_picked_point_that_is_lost_stays_lost_where_it_was_last_seen(cross):
    """From frame 0, the far disc is covered by the near one midway."""
    points = picked(cross.world, 0, sprite=0)
    series = cross.made(Params(queries="points", points=points, frame=0))
    seen = np.stack([series[t][2] for t in range(len(series))])
    xy = np.stack([series[t][1] for t in range(len(series))])
    assert not seen[-1].any()
    assert (np.diff(seen.astype(int), axis=0) <= 0).all()
    for point in range(len(points)):
        last = np.flatnonzero(seen[:, point])[-1]
        assert 0 < last < 40
        assert (xy[last:, point] == xy[last, point]).all()


def test_picked_points_are_in_pixels_of_the_source(tmp_path):
    clip = Clip(tmp_path, CROSS, last=3, short_side=90)
    points = ((100.0, 60.5), (319.9, 179.9), (0.0, 0.0))
    _, xy, _ = clip.made(Params(queries="points", points=points))[0]
    assert xy[0].tolist() == [(100.5 / 2) - 0.5, (61 / 2) - 0.5]
    assert xy[1:].tolist() == [[159, 89], [0, 0]]  # not beyond the outermost pixels' centres


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"queries": "points"}, "E252"),
        ({"queries": "mask", "points": ((1, 1),)}, "E252"),
        ({"queries": "grid", "points": ((1, 1),)}, "E252"),
        ({"queries": "points", "points": ((5, 5), (320, 10))}, "E221"),
        ({"queries": "points", "points": ((5, -0.5),)}, "E221"),
        ({"queries": "points", "points": ((5, 5),), "frame": 48}, "E231"),
        ({"queries": "grid", "frame": 48}, "E231"),
        ({"queries": "grid", "frame": 47}, ""),
        ({"queries": "points", "points": ((319.5, 179.5),)}, ""),
        ({}, ""),
    ],
)
def test_queries_that_cannot_work_are_refused_before_any_work(params, code):
    early = lucas_kanade.check_settings if code == "E252" else partial(lucas_kanade.check, frames=META)
    assert refused(lambda: early(Params(**params))) == code


def refused(call: Callable[[], object]) -> str:
    """The code of the error that a call raises, or nothing."""
    try:
        call()
    except RetakeError as error:
        return error.code if error.hint else f"{error.code} without a hint"
    return ""


# ---- on a grid and on the region ---------------------------------------------------------------------------------


def test_a_grid_covers_the_frame_follows_it_and_is_filled_up_again(drift):
    params = Params(queries="grid", spacing=10, max_points=200)
    series = drift.made(params)
    _, xy, visible = series[0]
    first = xy[visible]
    assert 100 < len(first) <= 200  # of 576 cells of 10 px
    cells = {(int(x // 40), int(y // 45)) for x, y in first}
    assert len(cells) == 8 * 4
    assert np.median(errors(series, drift.world)) < 0.3
    born = {i: times[0] for i, (times, _) in dense(series).items()}
    assert set(born.values()) <= {0, 16, 32}
    assert 32 in born.values()
    once = drift.made(params.model_copy(update={"reseed": 0}))
    assert {times[0] for times, _ in dense(once).values()} == {0}


def test_a_grid_starts_from_the_frame_that_is_named_and_goes_both_ways(cross):
    series = cross.made(Params(queries="grid", spacing=24, frame=20, reseed=0))
    assert len(series[20][0])
    assert series[20][2].all()
    spans = [(times[0], times[-1]) for times, _ in dense(series).values()]
    assert all(first <= 20 <= last for first, last in spans)
    assert sum(first == 0 and last == 40 for first, last in spans) > len(spans) / 3
    assert np.median(errors(series, cross.world)) < 0.3


def test_only_queries_inside_the_region_need_one(cross):
    points = {"queries": "points", "points": ((5, 5),)}
    assert [lucas_kanade.needs(Params(**p)) for p in ({}, {"queries": "grid"}, points)] == [("region",), (), ()]
    series = cross.made(Params(margin=0, reseed=0), region=cross.region(24))
    _, xy, visible = series[24]
    x, y = np.rint(xy[visible]).astype(int).T
    assert visible.all()
    assert cross.world.mask(24, 1)[y, x].all()
    assert {times[0] <= 24 <= times[-1] for times, _ in dense(series).values()} == {True}
    elsewhere = cross.made(Params(margin=0, reseed=0, frame=4), region=cross.region(24))
    assert {times[0] <= 4 <= times[-1] for times, _ in dense(elsewhere).values()} == {True}


def test_no_more_than_max_points_are_laid_at_the_start(cross):
    series = cross.made(Params(margin=0, max_points=5, reseed=0), region=cross.region(24))
    assert all(len(series.chunk(index)["ids"]) <= 5 for index in range(series.chunks()))


# ---- resume ------------------------------------------------------------------------------------------------------


class StopAfter(Silent):
    def __init__(self, chunks: int) -> None:
        self.left = chunks

    def progress(self, stage: str, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("kind", ["mask", "grid", "points", "given"])
def test_a_killed_run_goes_on_and_ends_the_same(cross, tmp_path, kind, chunks):
    params: Any = Params(queries="grid", spacing=30, frame=20)
    inputs = {}
    if kind == "mask":
        params, inputs = Params(frame=20), {"region": cross.region(20)}
    if kind == "points":
        params = Params(queries="points", points=picked(cross.world, 20), frame=20)
    whole = cross.made(params, **inputs)
    if kind == "given":
        files.write_npz(tmp_path / "t.npz", files.from_series(whole))
        params = given.Params(path=str(tmp_path / "t.npz"))
        whole = cross.made(params)
    for path in (cross.store.root / "records" / "tracks").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(KeyboardInterrupt):
        cross.made(params, StopAfter(chunks), **inputs)
    committed: list[int] = []
    commit = Work.commit

    class Counting(Silent):
        def progress(self, stage: str, done: int, total: int) -> None:
            committed.append(done)

    assert cross.made(params, Counting(), **inputs).artifact.digest == whole.artifact.digest
    assert len(committed) == whole.chunks() - chunks
    assert Work.commit is commit


# ---- given -------------------------------------------------------------------------------------------------------


def some(frames: int = 41, points: int = 7, seed: int = 0) -> dict[str, np.ndarray]:
    """Wandering points, some hidden, one not known at first and one never."""
    rng = np.random.default_rng(seed)
    xy = (rng.uniform(20, 150, (points, 2)) + np.cumsum(rng.normal(size=(frames, points, 2)), axis=0)).astype(
        np.float32
    )
    visible = rng.random((frames, points)) < 0.8
    xy[:20, 2], visible[:20, 2] = np.nan, False
    xy[:, 5], visible[:, 5] = np.nan, False
    return {"xy": xy, "visible": visible}


def as_json(arrays: dict[str, np.ndarray]) -> str:
    data = {name: np.asarray(array).tolist() for name, array in arrays.items()}
    data["xy"] = [[None if np.isnan(place).any() else place for place in row] for row in data["xy"]]
    return json.dumps(data)


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "json"])
def test_given_tracks_are_read_as_they_stand(cross, tmp_path, kind):
    arrays = some() | {"ids": np.array([70, 3, 5, 9, 11, 13, 2])}
    path = tmp_path / ("t.json" if kind == "json" else "t.npz")
    if kind == "json":
        path.write_text(as_json(arrays))
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(path, **arrays)
    params = given.Params(path=str(path))
    given.check(params, cross.frames.meta)
    series = cross.made(params)
    column = {int(i): k for k, i in enumerate(arrays["ids"])}
    for t in range(41):
        ids, xy, visible = series[t]
        listed = [2, 3, 5, 9, 11, 70] if t >= 16 else [2, 3, 9, 11, 70]  # 5 appears in the second chunk, 13 never
        assert ids.tolist() == listed
        for k, i in enumerate(listed):
            place = arrays["xy"][20 if i == 5 and t < 20 else t, column[i]]
            assert np.array_equal(xy[k], place)
            assert visible[k] == arrays["visible"][t, column[i]]


def test_given_tracks_of_another_pixel_grid_move_by_pixel_centres(tmp_path):
    clip = Clip(tmp_path / "clip", CROSS, last=4, short_side=90)  # 160x90 of 320x180
    arrays = some(frames=5)
    for size, scale in ((None, 0.5), ((320, 180), 0.5), ((160, 90), 1.0), ((640, 360), 0.25)):
        path = tmp_path / f"{scale}-{size is None}.npz"
        np.savez(path, **arrays, **({} if size is None else {"size": np.array(size)}))
        _, xy, _ = clip.made(given.Params(path=str(path)))[3]
        known = [0, 1, 3, 4, 6]
        expected = (arrays["xy"][3, known] + 0.5) * scale - 0.5
        assert np.abs(xy - expected).max() <= (0 if scale == 1 else 1e-4)


def test_given_tracks_must_fit_the_clip(cross, tmp_path):
    def code(name: str, **arrays: Any) -> str:
        np.savez(tmp_path / name, **arrays)
        return refused(lambda: given.check(given.Params(path=str(tmp_path / name)), cross.frames.meta))

    assert code("good.npz", **some()) == ""
    assert code("fewer.npz", **some(40)) == "E437"
    assert code("more.npz", **some(42)) == "E437"
    assert code("upright.npz", **some(), size=np.array([180, 320])) == "E437"
    assert refused(lambda: given.check(given.Params(), cross.frames.meta)) == "E251"
    assert refused(lambda: given.check(given.Params(path="nowhere.npz"), cross.frames.meta)) == "E400"


def broken() -> dict[str, Any]:
    good = some(4)
    xy, visible = good["xy"], good["visible"]
    far = xy.copy()
    far[2, 0] = 2e6
    unseen = xy.copy()
    unseen[1, 3] = np.inf
    shown = visible.copy()
    shown[1, 3] = True
    return {
        "no visible": {"xy": xy},
        "flat": {"xy": xy[..., 0], "visible": visible},
        "three coordinates": {"xy": np.dstack([xy, xy[..., :1]]), "visible": visible},
        "fewer visible": {"xy": xy, "visible": visible[:-1]},
        "complex": {"xy": xy.astype(complex), "visible": visible},
        "confidences": {"xy": xy, "visible": visible * 0.7},
        "visible is 2": {"xy": xy, "visible": visible * 2},
        "ids repeat": {**good, "ids": np.zeros(7, int)},
        "negative ids": {**good, "ids": np.arange(7) - 1},
        "fewer ids": {**good, "ids": np.arange(6)},
        "fractional ids": {**good, "ids": np.arange(7) / 2},
        "empty size": {**good, "size": np.array([0, 180])},
        "half a size": {**good, "size": np.array([180])},
        "far away": {"xy": far, "visible": visible},
        "visible but nowhere": {"xy": unseen, "visible": shown},
    }


@pytest.mark.parametrize("kind", ["npz", "json"])
@pytest.mark.parametrize("name", sorted(broken()))
def test_files_that_hold_no_tracks_are_refused(tmp_path, name, kind):
    arrays, path = broken()[name], tmp_path / f"t.{kind}"
    if kind == "npz":
        np.savez(path, **arrays)
    elif name == "complex":
        path.write_text('{"xy": [[["a", "b"]]], "visible": [[1]]}')
    else:
        path.write_text(as_json(arrays).replace("Infinity", "1e999"))
    assert refused(lambda: list(files.open_tracks(path).blocks())) == "E436"


def test_hostile_files_are_refused(tmp_path):
    good = some(40)
    np.savez(tmp_path / "good.npz", **good)
    data = (tmp_path / "good.npz").read_bytes()
    cases: dict[str, bytes] = {
        "a.npz": b"",
        "b.npz": b"PK\x03\x04 nothing",
        "c.npz": data[: len(data) // 2],
        "d.npz": data.replace(good["xy"][30].tobytes(), good["xy"][31].tobytes()),  # checksums
        "e.npz": npz({"xy.npy": npy(np.array([{"run": "me"}], object)), "visible.npy": npy(good["visible"])}),
        "f.npz": npz({"xy.npy": npy(np.asfortranarray(good["xy"])), "visible.npy": npy(good["visible"])}),
        "g.npz": npz({"xy.npy": npy(good["xy"])[:-8], "visible.npy": npy(good["visible"])}),
        "h.npz": npz({"xy.npy": b"x" * 50, "visible.npy": npy(good["visible"])}),
        "i.npz": npz({"xy.npy": claims((40, 1 << 40, 2)), "visible.npy": claims((40, 1 << 40))}),
        "j.json": b"[" * 100000,
        "k.json": b"[1, 2]",
        "l.json": b"\xff\xfe",
        "m.json": b'{"xy": [[[1, 2]], [[1]]], "visible": [[1], [1]]}',
        "n.txt": b"1 2 3",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        assert refused(lambda name=name: list(files.open_tracks(tmp_path / name).blocks())) == "E436", name
    assert refused(lambda: files.open_tracks(tmp_path)) == "E400"


def npy(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array, allow_pickle=True)
    return held.getvalue()


def claims(shape: tuple[int, ...]) -> bytes:
    """The header of an array that is not there."""
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(held, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return held.getvalue()


def npz(members: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return held.getvalue()


# ---- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npz", "json"])
def test_tracks_written_and_read_again_are_the_same_to_the_last_bit(cross, tmp_path, kind):
    """Reseeded tracks: ids come and go from chunk to chunk."""
    first = cross.made(Params(frame=20, spacing=5), region=cross.region(20))
    write = {"npz": files.write_npz, "json": files.write_json}[kind]
    for name in ("a", "b"):
        write(tmp_path / f"{name}.{kind}", files.from_series(first))
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    again = cross.made(given.Params(path=str(tmp_path / f"a.{kind}")))
    assert len({len(first.chunk(index)["ids"]) for index in range(3)}) > 1
    for index in range(first.chunks()):
        one, other = first.chunk(index), again.chunk(index)
        assert one.keys() == other.keys()
        assert all(one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one)


def test_written_files_are_what_the_page_says(cross, tmp_path):
    series = cross.made(Params(queries="grid", spacing=40))
    tracks = files.from_series(series)
    files.write_npz(tmp_path / "t.npz", tracks)
    files.write_json(tmp_path / "t.json", tracks)
    with np.load(tmp_path / "t.npz", allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    points = len(tracks.ids)
    shapes = {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
    assert shapes == {
        "ids": ((points,), "int64"),
        "size": ((2,), "int64"),
        "visible": ((41, points), "bool"),
        "xy": ((41, points, 2), "float32"),
    }
    assert arrays["size"].tolist() == [320, 180]
    ids, xy, visible = series[40]
    columns = np.searchsorted(arrays["ids"], ids)
    assert np.array_equal(arrays["xy"][40, columns], xy)
    assert np.array_equal(arrays["visible"][40, columns], visible)
    data = json.loads((tmp_path / "t.json").read_text())
    assert list(data) == ["ids", "size", "visible", "xy"]
    assert data["visible"] == arrays["visible"].astype(int).tolist()


def test_no_points_and_no_hidden_frames_are_files_too(cross, tmp_path):
    nothing = files.PointTracks(
        np.zeros(0, np.int64),
        41,
        (320, 180),
        lambda: iter([(np.zeros((41, 0, 2), np.float32), np.zeros((41, 0), bool))]),
    )
    for kind, write in (("npz", files.write_npz), ("json", files.write_json)):
        write(tmp_path / f"t.{kind}", nothing)
        series = cross.made(given.Params(path=str(tmp_path / f"t.{kind}")))
        assert [series[t][1].shape for t in (0, 40)] == [(0, 2), (0, 2)]


def test_memory_does_not_grow_with_the_length_of_the_file(tmp_path):
    peaks = []
    for frames in (64, 640):
        arrays = some(frames, 400)
        np.savez(tmp_path / f"{frames}.npz", **arrays)
        found = files.open_tracks(tmp_path / f"{frames}.npz")
        del arrays
        tracemalloc.start()
        files.write_npz(tmp_path / "again.npz", found)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[0] < 2**20  # of 2 MiB that ten times as many frames hold
