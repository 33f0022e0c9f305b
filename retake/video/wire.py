"""The wire format between parent and child: two lengths, a JSON object, raw bytes.

Both ends check every length before they allocate, since the other end may be compromised.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

HEAD = struct.Struct("<IQ")
MAX_JSON = 1 << 20
MAX_PAYLOAD = 1 << 32


def pack(message: dict[str, Any], payload_bytes: int = 0) -> bytes:
    """The bytes that go before a payload of `payload_bytes`."""
    body = json.dumps(message).encode("ascii")
    if len(body) > MAX_JSON:
        raise ValueError(f"message of {len(body)} bytes, at most {MAX_JSON} are sent")
    return HEAD.pack(len(body), payload_bytes) + body


def lengths(head: bytes | bytearray | memoryview) -> tuple[int, int]:
    """(JSON bytes, payload bytes) from a head. Raises ValueError beyond the limits."""
    body, payload = HEAD.unpack(head)
    if body > MAX_JSON or payload > MAX_PAYLOAD:
        raise ValueError(f"message of {body} + {payload} bytes is over the limit")
    return body, payload


def unpack(body: bytes | bytearray | memoryview) -> dict[str, Any]:
    """The JSON object of a message. Raises ValueError when it is something else."""
    message = json.loads(bytes(body))
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")
    return message


def as_frame(payload: np.ndarray, shape: list[int]) -> np.ndarray:
    """The flat payload as an image of `shape`. Raises ValueError when they do not fit."""
    if len(shape) not in (2, 3) or any(not isinstance(n, int) or n < 1 for n in shape):
        raise ValueError(f"{shape} is not the shape of an image")
    return payload.reshape(shape)
