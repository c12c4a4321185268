"""What goes wrong in training stays with its adapter: NaN, memory, wrong input."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blora.errors import CheckpointError, OutOfMemoryError, SettingsError, TrainingDivergedError
from blora.models.model import Base, load_base
from blora.training.items import StepReport, TrainItem
from blora.training.nan_policy import Progress
from blora.training.train import _next_size, train
from tests.blora.small_training import SavedCheckpoints, bit_equal, distance, item, poisoned, recipe, weights
from tests.tiny import picture


@pytest.fixture(scope="module")
def half_base(epsilon_folder: Path) -> Base:
    """The epsilon base with its UNet in fp16."""
    return load_base(epsilon_folder, precision="fp16")


def test_a_resumed_training_remembers_the_nan_policy(base: Base, tmp_path: Path) -> None:
    """Skips before the checkpoint count after it: a reseed in step 4 needs the streak that began in step 2."""
    settings = recipe(steps=6, checkpoint_every_steps=3, skips_before_reseed=3)
    checkpoints = SavedCheckpoints(tmp_path)
    items = [item(0), item(1)]
    with poisoned(base, {1: {1, 2, 3}}):
        undisturbed = train(base, items, settings, on_checkpoint=checkpoints)
    with poisoned(base, {1: {0}}):  # the pass after the checkpoint is number 3 of the undisturbed training
        resumed = train(base, items, settings, checkpoint=checkpoints[0])
    assert undisturbed[1].skipped_steps == resumed[1].skipped_steps == 3
    assert undisturbed[1].adapter is not None and undisturbed[1].adapter.metadata["reseeds"] == "1"
    assert all(map(bit_equal, undisturbed, resumed))


def test_nan_skips_one_adapters_step_and_nothing_else(base: Base) -> None:
    settings = recipe(steps=4)
    items = [item(0), item(1), item(2)]
    clean = train(base, items, settings)
    with poisoned(base, {1: {1}}):
        hurt = train(base, items, settings)
    assert bit_equal(clean[0], hurt[0]) and bit_equal(clean[2], hurt[2])
    assert [result.skipped_steps for result in hurt] == [0, 1, 0]
    assert math.isnan(hurt[1].losses[1]) and hurt[1].losses[0] == clean[1].losses[0]
    assert hurt[1].error is None and hurt[1].adapter is not None
    assert hurt[1].adapter.metadata["steps"] == "3" and hurt[1].adapter.metadata["skipped_steps"] == "1"
    assert torch.isfinite(weights(hurt[1])).all() and not bit_equal(clean[1], hurt[1])


def test_a_skipped_step_leaves_the_adapter_as_it_was(base: Base) -> None:
    with poisoned(base, {0: {2}}):
        skipped = train(base, [item(0)], recipe(steps=3))[0]
    shorter = train(base, [item(0)], recipe(steps=2))[0]
    assert torch.equal(weights(skipped), weights(shorter))


def test_the_nan_policy_climbs_to_a_fault_and_the_others_go_on(base: Base) -> None:
    settings = recipe(steps=12, skips_before_reseed=2, reseeds_before_lower_rate=1, max_lower_rates=1)
    items, reports = [item(0), item(1)], list[StepReport]()
    clean = train(base, items, settings)
    with poisoned(base, {1: set(range(1, 12))}):  # two skips: reseed; two: lower; two: reseed; two: given up
        hurt = train(base, items, settings, on_step=reports.append)
    assert bit_equal(clean[0], hurt[0])
    assert hurt[1].adapter is None and hurt[1].skipped_steps == 8
    assert isinstance(hurt[1].error, TrainingDivergedError) and not hurt[1].error.transient
    assert "item 1, step 9" in str(hurt[1].error) and "2 reseeds, 1 lower rates" in str(hurt[1].error)
    assert [report.active for report in reports] == [2] * 8 + [1] * 4
    assert [math.isnan(report.losses[1]) for report in reports] == [False] + [True] * 11


def test_lowering_the_rate_halves_the_update(base: Base) -> None:
    settings = recipe(steps=3, skips_before_reseed=1, reseeds_before_lower_rate=0, max_lower_rates=1)
    with poisoned(base, {0: {2}}):
        hurt = train(base, [item(0)], settings)[0]
    before = train(base, [item(0)], recipe(steps=2))[0]
    assert torch.equal(weights(hurt), weights(before) * 0.5)
    assert hurt.adapter is not None and hurt.adapter.metadata["lowered_rates"] == "1"


def test_a_pack_of_lost_adapters_ends_early(base: Base) -> None:
    settings = recipe(steps=50, skips_before_reseed=1, reseeds_before_lower_rate=0, max_lower_rates=0)
    with poisoned(base, {0: {0}}):
        result = train(base, [item(0)], settings)[0]
    assert result.error is not None and len(result.losses) == 1 and math.isnan(result.final_loss)


def test_a_rate_far_too_high_is_a_fault_that_says_what_to_do(base: Base) -> None:
    settings = recipe(steps=9, learning_rate=1e3, max_grad_norm=1e6, skips_before_reseed=1, max_lower_rates=0)
    hot = train(base, [item(0)], settings)[0]
    assert isinstance(hot.error, TrainingDivergedError) and hot.adapter is None
    assert str(hot.error).endswith("lower train.learning_rate"), "in fp32 no other precision can help"
    assert "item 0, step 4" in str(hot.error)


def test_a_rate_too_high_for_fp16_is_lowered_until_it_works(half_base: Base) -> None:
    settings = recipe(precision="fp16", steps=24, learning_rate=1.0, skips_before_reseed=2)
    hot = train(half_base, [item(0)], settings)[0]
    assert hot.error is None and hot.adapter is not None and hot.skipped_steps > 2
    assert int(hot.adapter.metadata["lowered_rates"]) > 0
    assert np.isfinite(hot.losses[-5:]).all() and torch.isfinite(weights(hot)).all()


def test_fp16_overflow_halves_the_loss_scale_before_anything_else() -> None:
    progress, settings = Progress.start("a", recipe(precision="fp16")), recipe(precision="fp16")
    state = progress.generator.get_state()
    for halvings in range(16):
        assert progress.loss_scale == 2.0 ** (16 - halvings)
        assert progress.judge(1.0, math.inf, progress.loss_scale, settings) == "skip"
    assert (progress.loss_scale, progress.streak, progress.skipped) == (1.0, 0, 16)
    assert torch.equal(progress.generator.get_state(), state)
    assert progress.judge(1.0, math.inf, 1.0, settings) == "skip" and progress.streak == 1
    assert progress.judge(1.0, 1.0, 1.0, settings) == "step" and progress.streak == 0


def test_steps_queued_with_one_loss_scale_halve_it_once() -> None:
    progress, settings = Progress.start("a", recipe(precision="fp16")), recipe(precision="fp16")
    scale = progress.loss_scale
    assert [progress.judge(1.0, math.inf, scale, settings) for _ in range(2)] == ["skip", "skip"]
    assert progress.loss_scale == scale / 2


@contextmanager
def short_of_memory(base: Base, unless_checkpointing: bool) -> Iterator[None]:
    """Let the UNet run out of memory as torch reports it, always or only while activations are kept."""

    def fail(*_: Any) -> None:
        if not (unless_checkpointing and base.unet.is_gradient_checkpointing):
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = base.unet.mid_block.register_forward_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def test_memory_asks_for_checkpointing(base: Base, caplog: pytest.LogCaptureFixture) -> None:
    settings = recipe(steps=2)
    kept = train(base, [item(0)], settings)[0]
    with short_of_memory(base, unless_checkpointing=True), caplog.at_level(logging.INFO, "blora"):
        saved = train(base, [item(0)], settings)[0]
    assert bit_equal(kept, saved) and "recomputed from here on" in caplog.text
    assert not base.unet.is_gradient_checkpointing
    modules = dict(base.unet.named_modules())
    for how in ("auto", "off", "on"):
        with short_of_memory(base, how == "off"), pytest.raises(OutOfMemoryError, match=r"about .* GB free") as caught:
            train(base, [item(0)], recipe(checkpointing=how))
        assert ("checkpointing: auto" in str(caught.value)) is (how == "off")
    assert dict(base.unet.named_modules()) == modules and not base.unet.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(2, 1, [2, 1, 1]), (5, 2, [5, 3, 2, 2, 1]), (8, 3, [8, 4, 3, 3, 2]), (4, 3, [4, 2, 2])],
)
def test_a_pack_that_does_not_fit_takes_one_pass_more_before_anything_is_recomputed(
    count: int, most: int, expected: list[int], base: Base
) -> None:
    """Eight where three fit were once four passes of two: halves were halved."""
    rows: list[int] = []

    def fail(_: Any, args: Any) -> None:
        assert not base.unet.is_gradient_checkpointing
        rows.append(len(args[0]))
        if len(args[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    items, settings = [item(number) for number in range(count)], recipe(steps=1)
    whole = train(base, items, settings)
    handle = base.unet.register_forward_pre_hook(fail)
    try:
        parts = train(base, items, settings)
    finally:
        handle.remove()
    assert rows == expected
    assert all(distance(one, other) < 1e-3 for one, other in zip(whole, parts, strict=True))


@pytest.mark.parametrize("left", range(1, 17))
def test_the_next_size_takes_the_fewest_passes(left: int) -> None:
    for tried in range(2, left + 2):
        size = _next_size(tried, left)
        passes = -(-left // size)
        assert 1 <= size < tried and -(-left // passes) == size, "of one size"
        assert passes == 1 or -(-left // (passes - 1)) >= tried, "with one pass less they would be as large as before"


@pytest.mark.parametrize(
    ("items", "changes", "field"),
    [
        ([], {}, "items"),
        ([item(0), item(0)], {}, "items"),
        ([TrainItem((), "empty")], {}, "empty"),
        ([TrainItem((picture(0)[..., 0],), "grey")], {}, "grey"),
        ([TrainItem((picture(0) / 255.0,), "float")], {}, "float"),
        ([item(0)], {"precision": "bf16"}, "train.precision"),
        ([item(0)], {"resolution_px": 40}, "train.resolution_px"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    base: Base, items: list[TrainItem], changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        train(base, items, recipe(**changes))
    assert [fault.field for fault in caught.value.faults] == [field]


@pytest.mark.parametrize(
    ("items", "changes"),
    [((1, 0), {}), ((0,), {}), ((0, 2), {}), ((0, 1), {"learning_rate": 2e-3}), ((0, 1), {"seed": 1})],
)
def test_a_checkpoint_of_another_training_is_refused(
    base: Base, items: tuple[int, ...], changes: dict[str, Any], tmp_path: Path
) -> None:
    settings, checkpoints = recipe(steps=2, checkpoint_every_steps=1), SavedCheckpoints(tmp_path)
    train(base, [item(0), item(1)], settings, on_checkpoint=checkpoints)
    with pytest.raises(CheckpointError, match="another training"):
        train(
            base,
            [item(number) for number in items],
            recipe(**{**settings.model_dump(), **changes}),
            checkpoint=checkpoints[0],
        )
    checkpoints[0].write_bytes(checkpoints[0].read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="unreadable"):
        train(base, [item(0), item(1)], settings, checkpoint=checkpoints[0])
