"""The page of an interpretation: where a clip moves as a point of it does, and which channels of the model say so."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np

from retake.formats import Tensors
from retake.report.charts import bars, lines, points
from retake.video import png

STYLE = """
:root { color-scheme: dark; }
body { margin: 24px; background: #161616; color: #e8e8e8; font: 14px/1.45 system-ui, sans-serif; max-width: 1200px; }
h1 { font-size: 20px; } h2 { font-size: 15px; margin: 24px 0 8px; } p { max-width: 78ch; }
table { border-collapse: collapse; } th, td { padding: 4px 8px 4px 0; text-align: left; font-weight: normal; }
td:first-child { min-width: 110px; }
img { display: block; width: 200px; } .charts { display: flex; flex-wrap: wrap; gap: 16px; max-width: 800px; }
figure { margin: 0; } figcaption { color: #c8c8c8; } svg { background: #1f1f1f; }
svg text { fill: #a0a0a0; font-size: 10px; }
.scroll { overflow-x: auto; } small, code { color: #a0a0a0; }
"""
KINDS = {
    "raw": "features as they are",
    "removed": "without the content that frames share",
    "channels": "of these, the channels that hold motion",
}
SHARE = 0.45  # of the map's colours over the picture
SHOWN = 4  # frames of a row
TOP = 2  # channels of an axis that are drawn as curves


@dataclass(frozen=True)
class Shown:
    """What the page says. pictures: uint8 [H, W, 3] by frame; point: (x, y) in their pixels; frames: of the maps;
    maps: tensors of the interpretation, in whose row `row` the point is, on frame `frame`; channels: tensors of
    motion_channels, by kind; moves, pans: sizes of the point's motion feature, and of the channels' clips."""

    title: str
    command: str
    site: str
    model: str
    point: tuple[float, float]
    frames: Sequence[int]
    pictures: Mapping[int, np.ndarray]
    maps: Tensors
    channels: Mapping[str, Tensors]
    share: float
    moves: float
    pans: float
    row: int = 0
    frame: int = 0
    notes: Sequence[str] = ()


def picked(frames: Sequence[int], row: int) -> list[int]:
    """Numbers of the frames that the page shows, in their list: with that of the point, evenly."""
    spread = {round(k) for k in np.linspace(0, len(frames) - 1, min(SHOWN, len(frames)))}
    nearest = min(spread, key=lambda k: abs(k - row))
    return sorted(spread - {nearest} | {row})


def page(shown: Shown) -> str:
    """The page as HTML; it loads nothing."""
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{escape(shown.title)}</title><style>{STYLE}</style>",
        f"<h1>{escape(shown.title)}</h1>",
        f"<p>What moves as the marked point does, by the features of <b>{escape(shown.model)}</b> at "
        f"<code>{escape(shown.site)}</code>. Bright: the same as the point's, dark: the opposite. Method: MOFT "
        "(Xiao et al. 2024).</p>",
    ]
    if shown.moves < 0.1 * shown.pans:
        parts.append("<p><b>The point hardly moves</b>, so what is alike is a matter of chance: choose another.</p>")
    if len(shown.frames) > SHOWN:
        parts.append(f"<p>{SHOWN} of the {len(shown.frames)} frames that the model keeps of the clip are shown.</p>")
    parts += ["<div class=scroll><table><thead><tr><th></th>"]
    for k in picked(shown.frames, shown.row):
        parts.append(f"<th>frame {shown.frame if k == shown.row else shown.frames[k]}</th>")
    parts.append("<th>all frames together</th></tr></thead><tbody>")
    for kind, said in KINDS.items():
        parts.append(f"<tr><td>{said}</td>{''.join(cells(shown, kind))}</tr>")
    parts.append("</tbody></table></div>")
    parts.append("<h2>The point over time</h2><div class=charts>")
    parts += list(trends(shown))
    parts.append(
        "</div><h2>The model</h2><p>Clips that go four ways say which channels hold motion: cells of the first "
    )
    parts.append("frames in the plane of their two principal components, and how much each channel counts.</p>")
    parts.append(f"<div class=charts>{''.join(of_model(shown))}</div>")
    ranked = shown.channels["ranked"]
    if ranked["horizontal"][0] == ranked["vertical"][0]:
        parts.append(
            f"<p><b>Channel {ranked['horizontal'][0]} says most of both axes</b>: the channels of this model tell that "
            "something moves, and badly which way.</p>"
        )
    parts += [f"<p><small>{escape(note)}</small></p>" for note in shown.notes]
    parts.append(f"<p><code>{escape(shown.command)}</code></p>")
    return "\n".join(parts) + "\n"


def cells(shown: Shown, kind: str) -> Iterator[str]:
    """A row of maps, as cells of a table."""
    each, own = shown.maps[f"{kind} each"], shown.pictures[shown.frame]
    low, high = float(each.min()), float(each.max())
    for k in picked(shown.frames, shown.row):
        picture = own if k == shown.row else shown.pictures[shown.frames[k]]
        yield image(overlaid(picture, each[k], low, high), shown.point if k == shown.row else None)
    whole = shown.maps[f"{kind} all"]
    yield image(overlaid(own, whole, float(whole.min()), float(whole.max())), shown.point)


def overlaid(picture: np.ndarray, values: np.ndarray, low: float, high: float) -> np.ndarray:
    """A map [h, w] in colours over a picture uint8 [H, W, 3]."""
    level = np.rint(255 * (values - low) / max(high - low, 1e-12)).clip(0, 255).astype(np.uint8)
    level = cv2.resize(level, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_LINEAR)
    colours = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    return np.rint((1 - SHARE) * picture + SHARE * colours).astype(np.uint8)


def image(picture: np.ndarray, point: tuple[float, float] | None) -> str:
    """A cell with a picture, and a mark on the point."""
    if point is not None:
        picture = picture.copy()
        at = round(point[0]), round(point[1])
        size = max(4, min(picture.shape[:2]) // 30)
        cv2.drawMarker(picture, at, (0, 0, 0), cv2.MARKER_CROSS, 2 * size, 3)
        cv2.drawMarker(picture, at, (255, 80, 60), cv2.MARKER_CROSS, 2 * size, 1)
    return f"<td><img src='data:image/png;base64,{base64.b64encode(png(picture)).decode()}'></td>"


def trends(shown: Shown) -> Iterator[str]:
    """The point's own channels over time, and what the same channels do in clips that go each way."""
    for axis, ways in (("horizontal", ("left", "right")), ("vertical", ("up", "down"))):
        top = shown.channels["ranked"][axis][:TOP]
        yield lines({f"channel {c}": shown.maps["trend"][:, c] for c in top}, f"{axis}: the point, by latent frame")
        model = {way: shown.channels["curve"][way].mean(0)[:, top[0]] for way in (*ways, "still")}
        yield lines(model, f"{axis}: channel {top[0]} of clips that go four ways")


def of_model(shown: Shown) -> Iterator[str]:
    ways = ("right", "left", "down", "up", "still")
    for kind, said in (("raw", "features as they are"), ("removed", "without the content that frames share")):
        yield points({way: shown.channels[kind][way].reshape(-1, 2) for way in ways}, said)
    for axis in ("horizontal", "vertical"):
        sizes = np.sort(np.abs(shown.channels["loadings"][axis]))[::-1]
        marked = max(1, round(shown.share * len(sizes)))
        yield bars(sizes.tolist(), marked, f"{axis}: loadings of {len(sizes)} channels, {marked} taken")
