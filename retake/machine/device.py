"""Where a network runs and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from retake.errors import MachineError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]
INERT: dict[str, Any] = {"inert": "results of two devices agree within the stated tolerance"}


def device_of(name: str) -> torch.device:
    """The torch device of a setting; `auto` takes a GPU if there is one. MachineError E304: no GPU for cuda."""
    import torch

    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise MachineError("E304", "device=cuda, but torch sees no GPU here", "Use device=auto, or see: retake doctor")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of a setting, such as `bfloat16`."""
    import torch

    return getattr(torch, name)
