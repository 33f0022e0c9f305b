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


def write_frame(
    clip: str, number: int, overrides: list[str], box: str | None, out: Path | None, grid: bool = True
) -> Path:
    """Working frame `number` at the source's size. Raises ConfigError E231 when there is no such frame, E214 rather
    than write a plain frame over one that was painted, MediaError E417 for another clip than frames.sha256 says."""
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
    """uint8 RGB [H,W,3] with up to twenty lines across, labelled where there is room, and the box if there is one."""
    import cv2

    picture = rgb.copy()
    height, width = rgb.shape[:2]
    step = next((s for s in (10, 25, 50, 100, 200, 500) if max(width, height) / s <= 20), 1000)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.3, min(width, height) / 1400)
    every = step * -(-round(160 * scale) // step)  # px between labels, so that they do not run into each other
    for x in range(0, width, step):
        cv2.line(picture, (x, 0), (x, height - 1), INK, 1)
        if x % every == 0:
            label(picture, str(x), (x + 2, int(14 * scale / 0.4)), font, scale)
    for y in range(step, height, step):
        cv2.line(picture, (0, y), (width - 1, y), INK, 1)
        label(picture, str(y), (2, y - 3), font, scale)
    blended = ((rgb.astype(np.uint16) * 2 + picture.astype(np.uint16) * 3) // 5).astype(np.uint8)
    if box is not None:
        corners = [round(v) for v in box]
        cv2.rectangle(blended, (corners[0], corners[1]), (corners[2] - 1, corners[3] - 1), (255, 60, 40), 2)
    return blended


def label(picture: np.ndarray, text: str, at: tuple[int, int], font: int, scale: float) -> None:
    import cv2

    cv2.putText(picture, text, at, font, scale, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(picture, text, at, font, scale, INK, 1, cv2.LINE_AA)
