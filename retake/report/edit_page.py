"""The report of one edit: an HTML page that works offline, from a folder, in any current browser.

All views come out of ONE proxy video whose frames are mosaics of tiles (source | result / mask | flow ...).
The page draws tiles from it onto a canvas, so what is compared is always the same frame, and stepping is a
seek to the middle of a frame. A small proxy is embedded, a larger one lies beside the page.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from retake.errors import ConfigError
from retake.machine.disk import write_atomic
from retake.report import csp_hash
from retake.report.metric_rows import Metric, groups
from retake.report.notes import weighed

__all__ = ["Health", "Link", "Metric", "ReportData", "StageRow", "build", "check", "render"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class StageRow:
    """One stage. `seconds` and `bytes` are those of the run that made the artifact, also where it was cached."""

    stage: str
    status: str  # ran, cached, skipped, failed
    seconds: float | None = None
    bytes: int | None = None
    key: str = ""


@dataclass(frozen=True)
class Link:
    """A file beside the page: its name for people, and its path relative to the page's folder."""

    name: str
    href: str


@dataclass(frozen=True)
class Health:
    """What is thought of an object's masks (retake/health). name: of the mask, for people. verdict: good, look or
    wrong. text, why: said before and after the runs of frames `spans`, (first, last) each, which are marked on the
    play bar."""

    name: str
    verdict: str
    text: str
    why: str = ""
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows. Equal data and equal frames give equal bytes.

    fps: nominal rate, the speed of play; timestamps: seconds from the first frame, one per frame, or empty
        for n / fps. frames: how many. frame_size: (width, height) of the clip.
    tile_size, columns, layers: the mosaic's geometry and the names of its tiles in order. The page puts
        "source" left and the layer `show` right of the wipe when they exist.
    curves: per-frame values by metric name, None where undefined; index t is drawn at frame t.
    flow_max_px: the flow vector, in pixels, that has the full colour; None where no flow is shown. wheel: the
        legend of its colours, a PNG. depth_bar: the legend of the depth layer's colours, a PNG.
    health: on the masks, on top of everything. recipe: nested settings, of which those that
        are `changed` (dotted names) stand on top and the others in a fold; all stand open where that is None.
    versions: name to version.
    notices: notes on the result; those that ask for something on top, technical ones in a fold
        (retake/report/notes.py).
    command: what to type to get this edit again. made: a date as text, when one is wanted. gallery: path of the page
        that this one is a part of, relative to it. elsewhere: files of the same run outside of the page's folder.
    """

    title: str
    clip: str
    fps: float
    frames: int
    frame_size: tuple[int, int]
    tile_size: tuple[int, int]
    columns: int
    layers: tuple[str, ...]
    show: str = "result"
    timestamps: tuple[float, ...] = ()
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    stages: tuple[StageRow, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    changed: frozenset[str] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    health: tuple[Health, ...] = ()
    links: tuple[Link, ...] = ()
    flow_max_px: float | None = None
    wheel: bytes | None = None
    depth_bar: bytes | None = None
    command: str = ""
    gallery: str = ""
    elsewhere: tuple[Link, ...] = ()
    made: str = ""


def build(
    folder: Path, data: ReportData, proxy: Path, *, contact_sheet: bool = True, embed_limit: int = 6_000_000
) -> Path:
    """Writes folder/report.html and returns its path. Importing and calling this loads neither torch nor a codec.

    proxy: the layers video, in `folder`: an MP4 of `layers.mosaic` frames, short GOP. Up to `embed_limit` bytes it
        goes into the page, and the file is removed; a larger one stays beside the page.
    contact_sheet: whether contact_sheet.png lies in the folder.
    Raises ConfigError E270 for data that no page can show, E271 for a link that leaves the folder.
    """
    check(data)
    page, source = folder / "report.html", proxy.name
    embedded = proxy.stat().st_size <= embed_limit
    if embedded:
        source = "data:video/mp4;base64," + base64.b64encode(proxy.read_bytes()).decode("ascii")
    write_atomic(page, render(data, source, contact_sheet).encode("utf-8", "replace"))
    if embedded:
        proxy.unlink()
    return page


def check(data: ReportData) -> None:
    """Raises ConfigError E270 for numbers that no page can show, E271 for a link out of the folder."""
    width, height = data.tile_size
    faults = {
        "fps must be finite and above 0": not (math.isfinite(data.fps) and data.fps > 0),
        "frames must be at least 1": data.frames < 1,
        "layers must name at least one tile": not data.layers,
        "layers must have different names": len(set(data.layers)) < len(data.layers),
        "columns must be at least 1": data.columns < 1,
        "tile_size must be even and positive": min(width, height) < 2 or width % 2 > 0 or height % 2 > 0,
        "timestamps must be one per frame, or none": len(data.timestamps) not in (0, data.frames),
        "curves must not be longer than the clip": any(len(c) > data.frames for c in data.curves.values()),
    }
    for fault, present in faults.items():
        if present:
            raise ConfigError("E270", f"report of {data.clip!r}: {fault}", "Fix the ReportData that was given.")
    for link in data.links:
        parts = link.href.split("/")
        if not link.href or "" in parts or ".." in parts or "\\" in link.href or ":" in parts[0]:
            raise ConfigError(
                "E271",
                f"report of {data.clip!r}: the link {link.href!r} leaves the report's folder",
                "Give a path relative to the folder, without '..'.",
            )


def render(data: ReportData, source: str, contact_sheet: bool = False) -> str:
    """The page as text. source: URL of the proxy video, a data: URI or the name of a file beside the page."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    style = (_HERE / "page.css").read_text("utf-8")
    script = (_HERE / "page.js").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(size=_size, seconds=_seconds, number=_number, signed=_signed, href=_href, breaks=_wrap)
    return environment.from_string((_HERE / "page.html").read_text("utf-8")).render(
        data=data,
        source=source,
        policy=_policy(style, script, embedded=source.startswith("data:")),
        style=Markup(style),  # noqa: S704  our own files, hashed in the policy
        script=Markup(script),  # noqa: S704
        payload=Markup(_payload(data)),  # noqa: S704  escaped there
        recipe=dict(_by_change(data)),
        notes=weighed(data.notices),
        groups=groups(data.metrics, data.curves),
        totals=_totals(data),
        wheel=_picture(data.wheel),
        depth_bar=_picture(data.depth_bar),
        contact_sheet=contact_sheet,
    )


