"""The page that ends a training of MoAlign's or IVEDiff's: its curves, and pictures of what was learnt."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from retake.machine.disk import write_atomic
from retake.report import charts
from retake.report.interpretation_page import STYLE

POINTS = 200  # of a curve, at most
SAID = {
    "video_mae": "The video encoder fills in what is hidden of clips: a frame, what it sees of it, and the rest filled "
    "in; and tells what a sprite's caption says.",
    "motion_subspace": "Flow told from a few channels of the encoder's features: a frame as the autoencoder shows it, "
    "its flow, and the flow that is told. Hue is direction, saturation is length; white is at rest.",
    "aligned": "Clips that the aligned transformer draws, every second frame; their captions are below.",
    "aligned_lora": "Clips that the transformer draws with its LoRA, every second frame; their captions are below.",
    "ivediff_image": "Clips of which an object is hidden, and made anew frame by frame from the picture on the "
    "left; the last in a rectangle, without depth.",
    "ivediff": "Clips of which an object is hidden, and made anew from the picture on the left; the last in a "
    "rectangle, without depth.",
}
FIGURES = {
    "pixels": "squared error of hidden pixels, 0..1",
    "words": "cross-entropy of words, nats",
    "epe": "end-point error, shares of 19.2 to a frame's width",
    "still": "that of no flow",
    "denoising": "squared error of v",
    "alignment": "alignment, before its weight",
    "plain": "squared error of v",
    "hidden": "squared error of v, of what is hidden",
    "shown": "squared error of v, of what is shown",
}


def write(shop: Any, part: str, files: Sequence[tuple[Path, list[str]]] = ()) -> Path:
    """report.html in the part's folder; it loads nothing."""
    folder = shop.folder / part
    rows = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    page = folder / "report.html"
    about = f"{rows[-1]['step']} steps, {rows[-1]['minutes']:.0f} minutes" if rows else "no step"
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{escape(part)}</title><style>{STYLE}"
        "img { width: auto; max-width: 100%; image-rendering: pixelated; }</style>",
        f"<h1>{escape(part)} · {about}</h1><p>{escape(SAID[part])}</p>",
        *pictures(shop, part, files),
        f"<h2>Curves{along(rows)}</h2><div class=charts>{''.join(curves(rows))}</div>",
    ]
    write_atomic(page, "\n".join(parts) + "\n")
    return page


def along(rows: Sequence[Mapping[str, float]]) -> str:
    """What a point of the curves stands for."""
    return f", a point for {round(rows[-1]['step'] / min(POINTS, len(rows)))} steps" if rows else ""


def curves(rows: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """A chart of each figure, over points of equally many steps; of `epe` beside `still`."""
    if not rows:
        return
    rows = [row for row in rows if row.keys() >= rows[-1].keys()]  # others had no finite step
    groups = np.array_split(np.arange(len(rows)), min(POINTS, len(rows)))
    named = [name for name in rows[-1] if name not in ("step", "minutes", "norm", "still")]
    for name in named:
        shown = [name, "still"] if name == "epe" else [name]
        of = {one: np.array([np.mean([rows[n][one] for n in group]) for group in groups]) for one in shown}
        yield charts.lines(of, FIGURES.get(name, name))


def pictures(shop: Any, part: str, files: Sequence[tuple[Path, list[str]]]) -> Iterator[str]:
    """The sheet of a part, as HTML."""
    from retake.training import scores, sheets

    if part == "video_mae":
        yield image(sheets.filled(shop), 3)
    elif part == "motion_subspace":
        yield image(flow_sheet(sheets.flows(shop, files)), 3)
    elif part in ("ivediff_image", "ivediff"):
        yield image(sheets.edited(shop, part), 1)
    else:
        yield image(sheets.samples(shop, part), 2)
        yield f"<p>{'<br>'.join(escape(str(subject)) for subject in scores.asked(8, 7))}</p>"


def flow_sheet(found: Any) -> np.ndarray:
    """A row a clip: frame, flow, told flow; colours at one scale for all."""
    from retake.report.layers import flow_image, flow_peak

    longest = max(flow_peak(found.true), 1e-6)
    by = found.frames.shape[1] // found.true.shape[1]

    def large(flow: np.ndarray) -> np.ndarray:
        return flow_image(flow, longest).repeat(by, 0).repeat(by, 1)

    rows = [np.concatenate([f, large(a), large(b)], 1) for f, a, b in zip(*found, strict=True)]
    return np.concatenate(rows, 0)


def image(picture: np.ndarray, times: int) -> str:
    from retake.video import png

    width = times * picture.shape[1]
    return f"<img width={width} src='data:image/png;base64,{base64.b64encode(png(picture)).decode()}'>"
