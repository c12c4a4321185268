"""Training: packed equals one by one and plain PEFT, resume is bit-equal, NaN stays with its adapter.

Tolerances are relative distances of the weight deltas of all layers, |A - B| / |A|. They are not zero because matrix
products over another number of rows add in another order, and AdamW's first steps turn rounding of tiny gradients into
rounding of whole steps. Measured here after the tests' steps: at most 5e-5 for packs; against
PEFT 8e-5, and 1e-6 with the larger epsilon of its test; 0.03 for fp16 and 0.13 for bf16 against fp32.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blora.adapters.load import load_adapter
from blora.adapters.safetensors_bytes import stream_safetensors
from blora.models import sizes
from blora.models.model import Base, load_base
from blora.training.items import StepReport, TrainItem, TrainResult
from blora.training.noise import draw_noise
from blora.training.optim import FlatFactors
from blora.training.photos import prepare_photos
from blora.training.stepper import Stepper
from blora.training.train import train
from tests.benchmarks.operations import both_halves
from tests.benchmarks.peak import LiveBytes
from tests.blora.small_training import SETTINGS, SavedCheckpoints, bit_equal, distance, item, recipe
from tests.plain_peft import train_with_peft
from tests.tiny import picture

PACKED = 1e-3
"""Largest relative distance accepted between packed and one-by-one training."""

PEFT = 1e-4
"""Largest relative distance accepted between ours and PEFT's, with the larger epsilon."""


@pytest.fixture(scope="module")
def alone(base: Base) -> list[TrainResult]:
    """Five items, each trained in a pack of its own."""
    return [train(base, [item(number)], SETTINGS)[0] for number in range(5)]


@pytest.mark.parametrize("order", [(3,), (1, 0), (4, 0, 2), (2, 3, 1, 0), (0, 1, 2, 3, 4), (4, 1, 3, 0, 2)])
def test_packed_equals_one_by_one_in_any_order(base: Base, alone: list[TrainResult], order: tuple[int, ...]) -> None:
    results = train(base, [item(number) for number in order], SETTINGS)
    for number, result in zip(order, results, strict=True):
        assert distance(alone[number], result) < PACKED
        assert result.losses == pytest.approx(alone[number].losses, rel=1e-4)
        others = [distance(alone[number], other) for index, other in enumerate(alone) if index != number]
        assert min(others) > 0.5, "items must differ for this test to mean anything"


def test_the_same_pack_gives_the_same_bits(base: Base) -> None:
    items, settings = [item(0), item(1)], recipe(steps=2, batch_size=2)
    assert all(map(bit_equal, train(base, items, settings), train(base, items, settings)))


@pytest.mark.parametrize(
    ("kind", "rates"), [("epsilon", "constant"), ("v_prediction", "constant"), ("epsilon", "cosine")]
)
def test_a_trained_pack_equals_plain_peft(base: Base, v_base: Base, kind: str, rates: str) -> None:
    """The same start and draws through diffusers' own adapter and schedule, torch's AdamW and torch's clipping."""
    used = base if kind == "epsilon" else v_base
    # AdamW hides the size of gradients, and so clipping, unless epsilon is of their order.
    clipped = {"max_grad_norm": 1e-3, "epsilon": 1e-5}
    settings = recipe(steps=4, batch_size=2, alpha=2.0, weight_decay=0.01, beta2=0.99, **clipped)
    settings = settings.model_copy(update={"learning_rate_schedule": rates})
    items = [item(0), item(1, 33, 70)]
    for result, one in zip(train(used, items, settings), items, strict=True):
        expected = train_with_peft(used, copy.deepcopy(used.unet), one, settings)
        assert distance(expected, result) < PEFT


def test_training_learns(base: Base) -> None:
    """On noise that training never drew, the trained adapter predicts better than the base."""
    settings = recipe(steps=30, learning_rate=1e-2, batch_size=2)
    result = train(base, [item(0)], settings)[0]
    factors = FlatFactors(both_halves(base), 1, settings.rank)
    photos = [prepare_photos(base, item(0).images, settings)]
    many = recipe(steps=30, batch_size=16)
    unseen = draw_noise(torch.Generator().manual_seed(123), photos[0], 0, many, 1000, "")
    losses = []
    for trained in (False, True):
        if trained and result.adapter is not None:
            for name, (down, up) in factors.layers.items():
                down.data[0], up.data[0] = result.adapter.layers[name].down, result.adapter.layers[name].up
        with Stepper(base, photos, factors, many) as stepper:
            losses.append(stepper.run([unseen], [1.0])[0][0])
    assert losses[1] < 0.99 * losses[0]  # a random UNet cannot learn much, but the draws are the same
    assert result.final_loss == pytest.approx(np.mean(result.losses[-3:]))


