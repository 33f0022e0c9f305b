"""Memory: recognising out-of-memory errors, halving the batch for a retry, freeing and measuring memory."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from retake.errors import RetakeError

MESSAGES = ("out of memory", "can't allocate memory", "cannot allocate memory", "insufficient memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, NumPy, torch (CPU or GPU) or OpenCV means out of memory; never for a RetakeError."""
    if isinstance(error, RetakeError):
        return False
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in MESSAGES)


def with_half_batch(params: BaseModel) -> BaseModel | None:
    """The settings with every `batch` halved, None if none is above 1. A batch enters no key: results agree up to the
    rounding of the network."""
    changed: dict[str, Any] = {}
    for name in type(params).model_fields:
        value = getattr(params, name)
        if name == "batch" and isinstance(value, int) and value > 1:
            changed[name] = value // 2
        elif isinstance(value, BaseModel) and (smaller := with_half_batch(value)) is not None:
            changed[name] = smaller
    return params.model_copy(update=changed) if changed else None


def free_memory() -> None:
    """Collect garbage, and empty the GPU cache if torch is loaded."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Yields a function: the peak resident bytes of this process within the block, 0 where /proc does not report it."""
    status = Path(f"/proc/{os.getpid()}/status")
    with contextlib.suppress(OSError):
        Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")  # resets the high-water mark

    def read() -> int:
        try:
            line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        except (OSError, StopIteration):
            return 0
        return int(line.split()[1]) * 1024

    yield read
