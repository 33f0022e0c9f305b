"""Every kind of the media zoo: the right frames from every decoder, or the stated refusal; then damage at random."""

from __future__ import annotations

import hashlib
import re
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zoo
from zoo import patches
from zoo.judge import judge, original, plainly_decoded
from zoo.kinds import BY_NAME, KINDS, Kind
from zoo.mutations import MUTATIONS, mutated

from retake import video
from retake.clip import VideoClip, open_clip
from retake.errors import MediaError
from retake.store import Store
from retake.video import Limits, Selection
from retake.video.child.damage import only_second_fields

CLIPS = [kind for kind in KINDS if kind.frames is not None]
REFUSED = [kind for kind in KINDS if kind.frames is None]
CODES = set(re.findall(r"^\| (E4\d\d) \|", (Path(__file__).parents[1] / "docs/errors.md").read_text(), re.MULTILINE))
MUTANTS = 600


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("zoo")
    return {kind.name: kind.build(folder) for kind in KINDS}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return original(BY_NAME["mp4-h264"], tmp_path_factory.mktemp("plain"))


def explained(error: MediaError, path: Path) -> None:
    """A known code, the file's name, a next step, no more than six lines."""
    assert error.code in CODES
    assert str(path) in error.message
    assert error.hint
    assert len(str(error).splitlines()) <= 6
    assert "Traceback" not in str(error)


def test_the_catalogue_covers_the_list_of_bad_inputs():
    assert len(KINDS) == len(BY_NAME) >= 45
    rows = {row for kind in KINDS for row in kind.rows}
    assert rows == set(range(1, 22)) - {4}  # 4 is a URL, which is no file
    assert all((kind.frames is None) == bool(kind.code) for kind in KINDS)


@pytest.mark.parametrize("kind", CLIPS, ids=lambda kind: kind.name)
def test_a_clip_gives_its_frames(kind: Kind, built):
    path, limits = built[kind.name], Limits(**kind.limits)
    info = video.probe(path, limits)
    assert {name: getattr(info, name) for name in kind.facts} == kind.facts
    assert any(kind.note in note for note in (*info.notes, ""))
    expected = plainly_decoded(path, info)
    assert info.frames == len(expected)
    for backend in ("auto", "pyav", "decord") if kind.decord else ("auto", "pyav"):
        pairs = list(video.decode(path, backend=backend, limits=limits))
        assert [zoo.read_barcode(rgb) for _, rgb in pairs] == list(kind.frames or ())
        assert [at for at, _ in pairs] == sorted(at for at, _ in pairs)
        assert pairs[0][0] == 0
        assert {rgb.shape for _, rgb in pairs} == {(info.height, info.width, 3)}
        for (_, rgb), other in zip(pairs, expected, strict=True) if backend != "decord" else ():
            np.testing.assert_array_equal(rgb, other)


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.name)
def test_what_is_no_whole_clip_is_refused(kind: Kind, built):
    path, limits = built[kind.name], Limits(**kind.limits)
    for backend in ("auto", "pyav", "decord"):
        with pytest.raises(MediaError) as caught:
            list(video.decode(path, backend=backend, limits=limits))
        assert caught.value.code == kind.code, str(caught.value)
        explained(caught.value, path)


@pytest.mark.parametrize("name", [kind.name for kind in REFUSED if kind.code in ("E406", "E407")])
def test_what_decodes_of_damaged_clips_can_be_kept(name, built):
    notes: list[str] = []
    frames = [rgb for _, rgb in video.decode(built[name], on_damage="conceal", on_note=notes.append)]
    assert frames
    assert zoo.read_barcode(frames[0]) == 0
    assert notes or any("truncated" in note for note in video.probe(built[name]).notes)


def test_a_part_before_the_damage_is_read(built):
    for name in ("flipped-ffv1", "cut-mkv"):
        numbers = [zoo.read_barcode(rgb) for _, rgb in video.decode(built[name], Selection(last=3))]
        assert numbers == [0, 1, 2, 3], name


