"""Gradients through a network that keeps little of its pass: blocks are run again when their gradient is asked for.

diffusers' own checkpointing covers the resnets and transformers of a U-Net, but not its motion modules, which hold most
of what a pass over a clip keeps; and UNet3DConditionModel has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

BLOCKS = (
    "ResnetBlock2D",
    "Transformer2DModel",
    "AnimateDiffTransformer3D",
    "TemporalConvLayer",
    "TransformerTemporalModel",
    "Upsample2D",
)
"""Classes of diffusers that are run again; none holds another of them."""

SMALL = 100_000_000  # parameters of a network below which seconds count, not memory


def where_large(network: Any) -> AbstractContextManager[None]:
    """`checkpointed` for a network that is not small."""
    large = sum(parameter.numel() for parameter in network.parameters()) >= SMALL
    return checkpointed(network) if large else nullcontext()


@contextmanager
def checkpointed(network: Any) -> Iterator[None]:
    """Within it, the network's blocks keep their inputs alone. A transformer does it by itself, when told."""
    told = type(network).__name__ == "CogVideoXTransformer3DModel" and not network.gradient_checkpointing
    if told:
        network.gradient_checkpointing = True
    blocks: list[Any] = [module for module in network.modules() if type(module).__name__ in BLOCKS]
    for block in blocks:
        block.forward = partial(_again, block.forward)
    try:
        yield
    finally:
        if told:
            network.gradient_checkpointing = False
        for block in blocks:
            del block.forward  # the class's own shows again


def _again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
