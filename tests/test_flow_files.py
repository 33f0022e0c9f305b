"""Flow and depth in files: exact round trips, other programs' files, and files that lie."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from fractions import Fraction

import cv2
import numpy as np
import pytest

from retake.errors import ConfigError, MediaError
from retake.exchange import depth, exr, flow
from retake.exchange import tracks as track_files
from retake.exchange.files import MAX_BYTES, fill_unknown, sorted_files
from retake.imaging.flow import in_bounds, occlusion
from retake.priors.optical_flow import given
from retake.synthetic import World, scene

RNG = np.random.default_rng(0)
FLOW = (RNG.normal(size=(21, 34, 2)) * 40).astype(np.float32)
VALID = RNG.random((21, 34)) > 0.3
DEPTH = np.where(np.arange(53) < 20, 7.25, RNG.random((37, 53)) * 900).astype(np.float32)


def refused(call, *wanted: str) -> str:
    with pytest.raises(MediaError) as caught:
        call()
    assert caught.value.code in wanted, caught.value
    assert caught.value.hint
    return caught.value.message


# Flow


def test_flo_is_exact_and_knows_unknown_pixels(tmp_path):
    flow.write_flo(tmp_path / "a.flo", FLOW)
    found, valid = flow.read_flo(tmp_path / "a.flo")
    assert found.dtype == np.float32
    assert np.array_equal(found, FLOW)
    assert valid.all()
    data = (tmp_path / "a.flo").read_bytes()
    assert struct.unpack("<fii", data[:12]) == (202021.25, 34, 21)
    assert struct.unpack("<ff", data[12 + 8 * 35 : 20 + 8 * 35]) == tuple(FLOW[1, 1])
    flow.write_flo(tmp_path / "b.flo", FLOW, VALID)
    found, valid = flow.read_flo(tmp_path / "b.flo")
    assert np.array_equal(valid, VALID)
    assert np.array_equal(found, np.where(VALID[..., None], FLOW, 0))


def test_flo_is_what_opencv_reads_and_writes(tmp_path):
    flow.write_flo(tmp_path / "a.flo", FLOW)
    assert np.array_equal(cv2.readOpticalFlow(str(tmp_path / "a.flo")), FLOW)
    assert cv2.writeOpticalFlow(str(tmp_path / "b.flo"), FLOW)
    assert np.array_equal(flow.read(tmp_path / "b.flo").forward, FLOW)


def test_kitti_is_exact_on_its_steps_and_marks_what_it_cannot_hold(tmp_path):
    steps = np.rint(FLOW * 64) / 64
    steps[0, 0], steps[0, 1], steps[0, 2] = (600, 0), (-512, 511.984375), (np.nan, 0)
    flow.write_kitti(tmp_path / "a.png", steps, VALID | (np.arange(34) < 3))
    found = flow.read(tmp_path / "a.png")
    assert found.valid[0, :3].tolist() == [False, True, False]
    assert np.array_equal(found.valid[1:, 3:], VALID[1:, 3:])
    assert np.array_equal(found.forward[found.valid], steps[found.valid])
    raw = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[0, 1]  # B, G, R
    assert raw.tolist() == [1, 65535, 0]


def test_npz_holds_both_directions_or_one_under_another_name(tmp_path):
    flow.write_npz(tmp_path / "a.npz", FLOW, -FLOW)
    found = flow.read(tmp_path / "a.npz")
    assert np.array_equal(found.forward, FLOW)
    assert found.backward is not None
    assert np.array_equal(found.backward, -FLOW)
    holes = FLOW.astype(np.float64)
    holes[3, 4, 1] = np.nan
    np.savez_compressed(tmp_path / "b.npz", flow=np.asfortranarray(holes), other=np.zeros(3))
    found = flow.read(tmp_path / "b.npz")
    assert found.backward is None
    assert (~found.valid).sum() == 1
    assert np.array_equal(found.forward[found.valid], FLOW[found.valid])


def test_hostile_flow_files_are_refused(tmp_path):
    path = tmp_path / "x.flo"
    for data, codes in (
        (b"", "E432"),
        (b"PIEH", "E432"),
        (b"HEIP" + struct.pack("<ii", 1, 1) + bytes(8), "E432"),
        (b"PIEH" + struct.pack("<ii", 2, 2) + bytes(31), "E432"),
        (b"PIEH" + struct.pack("<ii", 2, 2) + bytes(33), "E432"),
        (b"PIEH" + struct.pack("<ii", -2, -2) + bytes(32), "E432"),
        (b"PIEH" + struct.pack("<ii", 1 << 30, 1 << 30), "E421"),
    ):
        path.write_bytes(data)
        refused(lambda: flow.read(path), codes)
    refused(lambda: flow.read(tmp_path / "none.flo"), "E400")
    refused(lambda: flow.read(tmp_path), "E432")
    path = tmp_path / "x.png"
    flow.write_kitti(path, FLOW)
    good = path.read_bytes()
    huge = good[:16] + struct.pack(">II", 1 << 20, 1 << 20) + good[24:]
    grey = cv2.imencode(".png", np.zeros((4, 4), np.uint16))[1].tobytes()
    eight = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    flipped = good[:200] + bytes([good[200] ^ 255]) + good[201:]
    for data, codes in ((good[: len(good) // 2], "E432"), (huge, "E421"), (grey, "E432"), (eight, "E432")):
        path.write_bytes(data)
        refused(lambda: flow.read(path), codes)
    for data in (flipped, b"\x89PNG\r\n\x1a\n", b"GIF89a"):
        path.write_bytes(data)
        refused(lambda: flow.read(path), "E432")


def test_hostile_arrays_are_refused_before_they_are_allocated(tmp_path):
    def npy(array: np.ndarray) -> bytes:
        out = io.BytesIO()
        np.save(out, array, allow_pickle=True)
        return out.getvalue()

    def archive(data: bytes, name: str = "flow.npy") -> None:
        with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, data)

    lie = npy(FLOW).replace(b"(21, 34, 2)", b"(9999,9999,2)")
    short = npy(FLOW).replace(b"(21, 34, 2)", b"(99, 99, 2)")
    for data, code in (
        (npy(np.array([{"a": 1}], dtype=object)), "E432"),
        (lie, "E421"),
        (short, "E432"),
        (npy(FLOW)[:-1], "E432"),
        (npy(FLOW[..., 0]), "E432"),
        (npy(FLOW.astype(complex)), "E432"),
        (b"no array", "E432"),
    ):
        archive(data)
        refused(lambda: flow.read(tmp_path / "x.npz"), code)
    archive(npy(FLOW), "something.npy")
    assert "neither" in refused(lambda: flow.read(tmp_path / "x.npz"), "E432")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no zip")
    refused(lambda: flow.read(tmp_path / "x.npz"), "E432")


def bomb(path, header: bytes, name: str, packed: int = zipfile.ZIP_DEFLATED) -> None:
    """A small npz that unpacks to a header and 48 MB of zeros."""
    with zipfile.ZipFile(path, "w", packed) as archive, archive.open(f"{name}.npy", "w") as file:
        file.write(header)
        for _ in range(48):
            file.write(bytes(1 << 20))


def npy_header_of(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue()


LONG = b"\x93NUMPY\x02\x00" + struct.pack("<I", 40 << 20)  # a header of 40 MB


@pytest.mark.parametrize(
    "header",
    [
        *(npy_header_of(shape) for shape in ((4, 4, -1), (4, -4), (-4, 4), (4, 4, 5), (4, 4, 0), (4, 4, 100_000))),
        LONG,
    ],
)
def test_an_npz_is_read_no_further_than_its_shape(tmp_path, header):
    bomb(tmp_path / "x.npz", header, "depth")
    tracemalloc.start()
    refused(lambda: depth.read(tmp_path / "x.npz"), "E432")
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()


@pytest.mark.parametrize("header", [npy_header_of((16, -5, 2), "<f4"), LONG])
def test_tracks_are_read_no_further_than_their_shape(tmp_path, header):
    seen = npy_header_of((16, -5), "|b1")
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, head in (("xy", header), ("visible", seen), ("ids", npy_header_of((-5,), "<i8"))):
            archive.writestr(f"{name}.npy", head + bytes(48 << 20))
    tracemalloc.start()
    refused(lambda: list(track_files.open_tracks(tmp_path / "x.npz").blocks()), "E436")
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()


def test_damaged_headers_of_arrays_are_refused(tmp_path):
    good = npy_header_of((4, 4))
    text = good[10:]
    for wrong in (b"{[]: 1}", b"{1: 2, 'descr': 3}", b"(" * 3000, b"'" * 3, b"{'shape': (4,", b"  x\n y\n", bytes(40)):
        body = wrong.ljust(len(text))
        head = good[:8] + struct.pack("<H", len(body)) + body
        (tmp_path / "x.npy").write_bytes(head + bytes(128))
        refused(lambda: depth.read(tmp_path / "x.npy"), "E432")
    bomb(tmp_path / "x.npz", good, "depth", zipfile.ZIP_LZMA)  # its dictionary may be of any size
    assert "deflated" in refused(lambda: depth.read(tmp_path / "x.npz"), "E432")


@pytest.mark.parametrize("name", ["0.flo", "0.png", "0.npz", "0.npy", "0.exr"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    held = os.open(tmp_path / name, os.O_RDWR)  # a reader that waits for a writer would wait for this one, not for ever
    os.write(held, b"PIEH")
    try:
        read = flow.read if name == "0.flo" else depth.read
        assert "plain file" in refused(lambda: read(tmp_path / name), "E400")
    finally:
        os.close(held)


def test_names_are_in_the_order_of_their_numbers(tmp_path):
    names = ["1.png", "01.png", "2.PNG", "10.png", "a\u00b2.png", "\u00b21.png"]
    for name in [*reversed(names), ".0.png", "._1.png", "1.txt"]:
        (tmp_path / name).touch()
    assert [p.name for p in sorted_files(tmp_path, (".png",))] == ["01.png", *(n for n in names if n != "01.png")]
    assert sorted_files(tmp_path / "none", (".png",)) == []


def test_any_byte_of_an_array_may_be_wrong(tmp_path):
    np.savez_compressed(tmp_path / "good.npz", depth=DEPTH[:6, :7])
    good = (tmp_path / "good.npz").read_bytes()
    for at in range(len(good)):
        (tmp_path / "x.npz").write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        try:
            depth.read(tmp_path / "x.npz")
        except MediaError as error:
            assert error.code in ("E421", "E432")  # noqa: PT017


# Depth


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_exr_is_exact_and_ffmpeg_agrees(tmp_path, kind):
    import av

    values = DEPTH.astype(kind)
    values[0, :3] = (0, np.inf, np.finfo(kind).tiny)
    depth.write_exr(tmp_path / "a.exr", values)
    own = exr.read(tmp_path / "a.exr")
    assert own["Y"].dtype == kind
    assert np.array_equal(own["Y"], values)
    assert np.array_equal(depth.read(tmp_path / "a.exr"), values.astype(np.float32))
    decoder = av.CodecContext.create("exr", "r")
    frame = (decoder.decode(av.Packet((tmp_path / "a.exr").read_bytes())) + decoder.decode(None))[0]
    theirs = np.frombuffer(bytes(frame.planes[0]), kind).reshape(values.shape[0], -1)[:, : values.shape[1]]
    assert np.array_equal(theirs, values)
    depth.write_exr(tmp_path / "b.exr", values)
    assert (tmp_path / "b.exr").read_bytes() == (tmp_path / "a.exr").read_bytes()


@pytest.mark.parametrize("compression", ["none", "rle", "zip1", "zip16"])
def test_exr_of_ffmpeg_is_read(tmp_path, compression):
    import av

    height, width = DEPTH.shape
    encoder = av.CodecContext.create("exr", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "gbrpf32le"
    encoder.time_base, encoder.options = Fraction(1, 1), {"compression": compression, "format": "float"}
    frame = av.VideoFrame(width, height, "gbrpf32le")
    rgb = np.stack([DEPTH, DEPTH * 2, DEPTH * 3])
    for plane, values in zip(frame.planes, rgb[[1, 2, 0]], strict=True):
        padded = np.zeros((height, plane.line_size // 4), np.float32)
        padded[:, :width] = values
        plane.update(padded.tobytes())
    (tmp_path / "a.exr").write_bytes(b"".join(bytes(p) for p in encoder.encode(frame) + encoder.encode(None)))
    found = exr.read(tmp_path / "a.exr")
    assert {name: np.array_equal(values, rgb["RGB".index(name)]) for name, values in found.items()} == {
        "B": True,
        "G": True,
        "R": True,
    }
    assert np.array_equal(depth.read(tmp_path / "a.exr"), DEPTH)


def test_hostile_exr_files_are_refused(tmp_path):
    path = tmp_path / "x.exr"
    exr.write(path, DEPTH)
    good = path.read_bytes()
    window = good.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    kind = good.index(b"compression\0compression\0") + len(b"compression\0compression\0") + 4

    def put(at: int, new: bytes) -> bytes:
        return good[:at] + new + good[at + len(new) :]

    for data, codes in (
        (b"", ("E432",)),
        (b"v/1\x01", ("E432",)),
        (good[:100], ("E432",)),
        (good[: len(good) // 2], ("E432",)),
        (good[:-1], ("E432",)),
        (put(window + 8, struct.pack("<ii", 1 << 30, 1 << 30)), ("E421",)),
        (put(window + 8, struct.pack("<ii", 5000, 5000)), ("E432",)),
        (put(window + 8, struct.pack("<ii", -5, -5)), ("E432",)),
        (put(kind, bytes([4])), ("E434",)),
        (put(good.index(b"screenWindowWidth\0float\0") + 33, b"\xff" * 8), ("E432",)),  # where a block lies
        (put(5, bytes([2])), ("E434",)),
    ):
        path.write_bytes(data)
        tracemalloc.start()
        refused(lambda: exr.read(path), *codes)
        assert tracemalloc.get_traced_memory()[1] < 5e6  # a header's claim allocates nothing
        tracemalloc.stop()
    for at in RNG.integers(8, len(good), 60):  # any byte of header or body may be wrong
        path.write_bytes(put(int(at), bytes([good[at] ^ 0x55])))
        try:
            exr.read(path)
        except MediaError as error:
            assert error.code in ("E421", "E432", "E434")  # noqa: PT017


def layered(width: int, height: int, names: list[str], packed: bool = True) -> bytes:
    """An EXR of zeros with these float channels; without `packed`, a header alone and a megabyte behind it."""
    listed = b"".join(n.encode() + b"\0" + struct.pack("<iB3xii", 2, 0, 1, 1) for n in names) + b"\0"
    head = struct.pack("<II", 20000630, 2)
    for name, of, value in (
        ("channels", "chlist", listed),
        ("compression", "compression", b"\3"),
        ("dataWindow", "box2i", struct.pack("<iiii", 0, 0, width - 1, height - 1)),
    ):
        head += name.encode() + b"\0" + of.encode() + b"\0" + struct.pack("<i", len(value)) + value
    head += b"\0"
    if not packed:
        return head + bytes(1 << 20)
    body = zlib.compress(bytes(16 * width * 4 * len(names)))
    blocks = [struct.pack("<ii", y, len(body)) + body for y in range(0, height, 16)]
    starts = np.cumsum([len(head) + 8 * len(blocks)] + [len(block) for block in blocks[:-1]])
    return head + starts.astype("<u8").tobytes() + b"".join(blocks)


def test_an_exr_is_unpacked_only_where_it_is_depth(tmp_path):
    names = [f"layer{k:02d}.R" for k in range(40)] + ["view.Z"]
    (tmp_path / "a.exr").write_bytes(layered(512, 256, names))
    one = 512 * 256 * 4
    tracemalloc.start()
    assert depth.read(tmp_path / "a.exr").shape == (256, 512)
    assert tracemalloc.get_traced_memory()[1] < 20 * one
    tracemalloc.stop()
    assert sorted(exr.read(tmp_path / "a.exr")) == names
    (tmp_path / "b.exr").write_bytes(layered(512, 256, [f"c{k}" for k in range(40)]))
    tracemalloc.start()
    assert "c0, c1" in refused(lambda: depth.read(tmp_path / "b.exr"), "E432")
    assert tracemalloc.get_traced_memory()[1] < one
    tracemalloc.stop()


@pytest.mark.parametrize("size", [(2048, 2049), (1 << 20, 4)])
def test_an_exr_that_claims_more_than_memory_is_refused(tmp_path, size):
    names = ["Z", *(f"c{k:02d}" for k in range(63))]
    (tmp_path / "x.exr").write_bytes(layered(*size, names, packed=False))
    assert 4 * 64 * size[0] * size[1] >= MAX_BYTES
    tracemalloc.start()
    refused(lambda: depth.read(tmp_path / "x.exr"), "E421")
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()


def test_an_exr_that_states_one_block_twice_misses_another(tmp_path):
    path = tmp_path / "x.exr"
    exr.write(path, DEPTH)
    good = path.read_bytes()
    blocks = -(-DEPTH.shape[0] // 16)
    start = good.index(b"screenWindowWidth\0float\0") + len(b"screenWindowWidth\0float\0") + 8 + 1
    assert struct.unpack_from("<Q", good, start)[0] == start + 8 * blocks
    path.write_bytes(good[: start + 8] + good[start : start + 8] + good[start + 16 :])
    assert "missing" in refused(lambda: exr.read(path), "E432")


def test_depth_png_npy_npz(tmp_path):
    steps = np.rint(DEPTH * 64) / 64
    depth.write_png(tmp_path / "a.png", steps)
    assert np.array_equal(depth.read(tmp_path / "a.png"), steps)
    depth.write_png(tmp_path / "b.png", np.array([[-1, np.nan, 5000.0, 2.0]]))
    assert depth.read(tmp_path / "b.png").tolist() == [[0, 0, 65535 / 64, 2]]
    assert depth.read(tmp_path / "b.png", step=1).tolist() == [[0, 0, 65535, 128]]
    depth.write_npy(tmp_path / "a.npy", DEPTH)
    np.savez(tmp_path / "a.npz", depth=DEPTH[..., None])
    assert np.array_equal(depth.read(tmp_path / "a.npy"), DEPTH)
    assert np.array_equal(depth.read(tmp_path / "a.npz"), DEPTH)
    np.save(tmp_path / "b.npy", FLOW)
    refused(lambda: depth.read(tmp_path / "b.npy"), "E432")
    refused(lambda: depth.read(tmp_path / "a.tiff"), "E432")


# Flow that is given


def folder(world: World, where, count: int, kind: str = "flo", backward: bool = False):
    where.mkdir()
    for t in range(count - 1):
        one = world.flow(t + 1, t) if backward else world.flow(t, t + 1)
        name = where / f"pair{t}.{kind}"
        {"flo": flow.write_flo, "png": flow.write_kitti, "npz": flow.write_npz}[kind](name, one)
    return where


def test_given_flow_is_the_files_in_order_from_any_frame(tmp_path):
    world = World(scene("drift", width=96, height=64, frames=12))
    frames = [world.frame(t) for t in range(12)]
    forward, backward = folder(world, tmp_path / "f", 12), folder(world, tmp_path / "b", 12, "png", backward=True)
    params = given.Params(forward=str(forward), backward=str(backward))
    given.check(params, {"count": 12})
    found = list(given.pairs(iter(frames), params))
    assert len(found) == 11
    for t, (there, back) in enumerate(found):
        assert np.array_equal(there, world.flow(t, t + 1))
        assert np.abs(back - world.flow(t + 1, t)).max() <= 0.5 / 64 + 1e-6
    later = list(given.pairs(iter(frames[9:]), params, first=9))
    assert len(later) == 2
    assert all(
        np.array_equal(a, b) for one, two in zip(later, found[9:], strict=True) for a, b in zip(one, two, strict=True)
    )


def test_given_flow_is_resampled_and_sparse_files_are_filled(tmp_path):
    ramp = np.dstack([np.full((40, 60), 6.0), np.full((40, 60), -2.0)]).astype(np.float32)
    valid = RNG.random((40, 60)) > 0.6
    flow.write_kitti(tmp_path / "0.png", ramp, valid)
    frames = [np.zeros((20, 30, 3), np.uint8)] * 2
    there, _ = next(given.pairs(iter(frames), given.Params(forward=str(tmp_path))))
    assert there.shape == (20, 30, 2)
    assert np.allclose(there, (3, -1))


def test_nearest_known_takes_the_nearest():
    values = np.arange(30.0).reshape(5, 6)
    known = np.zeros((5, 6), bool)
    known[1, 1] = known[4, 5] = True
    filled = fill_unknown(values, known)
    assert filled[0, 0] == filled[2, 2] == values[1, 1]
    assert filled[4, 4] == filled[3, 5] == values[4, 5]


@pytest.mark.parametrize("name", ["drift", "cross", "zoom"])
def test_flow_turned_round_is_the_backward_flow_where_one_exists(name):
    world = World(scene(name, width=320, height=180, frames=48))
    errors, found, real, right = [], 0, 0, 0
    for t in (6, 20, 34):
        forward = world.flow(t, t + 2)
        backward = given.inverted(forward, world.frame(t), world.frame(t + 2))
        covered = world.occlusion(t + 2, t)
        errors.append(np.linalg.norm(backward - world.flow(t + 2, t), axis=-1)[~covered])
        said = occlusion(backward, forward, boundaries=False) | ~in_bounds(backward, 0.5)
        near = cv2.dilate(covered.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        found, real = found + int((said & covered).sum()), real + int(covered.sum())
        right += int((said & ~near).sum())
    every = np.concatenate(errors)
    assert np.mean(every < 0.75) > 0.98  # rounding to whole places alone is up to 0.71 px of a motion's change
    assert found > 0.6 * real
    assert right < 0.005 * every.size


def test_given_flow_refuses_what_does_not_match(tmp_path):
    world = World(scene("drift", width=96, height=64, frames=4))
    params = given.Params(forward=str(folder(world, tmp_path / "f", 4)))
    frames = [world.frame(t) for t in range(4)]

    with pytest.raises(ConfigError) as caught:
        given.check(given.Params(), {"count": 4})
    assert caught.value.code == "E245"
    assert "3 flow files" in refused(lambda: given.check(params, {"count": 6}), "E433")
    refused(lambda: list(given.pairs(iter(frames + frames), params)), "E433")
    refused(lambda: list(given.pairs(iter([f[:40] for f in frames]), params)), "E433")
    refused(lambda: given.check(given.Params(forward=str(tmp_path / "none")), {"count": 4}), "E400")
    flow.write_flo(tmp_path / "f" / "pair1.flo", world.flow(1, 2), np.zeros((64, 96), bool))
    assert "not one" in refused(lambda: list(given.pairs(iter(frames), params)), "E432")
