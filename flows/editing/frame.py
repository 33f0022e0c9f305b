"""One frame as a PNG, with a grid in source pixels to read a box from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flows.places import edits_home, open_store
from flows.settings.compose import settings
from retake.clip import open_clip
from retake.errors import ConfigError
from retake.video import read_image, write_png

INK = (255, 235, 60)
READABLE = 900  # px of a longer side: smaller frames are enlarged


def write_frame(
    clip: str, number: int, overrides: list[str], box: str | None, out: Path | None, grid: bool = True
) -> Path:
    """Working frame `number` at the source's size, enlarged under a grid where it is small. Raises ConfigError E231
    when there is no such frame, E214 rather than write a plain frame over one that was painted, MediaError E417 for
    another clip than frames.sha256 says."""
    opened, p = open_clip(clip), settings(overrides)
    if p.frames.sha256:
        opened.expected(p.frames.sha256).digest(open_store())
    reading = {"backend": p.frames.decoder, "on_damage": p.frames.on_damage}
    stream = opened.read(p.frames.selection(), None, p.frames.folder_fps, **reading)
    rgb, seen = None, 0
    for _, frame in stream:
        seen += 1
        if seen == number + 1:
            rgb = frame
            break
    if rgb is None:
        raise ConfigError("E231", f"there is no frame {number}", f"The clip has frames 0 to {seen - 1}.")
    path = out or edits_home() / opened.name / "frames" / f"{number:05d}{'-grid' if grid else ''}.png"
    if not grid and out is None and path.exists() and not np.array_equal(read_image(path), rgb):
        raise ConfigError(
            "E214", f"{path} is there and is not this frame: was it painted?", "Write elsewhere: --out FILE.png"
        )
    write_png(path, drawn(rgb, p.masks.box if box else None) if grid else rgb)
    return path


def drawn(rgb: np.ndarray, box: tuple[float, float, float, float] | None) -> np.ndarray:
    """uint8 RGB [H,W,3], a small frame enlarged so that it can be read: a grid in pixels of the frame, each line with
    its number, and the box if there is one."""
    import cv2

    zoom = max(1, round(READABLE / max(rgb.shape[:2])))
    large = np.repeat(np.repeat(rgb, zoom, 0), zoom, 1)
    picture = large.copy()
    height, width = large.shape[:2]
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.4, min(width, height) / 1600)
    room = 1.3 * cv2.getTextSize("0000", font, scale, 1)[0][0]  # px of the picture that a label needs
    step = next((s for s in (2, 5, 10, 20, 25, 50, 100, 200, 500) if s * zoom >= room), 1000)
    columns, rows = range(0, rgb.shape[1], step), range(step, rgb.shape[0], step)
    for x in columns:
        cv2.line(picture, (x * zoom, 0), (x * zoom, height - 1), INK, 1)
    for y in rows:
        cv2.line(picture, (0, y * zoom), (width - 1, y * zoom), INK, 1)
    blended = ((large.astype(np.uint16) * 2 + picture.astype(np.uint16) * 3) // 5).astype(np.uint8)
    for x in columns:
        label(blended, str(x), (x * zoom + 2, round(30 * scale)), font, scale)
    for y in rows:
        label(blended, str(y), (2, y * zoom - 3), font, scale)
    if box is not None:
        x0, y0, x1, y1 = (round(v * zoom) for v in box)
        cv2.rectangle(blended, (x0, y0), (x1 - 1, y1 - 1), (255, 60, 40), 2)
    return blended


def label(picture: np.ndarray, text: str, at: tuple[int, int], font: int, scale: float) -> None:
    import cv2

    cv2.putText(picture, text, at, font, scale, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(picture, text, at, font, scale, INK, 1, cv2.LINE_AA)
