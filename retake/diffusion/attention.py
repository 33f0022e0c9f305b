"""Replacing the processors of attention layers for a while, and putting every one of them back.

A processor is diffusers' own notion: a callable `(attn, hidden_states, encoder_hidden_states, attention_mask, ...)`
that returns the layer's output. It may look, change, or hand on to the one that stood there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Protocol

from torch import Tensor, nn

from retake.errors import ConfigError


class Around(Protocol):
    """Makes a processor for a layer that hands on to the one that stands there."""

    def around(self, before: Callable[..., Tensor], /) -> Callable[..., Tensor]: ...


def layers(network: nn.Module) -> dict[str, Any]:
    """Attention layers by path, in the order of the network's own definition."""
    return {name: module for name, module in network.named_modules() if hasattr(module, "set_processor")}


@contextlib.contextmanager
def replaced(network: nn.Module, replace: Mapping[str, Callable[..., Tensor] | Around]) -> Iterator[None]:
    """Within the block, layers whose path matches a pattern (`up_blocks.1.attentions.*.attn1`, in the shell's sense,
    where * also crosses dots) use its processor, or what an `Around` makes of theirs; the first pattern that matches
    counts. Afterwards, and after an error, every layer has the very processor that it had.

    Raises ConfigError E274 for a pattern that matches no layer; nothing has been changed then.
    """
    found = layers(network)
    for pattern in replace:
        if not any(fnmatchcase(name, pattern) for name in found):
            some = ", ".join(list(found)[:3])
            raise ConfigError("E274", f"no attention layer matches {pattern!r}", f"There are {len(found)}: {some}, ...")
    before: list[tuple[Any, Any]] = []
    try:
        for name, layer in found.items():
            processor = next((new for pattern, new in replace.items() if fnmatchcase(name, pattern)), None)
            if processor is not None:
                before.append((layer, layer.processor))
                around: Any = getattr(processor, "around", None)
                layer.set_processor(around(layer.processor) if around else processor)
        yield
    finally:
        for layer, processor in before:
            layer.set_processor(processor)
