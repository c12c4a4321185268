"""Training: packed equals one by one and plain PEFT, resume is bit-equal, NaN stays with its adapter.

Tolerances are relative distances of the weight deltas of all layers, |A - B| / |A|. They are not zero because matrix
products over another number of rows add in another order, and AdamW's first steps turn rounding of tiny gradients into
rounding of whole steps. Measured here: at most 5e-5 for packs and 8e-5 against PEFT after the tests' steps; 0.03 for fp16
and 0.13 for bf16 against fp32.
"""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image

from blora.adapter import Adapter, Factors, load_adapter
from blora.base import Base, load_base
from blora.blocks import target_layers
from blora.config import TrainSettings
from blora.errors import CheckpointError, OutOfMemoryError, SettingsError, TrainingDivergedError
from blora.optim import FlatFactors
from blora.prepare import cut, draw_noise, frame_of, prepare_photos, read_pixels, seeded
from blora.progress import Progress
from blora.stepper import Stepper
from blora.train import StepReport, TrainItem, TrainResult, train, train_images
from tests.tiny import RESOLUTION_PX, picture

PACKED = 1e-3
"""Largest relative distance accepted between packed and one-by-one training, and between ours and PEFT's."""

SETTINGS = TrainSettings(resolution_px=RESOLUTION_PX, rank=4, learning_rate=1e-3, steps=3, batch_size=1)


def recipe(**changes: Any) -> TrainSettings:
    return TrainSettings(**{**SETTINGS.model_dump(), **changes})


def item(number: int, height_px: int = 40, width_px: int = 32) -> TrainItem:
    return TrainItem((picture(number, height_px, width_px),), f"item {number}")


def weights(result: TrainResult | Adapter) -> torch.Tensor:
    """Return all weight deltas as one vector."""
    adapter = result.adapter if isinstance(result, TrainResult) else result
    assert adapter is not None
    return torch.cat([adapter.layers[name].delta.flatten() for name in sorted(adapter.layers)])


def distance(first: TrainResult | Adapter, second: TrainResult | Adapter) -> float:
    return float((weights(first) - weights(second)).norm() / weights(first).norm())


def bit_equal(first: TrainResult, second: TrainResult) -> bool:
    assert first.adapter is not None and second.adapter is not None
    return np.array_equal(first.losses, second.losses, equal_nan=True) and all(
        torch.equal(factors.down, second.adapter.layers[name].down)
        and torch.equal(factors.up, second.adapter.layers[name].up)
        for name, factors in first.adapter.layers.items()
    )


