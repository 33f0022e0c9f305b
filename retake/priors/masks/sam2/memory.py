"""What is kept of each object from frame to frame, in the layout that both libraries use, and for how long.

    {"cond_frame_outputs": {frame: output}, "non_cond_frame_outputs": {frame: output}}

Conditioning frames are those with a prompt or a correction; every later frame reads them. Of the others a frame reads
the features of the last `memories` (6) and the object pointers of the last `pointers` (15) before it. An output holds
`maskmem_features` (bfloat16), a pointer, the mask's logits and the object's score; the last two are read on their own
frame only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

Tensors = dict[str, np.ndarray]
Output = dict[str, Any]
Outputs = dict[str, dict[int, Output]]

CONDITION, RECENT = "cond_frame_outputs", "non_cond_frame_outputs"
FEATURES, POSITIONS = "maskmem_features", "maskmem_pos_enc"


class Reach(NamedTuple):
    """How many frames back a frame reads features and pointers, and under which name a pointer is kept."""

    memories: int
    pointers: int
    pointer: str


def at(outputs: Outputs, t: int) -> Output:
    """One object's output on frame t. Raises KeyError where there is none."""
    return outputs[CONDITION].get(t) or outputs[RECENT][t]


def later(outputs: Outputs, t: int, reach: Reach) -> Outputs:
    """One object's outputs as far as frames after t (before t, when time runs backwards) read them."""
    conditions = {frame: _read(output, True, reach.pointer) for frame, output in outputs[CONDITION].items()}
    ages = {frame: abs(t - frame) + 1 for frame in outputs[RECENT]}  # as the next frame sees them
    recent = {
        frame: _read(output, ages[frame] <= reach.memories, reach.pointer)
        for frame, output in outputs[RECENT].items()
        if ages[frame] <= max(reach.memories, reach.pointers)
    }
    return {CONDITION: conditions, RECENT: recent}


def _read(output: Output, remembered: bool, pointer: str) -> Output:
    names = (pointer, FEATURES, POSITIONS) if remembered else (pointer,)
    return {name: output[name] for name in names}


def pack(outputs: Mapping[int, Outputs], reach: Reach) -> Tensors:
    """Objects' outputs, by id, as plain arrays, without what can be computed again.

    `ID.condition.frames`, `ID.recent.frames` int64 [n], in the order in which they are read; `....pointers` [n, ...];
    `....features` [m, ...], of the last m of those frames. bfloat16, which numpy lacks, is stored as uint16.
    """
    arrays: Tensors = {}
    for i, kept in outputs.items():
        for name, by_frame in (("condition", kept[CONDITION]), ("recent", kept[RECENT])):
            remembered = [output[FEATURES] for output in by_frame.values() if FEATURES in output]
            columns = {"pointers": [output[reach.pointer] for output in by_frame.values()], "features": remembered}
            arrays[f"{i}.{name}.frames"] = np.array(list(by_frame), np.int64)
            arrays |= {f"{i}.{name}.{column}": _stacked(tensors) for column, tensors in columns.items() if tensors}
    return arrays


def unpack(arrays: Tensors, reach: Reach, positions: Any, device: torch.device) -> dict[int, Outputs]:
    """The outputs that were packed, by id in ascending order."""
    ids = sorted({int(name.partition(".")[0]) for name in arrays})
    return {
        i: {
            key: _outputs(arrays, f"{i}.{name}.", reach, positions, device)
            for key, name in ((CONDITION, "condition"), (RECENT, "recent"))
        }
        for i in ids
    }


def _outputs(arrays: Tensors, prefix: str, reach: Reach, positions: Any, device: torch.device) -> dict[int, Output]:
    frames = [int(t) for t in arrays[prefix + "frames"]]
    if not frames:
        return {}
    outputs: dict[int, Output] = {
        t: {reach.pointer: _tensor(array, device)} for t, array in zip(frames, arrays[prefix + "pointers"], strict=True)
    }
    features = arrays.get(prefix + "features", np.empty(0))
    for t, array in zip(frames[len(frames) - len(features) :], features, strict=True):
        outputs[t] |= {FEATURES: _tensor(array, device), POSITIONS: positions}
    return outputs


def _stacked(tensors: list[torch.Tensor]) -> np.ndarray:
    import torch

    stacked = torch.stack([tensor.cpu() for tensor in tensors]).contiguous()
    return stacked.view(torch.uint16).numpy() if stacked.dtype is torch.bfloat16 else stacked.numpy()


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    import torch

    tensor = torch.from_numpy(array.copy())
    return (tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor).to(device)