def _policy(style: str, script: str, embedded: bool) -> str:
    """The content security policy: our one script, our one style, our one video, and nothing else."""
    media = "data:" if embedded else "'self' file:"  # some browsers do not count file: as 'self'
    return (
        f"default-src 'none'; script-src {csp_hash(script)}; style-src {csp_hash(style)}; img-src data:; "
        f"media-src {media}; base-uri 'none'; form-action 'none'"
    )


def _payload(data: ReportData) -> str:
    """The JSON that the script reads, safe inside a script element."""
    values = {
        "fps": data.fps,
        "frames": data.frames,
        "frameSize": data.frame_size,
        "tile": data.tile_size,
        "columns": data.columns,
        "layers": data.layers,
        "show": data.show,
        "times": [round(t, 6) for t in data.timestamps],
        "health": [{"verdict": one.verdict, "spans": one.spans} for one in data.health],
        "curves": {name: [_finite(v) for v in curve] for name, curve in data.curves.items()},
    }
    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _totals(data: ReportData) -> dict[str, float]:
    cached = {row.status == "cached": 0.0 for row in data.stages} | {True: 0.0, False: 0.0}
    for row in data.stages:
        cached[row.status == "cached"] += row.seconds or 0.0
    longest = max([row.seconds or 0.0 for row in data.stages], default=0.0)
    return {"ran": cached[False], "reused": cached[True], "longest": longest}


def _by_change(data: ReportData) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The recipe's lines, (dotted name, value): "changed", and "others"."""
    lines = [line for name, value in data.recipe.items() for line in _leaves(value, name)]
    shown = {name for name, _ in lines} if data.changed is None else data.changed
    yield "changed", [line for line in lines if line[0] in shown]
    yield "others", [line for line in lines if line[0] not in shown]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """A nested setting as lines: dotted path, value as it would be typed."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    else:
        yield path, value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _picture(png: bytes | None) -> str:
    return "" if png is None else "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _href(path: str) -> str:
    return "./" + quote(path.encode("utf-8", "surrogateescape"), safe="/")


def _size(count: int | None) -> str:
    if count is None:
        return ""
    if count < 1000:
        return f"{count} B"
    power = min(4, int(math.log10(count) / 3))
    return f"{count / 1000**power:.3g} {' kMGT'[power]}B"


def _seconds(duration: float | None) -> str:
    if duration is None:
        return ""
    if duration < 60:
        return f"{duration:.2f} s"
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4g}".replace("-", "−")


def _wrap(name: str) -> Any:
    """A dotted name that may be broken after its dots and underscores."""
    from markupsafe import Markup, escape

    return Markup(str(escape(name)).replace(".", ".<wbr>").replace("_", "_<wbr>"))  # noqa: S704  escaped here
