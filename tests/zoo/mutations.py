"""Damage done to the bytes of a file, the same for the same seed: what disks, copies and hostile people do to clips."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_HEAD = 256


def mutated(data: bytes, seed: int, others: Sequence[bytes] = ()) -> tuple[str, bytes]:
    """(kind of mutation, damaged bytes) of a file. `others` are files to splice with; without any it is spliced with
    itself. Never returns `data` as it was, unless it is too short to be changed."""
    rng = random.Random(seed)
    names = list(MUTATIONS)
    for _ in range(20):
        name = names[rng.randrange(len(names))]
        changed = MUTATIONS[name](rng, bytearray(data), others or (data,))
        if bytes(changed) != data:
            break
    return name, bytes(changed)


def _flip(rng: random.Random, data: bytearray, at: int) -> None:
    data[at] ^= 1 << rng.randrange(8)


def _place(rng: random.Random, data: bytearray, longest: int) -> tuple[int, int]:
    """(start, end) of a run inside the file, of 1 to `longest` bytes."""
    length = min(len(data), rng.randint(1, longest))
    start = rng.randint(0, len(data) - length)
    return start, start + length


def _one_bit(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    if data:
        _flip(rng, data, rng.randrange(len(data)))
    return data


def _bits(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    for _k in range(rng.randint(2, 40) if data else 0):
        _flip(rng, data, rng.randrange(len(data)))
    return data


def _zeros(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    start, end = _place(rng, data, 600)
    data[start:end] = bytes(end - start)
    return data


def _noise(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    start, end = _place(rng, data, 600)
    data[start:end] = rng.randbytes(end - start)
    return data


def _cut(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    return data[: rng.randrange(len(data))] if data else data


def _inserted(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    at = rng.randint(0, len(data))
    data[at:at] = rng.randbytes(rng.randint(1, 300))
    return data


def _removed(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    start, end = _place(rng, data, 600)
    del data[start:end]
    return data


def _repeated(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    start, end = _place(rng, data, 600)
    data[end:end] = data[start:end] * rng.randint(1, 3)
    return data


def _swapped(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    """Two top-level boxes of an MP4 change places; in other files, two blocks."""
    parts = _boxes(data)
    if len(parts) < 2:
        step = max(1, len(data) // 8)
        parts = [bytes(data[at : at + step]) for at in range(0, len(data), step)]
    if len(parts) > 1:
        a, b = rng.sample(range(len(parts)), 2)
        parts[a], parts[b] = parts[b], parts[a]
    return bytearray(b"".join(parts))


def _boxes(data: bytearray) -> list[bytes]:
    parts, at = [], 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length < 8 or at + length > len(data):
            return []
        parts.append(bytes(data[at : at + length]))
        at += length
    return parts


def _head(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    for _k in range(rng.randint(1, 8) if data else 0):
        data[rng.randrange(min(_HEAD, len(data)))] = rng.randrange(256)
    return data


def _tail(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    for _k in range(rng.randint(1, 8) if data else 0):
        data[rng.randrange(max(0, len(data) - _HEAD), len(data))] = rng.randrange(256)
    return data


def _spliced(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    """The beginning of this file and the end of another, each cut anywhere."""
    other = others[rng.randrange(len(others))]
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


MUTATIONS: dict[str, Callable[[random.Random, bytearray, Sequence[bytes]], bytearray]] = {
    "one bit": _one_bit,
    "2 to 40 bits": _bits,
    "zeroed run": _zeros,
    "random run": _noise,
    "cut": _cut,
    "inserted block": _inserted,
    "removed block": _removed,
    "repeated block": _repeated,
    "swapped boxes": _swapped,
    "first 256 bytes": _head,
    "last 256 bytes": _tail,
    "splice": _spliced,
}
