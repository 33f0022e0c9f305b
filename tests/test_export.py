"""Export: what is written comes back the same through `given`, appears whole, and overwrites nobody's work."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from flows.editing import edit as job
from flows.editing import export as room
from flows.editing.export import Formats, export
from flows.places import CODE
from flows.runners import Local
from flows.settings.compose import settings
from retake.clip import open_clip
from retake.errors import ConfigError, MachineError
from retake.exchange import masks as mask_files
from retake.exchange.atomic_folder import atomic_folder
from retake.formats import CHUNK, open_series
from retake.priors.depth import given as given_depth
from retake.priors.masks import given as given_masks
from retake.priors.optical_flow import given as given_flow
from retake.store import Store
from retake.synthetic import scenes
from retake.synthetic.world import World

CLIP = "sprites:cross"
COUNT = 18
PRIORS = ("frames", "flow", "masks", "region", "tracks")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a store and the truth about both sprites of the clip as index images."""
    home = tmp_path_factory.mktemp("export")
    world = World(scenes.scene("cross"))
    (home / "truth").mkdir()
    for t in range(COUNT):
        index = mask_files.index_image([(3, world.mask(t, 0)), (200, world.mask(t, 1))], (180, 320))
        mask_files.write_index_png(home / "truth" / f"{t}.png", index)
    return home


def chosen(home: Path, *more: str) -> list[str]:
    return [f"frames.last={COUNT - 1}", "masks=given", f"masks.path={home / 'truth'}", "tracks.spacing=12", *more]


def runner(home: Path) -> Local:
    return Local(Store(home / "store", lambda line: None))


@pytest.fixture(scope="module")
def done(home) -> dict[str, str | int]:
    return export(CLIP, PRIORS, home / "out", chosen(home), runner=runner(home))


@pytest.fixture(scope="module")
def series(home, done) -> dict[str, Any]:
    """The artifacts behind the export, opened."""
    run = runner(home)
    made = room.made_for(run, open_clip(CLIP), settings(chosen(home)), [room.STAGE[name] for name in PRIORS])
    assert {o.status for o in run.outcomes} == {"cached"}
    return {name: open_series(run.store, artifact) for name, artifact in made.items()}


def manifest(done: dict[str, Any]) -> dict[str, Any]:
    return json.loads(Path(done["manifest"]).read_text())


# ---- round trips -------------------------------------------------------------------------------------------------


def test_frames_come_back_as_a_clip_with_equal_pixels(done, series, tmp_path):
    out = Path(str(done["folder"]))
    for spec in (str(done["frames"]), f"{out}:sprites-cross"):
        run = runner(tmp_path)
        frames = room.made_for(run, open_clip(spec), settings(["frames.short_side=null"]), ["frames"])["frames"]
        again = open_series(run.store, frames)
        assert len(again) == COUNT
        assert all(np.array_equal(again[t], series["frames"][t]) for t in range(COUNT))


def test_masks_come_back_object_by_object(done, series, home):
    again = open_series(
        (run := runner(home)).store,
        room.made_for(
            run,
            open_clip(CLIP),
            settings([*chosen(home), f"masks.path={done['masks']}"]),
            ["masks"],
        )["masks"],
    )
    assert again.ids == series["masks"].ids == (3, 200)
    for t in range(COUNT):
        assert all(np.array_equal(again.object(t, i), series["masks"].object(t, i)) for i in again.ids)
    assert again.artifact.digest == series["masks"].artifact.digest
    entry = manifest(done)["parts"]["masks"]
    assert entry["ids"] == [3, 200]
    assert entry["masks_partly_covered"] == 0


