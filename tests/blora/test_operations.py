"""Operation counts: no pass computes what it does not need, and nothing is encoded twice.

Counted on SDXL's full-size configuration without allocating it, and on the embedded model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blora.models.model import Base, load_base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample
from blora.settings.resolve import resolve
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings
from blora.training.items import TrainItem
from blora.training.train import train
from tasks.planning.cost import EMBEDDED_FRONT_TFLOP, EMBEDDED_SHARE, FRONT_TFLOP
from tests.benchmarks.full_size import FullSize
from tests.benchmarks.operations import (
    forward_flop,
    front_flop,
    needed_training_flop,
    sampling_flop,
    training_flop,
    training_flops,
)
from tests.benchmarks.versus_sampling import pipeline_of
from tests.blora.small_training import SETTINGS, bit_equal, distance, item, recipe
from tests.tiny import RESOLUTION_PX, picture

WASTE = 1.03
"""Largest share of operations over what is needed."""


@pytest.fixture(scope="module")
def sdxl() -> FullSize:
    """SDXL's configuration on the device meta."""
    return FullSize()


@pytest.fixture(scope="module")
def embedded() -> Base:
    return load_base("embedded")


def test_the_counts_of_full_size_are_those_of_the_facts(sdxl: FullSize) -> None:
    """What the product's cost is reckoned by: tasks/planning/cost.py and the README."""
    assert forward_flop(sdxl, 1024) == pytest.approx(6.80e12, rel=0.01)
    assert front_flop(sdxl, 1024) == pytest.approx(2.93e12, rel=0.01)
    assert needed_training_flop(sdxl, 1024, rank=64) == pytest.approx(11.0e12, rel=0.03)


@pytest.mark.parametrize("count", [1, 8])
def test_a_training_step_of_sdxl_computes_what_it_needs(sdxl: FullSize, count: int) -> None:
    settings = TrainSettings(precision="bf16")
    needed = needed_training_flop(sdxl, 1024, settings.rank)
    assert 0.95 * needed < training_flop(sdxl, settings, count) < WASTE * needed


def test_a_sampling_step_of_sdxl_is_two_forward_passes(sdxl: FullSize) -> None:
    settings = SampleSettings(precision="bf16")
    forward = forward_flop(sdxl, 1024)
    assert 0.95 < sampling_flop(sdxl, settings, 64, pictures=2) / (2 * forward) < WASTE


def test_the_embedded_model_computes_less_than_plain_peft(embedded: Base) -> None:
    """Its 77 tokens of prompt outnumber its 16 of picture, so that remembering their keys saves much."""
    settings = resolve("demo").train
    needed = needed_training_flop(embedded, settings.resolution_px, settings.rank)
    assert training_flop(embedded, settings, 2) < 0.95 * needed
    steps = resolve("demo").sample
    assert sampling_flop(embedded, steps, 32, pictures=2) < 2 * forward_flop(embedded, steps.height_px)


def test_candidates_of_one_image_share_the_frozen_front(sdxl: FullSize) -> None:
    settings, count = TrainSettings(precision="bf16"), 4
    apart = training_flop(sdxl, settings, count)
    together = training_flop(sdxl, settings, count, shared=True)
    saved = front_flop(sdxl, 1024) * (count - 1) / count
    # The front's own keys and values of the prompt are remembered on both sides.
    assert apart - together == pytest.approx(saved, rel=0.02)
    assert apart / together > 1.2


def test_a_step_that_finds_its_front_in_a_pool_is_spared_it(sdxl: FullSize, embedded: Base) -> None:
    """What a plan reckons with: tasks/planning/cost.py."""
    for base, side_px, told in ((sdxl, 1024, FRONT_TFLOP), (embedded, 128, EMBEDDED_FRONT_TFLOP * EMBEDDED_SHARE)):
        settings = resolve("demo").train.model_copy(update={"resolution_px": side_px, "front_pool": 8})
        settings = TrainSettings(precision="bf16", front_pool=8) if base is sdxl else settings
        new, again = training_flops(base, settings, 2, steps=2)
        plain = training_flop(base, settings.model_copy(update={"front_pool": 0}), 2)
        assert new == pytest.approx(plain, rel=0.001), "a new draw costs what it does without a pool"
        assert new - again == pytest.approx(front_flop(base, side_px), rel=0.06), "remembered keys and values beside"
        assert told * 1e12 == pytest.approx(new - again, rel=0.01)


