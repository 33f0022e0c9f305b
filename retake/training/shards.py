"""Files of many clips each, made one after the other by one or several processes; those that are there are kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path


def missing(
    paths: Sequence[Path], count: int, size: int, until: float, share: tuple[int, int]
) -> Iterator[tuple[Path, range]]:
    """The shards that are not there, and the numbers of their clips, of `count` in all and `size` a shard. until: a
    moment of time.monotonic() after which none is begun. share: (k, n) is the k-th of n processes that render
    together."""
    for path, first in list(zip(paths, range(0, count, size), strict=True))[share[0] :: share[1]]:
        if path.exists():
            continue
        if time.monotonic() > until:
            return
        yield path, range(first, min(first + size, count))