def test_second_fields_are_told_from_lost_frames():
    fields = np.arange(12) * 1800
    assert only_second_fields(range(0, 12, 2), fields)
    frames = np.arange(12) * 3600
    assert only_second_fields(range(12), frames)
    assert not only_second_fields([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11], frames)
    assert not only_second_fields([0, 2, 6, 8, 10], fields)


# --- damage at random


def test_mutations_are_the_same_for_the_same_seed():
    data, other = bytes(range(256)) * 20, b"other" * 300
    seen = Counter()
    for seed in range(300):
        name, changed = mutated(data, seed, [other])
        assert mutated(data, seed, [other]) == (name, changed)
        assert changed != data
        seen[name] += 1
    assert set(seen) == set(MUTATIONS)
    assert all(isinstance(mutated(short, seed)[1], bytes) for short in (b"", b"x") for seed in range(50))


def test_the_judge_knows_what_is_wrong(plain, tmp_path):
    assert judge(plain, plain.path).verdict == "right"
    other = zoo.make_clip(tmp_path / "other.mp4", numbers=[*range(11), 3])
    verdict = judge(plain, other)
    assert (verdict.verdict, verdict.numbers_wrong) == ("wrong", True)
    coarse = zoo.make_clip(tmp_path / "coarse.mp4", 12, options={"crf": "40"})
    verdict = judge(plain, coarse)
    assert (verdict.verdict, verdict.numbers_wrong) == ("wrong", False)

    def turn(data: bytearray) -> None:
        at = patches.box(bytes(data), b"moov", b"trak", b"tkhd")[0] + 48
        data[at : at + 36] = struct.pack(">9i", -1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30)

    assert judge(plain, patches.patched(plain.path, tmp_path / "turned.mp4", turn)).verdict == "other tags"
    whole = original(BY_NAME["mp4-all-intra"], tmp_path)
    skip = patches.patched(whole.path, tmp_path / "skip.mp4", lambda data: patches.skip_by_edit_list(data, 2048))
    assert judge(whole, skip).verdict == "fewer"
    refused = judge(plain, patches.cut(plain.path, tmp_path / "cut.mp4", 0.5))
    assert (refused.verdict, refused.code) == ("refused", "E405")


def test_damaged_files_are_refused_or_come_right(tmp_path):
    """Most codecs carry no checksum, and raw ones no redundancy at all, so a few flipped bits decode to other pixels
    and nobody can know: at most one file in twelve may slip through, of all kinds and all damages together. Nothing
    may crash or hang."""
    clean = [original(kind, tmp_path) for kind in CLIPS]
    data = [clip.path.read_bytes() for clip in clean]
    found = Counter()
    for seed in range(MUTANTS):
        clip = clean[seed % len(clean)]
        path = tmp_path / f"damaged-{seed}{clip.kind.suffix}"
        name, changed = mutated(data[seed % len(clean)], seed, data)
        path.write_bytes(changed)
        outcome = judge(clip, path, Limits(stall=10, wall=30))
        where = f"seed {seed}: {name} of {clip.kind.name}: {outcome.error!r}"
        assert outcome.verdict != "crashed", where
        if outcome.verdict == "refused":
            assert isinstance(outcome.error, MediaError), where
            assert outcome.code not in ("E408", "E416"), where
            explained(outcome.error, path)
        found[outcome.verdict] += 1
    assert found["wrong"] + found["fewer"] <= MUTANTS // 12, found
    assert found["refused"] > MUTANTS // 2
    assert found["right"] > 0


def test_with_the_checksum_of_what_was_sent_no_damage_passes(tmp_path):
    """What no decoder can see: every damaged file is refused by the SHA-256 of the whole one, before it is opened."""
    store = Store(tmp_path / "retake")
    for seed, kind in enumerate(CLIPS):
        whole = kind.build(tmp_path)
        data = whole.read_bytes()
        known = hashlib.sha256(data).hexdigest()
        assert open_clip(str(whole)).expected(known.upper()).digest(store) == known
        name, changed = mutated(data, seed, [data])
        damaged = tmp_path / f"damaged-{seed}{kind.suffix}"
        damaged.write_bytes(changed)
        with pytest.raises(MediaError, match="E417") as refused:
            VideoClip(str(damaged)).expected(known).digest(store)
        explained(refused.value, damaged)
        assert name