def test_shared_draws_change_nothing_but_the_cost(base: Base) -> None:
    """Each candidate comes out as it does alone, and they differ."""
    seeds = [TrainItem((picture(0),), f"candidate {number}", draws="any") for number in range(3)]
    packed = train(base, seeds, SETTINGS)
    for one, result in zip(seeds, packed, strict=True):
        assert distance(train(base, [one], SETTINGS)[0], result) < 1e-3
    assert distance(packed[0], packed[1]) > 0.5


def test_a_graph_that_is_captured_takes_nothing_from_the_cpu(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stood in for: what is computed where a graph would be captured, for candidates that share the frozen front."""
    capturing: list[bool] = []

    class Captured:
        def run(self, key: Any, function: Any, inputs: Any) -> torch.Tensor:
            capturing.append(True)
            result: torch.Tensor = function(*inputs)
            capturing.pop()
            return result

    def copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        assert not capturing, "a copy from the CPU"
        return tensor.to(device)

    for module in ("blora.models.passes.execution", "blora.training.stepper"):
        monkeypatch.setattr(f"{module}.to_device", copied)
    monkeypatch.setattr("blora.training.stepper.Graphs", Captured)
    seeds = [TrainItem((picture(0),), f"candidate {number}", draws="any") for number in range(3)]
    graphs = train(base, seeds, recipe(execution="graph", steps=2))
    for one, other in zip(graphs, train(base, seeds, recipe(steps=2)), strict=True):
        assert bit_equal(one, other)


def test_keys_and_values_are_written_out_for_every_row(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    strides: list[int] = []
    attend: Any = torch.nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *more: Any, **named: Any) -> Any:
        strides.extend((key.stride(0), value.stride(0)))
        return attend(query, key, value, *more, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    train(base, [item(0), item(1)], recipe(steps=1))
    assert strides and 0 not in strides


@contextmanager
def counted(target: Any, method: str, seen: Counter[str], name: str) -> Iterator[None]:
    """Count calls of a method of an object."""
    original = getattr(target, method)

    def call(*args: Any, **kwargs: Any) -> Any:
        seen[name] += 1
        return original(*args, **kwargs)

    setattr(target, method, call)
    try:
        yield
    finally:
        delattr(target, method)


def test_nothing_is_encoded_twice(base: Base) -> None:
    base.text_encoders._known.clear()
    seen: Counter[str] = Counter()
    encoders = [encoder for _, encoder in base.text_encoders.load()]
    small = SampleSettings(steps=2, guidance_scale=2.0, width_px=RESOLUTION_PX, height_px=RESOLUTION_PX, batch_size=2)
    twins = [TrainItem((picture(0),), name, draws="x") for name in ("first", "second")]
    with (
        counted(base.vae, "encode", seen, "pictures"),
        counted(encoders[0], "forward", seen, "prompts of encoder 1"),
        counted(encoders[1], "forward", seen, "prompts of encoder 2"),
    ):
        held = base.text_encoders._pairs
        results = train(base, [*twins, item(1)], SETTINGS.model_copy(update={"steps": 3}))
        base.text_encoders._pairs = held  # training gave them back, as it should; the same ones go on counting
        adapters = [result.adapter for result in results]
        drawn = []
        for _ in range(2):
            drawn = sample(base, [Draw(a, a, "A [v]", n) for n, a in enumerate(adapters)], small)
    assert seen == {"pictures": 2, "prompts of encoder 1": 2, "prompts of encoder 2": 2}, "A [v] and the empty prompt"
    assert len({np.asarray(one).tobytes() for one in drawn}) == 3


def test_the_published_way_decodes_in_half_precision(epsilon_folder: Path) -> None:
    """With the fp16-fix VAE, as published; diffusers would turn any other VAE to fp32 for it, which flattered ours."""
    base = load_base(epsilon_folder, precision="fp16")
    pipeline = pipeline_of(base, SampleSettings(), half=True)
    seen: list[torch.dtype] = []
    pipeline.vae.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    pipeline("A [v]", num_inference_steps=1, height=RESOLUTION_PX, width=RESOLUTION_PX)
    assert seen == [torch.float16]