def test_a_resumed_training_is_bit_equal(base: Base, tmp_path: Path) -> None:
    """With rates that fall, too, which depend on the step."""
    settings = recipe(steps=5, checkpoint_every_steps=2, batch_size=2, learning_rate_schedule="cosine")
    checkpoints = SavedCheckpoints(tmp_path)
    items = [item(0), item(1)]
    undisturbed = train(base, items, settings, on_checkpoint=checkpoints)
    assert len(checkpoints) == 2, "after steps 2 and 4, not after the last"
    for data, done in zip(checkpoints, (2, 4), strict=True):
        reports: list[StepReport] = []
        resumed = train(base, items, settings, checkpoint=data, on_step=reports.append)
        assert all(map(bit_equal, undisturbed, resumed))
        assert [report.step for report in reports] == list(range(done + 1, 6))
    for first, second in zip(undisturbed, resumed, strict=True):
        assert first.adapter is not None and second.adapter is not None
        assert first.adapter.style.save_half() == second.adapter.style.save_half()


def test_checkpoints_come_by_time_and_a_short_training_has_none(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves on by a minute a step: every 180 seconds by default, and not by steps."""
    checkpoints: list[Any] = []
    steps: list[int] = []
    monkeypatch.setattr("blora.training.train.time.perf_counter", lambda: 60.0 * len(steps))
    for count, expected in ((3, 0), (9, 2)):
        steps.clear()
        told = {"on_checkpoint": checkpoints.append, "on_step": lambda report: steps.append(report.step)}
        train(base, [item(0)], recipe(steps=count), **told)
        assert len(checkpoints) == expected


def test_a_checkpoint_of_sixteen_adapters_takes_the_memory_of_a_row_of_one() -> None:
    """One of its three matrices, of SDXL at rank 64: 1.8 GB are written, and 113 MB are in the CPU's memory at once."""
    width = 64 * sizes.SDXL.adapter_parameters_per_rank
    full = torch.zeros(1, 1).expand(16, width)  # as large as it looks to whoever reads it, and no memory
    with LiveBytes([full]) as live:
        stream_safetensors(Path("/dev/null"), {"values": full}, {})
    assert live.peak == 4 * width == 112_721_920


def test_half_precision_stays_near_full(alone: list[TrainResult], epsilon_folder: Path) -> None:
    fp16 = train(load_base(epsilon_folder, precision="fp16"), [item(0)], recipe(precision="fp16"))[0]
    assert fp16.adapter is not None and fp16.skipped_steps == 0
    assert distance(alone[0], fp16) < 0.1
    bf16 = train(load_base(epsilon_folder, precision="bf16"), [item(0)], recipe(precision="bf16"))[0]
    assert bf16.adapter is not None and distance(alone[0], bf16) < 0.3
    assert {factors.up.dtype for factors in bf16.adapter.layers.values()} == {torch.float32}


def test_recomputing_activations_changes_no_bit(base: Base) -> None:
    settings = recipe(steps=2)
    kept = train(base, [item(0)], settings)[0]
    recomputed = train(base, [item(0)], recipe(steps=2, checkpointing="on"))[0]
    assert bit_equal(kept, recomputed)
    assert not base.unet.is_gradient_checkpointing


def test_the_frozen_front_keeps_no_graph(base: Base) -> None:
    seen: dict[str, bool] = {}
    watched = ("down_blocks.2", "mid_block", "up_blocks.0.resnets.0", "up_blocks.0.attentions.0", "up_blocks.2")

    def watch(name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            seen[name] = (output[0] if isinstance(output, tuple) else output).requires_grad

        return hook

    handles = [base.unet.get_submodule(name).register_forward_hook(watch(name)) for name in watched]
    train(base, [item(0)], recipe(steps=1))
    for handle in handles:
        handle.remove()
    assert list(seen) == list(watched) and list(seen.values()) == [False, False, False, True, True]


def test_the_unet_is_left_as_it_was_found(base: Base) -> None:
    modules, state = dict(base.unet.named_modules()), copy.deepcopy(base.unet.state_dict())

    def stop(report: StepReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(base, [item(0)], SETTINGS, on_step=stop)
    train(base, [item(0)], recipe(steps=1))
    assert dict(base.unet.named_modules()) == modules
    assert all(torch.equal(value, state[name]) for name, value in base.unet.state_dict().items())
    assert not any(parameter.requires_grad for parameter in base.unet.parameters())


def test_files_say_where_they_come_from(base: Base, tmp_path: Path) -> None:
    settings = recipe(steps=2, alpha=2.0, prompt="A [v7] dog")
    one = TrainItem((picture(0),), "the key", {"image_ids": "abc", "base": "org/model"})
    adapter = train(base, [one], settings)[0].adapter
    assert adapter is not None
    adapter.content.save_half(tmp_path / "content.safetensors")
    told = load_adapter(tmp_path / "content.safetensors", base.unet).metadata
    assert (told["key"], told["image_ids"], told["base"], told["prompt"]) == (
        "the key",
        "abc",
        "org/model",
        "A [v7] dog",
    )
    assert told["base_revision"] == base.revision and json.loads(told["settings"]) == settings.identity()
    assert (told["steps"], told["rank"], told["seed"], told["half"]) == ("2", "4", "0", "content")
    assert float(told["final_loss"]) > 0 and told["torch"] == torch.__version__