def test_masks_are_davis_palette_images(done):
    """What DAVIS' own tools read with Pillow; colours by the table of PASCAL VOC."""
    with Image.open(Path(str(done["masks"])) / "00000.png") as image:
        assert image.mode == "P"
        assert sorted(set(np.asarray(image).ravel().tolist())) == [0, 3, 200]
        colours = np.array(image.getpalette()).reshape(256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0)}
    known |= {15: (192, 128, 128), 9: (192, 0, 0), 16: (0, 64, 0), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {i: tuple(colours[i].tolist()) for i in known} == known
    assert len(np.unique(colours, axis=0)) == 256


def test_where_objects_overlap_the_later_id_stands_and_the_manifest_says_so():
    one, two = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    one[:3], two[1:] = True, True
    assert mask_files.index_image([(1, one), (9, two)], (4, 5))[:, 0].tolist() == [1, 9, 9, 9]
    with pytest.raises(ValueError, match="256"):
        mask_files.index_image([(256, one)], (4, 5))


@pytest.mark.parametrize("kind", ["flo", "npz", "kitti"])
def test_flow_comes_back_to_the_precision_that_is_stated(home, series, tmp_path, kind):
    result = export(CLIP, ["flow"], tmp_path / "out", chosen(home), formats=Formats(flow=kind), runner=runner(home))
    folder = Path(str(result["flow"]))
    both = {"forward": str(folder)} if kind == "npz" else {w: str(folder / w) for w in ("forward", "backward")}
    frames = [series["frames"][t] for t in range(COUNT)]
    pairs = list(given_flow.pairs(frames, given_flow.Params(**both)))
    assert len(pairs) == COUNT - 1
    for t, (forward, backward) in enumerate(pairs):
        for got, stored in (
            (forward, series["optical_flow"].forward(t)),
            (backward, series["optical_flow"].backward(t)),
        ):
            assert np.abs(got - stored).max() <= (1 / 128 if kind == "kitti" else 0)


@pytest.mark.parametrize("kind", ["png16", "exr", "npy"])
def test_depth_comes_back_to_the_precision_that_is_stated(home, series, tmp_path, kind):
    result = export(CLIP, ["depth"], tmp_path / "out", chosen(home), formats=Formats(depth=kind), runner=runner(home))
    stored = open_series(
        (run := runner(home)).store, room.made_for(run, open_clip(CLIP), settings(chosen(home)), ["depth"])["depth"]
    )
    frames = [series["frames"][t] for t in range(COUNT)]

    got = list(given_depth.maps(frames, None, given_depth.Params(path=str(result["depth"]))))
    assert len(got) == COUNT
    step = manifest(result)["parts"]["depth"].get("step", 0)
    assert (step > 0) == (kind == "png16")
    assert max(float(stored[t].max()) for t in range(COUNT)) > 0
    for t in range(COUNT):
        assert np.abs(got[t] - stored[t]).max() <= step / 2


@pytest.mark.parametrize("kind", ["npz", "json"])
def test_tracks_come_back_the_same(home, series, tmp_path, kind):
    result = export(CLIP, ["tracks"], tmp_path / "out", chosen(home), formats=Formats(tracks=kind), runner=runner(home))
    more = ["tracks=given", f"tracks.path={result['tracks']}"]
    words = [word for word in chosen(home) if not word.startswith("tracks.")]
    run = runner(home)
    again = open_series(run.store, room.made_for(run, open_clip(CLIP), settings([*words, *more]), ["tracks"])["tracks"])
    assert [o.stage for o in run.outcomes] == ["frames", "tracks"]  # needs no region
    for index in range(again.chunks()):
        one, other = series["tracks"].chunk(index), again.chunk(index)
        assert all(np.array_equal(one[name], other[name]) for name in ("ids", "xy", "visible"))
    assert len(again[0][0]) > 3


def test_the_result_of_an_edit_that_was_handed_out(home, tmp_path, monkeypatch):
    monkeypatch.setenv("RETAKE_EDITS", str(tmp_path / "edits"))
    run = runner(home)
    words = [f"edit.reference={CODE}/params/dataset/ball.png", "decode.preset=veryfast", "region.objects=[200]"]
    edit = job.edit(CLIP, chosen(home, *words), until="decode", runner=run)
    for name in (str(edit.folder), f"sprites-cross/{edit.folder.name}"):
        asked = runner(home)
        exported = export(name, ["result", "region"], runner=asked)
        assert {o.status for o in asked.outcomes} == {"cached"}
        assert Path(str(exported["folder"])).parent == tmp_path / "edits" / "sprites-cross"
    result = open_series(run.store, edit.made["decode"])
    for t in (0, COUNT - 1):
        assert np.array_equal(cv2.imread(f"{exported['result']}/{t:05d}.png")[..., ::-1], result[t])
    region = list(given_masks.masks(str(exported["region"]), given_masks.Params(), COUNT, (320, 180)))
    world = World(scenes.scene("cross"))
    assert all(np.array_equal(region[t][1], world.mask(t, 1)) for t in range(COUNT))
    with pytest.raises(ConfigError, match="E255"):
        export(str(edit.folder), ["region"], tmp_path / "x", ["frames.last=3"])
    recipe = json.loads((edit.folder / "recipe.json").read_text())
    (edit.folder / "recipe.json").write_text(json.dumps({**recipe, "method": "comparison"}))  # as `retake metrics` does
    with pytest.raises(ConfigError, match="E255") as caught:
        export(str(edit.folder), ["region"], tmp_path / "x", runner=runner(home))
    assert CLIP in caught.value.hint
    assert not (tmp_path / "x").exists()
    (edit.folder / "recipe.json").write_text('{"clip": 1}')
    with pytest.raises(ConfigError, match="E255"):
        export(str(edit.folder), ["region"], tmp_path / "x")


# ---- what runs ---------------------------------------------------------------------------------------------------


def test_the_graph_runs_as_far_as_needed_and_makes_no_report(home, tmp_path):
    run = Local(Store(tmp_path / "store"))
    export(CLIP, ["frames"], tmp_path / "a", chosen(home), runner=run)
    assert [o.stage for o in run.outcomes] == ["frames"]
    run = Local(run.store)
    export(CLIP, ["masks", "tracks"], tmp_path / "b", chosen(home), runner=run)
    assert [(o.stage, o.status) for o in run.outcomes] == [
        ("frames", "cached"),
        ("masks", "ran"),
        ("region", "ran"),
        ("tracks", "ran"),
    ]
    run = Local(run.store)
    export(CLIP, ["masks", "tracks"], tmp_path / "c", chosen(home), runner=run)
    assert {o.status for o in run.outcomes} == {"cached"}


def test_every_correction_of_the_masks_stands_in_the_manifest(home, tmp_path):
    words = ["frames.last=3", "optical_flow.preset=ultrafast", "masks.box=[50,44,142,136]"]
    words.append("masks.corrections=[{frame: 1, points: [[90,90,1]]}, {frame: 2, points: [[92,90,1]]}]")
    run = runner(home)
    result = manifest(export(CLIP, ["masks"], tmp_path / "out", words, runner=run))
    assert result["stages"] == [{"stage": o.stage, "key": o.key} for o in run.outcomes]
    assert [entry["stage"] for entry in result["stages"]].count("correction") == 2
    assert len({entry["key"] for entry in result["stages"]}) == len(result["stages"])


def test_damage_in_the_store_is_healed(home, tmp_path):
    run = Local(Store(tmp_path / "store", lambda line: None))
    export(CLIP, ["masks"], tmp_path / "a", chosen(home), runner=run)
    file = run.outcomes[-1].artifact["00000.safetensors"]
    path = run.store.object_path(file.sha256)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    result = export(CLIP, ["masks"], tmp_path / "b", chosen(home), runner=Local(run.store))
    assert sums(tmp_path / "b") == sums(tmp_path / "a")
    assert result["files"] == COUNT + 2


def test_what_cannot_be_exported_is_refused_before_any_work(home, tmp_path):
    run = runner(home)
    for what, near in ((["flo"], "flow"), ([], "frames"), (["masks", "normals"], "Known")):
        with pytest.raises(ConfigError, match="E253") as caught:
            export(CLIP, what, tmp_path / "out", chosen(home), runner=run)
        assert near in caught.value.hint
    for wrong in ({"flow": "png"}, {"depth": "tiff"}, {"tracks": "csv"}):
        with pytest.raises(ConfigError, match="E253"):
            Formats(**wrong)
    assert run.outcomes == []
    assert not (tmp_path / "out").exists()


def test_tracks_that_would_fill_the_disk_are_refused(home, tmp_path, monkeypatch):
    monkeypatch.setitem(room.MOST_PLACES, "npz", 50)
    with pytest.raises(ConfigError, match="E256"):
        export(CLIP, ["tracks"], tmp_path / "out", chosen(home), runner=runner(home))
    assert list(tmp_path.glob("*out*")) == []


# ---- the folder --------------------------------------------------------------------------------------------------


def sums(folder: Path) -> dict[str, str]:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return {name: known for known, name in (line.split("  ", 1) for line in lines) if name != "manifest.json"}


def test_the_manifest_says_what_it_is_and_sha256sum_agrees(done, series):
    out, result = Path(str(done["folder"])), manifest(done)
    assert (
        subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=out, check=False).returncode == 0
    )
    files = [p for p in out.rglob("*") if p.is_file()]
    assert done["files"] == len(files) == len(sums(out)) + 2
    assert done["bytes"] == sum(p.stat().st_size for p in files)
    assert (result["frames"], result["size"], result["source_size"], result["fps"]) == (
        COUNT,
        [320, 180],
        [320, 180],
        24.0,
    )
    assert result["what"] == list(PRIORS)
    assert set(result["settings"]) == {"frames", "optical_flow", "masks", "region", "tracks"}
    assert result["artifacts"]["masks"] == series["masks"].artifact.digest
    assert result["parts"]["frames"]["seconds"] == series["frames"].times.tolist()
    assert not list(out.parent.glob(".out*"))


