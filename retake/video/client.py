"""Probing, decoding and reading images from the parent process: requests to the child and its answers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from retake.errors import MediaError, did_you_mean
from retake.imaging.colour.planes import split

from . import wire
from .info import Limits, Selection, VideoInfo
from .process import borrow

PathLike = str | os.PathLike[str]

Backend = Literal["auto", "decord", "pyav"]
OnDamage = Literal["fail", "conceal"]

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.,-]*:")


def probe(path: PathLike, limits: Limits | None = None) -> VideoInfo:
    """Properties of the clip at `path`. Demuxes the whole file and decodes its first frame.

    Raises MediaError (exit status 4): E400 missing, E401 empty, E402 unknown container, E403 playlist,
    E404 URL, E405 no index, E408 time, E409 no video, E410 nothing decodes, E411 too small or too narrow,
    E413 no decoder, E414 too large, E415 a colour coding that is not read, E416 the child crashed.
    """
    limits = limits or Limits()
    file = local_file(path)
    with borrow() as worker:
        worker.begin(file, limits.stall, time_limit(file, limits))
        worker.send({"op": "probe", "path": file, "limits": limits.as_json()})
        return VideoInfo.from_json(worker.receive()[0]["info"])


def selection_end(path: PathLike, selection: Selection, limits: Limits | None = None) -> float:
    """When the last selected frame of the clip at `path` is over, in seconds from the clip's first frame.

    Raises what `probe` raises, and ConfigError E211 when the selection leaves no frame.
    """
    limits = limits or Limits()
    file = local_file(path)
    with borrow() as worker:
        worker.begin(file, limits.stall, time_limit(file, limits))
        request = {"op": "probe", "path": file, "limits": limits.as_json(), "selection": selection.as_json()}
        worker.send(request)
        return float(worker.receive()[0]["end"])


def decode(
    path: PathLike,
    selection: Selection | None = None,
    size: tuple[int, int] | None = None,
    backend: Backend = "auto",
    on_damage: OnDamage = "fail",
    limits: Limits | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds from the clip's first frame, uint8 RGB [H, W, 3]) in order, upright and square.

    The picture is the view of the clip's colours (retake/imaging/colour/view.py), by the file's matrix, range,
    primaries and transfer. `size` is (width, height), None for the size as shown; the resizing is `resize`. `backend`
    auto is PyAV; decord's colours are up to 2.8 levels darker than the code values say. With `on_damage="fail"` the
    first damaged packet (E407), a cut file or a missing frame (E406) ends the clip; most codecs carry no checksum, so a
    flipped bit that decodes to other pixels is not always seen. With `conceal` what decodes is
    delivered, by PyAV. The consumer may stop at any time, and may take its time: only waiting for the
    child counts against the limits. A `selection` with `fps` yields tick times. `on_note` is called
    after the last frame with what to record: frames lost or concealed, a change of decoder.

    Raises what `probe` raises, and MediaError E406, E407, E412 (the resolution changes); ConfigError E211
    when the selection leaves no frame; ValueError for an unknown `backend` or `on_damage`.
    """
    request = {"size": list(size) if size else None, "codes": False}
    for seconds, flat, shape in _decode(path, request, selection, backend, on_damage, limits, on_note):
        yield seconds, wire.as_frame(flat, shape)


