"""The gallery of a dataset: one page over all edits, to filter, to sort by any metric, and to open reports from.

The page lies beside its thumbnails and reports and loads nothing else; a thumbnail shows the middle frame of source and
result side by side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from retake.errors import MachineError
from retake.metrics.summary import DESCRIPTIONS
from retake.report import csp_hash
from retake.video import resize

HEIGHT = 120  # px of a thumbnail
WIDEST = 240  # px of one of its two halves
QUALITY = 82  # of its JPEG
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Card:
    """One edit of one clip. report, picture, video: paths relative to the page, empty where there is none; seconds:
    what making it took. reason: what there is to say of it. health: good, look or wrong, of its masks."""

    clip: str
    edit: str
    state: str
    reason: str = ""
    seconds: float = 0.0
    report: str = ""
    picture: str = ""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    video: str = ""
    health: str = ""


def page(name: str, cards: Sequence[Card]) -> str:
    """The page as HTML. Equal cards give equal bytes."""
    style, script = ((HERE / f"gallery.{kind}").read_text() for kind in ("css", "js"))
    rows = [
        asdict(card)
        | {name: quote(getattr(card, name)) for name in ("report", "picture", "video")}
        | {"scores": rounded(card.scores)}
        for card in cards
    ]
    metrics = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    about = {metric: DESCRIPTIONS.get(metric, ("", "")) for metric in metrics}
    data = json.dumps({"cards": rows, "metrics": about}, ensure_ascii=False, allow_nan=False)
    here = "'self' file:"  # some browsers do not count file: as 'self'
    code = f"style-src {csp_hash(style)}; script-src {csp_hash(script)}; base-uri 'none'; form-action 'none'"
    policy = f"default-src 'none'; img-src {here}; media-src {here}; {code}"
    text = (HERE / "gallery.html").read_text()
    filled = {"title": escape(name), "policy": escape(policy), "style": style, "script": script}
    filled["data"] = data.replace("<", "\\u003c")  # no clip's name ends the script
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: filled[match[1]], text)  # one pass: a name may itself contain {{ }}


def rounded(scores: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics with a finite value, to five significant digits."""
    return {name: float(f"{value:.5g}") for name, value in scores.items() if value is not None and np.isfinite(value)}


def thumbnail(source: np.ndarray, result: np.ndarray) -> bytes:
    """A JPEG of two frames, uint8 RGB [H, W, 3], side by side, at most HEIGHT pixels high. Raises MachineError E504."""
    height, width = source.shape[:2]
    scale = min(HEIGHT / height, WIDEST / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return as_jpeg(np.concatenate([resize(source, size), resize(result, size)], 1), QUALITY)


def as_jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """A picture uint8 RGB [H, W, 3] as a JPEG. Raises MachineError E504."""
    import cv2

    done, packed = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise MachineError("E504", "OpenCV cannot write a JPEG", "Reinstall opencv-python-headless.")
    return packed.tobytes()
