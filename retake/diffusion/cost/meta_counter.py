"""What a computation costs, found by running it on the meta device: floating-point operations, and the peak of the
memory that its tensors take. Nothing is computed and nothing is allocated; shapes alone are followed.

The peak is that of live tensors: every storage that an operation makes counts from then until the last reference to it
is gone, as in eager execution on a GPU. Left out are the allocator's rounding and fragments, the CUDA context, and
workspaces of cuDNN and cuBLAS: diffusers' documentation has 19 GB for decoding with CogVideoX's VAE, this 16.3.
Attention is taken to be the fused kind, which makes no matrix of weights, as PyTorch's scaled_dot_product_attention is
on a GPU in half precision.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from retake.diffusion.cost.predict import Tally


def tally(work: Callable[[], Any], there: Iterable[Tensor] = ()) -> Tally:
    """The cost of `work()` on meta tensors. `there`: weights and inputs that stand in memory before and are not counted
    (other tensors that `work` is given are not counted either, views of them are)."""
    followed = _Followed(there)
    with fused(), followed:
        result = work()
    del result
    return Tally(followed.flops, followed.peak)


class _Followed(TorchDispatchMode):
    """Counts operations by PyTorch's own formulas, and follows the storages that they make."""

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self.known = weakref.WeakSet(tensor.untyped_storage() for tensor in there)
        self.flops = self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.count(tensor.untyped_storage())
        return result

    def count(self, storage: torch.UntypedStorage) -> None:
        if storage in self.known:
            return
        size = storage.nbytes()
        self.known.add(storage)
        weakref.finalize(storage, self.drop, size).atexit = False
        self.now += size
        self.peak = max(self.peak, self.now)

    def drop(self, size: int) -> None:
        self.now -= size


@contextmanager
def fused() -> Iterator[None]:
    """Within it, attention is the kernels of a GPU; on the meta device it falls apart into products. A function is put
    in its place, for within a gradient, where blocks are run again, modes of torch do not hold."""
    before = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = _attention
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = before


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if attn_mask is None:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[
            0
        ]
    mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, False, dropout_p, is_causal, scale=scale
    )[0]