@contextmanager
def poisoned(base: Base, rows: dict[int, set[int]]) -> Iterator[None]:
    """Turn rows of the UNet's input to NaN in chosen forward passes: by row, the numbers of the passes."""
    calls = iter(range(10**6))

    def poison(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        call, sample = next(calls), args[0].clone()
        for row, passes in rows.items():
            if call in passes:
                sample[row] = torch.nan
        return (sample, *args[1:])

    handle = base.unet.register_forward_pre_hook(poison)
    try:
        yield
    finally:
        handle.remove()


@pytest.fixture(scope="module")
def alone(base: Base) -> list[TrainResult]:
    """Five items, each trained in a pack of its own."""
    return [train(base, [item(number)], SETTINGS)[0] for number in range(5)]


@pytest.fixture(scope="module")
def half_base(epsilon_folder: Path) -> Base:
    """The epsilon base with its UNet in fp16."""
    return load_base(epsilon_folder, precision="fp16")


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


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_trained_pack_equals_plain_peft(
    base: Base, v_base: Base, epsilon_folder: Path, v_folder: Path, kind: str
) -> None:
    """The same start and the same draws through diffusers' own adapter, torch's AdamW and torch's clipping."""
    used, folder = (base, epsilon_folder) if kind == "epsilon" else (v_base, v_folder)
    settings = recipe(steps=4, batch_size=2, alpha=2.0, weight_decay=0.01, max_grad_norm=0.5)
    items = [item(0), item(1, 33, 70)]
    for result, one in zip(train(used, items, settings), items, strict=True):
        expected = train_with_peft(used, folder, one, settings)
        assert distance(expected, result) < PACKED


def train_with_peft(base: Base, folder: Path, one: TrainItem, settings: TrainSettings) -> Adapter:
    """Train one adapter the usual way, sharing only the random numbers and the prepared picture."""
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").requires_grad_(False)
    layers = (*target_layers(unet, "content"), *target_layers(unet, "style"))
    unet.add_adapter(
        LoraConfig(r=settings.rank, lora_alpha=settings.scale * settings.rank, target_modules=list(layers))
    )
    generator = seeded(one.key, settings.seed)
    shapes = {name: tuple(base.unet.get_parameter(f"{name}.weight").shape) for name in layers}
    start = FlatFactors(shapes, 1, settings.rank)  # type: ignore[arg-type]
    start.draw_down(0, generator)
    for name, (down, up) in start.layers.items():
        unet.get_parameter(f"{name}.lora_A.default.weight").data.copy_(down[0])
        unet.get_parameter(f"{name}.lora_B.default.weight").data.copy_(up[0])
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    prompt, photos = base.encode_prompts([settings.prompt]), prepare_photos(base, one.images, settings)
    for step in range(settings.steps):
        rows = draw_noise(generator, photos, step, settings, schedule.config.num_train_timesteps)
        noise = torch.stack([row.noise for row in rows])
        latents = torch.cat([photos[0].mean + photos[0].std * row.posterior for row in rows])
        timesteps = torch.tensor([row.timestep for row in rows])
        predicted = unet(
            schedule.add_noise(latents, noise, timesteps),
            timesteps,
            encoder_hidden_states=prompt.hidden.repeat(len(rows), 1, 1),
            added_cond_kwargs={
                "text_embeds": prompt.pooled.repeat(len(rows), 1),
                "time_ids": photos[0].time_ids.repeat(len(rows), 1),
            },
        ).sample
        v = base.prediction_type == "v_prediction"
        target = schedule.get_velocity(latents, noise, timesteps) if v else noise
        torch.nn.functional.mse_loss(predicted, target).backward()
        torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return Adapter(
        {
            name: Factors(
                unet.get_parameter(f"{name}.lora_A.default.weight").detach(),
                unet.get_parameter(f"{name}.lora_B.default.weight").detach() * settings.scale,
            )
            for name in layers
        }
    )


def test_training_learns(base: Base) -> None:
    """On noise that training never drew, the trained adapter predicts better than the base."""
    settings = recipe(steps=30, learning_rate=1e-2, batch_size=2)
    result = train(base, [item(0)], settings)[0]
    layers = (*target_layers(base.unet, "content"), *target_layers(base.unet, "style"))
    shapes = {name: tuple(base.unet.get_parameter(f"{name}.weight").shape) for name in layers}
    factors = FlatFactors(shapes, 1, settings.rank)  # type: ignore[arg-type]
    photos = [prepare_photos(base, item(0).images, settings)]
    many = recipe(steps=30, batch_size=16)
    unseen = draw_noise(torch.Generator().manual_seed(123), photos[0], 0, many, 1000)
    losses = []
    for trained in (False, True):
        if trained and result.adapter is not None:
            for name, (down, up) in factors.layers.items():
                down.data[0], up.data[0] = result.adapter.layers[name].down, result.adapter.layers[name].up
        with Stepper(base, photos, factors, many) as stepper:
            losses.append(stepper.run([unseen], [1.0])[0][0])
    assert losses[1] < 0.99 * losses[0]  # a random UNet cannot learn much, but the draws are the same
    assert result.final_loss == pytest.approx(np.mean(result.losses[-3:]))


def test_a_resumed_training_is_bit_equal(base: Base) -> None:
    settings, checkpoints = recipe(steps=5, checkpoint_every_steps=2, batch_size=2), []
    items = [item(0), item(1)]
    undisturbed = train(base, items, settings, on_checkpoint=checkpoints.append)
    assert len(checkpoints) == 2, "after steps 2 and 4, not after the last"
    for data in checkpoints:
        steps: list[int] = []
        resumed = train(base, items, settings, checkpoint=data, on_step=lambda report: steps.append(report.step))
        assert all(map(bit_equal, undisturbed, resumed))
        assert steps[0] == 3 + 2 * checkpoints.index(data) and steps[-1] == 5
    for first, second in zip(undisturbed, resumed, strict=True):
        assert first.adapter is not None and second.adapter is not None
        assert first.adapter.style.save_half() == second.adapter.style.save_half()


def test_a_resumed_training_remembers_the_nan_policy(base: Base) -> None:
    """Skips before the checkpoint count after it: a reseed in step 4 needs the streak that began in step 2."""
    settings = recipe(steps=6, checkpoint_every_steps=3, skips_before_reseed=3)
    checkpoints: list[bytes] = []
    items = [item(0), item(1)]
    with poisoned(base, {1: {1, 2, 3}}):
        undisturbed = train(base, items, settings, on_checkpoint=checkpoints.append)
    with poisoned(base, {1: {0}}):  # the pass after the checkpoint is number 3 of the undisturbed training
        resumed = train(base, items, settings, checkpoint=checkpoints[0])
    assert undisturbed[1].skipped_steps == resumed[1].skipped_steps == 3
    assert undisturbed[1].adapter is not None and undisturbed[1].adapter.metadata["reseeds"] == "1"
    assert all(map(bit_equal, undisturbed, resumed))


@pytest.mark.parametrize(
    ("items", "changes"),
    [((1, 0), {}), ((0,), {}), ((0, 2), {}), ((0, 1), {"learning_rate": 2e-3}), ((0, 1), {"seed": 1})],
)
def test_a_checkpoint_of_another_training_is_refused(
    base: Base, items: tuple[int, ...], changes: dict[str, Any]
) -> None:
    settings, checkpoints = recipe(steps=2, checkpoint_every_steps=1), []
    train(base, [item(0), item(1)], settings, on_checkpoint=checkpoints.append)
    with pytest.raises(CheckpointError, match="another training"):
        train(
            base,
            [item(number) for number in items],
            recipe(**{**settings.model_dump(), **changes}),
            checkpoint=checkpoints[0],
        )
    with pytest.raises(CheckpointError, match="unreadable"):
        train(base, [item(0), item(1)], settings, checkpoint=checkpoints[0][:-8])


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
    assert "lower train.learning_rate" in str(hot.error) and "item 0, step 4" in str(hot.error)


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
        assert progress.judge(1.0, math.inf, settings) == "skip"
    assert (progress.loss_scale, progress.streak, progress.skipped) == (1.0, 0, 16)
    assert torch.equal(progress.generator.get_state(), state)
    assert progress.judge(1.0, math.inf, settings) == "skip" and progress.streak == 1
    assert progress.judge(1.0, 1.0, settings) == "step" and progress.streak == 0


def test_half_precision_stays_near_full(alone: list[TrainResult], half_base: Base, epsilon_folder: Path) -> None:
    """fp16 has gradients to lose below 6e-8: without the loss scale this distance is near one."""
    fp16 = train(half_base, [item(0)], recipe(precision="fp16"))[0]
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
        with short_of_memory(base, how == "off"), pytest.raises(OutOfMemoryError, match="smaller pack_size"):
            train(base, [item(0)], recipe(checkpointing=how))
    assert dict(base.unet.named_modules()) == modules and not base.unet.is_gradient_checkpointing


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


def test_pictures_and_prompt_are_encoded_once(epsilon_folder: Path) -> None:
    base = load_base(epsilon_folder)
    calls = {"vae": 0, "text": 0}
    base.vae.encoder.register_forward_hook(lambda *_: calls.update(vae=calls["vae"] + 1))
    for _, encoder in base._load_encoders():
        encoder.register_forward_hook(lambda *_: calls.update(text=calls["text"] + 1))
    train(base, [item(0), item(1)], recipe(steps=3))
    assert calls == {"vae": 2, "text": 2}, "one picture each; one prompt in each of two encoders"
    assert not base._encoders


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


@pytest.mark.parametrize(
    ("size", "crop", "resized", "top_left", "target"),
    [
        ((1024, 1024), "center", (1024, 1024), (0, 0), (1024, 1024)),
        ((1200, 800), "center", (1536, 1024), (256, 0), (1024, 1024)),
        ((800, 1200), "center", (1024, 1536), (0, 256), (1024, 1024)),
        ((10, 3000), "center", (1024, 307200), (0, 153088), (1024, 1024)),
        ((800, 1200), "none", (1024, 1536), (0, 0), (1024, 1536)),
        ((1000, 1333), "none", (1024, 1365), (0, 10), (1024, 1344)),
        ((100, 2000), "none", (1024, 20480), (0, 8192), (1024, 4096)),
    ],
)
def test_what_the_unet_is_told_of_the_picture_is_true(
    size: tuple[int, int], crop: str, resized: tuple[int, int], top_left: tuple[int, int], target: tuple[int, int]
) -> None:
    frame = frame_of(*size, recipe(resolution_px=1024, crop=crop), 32)
    assert (frame.original, frame.resized, frame.crop, frame.target) == (size, resized, top_left, target)


def test_the_centre_is_cut_and_its_place_is_told(base: Base) -> None:
    """A red band left and right of a blue middle: only blue is left, and the conditioning says from where."""
    rgb = np.zeros((64, 128, 3), np.uint8)
    rgb[..., 0] = 255
    rgb[:, 32:96] = (0, 0, 255)
    photo = prepare_photos(base, [rgb], SETTINGS)[0]
    assert photo.time_ids.tolist() == [[64, 128, 0, 16, 32, 32]]
    assert photo.mean.shape == (1, 4, 8, 8)
    seen = np.asarray(cut(rgb, frame_of(64, 128, SETTINGS, 4)))
    assert seen.shape == (32, 32, 3)
    assert (seen[:, 3:-3] == (0, 0, 255)).all(), "only the filter's reach at the edge may see red"


def test_uncropped_pictures_of_several_shapes_train_in_one_pack(base: Base) -> None:
    settings = recipe(crop="none", batch_size=2, steps=2)
    items = [item(0, 32, 64), item(1, 64, 32), TrainItem((picture(2, 32, 32), picture(3, 32, 64)), "two shapes")]
    for result, one in zip(train(base, items, settings), items, strict=True):
        assert distance(train(base, [one], settings)[0], result) < PACKED


def test_photos_take_turns_and_their_order_is_irrelevant(base: Base) -> None:
    photos = tuple(picture(number) for number in range(3))
    settings = recipe(steps=3, batch_size=2)
    first = train(base, [TrainItem(photos, "object")], settings)[0]
    second = train(base, [TrainItem(photos[::-1], "object")], settings)[0]
    assert bit_equal(first, second)
    prepared = prepare_photos(base, photos, settings)
    turns = [row.photo for step in range(3) for row in draw_noise(seeded("k", 0), prepared, step, settings, 1000)]
    assert turns == [0, 1, 2, 0, 1, 2]


def test_every_seed_is_a_seed(base: Base) -> None:
    zero, one = (train(base, [item(0)], recipe(seed=seed, steps=1))[0] for seed in (0, 1))
    assert distance(zero, one) > 0.5
    again, moved = seeded("a", 0), seeded("a", 0, attempt=1)
    assert torch.equal(torch.randn(3, generator=again), torch.randn(3, generator=seeded("a", 0)))
    assert not torch.equal(torch.randn(3, generator=moved), torch.randn(3, generator=seeded("a", 0)))


def test_zero_terminal_snr_shows_the_unet_pure_noise(v_base: Base, base: Base) -> None:
    factors = FlatFactors({}, 1, 4)
    for used, remains in ((v_base, False), (base, True)):
        photos = [prepare_photos(used, item(0).images, SETTINGS)]
        with Stepper(used, photos, factors, SETTINGS) as stepper:
            assert (stepper.signal[-1] > 0) == remains and stepper.timesteps == 1000


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


def test_train_images_takes_what_people_have(base: Base, tmp_path: Path) -> None:
    upright = Image.fromarray(picture(0, 40, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn a quarter to the right"
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    clear = Image.fromarray(np.dstack([picture(1), np.zeros((32, 32), np.uint8)]))
    assert np.array_equal(read_pixels(tmp_path / "turned.png"), picture(0, 40, 32))
    assert (read_pixels(clear) == 255).all()
    settings = recipe(steps=1)
    turned, plain, white = train_images(base, [tmp_path / "turned.png", upright, clear], settings, progress=False)
    assert torch.equal(weights(turned), weights(plain)) and distance(plain, white) > 0.5
    hot = recipe(steps=1, skips_before_reseed=1, reseeds_before_lower_rate=0, max_lower_rates=0)
    with poisoned(base, {0: {0}}), pytest.raises(TrainingDivergedError):
        train_images(base, [upright], hot, progress=False)


@pytest.mark.parametrize(
    ("items", "changes", "field"),
    [
        ([], {}, "items"),
        ([item(0), item(0)], {}, "items"),
        ([TrainItem((), "empty")], {}, "empty"),
        ([TrainItem((picture(0)[..., 0],), "grey")], {}, "grey"),
        ([TrainItem((picture(0) / 255.0,), "float")], {}, "float"),
        ([item(0)], {"precision": "bf16"}, "train.precision"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    base: Base, items: list[TrainItem], changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        train(base, items, recipe(**changes))
    assert [fault.field for fault in caught.value.faults] == [field]
