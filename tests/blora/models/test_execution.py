"""Other ways of handing the same work to the device, and steps that are queued before the last one is judged."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch._dynamo.utils import counters

import blora.training.train
from blora.models.model import Base
from blora.models.passes.execution import compiled_blocks, current, same_bits
from blora.sampling.draw import Draw
from blora.sampling.sample import sample_latents
from blora.settings.sampling import SampleSettings
from blora.training.items import TrainItem
from blora.training.train import train
from tests.blora.adapters.test_packed import random_adapter
from tests.blora.small_training import SETTINGS, SavedCheckpoints, bit_equal, distance, item, poisoned, recipe
from tests.plain_peft import train_with_peft
from tests.tiny import RESOLUTION_PX

SAME_MATHS = 1e-4
"""Largest relative distance of weight deltas after fifty steps of packed training and of plain PEFT, fp32; 1.3e-5 was
measured."""

QUICK = SampleSettings(steps=2, guidance_scale=2.0, width_px=RESOLUTION_PX, height_px=RESOLUTION_PX)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compile up to the point where code would be generated: the same tracing and guards, in seconds."""
    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(whole, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
def test_fifty_steps_equal_plain_peft(base: Base) -> None:
    settings = recipe(steps=50)
    items = [item(0), item(1)]
    for result, one in zip(train(base, items, settings), items, strict=True):
        assert distance(train_with_peft(base, copy.deepcopy(base.unet), one, settings), result) < SAME_MATHS


@pytest.mark.slow
def test_compiled_blocks_train_the_same(base: Base, traced: None) -> None:
    items = [item(0), item(1)]
    eager = train(base, items, SETTINGS)
    compiled = train(base, items, recipe(execution="compiled"))
    assert counters["stats"]["unique_graphs"] > 0, "something was compiled"
    assert not counters["graph_break"], counters["graph_break"]
    for first, second in zip(eager, compiled, strict=True):
        assert distance(first, second) < 1e-3
    assert not any(module._compiled_call_impl for module in base.unet.modules())


def test_every_width_is_compiled_with_its_own_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a backend is given: torch's own choice is a function of any size from the second width on."""
    symbolic: list[bool] = []

    def record(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        values = [node.meta.get("example_value") for node in graph.graph.nodes if node.op == "placeholder"]
        sizes = [size for value in values for size in (value.shape if isinstance(value, torch.Tensor) else [value])]
        symbolic.append(any(isinstance(size, torch.SymInt) for size in sizes))
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend=record))
    torch._dynamo.reset()
    widths = (8, 16, 24)
    blocks = nn.ModuleList(ResnetBlock2D(in_channels=width, temb_channels=None, groups=4) for width in widths)
    with torch.no_grad(), compiled_blocks(blocks):
        for block, width in zip(blocks, widths, strict=True):
            block(torch.zeros(1, width, width, width), None)
    torch._dynamo.reset()
    assert symbolic == [False] * len(widths)


@pytest.mark.slow
def test_other_adapters_are_not_compiled_again(base: Base, traced: None) -> None:
    adapters = [random_adapter(base, 2, number) for number in range(4)]
    settings = QUICK.model_copy(update={"execution": "compiled"})
    first = sample_latents(base, [Draw(adapters[0], adapters[1], "a", 1)], settings)
    graphs = counters["stats"]["unique_graphs"]
    second = sample_latents(base, [Draw(adapters[2], adapters[3], "another prompt", 1)], settings)
    assert counters["stats"]["unique_graphs"] == graphs > 0
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, sample_latents(base, [Draw(adapters[0], adapters[1], "a", 1)], QUICK))


def test_determinism_is_asked_for_while_a_training_runs_and_not_after() -> None:
    """What torch is told on a GPU; that its kernels keep to it, only a GPU can show."""
    with same_bits(True, torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.mem_efficient_sdp_enabled() and not torch.backends.cuda.cudnn_sdp_enabled()
    assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cuda.mem_efficient_sdp_enabled()
    with same_bits(False, torch.device("cuda")):
        assert not torch.are_deterministic_algorithms_enabled()


def test_work_on_another_gpu_than_the_first_makes_it_the_current_one() -> None:
    guard: Any = current(torch.device("cuda:1"))
    assert isinstance(guard, torch.cuda.device) and guard.idx == 1
    assert isinstance(current(torch.device("cpu")), nullcontext)


def test_queueing_ahead_changes_no_bit(base: Base, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a GPU: a step is under way before the last one has been looked at."""
    settings = recipe(steps=5, checkpoint_every_steps=2)
    checkpoints = SavedCheckpoints(tmp_path)
    told: list[int] = []
    undisturbed = train(base, [item(0), item(1)], settings)
    monkeypatch.setattr(blora.training.train, "_steps_ahead", lambda device: 1)
    items = [item(0), item(1)]
    ahead = train(base, items, settings, on_checkpoint=checkpoints, on_step=lambda r: told.append(r.step))
    assert all(map(bit_equal, undisturbed, ahead))
    assert told == [1, 2, 3, 4, 5] and len(checkpoints) == 2
    assert all(map(bit_equal, undisturbed, train(base, items, settings, checkpoint=checkpoints[0])))


def test_a_step_that_is_not_finite_changes_nothing_before_it_is_judged(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blora.training.train, "_steps_ahead", lambda device: 1)
    settings = recipe(steps=4)
    with poisoned(base, {0: {1}}):
        hurt, sound = train(base, [item(0), item(1)], settings)
    assert hurt.skipped_steps == 1 and hurt.adapter is not None
    assert hurt.adapter.metadata["steps"] == "3"
    alone: TrainItem = item(1)
    assert distance(train(base, [alone], settings)[0], sound) < 1e-3


def test_training_and_drawing_have_their_gpu_the_current_one(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stood in for: whether the guard is open whenever the UNet is called."""
    is_open: list[torch.device] = []
    seen: list[bool] = []

    @contextmanager
    def guard(device: torch.device) -> Iterator[None]:
        is_open.append(device)
        try:
            yield
        finally:
            is_open.pop()

    for module in ("blora.training.train", "blora.sampling.denoise"):
        monkeypatch.setattr(f"{module}.current", guard)
    hook = base.unet.register_forward_pre_hook(lambda *_: seen.append(bool(is_open)))
    try:
        train(base, [item(0)], recipe(steps=1))
        sample_latents(base, [Draw(None, None, "a", 1)], QUICK)
    finally:
        hook.remove()
    assert len(seen) == 1 + QUICK.steps and all(seen)


def test_a_training_asks_for_determinism_where_its_settings_do(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    @contextmanager
    def watched(wanted: bool, device: torch.device) -> Iterator[None]:
        asked.append(wanted)
        yield

    monkeypatch.setattr("blora.training.train.same_bits", watched)
    for wanted in (True, False):
        train(base, [item(0)], recipe(steps=1, deterministic=wanted))
    assert asked == [True, False]
