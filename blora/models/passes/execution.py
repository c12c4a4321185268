"""How the same mathematics is handed to the device: compiled blocks, captured graphs, copies that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["Graphs", "compiled_blocks", "current", "same_bits", "shared_front", "to_device"]

_COMPILED: Final = ("BasicTransformerBlock", "ResnetBlock2D", "FluxTransformerBlock", "FluxSingleTransformerBlock")
_VARIANTS: Final = 64
"""Kinds of block that one compiled function may know: widths, with and without adapters, with and without gradient."""
_WARM_UP_CALLS: Final = 3
"""Before a graph is captured: libraries choose their kernels and allocate their workspaces in the first calls."""


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from the CPU to a device without waiting for what the device still has to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Make a GPU the one that streams, events and pinned copies of this thread belong to: not always the first."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def compiled_blocks(unet: nn.Module) -> Iterator[None]:
    """While the context is open, the blocks that repeat are compiled; equal blocks are compiled once.

    Adapters of the same shapes can be exchanged without compiling again. Every width is compiled with its own sizes:
    torch would otherwise make of the second one that it meets a function of any size. Compiling all of SDXL as one
    function takes minutes and gains little over its blocks, in which nearly all operations lie.
    """
    blocks = [module for module in unet.modules() if type(module).__name__ in _COMPILED]
    dynamo: Any = torch._dynamo.config  # the limit of 8 is meant for one function, not for a family of blocks
    with dynamo.patch(recompile_limit=_VARIANTS):
        try:
            for block in blocks:
                block.compile(dynamic=False)
            yield
        finally:
            for block in blocks:
                block._compiled_call_impl = None


@contextmanager
def shared_front(unet: nn.Module, rows: Tensor | None, narrow: int) -> Iterator[Callable[[Tensor], Tensor]]:
    """While the context is open, rows are multiplied between the frozen front (down and middle blocks) and the rest.

    Args:
        unet: A UNet of diffusers.
        rows: (rest,) int64, on the device already, as a graph that is captured needs it: for each row of the rest, its
            row of the front; None where both have the same rows.
        narrow: Rows of the front.

    Yields:
        What does the same to any other tensor with the front's rows.
    """
    if rows is None:
        yield lambda tensor: tensor
        return

    def wide(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(wide, value))
        if not isinstance(value, Tensor) or value.dim() < 2 or len(value) != narrow:
            return value
        alike = narrow == 1 or value.stride(0) == 0
        return value[:1].expand(len(rows), *value.shape[1:]) if alike else value[rows]

    def widen(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return wide(args), {name: wide(value) for name, value in kwargs.items()}

    blocks: Any = unet.get_submodule("up_blocks")
    hooks = [block.register_forward_pre_hook(widen, with_kwargs=True) for block in blocks]
    try:
        yield wide
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def same_bits(wanted: bool, device: torch.device) -> Iterator[None]:
    """While the context is open, a GPU computes the same bits each time, if that is wanted.

    The fastest backward passes of attention add in the order in which threads come to it: cuDNN's and the
    memory-efficient one are not used then, and flash attention and all other operations take their deterministic way.
    cuBLAS wants ``CUBLAS_WORKSPACE_CONFIG=:4096:8`` in the environment of the process; torch says so where it lacks.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    kept = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            yield
    finally:
        torch.use_deterministic_algorithms(kept[0], warn_only=kept[1])


class Graphs:
    """Functions of tensors as CUDA graphs: captured at their first call, replayed at every other.

    A replay costs one launch instead of some thousands, which is what a step of one or two adapters spends its time on.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        self._held: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def clear(self) -> None:
        """Forget all graphs and give their memory back."""
        self._held.clear()
        torch.cuda.empty_cache()

    def run(self, key: Hashable, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """Call a function, or replay what it did.

        Args:
            key: What the function does beside its inputs, and their shapes; equal keys replay one graph.
            function: Works on the device alone, and on memory that stays where it is.
            inputs: Tensors on the device.

        Returns:
            The function's result, overwritten by the next call with this key.
        """
        if key not in self._held:
            self._held[key] = self._capture(function, inputs)
            return self._held[key][2]
        graph, kept, output = self._held[key]
        torch._foreach_copy_(kept, list(inputs))
        graph.replay()
        return output

    def _capture(
        self, function: Callable[..., Tensor], inputs: Sequence[Tensor]
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        kept = [tensor.clone() for tensor in inputs]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP_CALLS):
                function(*kept)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = function(*kept)
        graph.replay()  # capturing computes nothing
        return graph, kept, output
