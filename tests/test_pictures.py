"""Pictures as viewers show them: upright, and in sRGB."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from retake.clip import open_clip
from retake.video import Selection, read_image

P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))  # XYZ, D50
GIVEN, SHOWN = (200, 60, 160), (217, 42, 164)  # a colour in Display P3, and the same in sRGB


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def display_p3() -> bytes:
    """The profile of sRGB with the primaries of Display P3: both have one transfer function and one white."""
    profile = bytearray(srgb())
    tags = struct.unpack(">I", profile[128:132])[0]
    for k in range(tags):
        name, at, _ = struct.unpack(">4sII", profile[132 + 12 * k : 144 + 12 * k])
        if name in (b"rXYZ", b"gXYZ", b"bXYZ"):
            primary = P3[b"rgb".index(name[:1])]
            profile[at + 8 : at + 20] = struct.pack(">3i", *(round(v * 65536) for v in primary))
    return bytes(profile)


def photo() -> np.ndarray:
    """Four corners of different colours, uint8 [24, 32, 3]."""
    image = np.zeros((24, 32, 3), np.uint8)
    image[:12, :16], image[:12, 16:] = (250, 0, 0), (0, 250, 0)
    image[12:, :16], image[12:, 16:] = (0, 0, 250), (250, 250, 0)
    return image


def stored(image: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores so that `orientation` shows `image`."""
    turned = {6: np.rot90(image), 8: np.rot90(image, -1), 3: image[::-1, ::-1], 2: image[:, ::-1], 4: image[::-1]}
    turned |= {5: image.swapaxes(0, 1), 7: image[::-1, ::-1].swapaxes(0, 1), 1: image}
    return np.ascontiguousarray(turned[orientation])


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
def test_a_picture_stands_upright_whatever_holds_it(tmp_path, suffix):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}{suffix}"
        Image.fromarray(stored(photo(), orientation)).save(path, exif=exif, lossless=True, quality=100)
        seen = read_image(path)
        assert seen.shape == photo().shape
        corners = seen[4::16, 4::24].astype(int) - photo()[4::16, 4::24]
        assert np.abs(corners).max() <= (4 if suffix == ".jpg" else 0), orientation


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
def test_colours_of_a_profile_become_srgb(tmp_path, suffix):
    flat = np.full((24, 32, 3), GIVEN, np.uint8)
    for name, profile, wanted in (("p3", display_p3(), SHOWN), ("srgb", srgb(), GIVEN), ("none", None, GIVEN)):
        path = tmp_path / f"{name}{suffix}"
        Image.fromarray(flat).save(path, icc_profile=profile, lossless=True, quality=100)
        assert np.abs(read_image(path).astype(int) - wanted).max() <= (
            3 if suffix == ".jpg" else 1 if wanted != GIVEN else 0
        )


def test_alpha_beside_a_profile_stays(tmp_path):
    flat = np.full((24, 32, 4), (*GIVEN, 99), np.uint8)
    Image.fromarray(flat).save(tmp_path / "a.png", icc_profile=display_p3())
    assert (read_image(tmp_path / "a.png")[..., 3] == 99).all()
    assert abs(int(read_image(tmp_path / "a.png")[0, 0, 0]) - SHOWN[0]) <= 1


def test_grey_of_another_gamma_becomes_srgb(tmp_path):
    """A grey profile whose values are light itself: 55 of 255 is 128 in sRGB."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + bytes(8)
    head = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ") + bytes(12)
    head += b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    table = struct.pack(">I4sII4sII", 2, b"wtpt", 156, len(white), b"kTRC", 176, len(curve))
    profile = head + table + white + curve
    profile = struct.pack(">I", len(profile)) + profile[4:]
    Image.fromarray(np.full((24, 32), 55, np.uint8)).save(tmp_path / "g.png", icc_profile=profile)
    assert np.abs(read_image(tmp_path / "g.png").astype(int) - 128).max() <= 2


def test_profiles_and_tags_that_are_none_change_nothing(tmp_path):
    flat = np.full((24, 32, 3), GIVEN, np.uint8)
    good = display_p3()
    broken = {
        "cut": good[:200],
        "noise": good[:128] + np.random.default_rng(0).bytes(400),
        "cmyk": good[:16] + b"CMYK" + good[20:],
        "huge": good[:128] + bytes(8 << 20),
        "text": b"no profile at all",
    }
    for name, profile in broken.items():
        Image.fromarray(flat).save(tmp_path / f"{name}.png", icc_profile=profile)
        assert (read_image(tmp_path / f"{name}.png") == flat).all(), name
    for name, exif in {"short": b"MM\0*", "wild": b"II*\0\xff\xff\xff\xff", "nine": tag(9)}.items():
        Image.fromarray(flat).save(tmp_path / f"{name}.png", exif=exif)
        assert read_image(tmp_path / f"{name}.png").shape == flat.shape, name


def tag(orientation: int) -> bytes:
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def test_frames_of_a_folder_are_upright_and_srgb_too(tmp_path):
    for k in range(2):
        Image.fromarray(np.full((32, 24, 3), GIVEN, np.uint8)).save(
            tmp_path / f"{k}.png", exif=tag(6), icc_profile=display_p3()
        )
    clip = open_clip(str(tmp_path))
    assert (clip.info(24.0).width, clip.info(24.0).height) == (32, 24)
    for _, frame in clip.read(Selection(), None, 24.0):
        assert np.abs(frame.astype(int) - SHOWN).max() <= 1
