"""What was typed: the words of a command that are no settings, and those that are short for one."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from retake.errors import ConfigError


def with_box(overrides: list[str] | None, box: str | None) -> list[str]:
    """`--box` is short for masks.box=[...]. Raises ConfigError E221."""
    rest = list(overrides or [])
    if box is None:
        return rest
    if any(text.startswith("masks.box=") for text in rest):
        raise ConfigError("E221", "the box is given twice: --box and masks.box", "Leave one of them out.")
    try:
        corners = [float(part) for part in box.split(",")]
    except ValueError:
        corners = []
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        raise ConfigError("E221", f"not a box: {box!r}", "Write --box x0,y0,x1,y1 in pixels.")
    return [*rest, f"masks.box=[{','.join(f'{corner:g}' for corner in corners)}]"]


def place(text: str | None) -> tuple[float, float] | None:
    """`x,y` as numbers. Raises ConfigError E221."""
    if text is None:
        return None
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ConfigError("E221", f"not a point: {text!r}", "Write --point x,y in pixels.")
    return x, y


def check_clip(clip: str) -> None:
    """Raises ConfigError E201 when a setting stands where the clip belongs."""
    if "=" in clip and not Path(clip).exists():
        raise ConfigError("E201", f"the clip is missing: {clip!r} is a setting", "Write retake edit CLIP key=value ...")


def split_runner(overrides: list[str]) -> tuple[str, list[str]]:
    """`runner=prefect` or `runner=local` is about how to run, not about the result."""
    chosen = [o.partition("=")[2] for o in overrides if o.startswith("runner=")]
    if chosen and chosen[-1] not in ("auto", "local", "prefect"):
        raise ConfigError("E205", f"unknown runner {chosen[-1]!r}", "runner is auto, local or prefect.")
    return (chosen or ["auto"])[-1], [o for o in overrides if not o.startswith("runner=")]


def split_evaluation(overrides: list[str]) -> tuple[str | None, list[str]]:
    """`evaluation=NAME` asks for a comparison of methods; the rest are settings. None where it is not asked for."""
    names = [o.partition("=")[2] for o in overrides if o.startswith("evaluation=")]
    rest = [o for o in overrides if not o.startswith("evaluation=")]
    if not names and (stray := [o for o in rest if o.startswith("evaluation.")]):
        raise ConfigError("E296", f"{stray[0]} of which evaluation?", "Name it, too: evaluation=moca")
    return (names[-1] if names else None), rest


def split_manifest(words: list[str]) -> list[str]:
    """Settings, of which a word that is none names the manifest: it is found from the folder where it was typed.
    Raises ConfigError E215 for two of them."""
    names = [word for word in words if "=" not in word and not word.startswith("~")]
    if not names:
        return words
    if len(names) > 1:
        raise ConfigError("E215", f"{names[1]!r} is a second manifest, or no setting", "Settings read key=value.")
    rest = [word for word in words if word not in names]
    from flows.settings.overrides import quoted

    own = [] if any(word.startswith("dataset=") for word in rest) else ["dataset=manifest"]
    return [*own, f"dataset.manifest={quoted(str(Path(names[0]).expanduser().absolute()))}", *rest]


def server_answers(say: Any) -> bool:
    """Whether PREFECT_API_URL names a server that is up. Work never depends on it."""
    from urllib.parse import urlsplit

    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return False
    import socket

    place = urlsplit(url)
    try:
        socket.create_connection((place.hostname or "", place.port or 80), timeout=1).close()
    except OSError:
        say(f"no Prefect server answers at {url}: running here without it")
        return False
    return True
