"""A contact sheet: a few frames of a clip side by side, one row for each view (source, result, mask ...)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np

_PAPER, _INK, _FAINT = (22, 22, 22), (232, 232, 232), (150, 150, 150)
_GAP, _MARGIN, _HEAD, _CAPTION = 4, 12, 30, 20


class Sheet:
    """Collects a contact sheet while frames stream by; only thumbnails are kept in memory.

    rows: the views' names, from top to bottom. frames: how many frames the clip has. columns: how many of
    them to show, evenly spaced, first and last among them. thumb: longest side of a thumbnail in pixels.
    """

    def __init__(self, rows: Sequence[str], frames: int, columns: int = 6, thumb: int = 240, title: str = "") -> None:
        self.rows, self.title, self.thumb = tuple(rows), title, thumb
        self.picks = sample_indices(frames, columns)
        self._columns: dict[int, tuple[str, list[np.ndarray]]] = {}

    def add(
        self, index: int, views: Sequence[np.ndarray], seconds: float | None = None, caption: str | None = None
    ) -> None:
        """Adds the views of frame `index`, uint8 [H, W, 3] each, in the order of `rows`, if it is among the picks;
        below them the caption, else frame number and time."""
        if index in self.picks:
            label = f"frame {index}" + ("" if seconds is None else f"   {seconds:.2f} s")
            self._columns[index] = (
                label if caption is None else caption,
                [thumbnail(view, self.thumb) for view in views],
            )

    def image(self) -> np.ndarray:
        """The sheet as uint8 RGB [H, W, 3]. Raises ValueError when no frame was added."""
        if not self._columns:
            raise ValueError("a contact sheet of no frames")
        columns = [self._columns[index] for index in sorted(self._columns)]
        height, width = columns[0][1][0].shape[:2]
        label = max([_text_width(name, 13) for name in self.rows], default=0) + 12
        left, top = _MARGIN + label, _MARGIN + (_HEAD if self.title else 0)
        paper = np.empty(
            (
                top + len(self.rows) * (height + _GAP) + _CAPTION + _MARGIN - _GAP,
                left + len(columns) * (width + _GAP) - _GAP + _MARGIN,
                3,
            ),
            np.uint8,
        )
        paper[:] = _PAPER
        if self.title:
            _write(paper, self.title, _MARGIN, _MARGIN + 15, 15, _INK)
        for row, name in enumerate(self.rows):
            _write(paper, name, _MARGIN, top + row * (height + _GAP) + height // 2 + 4, 13, _INK)
        for column, (caption, views) in enumerate(columns):
            x = left + column * (width + _GAP)
            for row, view in enumerate(views):
                y = top + row * (height + _GAP)
                paper[y : y + height, x : x + width] = view
            y = top + len(views) * (height + _GAP) + 12
            _write(paper, caption, x, y, 11, _FAINT, width)
        return paper


def sample_indices(frames: int, columns: int) -> list[int]:
    """At most `columns` frame indices of 0..frames-1, evenly spaced, the first and the last among them."""
    count = min(frames, columns)
    return [round(i * (frames - 1) / max(1, count - 1)) for i in range(count)]


def contact_sheet(
    frames: Iterable[Sequence[np.ndarray]],
    count: int,
    rows: Sequence[str],
    columns: int = 6,
    thumb: int = 240,
    title: str = "",
    seconds: Callable[[int], float] | None = None,
) -> np.ndarray:
    """A contact sheet of a stream: each item holds one frame's views in the order of `rows`.

    count: frames in the stream. seconds: time of a frame, for its caption. Returns uint8 RGB [H, W, 3].
    """
    sheet = Sheet(rows, count, columns, thumb, title)
    for index, views in enumerate(frames):
        sheet.add(index, views, seconds(index) if seconds else None)
    return sheet.image()


def png(image: np.ndarray) -> bytes:
    """PNG bytes of a uint8 image, RGB [H, W, 3] or RGBA [H, W, 4]."""
    order = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    done, packed = cv2.imencode(".png", cv2.cvtColor(image, order), [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise ValueError(f"cannot write an image of shape {image.shape} as PNG")
    return packed.tobytes()


def thumbnail(rgb: np.ndarray, longest: int) -> np.ndarray:
    """A picture, uint8 [H, W, 3], resized so that its longer side is `longest` pixels."""
    scale = longest / max(rgb.shape[:2])
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() and not 0xD800 <= ord(c) < 0xE000 else " " for c in text)


def _text_width(text: str, size: int) -> int:
    box = cv2.getTextSize((1, 1), _printable(text), (0, 0), cv2.FontFace("sans"), size, 400)
    return int(box[2])


def _write(
    paper: np.ndarray, text: str, x: int, y: int, size: int, colour: tuple[int, int, int], width: int = 0
) -> None:
    """Text with its baseline at (x, y), cut to `width` pixels or to the paper."""
    room = min(width or paper.shape[1], paper.shape[1] - x)
    text = _printable(text[:300])
    if _text_width(text, size) > room:
        while text and _text_width(text + "…", size) > room:
            text = text[:-1]
        text += "…"
    cv2.putText(paper, text, (x, y), colour, cv2.FontFace("sans"), size, 400)


def letterboxed(rgb: np.ndarray, side: int) -> np.ndarray:
    """A picture, uint8 [H, W, 3], fitted into a dark square of `side` pixels."""
    small = thumbnail(rgb, side)
    square = np.full((side, side, 3), _PAPER, np.uint8)
    top, left = (side - small.shape[0]) // 2, (side - small.shape[1]) // 2
    square[top : top + small.shape[0], left : left + small.shape[1]] = small
    return square
