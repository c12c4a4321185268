"""A pool of draws: most steps skip the frozen front, and what that changes is which noise they see, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from blora.errors import SettingsError
from blora.models.model import Base
from blora.models.passes.front import front_of, rest_of
from blora.settings.training import TrainSettings
from blora.training.items import TrainItem, TrainResult
from blora.training.noise import FrontPool, Noise, draw_noise, seeded
from blora.training.photos import Photo
from blora.training.train import train
from tests.benchmarks.operations import unet_inputs
from tests.blora.small_training import SavedCheckpoints, bit_equal, distance, item, recipe
from tests.tiny import RESOLUTION_PX, picture

POOL = {"steps": 9, "front_pool": 2, "front_uses": 2, "batch_size": 2}
"""Rounds of two steps: 0, 1 are new and come again in 2, 3; 4, 5 again in 6, 7; and 8 is new."""


@contextmanager
def front_rows(base: Base) -> Iterator[list[int]]:
    """Count the rows of each pass through the front."""
    rows: list[int] = []
    handle = base.unet.conv_in.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    try:
        yield rows
    finally:
        handle.remove()


def test_front_and_rest_are_the_unet(base: Base) -> None:
    told = {name: value for name, value in unet_inputs(base, RESOLUTION_PX, 2).items() if name != "added_cond_kwargs"}
    noisy = torch.randn(told["sample"].shape, generator=torch.Generator().manual_seed(0)).to(base.device)
    times, hidden = torch.tensor([3, 800], device=base.device), torch.randn_like(told["encoder_hidden_states"])
    conditions = unet_inputs(base, RESOLUTION_PX, 2)["added_cond_kwargs"]
    with torch.no_grad():
        front = front_of(base.unet, noisy, times, hidden, conditions)
        rest = rest_of(base.unet, front, times, hidden, conditions)
        assert torch.equal(rest, base.predict(noisy, times, hidden, conditions))
    assert len(front) == 1 + 3 * 3


def test_a_pool_of_as_many_draws_as_steps_is_the_plain_training(base: Base) -> None:
    """Every draw is used once: the same bits for one adapter, and within rounding for a pack."""
    for numbers, same in (([0], True), ([0, 1, 2], False)):
        items = [item(number) for number in numbers]
        plain = train(base, items, recipe(steps=4, batch_size=2))
        pooled = train(base, items, recipe(steps=4, batch_size=2, front_pool=4))
        for one, other in zip(plain, pooled, strict=True):
            assert bit_equal(one, other) or not same
            assert distance(one, other) < 1e-4


def test_a_pool_is_the_plain_training_on_draws_that_come_again(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told the same draws, a training that computes every front gives the same bits."""
    pooled = train(base, [item(0)], recipe(**POOL))[0]
    pool = FrontPool(recipe(**POOL))

    def again(
        generator: torch.Generator, photos: Any, step: int, settings: Any, times: int, key: str, shifts: Any
    ) -> list[Noise]:
        return pool.draw(generator, photos, step, times, key)

    monkeypatch.setattr("blora.training.step_queue.draw_noise", again)
    plain = train(base, [item(0)], recipe(**POOL | {"front_pool": 0}))[0]
    assert bit_equal(pooled, plain)


def test_most_steps_skip_the_front(base: Base) -> None:
    with front_rows(base) as rows:
        train(base, [item(0), item(1)], recipe(**POOL))
    assert rows == [2, 2] * 5, "five new steps, and each adapter's rows by themselves"
    assert recipe(**POOL).front_share == pytest.approx(5 / 9)
    assert recipe(steps=9).front_share == 1


def test_draws_come_again_in_an_order_by_lot_and_then_go() -> None:
    photos = [Photo(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.zeros(1, 6))]
    settings, generator = recipe(steps=48, front_pool=8, front_uses=3), seeded("one", 0)
    pool = FrontPool(settings)
    steps = [pool.draw(generator, photos, step, 1000, "one")[0] for step in range(48)]
    rounds = [[id(noise) for noise in steps[start : start + 8]] for start in range(0, 48, 8)]
    assert [set(one) == set(rounds[0]) for one in rounds] == [True] * 3 + [False] * 3
    assert rounds[1] != rounds[0] != rounds[2] != rounds[1] and len(set(rounds[3])) == 8
    alone = seeded("one", 0)
    plain = [draw_noise(alone, photos, step, settings, 1000, "one")[0] for step in range(16)]
    for one, other in zip([*steps[:8], *steps[24:32]], plain, strict=True):
        assert one.timestep == other.timestep and torch.equal(one.noise, other.noise)


def test_photos_take_turns_among_new_draws() -> None:
    photos = [Photo(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.zeros(1, 6))] * 3
    settings, generator = recipe(steps=36, front_pool=2, front_uses=3), seeded("one", 0)
    pool = FrontPool(settings)
    new = [pool.draw(generator, photos, step, 1000, "one")[0].photo for step in range(36) if step % 6 < 2]
    assert [set(new[start : start + 3]) for start in range(0, 12, 3)] == [{0, 1, 2}] * 4