def decode_codes(
    path: PathLike,
    selection: Selection | None = None,
    backend: Backend = "auto",
    on_damage: OnDamage = "fail",
    limits: Limits | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Yield (seconds, planes of code values) of the very frames that `decode` gives, upright and square, at the size as
    shown. Planes are as in retake/imaging/colour/planes.py, uint8 or uint16; their coding is `VideoInfo.shown`.

    Raises what `decode` raises.
    """
    info = probe(path, limits)
    for seconds, flat, _ in _decode(
        path, {"size": None, "codes": True}, selection, backend, on_damage, limits, on_note
    ):
        yield seconds, split(flat, info.shown, (info.width, info.height))


def _decode(
    path: PathLike,
    wanted: dict[str, Any],
    selection: Selection | None,
    backend: str,
    on_damage: str,
    limits: Limits | None,
    on_note: Callable[[str], None] | None,
) -> Iterator[tuple[float, np.ndarray, list[int]]]:
    """(seconds, all bytes of a picture uint8 [n], its shape)"""
    if backend not in ("auto", "decord", "pyav") or on_damage not in ("fail", "conceal"):
        raise ValueError(f"backend {backend!r}, on_damage {on_damage!r}: see the docstring for what exists")
    notify = on_note or (lambda note: None)
    file, limits = local_file(path), limits or Limits()
    request: dict[str, Any] = {"op": "decode", "path": file, "limits": limits.as_json(), **wanted}
    request |= {"selection": (selection or Selection()).as_json()}
    request |= {"backend": backend, "on_damage": on_damage, "skip": 0}
    sent, used = 0, backend
    while True:
        try:
            with borrow() as worker:
                worker.begin(file, limits.stall, time_limit(file, limits))
                worker.send(request)
                while True:
                    message, payload = worker.receive()
                    if message.get("event") == "info":
                        used = message["backend"]
                        worker.wall += limits.wall_per_frame * message["info"]["frames"]
                    elif message.get("event") == "frame":
                        sent += 1
                        yield float(message["time"]), payload, message["shape"]
                    else:
                        for note in message.get("notes", []):
                            notify(str(note))
                        return
        except MediaError as error:
            # decord can hang or crash where PyAV does not.
            if not (used == "decord" and error.code in ("E408", "E416")):
                raise
            notify(f"decord failed at frame {sent} ({error.code}): PyAV went on from there")
            request["backend"] = used = "pyav"
            request["skip"] = sent


def read_image(
    path: PathLike, max_pixels: int = Limits.max_pixels, limits: Limits | None = None, deep: bool = False
) -> np.ndarray:
    """A PNG, JPEG, WebP, BMP or TIFF as uint8 RGB [H, W, 3], or RGBA [H, W, 4] where it has alpha.

    As viewers show it: turned as its EXIF tag says, and in sRGB where an ICC profile says what its colours are. 16 bits
    are rounded to 8; with `deep` they stay, as uint16, but where a profile changes the colours.

    Raises MediaError E400 missing, E401 empty, E404 URL, E420 unreadable, E421 over `max_pixels`.
    """
    limits = limits or Limits()
    file = local_file(path)
    with borrow() as worker:
        worker.begin(file, limits.stall, time_limit(file, limits))
        worker.send({"op": "image", "path": file, "max_pixels": max_pixels, "limits": limits.as_json(), "deep": deep})
        message, payload = worker.receive()
        sample = np.uint16 if message["dtype"] == "uint16" else np.uint8
        image = wire.as_frame(payload.view(sample), message["shape"])
        worker.receive()
        return image


def time_limit(file: str, limits: Limits) -> float:
    """Seconds that a clip may keep its caller waiting, before the allowance for its frames."""
    return limits.wall + os.path.getsize(file) / limits.wall_bytes_per_second


def local_file(path: PathLike) -> str:
    """The absolute name of an existing, regular, non-empty local file. Raises MediaError E400, E401 or E404."""
    name = os.fspath(path)
    if "\0" in name:
        raise MediaError("E400", f"{name!r} is not a file name", "Give the path of a local file.")
    exists = os.path.lexists(name)
    if _PROTOCOL.match(name) and not exists:
        raise MediaError(
            "E404", f"{name} looks like a URL; only local files are read", "Download it and give its path."
        )
    if not os.path.isfile(name):
        raise _missing(name)
    if os.path.getsize(name) == 0:
        raise MediaError("E401", f"{name} is empty (0 bytes)", "Copy it again from where it came.")
    return os.path.abspath(name)


def _missing(name: str) -> MediaError:
    if os.path.exists(name):
        kind = "a folder" if os.path.isdir(name) else "not a regular file"
        return MediaError("E400", f"{name} is {kind}, a file was expected", "Give the path of one clip or image.")
    folder, base = os.path.split(os.path.abspath(name))
    try:
        with os.scandir(folder) as entries:
            near = did_you_mean(base, [e.name for e, _ in zip(entries, range(5000), strict=False)])
    except OSError:
        return MediaError("E400", f"no such file: {name} (there is no folder {folder})", "Check the path.")
    return MediaError("E400", f"no such file: {name}", near if near.startswith("Did") else "Check the path.")
