"""Colours: code values and what they stand for, the view of wide and HDR clips, results in the source's own coding."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import zoo
from helpers.command import reference

from flows.editing import edit
from flows.graph import STAGES
from flows.runners import Local
from flows.settings.compose import settings
from retake import video
from retake.artifact import Edited
from retake.clip import open_clip
from retake.errors import MachineError, MediaError
from retake.exchange import exr
from retake.formats import ResultSeries, chunk_name, pack
from retake.imaging.colour import view
from retake.imaging.colour.coding import Coding
from retake.imaging.colour.convert import to_codes
from retake.imaging.colour.planes import names, shapes
from retake.store import Store
from retake.video.child import hdr10

SIZE = (64, 48)
SAMPLING = {"420": ((2, 2), (0.0, 0.5)), "422": ((2, 1), (0.0, 0.0)), "444": ((1, 1), (0.0, 0.0))}
LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
SDR = {"bt601": ("smpte170m", "bt601"), "bt709": ("bt709", "bt709"), "bt2020": ("bt2020", "bt2020-10")}


def coding(
    sampling: str, depth: int, matrix: str = "bt709", full: bool = False, transfer: str = "", alpha: bool = False
) -> Coding:
    step, siting = SAMPLING[sampling]
    primaries, usual = SDR[matrix]
    return Coding("yuv", depth, step, siting, alpha, matrix, full, primaries, transfer or usual)


def tiles(kind: Coding, seed: int = 0) -> list[np.ndarray]:
    """Planes of 8 x 6 flat tiles of code values whose colours R'G'B' can hold."""
    rng, tile = np.random.default_rng(seed), 8
    wanted = rng.uniform(0.02, 0.98, (SIZE[1] // tile, SIZE[0] // tile, 3))
    kr, kb = LUMA[kind.matrix]
    luma = wanted @ [kr, 1 - kr - kb, kb]
    blue, red = (wanted[..., 2] - luma) / (2 - 2 * kb), (wanted[..., 0] - luma) / (2 - 2 * kr)
    top, unit, middle = (1 << kind.depth) - 1, 1 << (kind.depth - 8), 1 << (kind.depth - 1)
    codes = [luma * (top if kind.full else 219 * unit) + (0 if kind.full else 16 * unit)]
    codes += [part * (top if kind.full else 224 * unit) + middle for part in (blue, red)]
    codes += [rng.uniform(0, top, luma.shape)] * kind.alpha
    sample = np.uint8 if kind.depth == 8 else np.uint16
    large = [np.kron(np.rint(part), np.ones((tile, tile))).astype(sample) for part in codes]
    step = [(1, 1), kind.step, kind.step, (1, 1)]
    return [plane[::down, ::across].copy() for plane, (across, down) in zip(large, step, strict=False)]


def exact(planes: list[np.ndarray], kind: Coding) -> np.ndarray:
    """R'G'B', 0 to 255, of every pixel (ITU-T H.273, section 8.3), in floating point, chroma repeated."""
    kr, kb = LUMA[kind.matrix]
    top, unit, middle = (1 << kind.depth) - 1, 1 << (kind.depth - 8), 1 << (kind.depth - 1)
    across, down = kind.step
    y, u, v = (plane.astype(float) for plane in planes[:3])
    y = y / top if kind.full else (y - 16 * unit) / (219 * unit)
    u, v = ((plane - middle) / (top if kind.full else 224 * unit) for plane in (u, v))
    u, v = (plane.repeat(down, 0).repeat(across, 1) for plane in (u, v))
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    return 255 * np.stack([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue], axis=-1)


def inside(picture: np.ndarray) -> np.ndarray:
    """The middle of every tile, where chroma is not mixed with the neighbour's: [tiles, 3]."""
    parts = picture.reshape(SIZE[1] // 8, 8, SIZE[0] // 8, 8, -1)[:, 2:6, :, 2:6]
    return parts.mean(axis=(1, 3)).reshape(-1, parts.shape[-1])


def written(path: Path, kind: Coding, pictures: list[list[np.ndarray]], **how: Any) -> Path:
    video.encode(path, pictures, 24, codec="ffv1", coding=kind, **how)
    return path


# ---- code values and RGB -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampling", "depth"), list(itertools.product(SAMPLING, (8, 10, 12))))
def test_code_values_become_the_colours_they_stand_for(tmp_path, sampling, depth):
    for matrix, full in itertools.product(LUMA, (False, True)):
        kind = replace(coding(sampling, depth, matrix, full), primaries="bt709", transfer="bt709")
        pictures = [tiles(kind, seed) for seed in range(4)]
        clip = written(tmp_path / "c.mkv", kind, pictures)
        assert video.probe(clip).coding == kind
        shown = [inside(rgb) for _, rgb in video.decode(clip)]
        errors = np.concatenate(shown) - np.concatenate([inside(exact(planes, kind)) for planes in pictures])
        assert np.abs(errors.mean(axis=0)).max() < 0.25, (matrix, full)
        assert np.abs(errors).max() < 0.75, (matrix, full)


@pytest.mark.parametrize(
    ("name", "depth"),
    [("yuv420p", 8), ("yuvj420p", 8), ("nv12", 8), ("yuv422p", 8), ("yuv444p10le", 10), ("gbrp", 8), ("gray", 8)],
)
def test_planes_are_those_that_the_encoder_was_given(tmp_path, name, depth):
    """Written by PyAV alone, from a frame whose bytes are known."""
    rng = np.random.default_rng(3)
    frame = av.VideoFrame(*SIZE, name)
    given = []
    for plane in frame.planes:
        rows = rng.integers(0, 256 if depth == 8 else 1 << depth, plane.buffer_size // (1 + (depth > 8)))
        plane.update(rows.astype(np.uint8 if depth == 8 else "<u2").tobytes())
        given.append(rows.reshape(-1, plane.line_size // (1 + (depth > 8)))[: plane.height])
    encoder = "rawvideo" if name in ("nv12", "yuvj420p") else "ffv1"
    with av.open(str(tmp_path / "c.mkv"), "w") as container:
        stream: Any = container.add_stream("libx264rgb" if name == "gbrp" else encoder, rate=24)
        if name == "gbrp":
            stream.options = {"qp": "0"}
        stream.width, stream.height, stream.pix_fmt = *SIZE, "rgb24" if name == "gbrp" else name
        frame.pts = 0
        container.mux(stream.encode(frame.reformat(format="rgb24") if name == "gbrp" else frame))
        container.mux(stream.encode(None))
    (_, planes), *_ = video.decode_codes(tmp_path / "c.mkv")
    if name == "gbrp":
        green, blue, red = (rows[:, : SIZE[0]] for rows in given)
        wanted = [np.stack([red, green, blue], axis=-1)]
    elif name == "nv12":
        both = given[1][:, : SIZE[0]]
        wanted = [given[0][:, : SIZE[0]], both[:, ::2], both[:, 1::2]]
    else:
        wanted = [rows[:, : plane.shape[1]] for rows, plane in zip(given, planes, strict=True)]
    for plane, rows in zip(planes, wanted, strict=True):
        np.testing.assert_array_equal(plane, rows)


def test_five_passes_change_no_colour(tmp_path):
    noise = np.random.default_rng(2).integers(40, 216, (4, 4, 5, 3)).astype(np.uint8)
    soft = [cv2.resize(picture, SIZE, interpolation=cv2.INTER_LINEAR) for picture in noise]
    for from_rgb in (False, True):  # as an edit of an edit; as programs that hand on pictures
        path = tmp_path / "0.mp4"
        video.encode(path, soft, 24, crf=0)
        first = np.stack([rgb for _, rgb in video.decode(path)]).astype(float)
        for k in range(5):
            pictures = video.decode(path) if from_rgb else video.decode_codes(path)
            path = tmp_path / f"{k + 1}.mp4"
            how: dict[str, Any] = {} if from_rgb else {"coding": video.probe(path.with_name(f"{k}.mp4")).shown}
            video.encode(path, [picture for _, picture in pictures], 24, crf=0, **how)
        last = np.stack([rgb for _, rgb in video.decode(path)])
        assert np.abs((last - first).mean(axis=(0, 1, 2))).max() < 0.3, from_rgb


def test_an_unread_matrix_is_refused_by_name(tmp_path):
    for number, name in ((14, "ICtCp"), (10, "constant luminance")):
        path = tmp_path / "c.mkv"
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("ffv1", rate=24)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv444p"
            stream.codec_context.colorspace = number
            container.mux(stream.encode(av.VideoFrame(*SIZE, "yuv444p")))
            container.mux(stream.encode(None))
        with pytest.raises(MediaError, match=name) as caught:
            video.probe(path)
        assert caught.value.code == "E415"


def test_ycgco_is_read(tmp_path):
    rgb = np.kron(np.random.default_rng(1).integers(20, 236, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    luma, cg, co = (red + 2 * green + blue) / 4, (2 * green - red - blue) / 4, (red - blue) / 2
    kind = replace(coding("444", 8, full=True), matrix="ycgco", primaries="bt709", transfer="bt709")
    planes = [np.rint(luma).astype(np.uint8), *(np.rint(c + 128).astype(np.uint8) for c in (cg, co))]
    clip = written(tmp_path / "c.mkv", kind, [planes])
    assert video.probe(clip).color_matrix == "ycgco"
    assert np.abs(inside(next(iter(video.decode(clip)))[1]) - inside(rgb)).max() <= 2


@pytest.mark.parametrize(("depth", "full"), [(8, True), (8, False), (10, True), (10, False)])
def test_grey_is_read(tmp_path, depth, full):
    unit, top = 1 << (depth - 8), (1 << depth) - 1
    kind = Coding("gray", depth, matrix="bt601", full=full)
    grey = np.linspace(16 * unit, 235 * unit, SIZE[0]).astype(np.uint8 if depth == 8 else np.uint16)
    picture = grey[None].repeat(SIZE[1], 0)
    shown = next(iter(video.decode(written(tmp_path / "c.mkv", kind, [[picture]]))))[1]
    wanted = 255 * (picture / top if full else (picture - 16.0 * unit) / (219 * unit))
    assert np.abs(shown - wanted[..., None]).max() < 0.75


# ---- the view ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("primaries", "transfer"), [("bt2020", "hlg"), ("bt2020", "pq"), ("smpte432", "srgb")])
def test_the_view_can_be_undone(primaries, transfer):
    kind = Coding("rgb", 16, primaries=primaries, transfer=transfer)
    shown = np.random.default_rng(5).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    source = view.from_view(shown.astype(np.float32), kind)
    again = view.to_view([np.rint(source * 65535).astype(np.uint16)], kind)
    errors = again.astype(int) - shown
    assert np.abs(errors.mean(axis=(0, 1))).max() < 0.1
    assert np.quantile(np.abs(errors), 0.99) <= 1


def test_reference_white_and_the_transfers_are_those_of_the_standards():
    # BT.2408, table 1: white, 203 cd/m2, is 75 % of HLG and 58 % of PQ; BT.2100: HLG's 1/2 is a twelfth of its light
    assert float(view.nonlinear(np.array(203 / 10_000), "pq")) == pytest.approx(0.58, abs=0.005)
    scene = float(view.linear(np.array(0.75), "hlg"))
    assert 1000 * scene**1.2 == pytest.approx(203, abs=2)
    assert float(view.linear(np.array(0.5), "hlg")) == pytest.approx(1 / 12)
    for name in ("pq", "hlg", "srgb", "bt709"):
        values = np.linspace(0, 1, 101)
        np.testing.assert_allclose(view.nonlinear(view.linear(values, name), name), values, atol=1e-4)
    # BT.2087, section 2: the matrix between the two sets of primaries
    np.testing.assert_allclose(
        view.gamut("bt709", "bt2020"),
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]],
        atol=2e-4,
    )


def test_a_wide_clip_is_shown_in_ordinary_primaries(tmp_path):
    """(200, 60, 160) of Display P3 is (217, 42, 164) in sRGB."""
    rgb = np.zeros((*SIZE[::-1], 3), np.uint8) + np.array([200, 60, 160], np.uint8)
    p3 = Coding("rgb", 8, primaries="smpte432", transfer="srgb")
    clip = written(tmp_path / "p3.mkv", p3, [[rgb]])
    shown = next(iter(video.decode(clip)))[1]
    assert np.abs(shown.reshape(-1, 3).mean(axis=0) - [217, 42, 164]).max() <= 1.5
    # and a result says what its values are
    made = tmp_path / "view.mp4"
    video.encode(made, [[rgb]] * 2, 24, coding=p3)
    assert (video.probe(made).coding.primaries, video.probe(made).coding.transfer) == ("smpte432", "srgb")
    again = next(iter(video.decode(made)))[1]
    assert np.abs(again.reshape(-1, 3).mean(axis=0) - [217, 42, 164]).max() <= 3


# ---- results in the source's own code values -----------------------------------------------------------------------


def edited_by_hand(store: Store, count: int, box: tuple[int, int, int, int]) -> Edited:
    """A green square with a soft left edge."""
    x0, y0, x1, y1 = box
    rgb = np.zeros((count, y1 - y0, x1 - x0, 3), np.uint8) + np.array([90, 200, 110], np.uint8)
    alpha = np.full(rgb.shape[:3], 255, np.uint8)
    alpha[:, :, :3] = [60, 120, 180]
    file = store.put(chunk_name(0), pack({"box": np.array(box, np.int32), "rgb": rgb, "alpha": alpha}))
    return Edited((file,), {"format": 1, "count": count})


def result(store: Store, clip: Path, box: tuple[int, int, int, int], *overrides: str) -> Any:
    """(the result artifact, its reader) of a clip with a square laid over it."""
    p, runner, source = settings(["decode.preset=veryfast", *overrides]), Local(store), open_clip(str(clip))
    frames = runner(STAGES["frames"], p.frames, clip=source)
    edited = edited_by_hand(store, frames.meta["count"], box)
    made = runner(STAGES["decode"], p.decode, clip=source, frames=frames, edited=edited)
    return made, ResultSeries(store, made)


MATRIX = [
    (sampling, depth, matrix, full, transfer, alpha)
    for sampling, depth in itertools.product(SAMPLING, (8, 10, 12))
    for matrix, transfer in (("bt601", ""), ("bt709", ""), ("bt2020", ""), ("bt2020", "hlg"), ("bt2020", "pq"))
    for full, alpha in ((False, False), (True, False), (False, True))
    if not (transfer and depth == 8) and not (alpha and depth == 12 and sampling == "420")
]


@pytest.mark.parametrize("sampling", SAMPLING)
def test_code_values_outside_the_edit_are_the_sources(tmp_path, sampling):
    box, store = (17, 11, 40, 30), Store(tmp_path / "store", lambda line: None)
    for _, depth, matrix, full, transfer, alpha in (row for row in MATRIX if row[0] == sampling):
        kind = coding(sampling, depth, matrix, full, transfer, alpha)
        clip = written(tmp_path / "c.mkv", kind, [tiles(kind, seed) for seed in range(2)])
        _, series = result(store, clip, box)
        assert series.coding == kind
        for t, (_, source) in enumerate(video.decode_codes(clip)):
            for name, plane, was in zip(names(kind), series.codes(t), source, strict=True):
                across, down = kind.step if name in "uv" else (1, 1)
                changed = np.argwhere(plane != was) * [down, across]
                assert (changed >= [box[1] - down, box[0] - across]).all(), (kind, name)
                assert (changed <= [box[3] + down - 1, box[2] + across - 1]).all(), (kind, name)
                assert len(changed) if name != "a" else not len(changed), (kind, name)
            green = series[t][box[1] + 4 : box[3] - 4, box[0] + 6 : box[2] - 4].reshape(-1, 3)
            assert np.abs(green.astype(int) - [90, 200, 110]).max() <= (8 if depth == 8 else 3), kind


@pytest.mark.parametrize(("sample", "alpha"), [(np.uint16, False), (np.uint16, True), (np.uint8, True)])
def test_a_sequence_of_pictures_keeps_its_code_values(tmp_path, sample, alpha):
    """Also where the second picture has another depth than the first, and no alpha."""
    top, rng, folder = np.iinfo(sample).max, np.random.default_rng(3), tmp_path / "shots"
    folder.mkdir()
    first = rng.integers(0, top, (*SIZE[::-1], 3 + alpha), endpoint=True).astype(sample)
    other = rng.integers(0, 255, (*SIZE[::-1], 3), endpoint=True).astype(np.uint8)
    cv2.imwrite(str(folder / "0.png"), first)
    cv2.imwrite(str(folder / "1.png"), other)
    store, box = Store(tmp_path / "store", lambda line: None), (17, 11, 40, 30)
    made, series = result(store, folder, box, "decode.codec=png16")
    outside = np.ones(SIZE[::-1], bool)
    outside[box[1] : box[3], box[0] : box[2]] = False
    wanted = [first[..., 2::-1], other[..., ::-1].astype(sample) * (257 if sample == np.uint16 else 1)]
    for t, colours in enumerate(wanted):
        np.testing.assert_array_equal(series.codes(t)[0][outside], colours[outside])
        if alpha:
            np.testing.assert_array_equal(series.codes(t)[1], top if t else first[..., 3])
    green = series[0][box[1] + 4 : box[3] - 4, box[0] + 6 : box[2] - 4].reshape(-1, 3)
    assert np.abs(green.astype(int) - [90, 200, 110]).max() <= 1
    master = cv2.imdecode(np.frombuffer(store.read(made["master-00000.png"]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert master is not None
    assert (master.dtype, master.shape) == (np.uint16, first.shape)
    np.testing.assert_array_equal(master[outside], first[outside].astype(np.uint16) * (65535 // top))


def test_a_turned_clip_keeps_its_code_values(tmp_path):
    for rotation in (90, 180, 270):
        clip = zoo.make_clip(tmp_path / "c.mp4", 2, size=SIZE, rotation=rotation, matrix="bt709")
        _, series = result(Store(tmp_path / "store", lambda line: None), clip, (17, 11, 40, 30))
        with av.open(str(clip)) as container:
            stored = [frame.to_ndarray() for frame in container.decode(video=0)]
        for t, frame in enumerate(stored):
            luma = np.rot90(frame[: frame.shape[0] * 2 // 3], -(rotation // 90))
            np.testing.assert_array_equal(series.codes(t)[0][:10], luma[:10])
            np.testing.assert_array_equal(series.codes(t)[0][31:], luma[31:])
        shown = np.stack([rgb for _, rgb in video.decode(clip)]).astype(int)
        assert np.abs(np.stack(list(series))[:, :8] - shown[:, :8]).mean() < 1


# ---- masters -------------------------------------------------------------------------------------------------------


def phone_clip(path: Path, frames: int = 6) -> Path:
    """HLG of 10 bits in HEVC, turned by its display matrix, as phones write it."""
    kind = coding("420", 10, "bt2020", transfer="hlg")
    noise = np.random.default_rng(7).integers(40, 216, (5, 7, 3)).astype(np.uint8)
    # x265 writes outside its memory below 64 pixels of width
    soft = cv2.resize(noise, (128, 96), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    pictures = [to_codes(np.rint(65535 * view.from_view(soft, kind)).astype(np.uint16), kind)] * frames
    upright = path.with_name("upright.mp4")
    video.encode(upright, pictures, 24, codec="hevc10", coding=kind, crf=4)
    with av.open(str(upright)) as old, av.open(str(path), "w", format="mov") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.set_display_rotation(-90)  # type: ignore[attr-defined]
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return path


def test_a_clip_of_a_phone_goes_through_and_stays_hlg(tmp_path):
    clip = phone_clip(tmp_path / "phone.mov")
    assert any("HLG" in note for note in video.probe(clip).notes)
    words = ["masks.box=[20,40,70,100]", f"edit.reference={reference(tmp_path / 'cat.png')}", "metrics.names=[]"]
    runner = Local(Store(tmp_path / "store", lambda line: None))
    done = edit.edit(str(clip), [*words, "decode.codec=hevc10", "decode.crf=4"], runner=runner, folder=tmp_path / "e")
    assert any("HLG" in note for note in done.as_json()["stages"][0]["notes"])
    master = Path(done.outputs["master"])
    found, source = video.probe(master), video.probe(clip)
    assert (found.codec, found.pix_fmt) == ("hevc", "yuv420p10le")
    for field in ("matrix", "primaries", "transfer", "full", "depth"):
        assert getattr(found.coding, field) == getattr(source.coding, field), field
    # Above the edit: luma as it was; chroma is sampled elsewhere in a turned picture, but shows the same colours.
    (_, ours), *_ = video.decode_codes(master)
    (_, theirs), *_ = video.decode_codes(clip)
    assert abs(ours[0][:30].mean() - theirs[0][:30].mean()) < 1
    shown = [next(iter(video.decode(path)))[1][:30].astype(float) for path in (master, clip)]
    assert np.abs(shown[0].mean(axis=(0, 1)) - shown[1].mean(axis=(0, 1))).max() < 1
    shown = video.probe(done.outputs["video"])
    assert (shown.coding.transfer, shown.coding.depth) == ("bt709", 8)


@pytest.mark.parametrize(
    ("codec", "ending", "format"),
    [("prores", "mov", "yuva444p12le"), ("ffv1", "mkv", "yuva444p10le")],
)
def test_masters_carry_depth_alpha_and_tags(tmp_path, codec, ending, format):
    kind = coding("444", 10, "bt709", alpha=True)
    clip = written(tmp_path / "c.mkv", kind, [tiles(kind, seed) for seed in range(2)])
    store = Store(tmp_path / "store", lambda line: None)
    made, series = result(store, clip, (17, 11, 40, 30), f"decode.codec={codec}")
    master = store.copy_out(made[f"master.{ending}"], tmp_path / f"master.{ending}")
    found = video.probe(master)
    assert (found.pix_fmt, found.coding.matrix, found.coding.primaries) == (format, "bt709", "bt709")
    for t, (_, planes) in enumerate(video.decode_codes(master)):
        for plane, was in zip(planes, series.codes(t), strict=True):
            if codec == "ffv1":
                np.testing.assert_array_equal(plane, was)
            else:  # ProRes decodes to 12 bits
                assert np.abs(plane / 4.0 - was).mean() < 3


def test_a_master_says_what_display_an_hdr10_clip_was_graded_on(tmp_path):
    told = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    params = f"log-level=none:bframes=0:repeat-headers=1:hdr10=1:master-display={told}:max-cll=1000,400"
    clip, kind = tmp_path / "graded.mp4", coding("420", 10, "bt2020", transfer="pq")
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx265", rate=24, options={"x265-params": params, "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries, stream.codec_context.colorspace = 16, 9, 9
        frame = av.VideoFrame.from_ndarray(np.full((64 * 3 // 2, 96), 512, np.uint16), format="yuv420p10le")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    store = Store(tmp_path / "store", lambda line: None)
    made, _ = result(store, clip, (17, 11, 40, 30), "decode.codec=hevc10")
    store.copy_out(made["master.mp4"], tmp_path / "master.mp4")
    wanted, found = (side_data(path) for path in (clip, tmp_path / "master.mp4"))
    assert len(wanted) == 2
    assert found == wanted
    video.encode(tmp_path / "plain.mp4", [tiles(kind)], 24, coding=kind)  # the view says none
    assert side_data(tmp_path / "plain.mp4") == {}


def side_data(path: Path) -> dict[str, bytes]:
    """What a file's first frame says of its display and its light."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    return {kind.name: bytes(frame.side_data[kind]) for kind in hdr10.KINDS if kind in frame.side_data}


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_times_of_a_clip_shorter_than_x265s_delay_are_its_own(tmp_path, monkeypatch, length):
    monkeypatch.setenv("MALLOC_PERTURB_", "85")  # what malloc gives is never zero
    video.shutdown()  # the next child starts with it
    kind = coding("420", 10, "bt2020", transfer="pq")
    frames = [[np.full(size, 400 + 9 * n, np.uint16) for size in ((64, 96), (32, 48), (32, 48))] for n in range(length)]
    video.encode(tmp_path / "m.mp4", frames, 24, codec="hevc10", coding=kind, timestamps=[0.0, 0.5, 0.75][:length])
    with av.open(str(tmp_path / "m.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    delays = {float((packet.pts - packet.dts) * packet.time_base) for packet in packets}
    assert len(packets) == length
    assert max(delays) < 2
    assert [float(packet.pts * packet.time_base) for packet in packets] == [0.0, 0.5, 0.75][:length]


def test_x265_is_not_asked_for_pictures_that_it_fails_on(tmp_path):
    kind = coding("420", 10)
    with pytest.raises(MachineError, match=r"E504.*64x48"):
        video.encode(tmp_path / "m.mp4", [tiles(kind)], 24, codec="hevc10", coding=kind)
    assert list(tmp_path.iterdir()) == []


def test_sequences_hold_all_bits_and_linear_light(tmp_path):
    kind = coding("444", 12, "bt2020", transfer="pq", alpha=True)
    clip = written(tmp_path / "c.mkv", kind, [tiles(kind, seed) for seed in range(2)])
    store = Store(tmp_path / "store", lambda line: None)
    made, series = result(store, clip, (17, 11, 40, 30), "decode.codec=png16")
    picture = cv2.imdecode(np.frombuffer(store.read(made["master-00001.png"]), np.uint8), cv2.IMREAD_UNCHANGED)
    wanted = exact(series.codes(1), kind) / 255
    assert picture is not None
    assert picture.dtype == np.uint16
    assert picture.shape == (*SIZE[::-1], 4)
    np.testing.assert_allclose(picture[..., 2::-1] / 65535, wanted.clip(0, 1), atol=2e-4)
    np.testing.assert_allclose(picture[..., 3] / 65535, series.codes(1)[3] / 4095, atol=2e-5)
    made, _ = result(store, clip, (17, 11, 40, 30), "decode.codec=exr")
    path = tmp_path / "one.exr"
    store.copy_out(made["master-00001.exr"], path)
    found = exr.read(path)
    assert sorted(found) == ["A", "B", "G", "R"]
    light = 10_000 / 203 * view.linear(wanted.clip(0, 1), "pq")
    np.testing.assert_allclose(np.dstack([found[c] for c in "RGB"]), light, rtol=0.01, atol=1e-3)


def test_shapes_of_planes_round_up():
    assert shapes(coding("420", 8, alpha=True), (5, 3)) == [(3, 5), (2, 3), (2, 3), (3, 5)]