def test_a_resumed_pool_is_bit_equal(base: Base, tmp_path: Path) -> None:
    """From checkpoints in a new round and in the midst of a repeated one; candidates share their draws."""
    settings, checkpoints = recipe(**POOL, checkpoint_every_steps=1), SavedCheckpoints(tmp_path)
    twins = [TrainItem((picture(0), picture(5)), name, draws="x") for name in ("first", "second")]
    items = [*twins, item(1)]
    undisturbed = train(base, items, settings, on_checkpoint=checkpoints)
    for done in (1, 2, 3, 5, 7):
        assert all(map(bit_equal, undisturbed, train(base, items, settings, checkpoint=checkpoints[done - 1])))


def test_a_reseeded_adapter_gets_new_draws_and_leaves_the_others_theirs(base: Base, tmp_path: Path) -> None:
    """Its rows are not finite in steps 1 and 2: it is reseeded, and what it held is not used again."""
    settings = recipe(steps=6, front_pool=2, front_uses=3, skips_before_reseed=2, checkpoint_every_steps=3)
    checkpoints = SavedCheckpoints(tmp_path)
    items = [item(0), item(1)]
    clean = train(base, items, settings)

    def train_hurt() -> list[TrainResult]:
        return train(base, items, settings, on_checkpoint=checkpoints)

    # The fronts of both adapters are passes of their own: those of the second one are numbers 1 and 3.
    with hurt_fronts(base, {1, 3}), front_rows(base) as rows:
        hurt = train_hurt()
    assert bit_equal(clean[0], hurt[0]) and not bit_equal(clean[1], hurt[1])
    assert hurt[1].skipped_steps == 2 and hurt[1].adapter is not None
    assert hurt[1].adapter.metadata["reseeds"] == "1" and len(rows) == 6, "two draws of each, and two made anew"
    assert all(map(bit_equal, hurt, train(base, items, settings, checkpoint=checkpoints[0])))


@contextmanager
def hurt_fronts(base: Base, passes: set[int]) -> Iterator[None]:
    """Turn what the UNet sees to NaN in chosen passes through the front."""
    calls = iter(range(10**6))

    def hurt(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        return (torch.full_like(args[0], torch.nan),) if next(calls) in passes else None

    handle = base.unet.conv_in.register_forward_pre_hook(hurt)
    try:
        yield
    finally:
        handle.remove()


def test_packed_equals_one_by_one_and_candidates_share_the_front(base: Base) -> None:
    twins = [TrainItem((picture(0),), f"candidate {number}", draws="any") for number in range(2)]
    items, settings = [*twins, item(1)], recipe(**POOL)
    with front_rows(base) as rows:
        packed = train(base, items, settings)
    assert rows == [2, 2] * 5, "both candidates are one"
    for one, result in zip(items, packed, strict=True):
        assert distance(train(base, [one], settings)[0], result) < 1e-3


@pytest.mark.parametrize(
    "changes", [{"front_place": "host"}, {"checkpointing": "on"}, {"crop": "none"}, {"execution": "graph"}]
)
def test_ways_of_doing_it_change_nothing(base: Base, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blora.training.stepper.Graphs", _Replayed)
    items = [TrainItem((picture(0), picture(1, 32, 64)), "two shapes"), item(2)]
    settings = recipe(**POOL)
    if "crop" in changes:  # rows of a step have two shapes
        plain = train(base, items, recipe(steps=4, batch_size=2, crop="none"))
        pooled = train(base, items, recipe(steps=4, batch_size=2, front_pool=4, crop="none"))
    else:
        plain, pooled = train(base, items, settings), train(base, items, recipe(**POOL, **changes))
    assert all(distance(one, other) < 1e-4 for one, other in zip(plain, pooled, strict=True))


class _Replayed:
    """Stands in for captured graphs where there is no GPU: calls what would be captured, each time."""

    def run(self, key: Any, function: Any, inputs: Any) -> torch.Tensor:
        result: torch.Tensor = function(*inputs)
        return result


def test_a_front_that_is_trained_cannot_be_kept(base: Base) -> None:
    with pytest.raises(SettingsError, match=r"train\.front_pool"):
        train(base, [item(0)], recipe(**POOL), layers=["down_blocks.2.attentions.1.transformer_blocks.0.attn1.to_q"])


def test_a_pool_is_named_only_where_there_is_one() -> None:
    plain = TrainSettings()
    assert TrainSettings(front_uses=8, front_place="host").identity() == plain.identity()
    assert TrainSettings(front_pool=8).identity() == plain.identity() | {"front_pool": 8, "front_uses": 4}
    assert not {"front_pool", "front_uses", "front_place"} & plain.identity().keys()
