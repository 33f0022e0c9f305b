"""Keys and values of one pass of a network, used in another.

What a self-attention layer read in the first pass is remembered; in the second pass its queries come from the second's
own states, its keys and values from the first's. Source: MOFT (Xiao et al., NeurIPS 2024, sec. 4.1, "shared K&V").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from retake.diffusion.backbone import Backbone


class SharedAttention:
    """The states of self-attention layers whose path matches `pattern` (attention.replaced). rows: of a batch, the last
    share that is kept, as guidance appends the conditioned clips to the others."""

    def __init__(self, backbone: Backbone, pattern: str) -> None:
        self.backbone, self.pattern = backbone, pattern
        self._states: dict[int, Tensor] = {}

    @contextmanager
    def remembered(self, halves: bool = False) -> Iterator[None]:
        """Within it, the layers remember what they read; with `halves`, that of the second half of the batch."""

        def processor(before: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def remember(attn: Any, states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                kept = states.detach()
                self._states[id(attn)] = kept[len(kept) // 2 :] if halves else kept
                return before(attn, states, *args, **kwargs)

            return remember

        with self.backbone.attention({self.pattern: _Around(processor)}):
            yield

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within it, the layers take keys and values from what was remembered."""

        def processor(before: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def use(attn: Any, states: Tensor, encoder_hidden_states: Any = None, **kwargs: Any) -> Tensor:
                return before(attn, states, encoder_hidden_states=self._states[id(attn)], **kwargs)

            return use

        with self.backbone.attention({self.pattern: _Around(processor)}):
            yield


class _Around:
    """attention.Around of a function."""

    def __init__(self, make: Callable[[Callable[..., Tensor]], Callable[..., Tensor]]) -> None:
        self.around = make
