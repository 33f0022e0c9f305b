"""The child process: `python -m retake.video.child PARENT_PID`, started by process.py, not by hand.

It reads requests from stdin and answers on stdout, one at a time, until stdin ends. It dies with its
parent, keeps no core dump, and lives within the memory and output limits that each request names.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from retake.errors import ConfigError, MachineError, MediaError, RetakeError

from .channel import Channel, Stopped

_PR_SET_PDEATHSIG = 1
_CV_NO_MEMORY = -4  # cv2.error.code


def _probe(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    from .probe import probe

    found = probe(request["path"], request["limits"], channel.keep_alive)
    if "selection" not in request:
        return {"info": found.info.as_json()}
    from ..info import Selection
    from .decode import select_frames

    return {"info": found.info.as_json(), "end": float(select_frames(found, Selection(**request["selection"])).end)}


def _decode(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    from .decode import decode

    return decode(request, channel)


def _encode(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    from .encode import encode

    return encode(request, channel)


def _image(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    from .image import read

    image = read(request["path"], request["max_pixels"], request["deep"])
    channel.send({"event": "image", "shape": list(image.shape), "dtype": str(image.dtype)}, image)
    return {}


def _tag(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    from .tag import tag

    return tag(request, channel)


_OPERATIONS: dict[str, Callable[[dict[str, Any], Channel], dict[str, Any]]] = {
    "probe": _probe,
    "decode": _decode,
    "encode": _encode,
    "image": _image,
    "tag": _tag,
}


def _answer(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    try:
        _limit(request.get("limits", {}))
        return {"event": "done", **_OPERATIONS[request["op"]](request, channel)}
    except Stopped:
        return {"event": "stopped"}
    except RetakeError as error:
        kinds = {MediaError: "media", MachineError: "machine", ConfigError: "config"}
        kind = next((name for cls, name in kinds.items() if isinstance(error, cls)), "media")
        return {"error": {"kind": kind, **error.as_json()}}
    except Exception as error:  # a hostile file may trigger anything; the parent gets a code, not a traceback
        if isinstance(error, MemoryError) or getattr(error, "code", None) == _CV_NO_MEMORY:
            room = request.get("limits", {}).get("data_bytes", 0) >> 20
            said = f"{request.get('path')}: reading it takes more than the {room} MiB of memory allowed"
            return {"error": {"kind": "media", "code": "E414", "message": said, "hint": "Scale the file down first."}}
        import traceback

        traceback.print_exc()
        said = f"{request.get('path')}: reading it failed ({type(error).__name__}: {str(error)[:200]})"
        return {"error": {"kind": "media", "code": "E416", "message": said, "hint": "Re-encode it first."}}


def _limit(limits: dict[str, Any]) -> None:
    wanted = {
        resource.RLIMIT_DATA: limits.get("data_bytes"),
        resource.RLIMIT_FSIZE: limits.get("output_bytes"),
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        soft = hard if value is None else value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (soft, hard))


def main(parent: int) -> None:
    """Serve requests until stdin ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above took effect
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel = Channel()
    while True:
        request, _ = channel.receive()
        if request.get("op") in _OPERATIONS:  # else a `stop` that crossed our last answer
            channel.send({**_answer(request, channel), "final": True})


if __name__ == "__main__":
    main(int(sys.argv[1]))
