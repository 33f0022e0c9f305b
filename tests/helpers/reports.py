"""Reports whose frames say which one they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from retake.report import contact_sheet as sheet
from retake.report import edit_page, layers
from retake.video import encode

FRAMES, FPS, TILE = 20, 24.0, (128, 96)
NAMES = ("source", "result", "mask", "flow", "tracks")
BACKGROUND = {"source": (200, 40, 40), "result": (40, 160, 40), "mask": (40, 40, 200)}
HOSTILE = '<img src=x onerror="window.pwned=1"></script><script>window.pwned=1</script>&amp;\'\u2028{{ 7*7 }}'


def tile(name: str, frame: int) -> np.ndarray:
    """A tile that says which frame it is: eight bars above, the layer's own colour below."""
    picture = np.empty((TILE[1], TILE[0], 3), np.uint8)
    picture[:] = BACKGROUND.get(name, (128, 128, 128))
    for bit in range(8):
        picture[:48, bit * 16 : bit * 16 + 16] = 255 if frame >> bit & 1 else 0
    return picture


def mosaics(names: tuple[str, ...] = NAMES, columns: int = 3, frames: int = FRAMES) -> Iterator[np.ndarray]:
    for frame in range(frames):
        yield layers.mosaic([tile(name, frame) for name in names], TILE, columns)


def made(folder, data, frames, *, contact_sheet: bool = True, **options):
    """A report of frames: the layers video and the contact sheet first, then the page."""
    folder.mkdir(parents=True, exist_ok=True)
    edit_page.check(data)
    encode(folder / "layers.mp4", frames, data.fps, crf=20, keyint=8)
    if contact_sheet:
        (folder / "contact_sheet.png").write_bytes(sheet.png(sheet.contact_sheet([[tile("source", 0)]], 1, ["source"])))
    return edit_page.build(folder, data, folder / "layers.mp4", contact_sheet=contact_sheet, **options)


def report(**changes: object) -> edit_page.ReportData:
    data = edit_page.ReportData(
        title="propagate",
        clip="dog",
        fps=FPS,
        frames=FRAMES,
        frame_size=(1280, 960),
        tile_size=TILE,
        columns=3,
        layers=NAMES,
        timestamps=tuple(n / FPS for n in range(FRAMES)),
        curves={"warp_error": [None, *(0.01 * n for n in range(FRAMES - 2)), float("nan")]},
        metrics=(
            edit_page.Metric("warp_error", 0.09, "mean over frames", False),
            edit_page.Metric("psnr", 31.5, "", True, "dB"),
        ),
        stages=(
            edit_page.StageRow("frames", "cached", 2.5, 4_200_000, "ab" * 32),
            edit_page.StageRow("edit", "ran", 75.0),
        ),
        recipe={"edit": {"name": "propagate", "band": 8, "seed": None}},
        versions={"retake": "0.1.0"},
        health=(edit_page.Health("The mask", "look", "is worth a look in frames", "it jumps", ((4, 7), (15, 15))),),
        notices=("The model is the embedded stand-in.",),
        links=(edit_page.Link("result", "result.mp4"),),
        flow_max_px=12.5,
    )
    return replace(data, **changes)


def near(found: list[int], wanted: tuple[int, int, int]) -> bool:
    """Colours that a video may make of each other."""
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 24
