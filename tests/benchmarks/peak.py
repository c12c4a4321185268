"""The most bytes that are alive at once while something runs, counted on the device meta: no allocator, no library.

Tensors that the device meta does not allocate are counted as if it did. What CUDA and its libraries take beside is not
in it. Attention is counted as a fused kernel does it, which keeps no matrix of scores.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts what operations allocate.

    Attributes:
        now: Bytes alive.
        peak: The most that ever were.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """Count nothing of what is there already.

        Args:
            known: Tensors that are there, such as frozen weights: operations return views of them.
        """
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, Any] = {tensor.untyped_storage()._cdata: None for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._note(value.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, partial(self._gone, key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int, _: object) -> None:
        if self._alive.pop(key, None) is not None:
            self.now -= size


class _Fused(torch.autograd.Function):
    """Attention that keeps what a fused kernel keeps: its inputs, its output, and one number a query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return tuple(torch.empty_like(saved) for saved in ctx.saved_tensors[:3])


@contextmanager
def fused_attention() -> Iterator[None]:
    """Have attention allocate what a fused kernel does; its numbers are not computed."""
    plain: Any = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda query, key, value, *_, **__: _Fused.apply(query, key, value)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain


def peak_bytes(work: Callable[[], Any], known: Iterable[Tensor] = ()) -> int:
    """Return the most bytes that some work on the device meta holds at once, beside what is there already."""
    with fused_attention(), LiveBytes(known) as live:
        work()
    return live.peak