def test_the_same_export_has_the_same_bytes_and_a_place_of_its_own(home, done, tmp_path, monkeypatch):
    monkeypatch.setenv("RETAKE_EDITS", str(tmp_path / "edits"))
    one = export(CLIP, PRIORS, None, chosen(home), runner=runner(home))
    other = export(CLIP, ["flow"], None, chosen(home), runner=runner(home))
    again = export(CLIP, PRIORS, None, chosen(home), runner=runner(home))
    assert one == again
    assert other["folder"] != one["folder"]
    assert Path(str(one["folder"])).parent == tmp_path / "edits" / "sprites-cross"
    text = (Path(str(one["folder"])) / "SHA256SUMS").read_text()
    assert text == (Path(str(done["folder"])) / "SHA256SUMS").read_text()


def test_it_takes_the_place_of_its_own_and_of_nothing_else(home, tmp_path):
    out = tmp_path / "out"

    def again(what: tuple[str, ...] = ("masks",), clip: str = CLIP, words: list[str] | None = None) -> str:
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        run = runner(home)
        result = None
        try:
            export(clip, what, out, words or chosen(home), runner=run)
        except ConfigError as error:
            result = error
        if result is None:
            return ""
        assert result.code == "E254"
        assert run.outcomes == []  # refused before any work
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
        return result.message

    out.mkdir()
    assert again() == ""  # an empty folder
    assert again() == ""  # its own
    assert again(("masks", "region")) == ""  # more than before
    assert "region, which would be lost" in again()
    assert "another clip" in again(("masks", "region"), "sprites:drift")
    painted = out / "Annotations" / "480p" / "sprites-cross" / "00003.png"
    known = painted.read_bytes()
    cv2.imwrite(str(painted), np.zeros((180, 320), np.uint8))
    assert "painted" in again(("masks", "region"))
    painted.write_bytes(known)
    (out / "notes.txt").write_text("mine")
    assert "notes.txt is not of the export" in again(("masks", "region"))
    (out / "notes.txt").unlink()
    painted.unlink()
    assert again(("masks", "region")) == ""
    assert painted.read_bytes() == known
    (out / "SHA256SUMS").unlink()
    assert "not an export" in again(("masks", "region"))
    out = tmp_path / "file"
    out.write_text("mine")
    assert "not a folder" in again()


