"""References and frames: bombs, lies and other formats under the names of pictures."""

from __future__ import annotations

import functools
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .case import HARMLESS, Case, file_case

FAMILY = "pictures"
REFUSED = ("E420", "E421", "E414")
PNG = b"\x89PNG\r\n\x1a\n"
GIANT = (0x7FFFFFFF, 0xFFFFFFFF, 65536, 100_000, 16385, 8193)


def chunk(kind: bytes, body: bytes, length: int | None = None, crc: int | None = None) -> bytes:
    sound = zlib.crc32(kind + body) if crc is None else crc
    return (
        struct.pack(">I", len(body) if length is None else length) + kind + body + struct.pack(">I", sound & 0xFFFFFFFF)
    )


def header(width: int, height: int, depth: int = 8, colour: int = 2, rest: bytes = b"\0\0\0") -> bytes:
    return chunk(b"IHDR", struct.pack(">II", width, height) + bytes([depth, colour]) + rest)


def png(*chunks: bytes, size: tuple[int, int] = (4, 4), body: bytes | None = None) -> bytes:
    pixels = body if body is not None else zlib.compress(b"\0" * (size[1] * (1 + 3 * size[0])))
    return PNG + header(*size) + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@functools.cache
def zeros(megabytes: int) -> bytes:
    """A stream of zlib that gives so many MiB."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def read(path: Path) -> Any:
    from retake.video import read_image

    image = read_image(path)
    assert image.ndim == 3
    assert image.size < 1 << 27
    return image


def one(name: str, content: bytes, *expected: str, suffix: str = ".png") -> Case:
    def write(folder: Path) -> Path:
        path = folder / f"picture{suffix}"
        path.write_bytes(content)
        return path

    return file_case(FAMILY, name, write, read, *(expected or REFUSED))


def cases() -> Iterator[Case]:
    yield from of_png()
    yield from of_jpeg()
    yield from of_tiff()
    yield from others()


def of_png() -> Iterator[Case]:
    for side in GIANT:
        for size in ((side, side), (side, 1 << 14)):
            yield one(
                f"PNG of {size[0]}x{size[1]}", PNG + header(*size) + chunk(b"IDAT", zeros(1)) + chunk(b"IEND", b"")
            )
    for size in ((0, 4), (4, 0), (0, 0)):
        yield one(f"PNG of {size[0]}x{size[1]}", PNG + header(*size) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    yield one("PNG whose pixels go on for 256 MiB", png(body=zeros(256)), HARMLESS, *REFUSED)
    for kind, start in {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"p\0\0"}.items():
        yield one(f"PNG with 256 MiB in {kind.decode()}", png(chunk(kind, start + zeros(256))), HARMLESS, *REFUSED)
        yield one(f"PNG with forty of {kind.decode()}", png(*[chunk(kind, start + zeros(8))] * 40), HARMLESS, *REFUSED)
    for depth in (0, 3, 32, 255):
        yield one(f"PNG of {depth} bits", PNG + header(4, 4, depth) + chunk(b"IDAT", zeros(1)))
    for colour in (1, 5, 7, 255):
        yield one(f"PNG of colour type {colour}", PNG + header(4, 4, 8, colour) + chunk(b"IDAT", zeros(1)))
    for rest in (b"\1\0\0", b"\0\1\0", b"\0\0\2"):
        yield one(f"PNG packed by {rest!r}", PNG + header(4, 4, rest=rest) + chunk(b"IDAT", zeros(1)))
    palette = PNG + header(4, 4, 8, 3)
    yield one(
        "PNG without its palette",
        palette + chunk(b"IDAT", zlib.compress(b"\0\xff\xff\xff\xff" * 4)) + chunk(b"IEND", b""),
    )
    yield one(
        "PNG with a palette of 2 bytes", palette + chunk(b"PLTE", b"ab") + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    yield one("PNG whose chunk is longer than it", PNG + header(4, 4) + chunk(b"IDAT", b"x", length=0x7FFFFFFF))
    yield one("PNG whose text is longer than it", PNG + header(4, 4) + chunk(b"tEXt", b"x", length=0xFFFFFFFF))
    yield one(
        "PNG with a wrong sum",
        PNG + chunk(b"IHDR", struct.pack(">IIBB", 4, 4, 8, 2) + b"\0\0\0", crc=0) + chunk(b"IEND", b""),
    )
    yield one("PNG without an end", png()[:-12], HARMLESS, *REFUSED)
    yield one("PNG without pixels", PNG + header(4, 4) + chunk(b"IEND", b""), HARMLESS, *REFUSED)
    yield one(
        "PNG with two heads",
        PNG + header(4, 4) + header(1 << 20, 1 << 20) + chunk(b"IDAT", zeros(1)),
        HARMLESS,
        *REFUSED,
    )
    yield one("PNG with no head", PNG + chunk(b"IDAT", zeros(1)))
    yield one("PNG that is a head alone", PNG)
    yield one("PNG with ten thousand chunks", png(*[chunk(b"tEXt", b"k\0v")] * 10_000), HARMLESS, *REFUSED)
    frames = [chunk(b"fcTL", struct.pack(">IIIIIHHBB", i, 1 << 20, 1 << 20, 0, 0, 1, 1, 0, 0)) for i in range(50)]
    for count in (1, 50, 0xFFFFFFFF):
        yield one(
            f"APNG of {count} giant frames",
            png(chunk(b"acTL", struct.pack(">II", count, 0)), *frames),
            HARMLESS,
            *REFUSED,
        )
    whole = png(size=(64, 64), body=zlib.compress(bytes(64 * 193)))
    yield from (
        one(f"PNG cut at {at}", whole[:at], HARMLESS, *REFUSED, "E401")
        for at in (0, 1, 4, 8, 12, 20, 24, 29, 33, 41, 50)
    )
    rng = random.Random(7)
    for n in range(20):
        spoilt = bytearray(whole)
        for _ in range(4):
            spoilt[rng.randrange(8, len(spoilt))] ^= 1 << rng.randrange(8)
        yield one(f"PNG spoilt {n}", bytes(spoilt), HARMLESS, *REFUSED)


def segment(marker: int, body: bytes, length: int | None = None) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2 if length is None else length) + body


def frame(width: int, height: int, kind: int = 0xC0, parts: int = 3) -> bytes:
    return segment(
        kind, struct.pack(">BHHB", 8, height, width, parts) + b"".join(bytes([i + 1, 0x11, 0]) for i in range(parts))
    )


def of_jpeg() -> Iterator[Case]:
    start = b"\xff\xd8"
    for kind in (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA):
        yield one(f"JPEG of 65535x65535 by {kind:x}", start + frame(65535, 65535, kind) + b"\xff\xd9", suffix=".jpg")
    yield one(
        "JPEG with two sizes",
        start + frame(4, 4) + frame(65535, 65535) + segment(0xDA, b"\0") + b"\xff\xd9",
        suffix=".jpg",
    )
    for size in ((0, 4), (4, 0), (0, 0)):
        yield one(f"JPEG of {size}", start + frame(*size) + segment(0xDA, b"\0") + b"\xff\xd9", suffix=".jpg")
    yield one("JPEG of no size", start + b"\xff\xd9", suffix=".jpg")
    yield one("JPEG of fill bytes", start + b"\xff" * 2_000_000, suffix=".jpg")
    yield one("JPEG of empty segments", start + segment(0xE0, b"") * 200_000, suffix=".jpg")
    yield one("JPEG whose segments have no length", start + segment(0xE0, b"", 0) * 1000, suffix=".jpg")
    yield one("JPEG of 255 parts", start + frame(4, 4, parts=255) + segment(0xDA, b"\0"), suffix=".jpg")
    yield one(
        "JPEG with an EXIF that is none",
        start + segment(0xE1, b"Exif\0\0II*\0" + b"\xff" * 60_000) + frame(4, 4),
        suffix=".jpg",
    )
    yield one(
        "JPEG with 200 profiles",
        start + segment(0xE2, b"ICC_PROFILE\0\1\xff" + b"x" * 65_000) * 200 + frame(4, 4),
        suffix=".jpg",
    )
    yield one(
        "JPEG whose picture is a script",
        start + segment(0xFE, b"<script>alert(1)</script>") + b"<?php system(1);",
        suffix=".jpg",
    )


def directory(entries: list[tuple[int, int, int, int]], order: str = "<", at: int = 8, extra: bytes = b"") -> bytes:
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at) + extra
    return (
        head
        + struct.pack(order + "H", len(entries))
        + b"".join(struct.pack(order + "HHII", *e) for e in entries)
        + bytes(4)
    )


def of_tiff() -> Iterator[Case]:
    for order in "<>":
        for width, height in ((1 << 31, 1), (65536, 65536), (0, 4), (100_000, 100_000)):
            entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (273, 4, 1, 8), (279, 4, 1, 1 << 30)]
            yield one(f"TIFF of {width}x{height} {order}", directory(entries, order), suffix=".tif")
        small = [(256, 4, 1, 4), (257, 4, 1, 4)]
        for tag, kind, count, value in (
            (273, 4, 1 << 30, 8),
            (279, 4, 0xFFFFFFFF, 8),
            (258, 3, 1 << 29, 8),
            (259, 3, 1, 65535),
            (277, 3, 1, 65535),
            (278, 4, 1, 0),
            (322, 4, 1, 1 << 30),
            (34675, 7, 0xFFFFFFF0, 8),
            (330, 4, 1000, 8),
            (65535, 255, 1, 1),
        ):
            yield one(
                f"TIFF with tag {tag} {order}", directory([*small, (tag, kind, count, value)], order), suffix=".tif"
            )
        yield one(f"TIFF of 65535 tags {order}", directory([(256, 4, 1, 4)] * 65535, order), suffix=".tif")
        yield one(f"TIFF whose directory lies outside {order}", directory(small, order, at=0xFFFFFFF0), suffix=".tif")
    yield one(
        "TIFF whose directory is itself",
        directory([(256, 4, 1, 4), (257, 4, 1, 4)])[:-4] + struct.pack("<I", 8),
        suffix=".tif",
    )
    yield one("BigTIFF", b"II+\0\x08\0\0\0" + bytes(64), suffix=".tif")


def others() -> Iterator[Case]:
    gif = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + bytes(6)
    page = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/><script>1</script></svg>'
    for name, content in {
        "GIF of many frames": gif + (b"\x2c" + bytes(8) + b"\0\x02\x02L\x01\0") * 10_000 + b";",
        "SVG": page,
        "SVG with an entity bomb": b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>' + page,
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file run\n",
        "PostScript": b"%!PS\n%pipe%touch sentinel",
        "PDF": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/Launch/F(calc)>>>>",
        "MVG": b"push graphic-context\nfill 'url(https://example.org/x.png\"|touch \"sentinel)'\n",
        "HTML": b"<html><script>1</script></html>",
        "a pickle": b"\x80\x04cos\nsystem\n(S'touch sentinel'\ntR.",
        "a zip": b"PK\x03\x04" + bytes(100),
        "a playlist": b"#EXTM3U\nfile:///etc/passwd\n",
        "EXR": struct.pack("<II", 20000630, 2) + bytes(100),
        "HDR": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 99999 +X 99999\n",
        "PNM": b"P6 99999 99999 255\n",
        "PFM": b"PF\n99999 99999\n-1.0\n",
        "PSD": b"8BPS\0\1" + bytes(100),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        "AVIF": b"\0\0\0\x20ftypavif" + bytes(100),
        "ICO": b"\0\0\1\0\1\0" + bytes(100),
        "DDS": b"DDS " + bytes(124),
        "random": random.Random(1).randbytes(5000),
        "zeros": bytes(5000),
    }.items():
        yield from (one(f"{name} as {suffix}", content, suffix=suffix) for suffix in (".png", ".jpg"))
    for width, height in ((1 << 30, 1 << 30), (-(1 << 31), 1), (0, 0), (40_000, -40_000), (4, 4)):
        head = (
            b"BM"
            + struct.pack("<IHHI", 54, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        )
        yield one(f"BMP of {width}x{height}", head, suffix=".bmp")
    for bits, packing in ((8, 1), (4, 2), (65535, 0), (0, 3), (32, 99)):
        head = (
            b"BM"
            + struct.pack("<IHHI", 54, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, bits, packing, 0, 0, 0, 1 << 31, 0)
        )
        yield one(f"BMP of {bits} bits, packed by {packing}", head + b"\0\4" * 40, HARMLESS, *REFUSED, suffix=".bmp")
    for kind in (b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ALPH"):
        for body in (b"\xff" * 64, bytes(64), b"\x2f\xff\xff\xff\xff" + bytes(60)):
            data = kind + struct.pack("<I", len(body)) + body
            riff = b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data
            yield one(f"WebP {kind.decode()} of {body[:5].hex()}", riff, suffix=".webp")
    yield one("WebP whose length lies", b"RIFF\xff\xff\xff\xffWEBPVP8X\xff\xff\xff\xff" + bytes(20), suffix=".webp")
