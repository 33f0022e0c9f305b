"""A page to point at the picture: boxes and points on any frame of a clip, and the command that says the same.

The page holds its frames and loads nothing; it works from a folder, without a server.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from retake.report import csp_hash
from retake.report.gallery_page import as_jpeg
from retake.video import resize

LARGEST = 800  # px of a frame's longer side on the page
QUALITY = 82
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Pick:
    """What the page asks for. clip: for people. command: words before what is picked, quoted as a shell wants them.
    size: (width, height) of the frames, in whose pixels boxes and points are told. count: selected frames."""

    clip: str
    command: str
    size: tuple[int, int]
    count: int


def page(pick: Pick, pictures: Mapping[int, bytes]) -> str:
    """The page as HTML. pictures: JPEGs by the number of their frame, in ascending order. Equal pictures give equal
    bytes."""
    style, script = ((HERE / f"pick.{kind}").read_text() for kind in ("css", "js"))
    shown = [[n, f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"] for n, jpeg in pictures.items()]
    data = json.dumps(
        {"command": pick.command, "size": pick.size, "count": pick.count, "frames": shown}, ensure_ascii=False
    )
    code = f"style-src {csp_hash(style)}; script-src {csp_hash(script)}; base-uri 'none'; form-action 'none'"
    filled = {
        "title": escape(pick.clip),
        "size": f"{pick.size[0]} × {pick.size[1]}",
        "policy": escape(f"default-src 'none'; img-src data:; {code}"),
        "style": style,
        "script": script,
        "data": data.replace("<", "\\u003c"),  # no clip's name ends the script
    }
    text = (HERE / "pick.html").read_text()
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: filled[match[1]], text)  # one pass: a name may itself contain {{ }}


def picture(rgb: np.ndarray) -> bytes:
    """A frame, uint8 RGB [H, W, 3], as a JPEG, made smaller where it is large. Raises MachineError E504."""
    height, width = rgb.shape[:2]
    scale = min(1.0, LARGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return as_jpeg(resize(rgb, size), QUALITY)