@pytest.mark.parametrize(
    "manifest_json",
    [
        None,
        "{}",
        "[1]",
        "not JSON",
        '{"files": []}',
        '{"written_by": "another tool", "name": "sprites-cross", "what": ["masks"]}',
        '{"written_by": "retake export", "what": ["masks"]}',
        '{"written_by": "retake export", "name": "sprites-cross", "what": "masks"}',
    ],
)
def test_sums_alone_make_no_export(tmp_path, manifest_json):
    """Many folders state their own SHA256SUMS: data sets, releases, backups."""
    (tmp_path / "chapter1.tex").write_text("years of work")
    if manifest_json is not None:
        (tmp_path / "manifest.json").write_text(manifest_json)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(tmp_path.iterdir())]
    (tmp_path / "SHA256SUMS").write_text("".join(lines))
    with pytest.raises(ConfigError, match="E254"):
        room.require_replaceable(tmp_path, "sprites-cross", ["masks"])


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    out = tmp_path / "out"
    rename = os.rename
    with atomic_folder(out) as part:
        (part / "a").write_text("old")
    known = {p: p.read_bytes() for p in out.iterdir()}

    def write(failing: tuple[int, ...]) -> MachineError:
        calls: list[Path] = []

        def full(source: Path, target: Path) -> None:
            calls.append(source)
            if len(calls) in failing:
                raise OSError(errno.ENOSPC, "No space left on device")
            rename(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(os, "rename", full)
            with pytest.raises(MachineError) as caught, atomic_folder(out) as part:
                (part / "a").write_text("new")
        return caught.value

    for failing in ((1,), (2,)):
        assert write(failing).code == "E503"
        assert {p: p.read_bytes() for p in out.iterdir()} == known
        assert list(tmp_path.iterdir()) == [out]
    result = write((2, 3))  # not even the way back
    assert result.code == "E502"
    (kept,) = tmp_path.iterdir()
    assert str(kept) in result.hint
    assert (kept / "a").read_text() == "old"


def test_what_lies_beside_the_folder_is_nobody_elses(tmp_path):
    """Hidden folders of a person, whatever they are called."""
    for name in (".out.old", ".out.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    for text in ("one", "two"):
        with atomic_folder(tmp_path / "out") as part:
            (part / "a").write_text(text)
        assert sorted(p.name for p in tmp_path.iterdir()) == [".out.old", ".out.part", "out"]
        assert (tmp_path / "out" / "a").read_text() == text
    assert (tmp_path / ".out.old" / "mine").read_text() == (tmp_path / ".out.part" / "mine").read_text() == "mine"


def test_a_folder_appears_whole_or_not_at_all(home, tmp_path, monkeypatch):
    """Ctrl-C half way: what was there before stays, and nothing half done is left."""
    out = tmp_path / "out"
    seen: list[Path] = []
    write = mask_files.write_index_png

    def stopping(path: Path, index: np.ndarray) -> None:
        seen.append(path)
        if len(seen) % 10 == 0:
            raise KeyboardInterrupt
        write(path, index)

    with monkeypatch.context() as patched:
        patched.setattr(mask_files, "write_index_png", stopping)
        with pytest.raises(KeyboardInterrupt):
            export(CLIP, ["masks"], out, chosen(home), runner=runner(home))
        assert list(tmp_path.iterdir()) == []
    export(CLIP, ["masks"], out, chosen(home), runner=runner(home))
    known = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with monkeypatch.context() as patched:
        patched.setattr(mask_files, "write_index_png", stopping)
        with pytest.raises(KeyboardInterrupt):
            export(CLIP, ["masks"], out, chosen(home), runner=runner(home))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == known


def test_what_settings_alone_tell_is_refused_before_anything_runs(tmp_path):
    run = runner(tmp_path)
    with pytest.raises(ConfigError) as caught:
        export(CLIP, ["masks"], tmp_path / "out", ["masks.points=[[3,3,0]]"], runner=run)
    assert caught.value.code == "E222"
    assert "--box" in (caught.value.hint or "")
    assert not run.outcomes
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_clip(tmp_path):
    clip = tmp_path / "clip"
    clip.mkdir()
    world = World(scenes.scene("drift", width=114, height=64, frames=6 * CHUNK))
    for t in range(6 * CHUNK):
        cv2.imwrite(str(clip / f"{t}.png"), world.frame(t))
    peaks = []
    for last in (3 * CHUNK - 1, 6 * CHUNK - 1):
        words = [f"frames.last={last}", "optical_flow.preset=ultrafast"]
        export(str(clip), ["frames", "flow"], tmp_path / f"warm-{last}", words, runner=runner(tmp_path))
        tracemalloc.start()
        export(str(clip), ["frames", "flow"], tmp_path / f"{last}", words, runner=runner(tmp_path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
