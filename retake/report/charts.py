"""Small charts as SVG, for pages that load nothing: points, lines and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT, EDGE = 360, 220, 28
COLOURS = ("#e8795a", "#5aa5e8", "#7fd08a", "#d9b44a", "#b48ae0", "#a0a0a0")


def points(groups: Mapping[str, np.ndarray], title: str) -> str:
    """Groups of points [N, 2], a colour a group."""
    low, high = bounds(np.concatenate(list(groups.values())))
    marks = []
    for colour, xy in zip(COLOURS, groups.values(), strict=False):
        at = placed(xy, low, high)
        marks += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2' fill='{colour}' fill-opacity='.6'/>" for x, y in at]
    return drawn(title, list(groups), "".join(marks), low, high)


def lines(curves: Mapping[str, np.ndarray], title: str) -> str:
    """Curves over 0, 1, 2, ..., a colour each."""
    table = {name: np.stack([np.arange(len(ys)), np.asarray(ys, float)], 1) for name, ys in curves.items()}
    low, high = bounds(np.concatenate(list(table.values())))
    marks = []
    for colour, xy in zip(COLOURS, table.values(), strict=False):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed(xy, low, high))
        marks.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.6'/>")
    return drawn(title, list(curves), "".join(marks), low, high)


def bars(values: Sequence[float], marked: int, title: str) -> str:
    """Bars from 0 on, the first `marked` of them in another colour."""
    top = max(*values, 1e-12)
    step = (WIDTH - 2 * EDGE) / len(values)
    marks = []
    for n, value in enumerate(values):
        tall = (HEIGHT - 2 * EDGE) * value / top
        where = f"x='{EDGE + n * step:.2f}' y='{HEIGHT - EDGE - tall:.2f}'"
        marks.append(f"<rect {where} width='{max(step, 0.5):.2f}' height='{tall:.2f}' fill='{COLOURS[n >= marked]}'/>")
    return drawn(title, [], "".join(marks), np.zeros(2), np.array([len(values), top]))


def drawn(title: str, names: Sequence[str], marks: str, low: np.ndarray, high: np.ndarray) -> str:
    """The marks within axes, with the names of their colours."""
    right, bottom = WIDTH - EDGE, HEIGHT - EDGE
    axes = f"<path d='M{EDGE},{EDGE}V{bottom}H{right}' fill='none' stroke='#666'/>"
    ends = [
        f"<text x='{EDGE}' y='{EDGE - 4}'>{high[1]:.3g}</text>",
        f"<text x='{EDGE}' y='{HEIGHT - 12}'>{low[0]:.3g}</text>",
        f"<text x='{right}' y='{HEIGHT - 12}' text-anchor='end'>{high[0]:.3g}</text>",
        f"<text x='2' y='{bottom}'>{low[1]:.3g}</text>",
    ]
    legend = "".join(
        f"<tspan fill='{colour}' dx='8'>{escape(name)}</tspan>" for colour, name in zip(COLOURS, names, strict=False)
    )
    key = f"<text x='{right}' y='{EDGE - 4}' text-anchor='end'>{legend}</text>"
    size = f"viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'"
    return (
        f"<figure><figcaption>{escape(title)}</figcaption><svg {size} role='img' aria-label='{escape(title)}'>"
        f"{axes}{marks}{''.join(ends)}{key}</svg></figure>"
    )


def bounds(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest x and y of points [N, 2]."""
    return xy.min(0), xy.max(0)


def placed(xy: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Pixels [N, 2] of points [N, 2]; y grows upwards in a chart, and downwards in pixels."""
    share = (xy - low) / np.maximum(high - low, 1e-12)
    return np.stack([EDGE + share[:, 0] * (WIDTH - 2 * EDGE), HEIGHT - EDGE - share[:, 1] * (HEIGHT - 2 * EDGE)], 1)
