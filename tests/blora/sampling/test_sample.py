"""Sampling: rows that do not know of each other, and the pictures that diffusers' own pipeline draws.

Tolerances on a CPU in fp32 (latents are of order one, pictures have 256 levels), and what was measured:
    other rows exchanged in a batch of one size      bit-equal; in 80 batches of 2 to 8 rows
    one row alone against the same row in a batch    5e-4 in latents; 1e-4 and one level in a picture
    against StableDiffusionXLPipeline, 6 steps       2e-4 in latents and one level; 4e-5
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blora.adapters.adapter import Adapter, strength_from_reference
from blora.adapters.blocks import BLOCKS
from blora.adapters.load import load_adapter
from blora.errors import BloraError, KeyMismatchError, SettingsError
from blora.models.model import Base
from blora.models.passes.prompt_cache import Remembered
from blora.sampling.colour_transfer import Palette
from blora.sampling.draw import Draw
from blora.sampling.sample import sample, sample_each, sample_latents
from blora.sampling.scheduler import generator_of, make_sampler
from blora.sampling.step_report import SampleReport
from blora.settings.sampling import SampleSettings
from tests.blora.adapters.test_packed import random_adapter
from tests.tiny import RESOLUTION_PX, picture

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers with a newer numpy

ACROSS_BATCH_SIZES = 5e-4
AGAINST_DIFFUSERS = 2e-4
QUICK = SampleSettings(steps=3, width_px=RESOLUTION_PX, height_px=RESOLUTION_PX)
PROMPTS = ("A [c] in [s] style", "a red kite over the sea", "")


@pytest.fixture(scope="module")
def adapters(base: Base) -> list[Adapter]:
    """Adapters of one rank; both tiny bases have the same shapes."""
    return [random_adapter(base, rank=4, seed=seed) for seed in range(3)]


@st.composite
def draws_of(draw: st.DrawFn, count: int) -> list[dict[str, Any]]:
    """Arguments of so many different draws, adapters as numbers or None."""
    one = st.fixed_dictionaries(
        {
            "content": st.none() | st.integers(0, 2),
            "style": st.none() | st.integers(0, 2),
            "prompt": st.sampled_from(PROMPTS),
            "seed": st.integers(0, 2**63 - 1),
            "content_strength": st.sampled_from([0.0, 0.5, 1.0, 1.1]),
            "style_strength": st.sampled_from([0.0, 1.0, -0.4]),
            "content_prompt": st.sampled_from([None, "A [c]"]),
            "negative_prompt": st.sampled_from(["", "blurry"]),
        }
    )
    return [draw(one) for _ in range(count)]


def made(arguments: dict[str, Any], adapters: list[Adapter]) -> Draw:
    halves = {
        half: None if arguments[half] is None else adapters[arguments[half]].half(half) for half in ("content", "style")
    }
    return Draw(**{**arguments, **halves})


@given(rows=draws_of(5), place=st.integers(0, 2))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_is_bit_equal_whatever_the_other_rows_are(
    base: Base, adapters: list[Adapter], rows: list[dict[str, Any]], place: int
) -> None:
    row, *others = [made(arguments, adapters) for arguments in rows]
    settings = QUICK.model_copy(update={"steps": 2, "batch_size": 3})
    first, second = [row, *others[:2]], [*others[2:], row]
    first[0], first[place] = first[place], first[0]
    second[2], second[place] = second[place], second[2]
    one, other = (sample_latents(base, batch, settings)[place] for batch in (first, second))
    assert torch.equal(one, other)


@given(rows=draws_of(3))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_alone_is_the_row_in_a_batch(base: Base, adapters: list[Adapter], rows: list[dict[str, Any]]) -> None:
    batch = [made(arguments, adapters) for arguments in rows]
    alone = torch.cat([sample_latents(base, [one], QUICK) for one in batch])
    torch.testing.assert_close(sample_latents(base, batch, QUICK), alone, atol=ACROSS_BATCH_SIZES, rtol=0)
    in_pairs = sample_latents(base, batch, QUICK.model_copy(update={"batch_size": 2}))
    torch.testing.assert_close(in_pairs, alone, atol=ACROSS_BATCH_SIZES, rtol=0)


def test_adapters_of_different_ranks_share_a_batch(base: Base, adapters: list[Adapter]) -> None:
    big = random_adapter(base, rank=7, seed=9)
    batch = [Draw(adapters[0], big, "a", 1), Draw(big, adapters[1], "a", 2), Draw(None, adapters[2], "a", 3)]
    alone = torch.cat([sample_latents(base, [one], QUICK) for one in batch])
    torch.testing.assert_close(sample_latents(base, batch, QUICK), alone, atol=ACROSS_BATCH_SIZES, rtol=0)


@pytest.mark.parametrize("guidance_from", ["adapted", "base"])
def test_guidance_in_an_interval_draws_own_rows_alone_beyond_it(
    base: Base, adapters: list[Adapter], guidance_from: str
) -> None:
    """All levels are guidance as ever, none is no guidance, to the bit; beyond an interval a pass has half the rows."""
    draws = [
        Draw(adapters[0], adapters[1], "a", 1, style_strength=0.5, content_prompt="A [c]"),
        Draw(None, adapters[2], "b", 2, negative_prompt="blurry"),
    ]
    plain = QUICK.model_copy(update={"steps": 6, "guidance_from": guidance_from})

    def drawn(**changed: Any) -> tuple[torch.Tensor, list[int]]:
        rows: list[int] = []
        hook = base.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
        try:
            return sample_latents(base, draws, SampleSettings(**{**plain.model_dump(), **changed})), rows
        finally:
            hook.remove()

    always, rows = drawn()
    assert rows == [4] * 6
    everywhere, rows = drawn(guidance_interval=(0, 1e6))
    assert rows == [4] * 6 and torch.equal(everywhere, always)
    never, rows = drawn(guidance_scale=1.0)
    nowhere, rows_nowhere = drawn(guidance_interval=(1e5, 1e6))
    assert rows == rows_nowhere == [2] * 6 and torch.equal(nowhere, never)
    middle, rows = drawn(guidance_interval=(0.3, 4.0))
    sigmas = make_sampler(base.scheduler_config, "base", 6)._scheduler.sigmas[:-1].tolist()  # Euler's own
    assert rows == [4 if 0.3 < sigma <= 4 else 2 for sigma in sigmas] and rows[0] == rows[-1] == 2
    assert not torch.equal(middle, always) and not torch.equal(middle, never)


def test_a_guidance_interval_is_named_only_where_it_changes_pictures() -> None:
    interval = QUICK.model_copy(update={"guidance_interval": (0.3, 4.0)})
    assert interval.identity() == QUICK.identity() | {"guidance_interval": [0.3, 4.0]}
    assert "guidance_interval" not in interval.model_copy(update={"guidance_scale": 1.0}).identity()
    with pytest.raises(ValueError, match="low below high"):
        SampleSettings(guidance_interval=(4.0, 0.3))


@pytest.fixture(scope="module")
def halves(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a content half and a style half as files."""
    folder = tmp_path_factory.mktemp("halves")
    for half, seed in (("content", 1), ("style", 2)):
        random_adapter(base, rank=4, seed=seed).half(half).save_half(folder / f"{half}.safetensors")
    return folder


@pytest.fixture(scope="module", params=["epsilon", "v"])
def rivals(
    request: pytest.FixtureRequest, base: Base, v_base: Base, halves: Path
) -> tuple[Base, StableDiffusionXLPipeline]:
    """Ours and theirs on the same files; theirs has both halves loaded."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(request.getfixturevalue(f"{request.param}_folder"))
    pipeline.set_progress_bar_config(disable=True)
    for half in ("content", "style"):
        pipeline.load_lora_weights(halves, weight_name=f"{half}.safetensors", adapter_name=half)
    pipeline.set_adapters(["content", "style"], [0.9, 1.1])
    return (base if request.param == "epsilon" else v_base), pipeline


@pytest.mark.parametrize(
    ("name", "kind", "guidance"),
    [
        ("base", EulerDiscreteScheduler, 5.0),
        ("euler", EulerDiscreteScheduler, 1.0),
        ("ddim", DDIMScheduler, 5.0),
        ("dpm++", DPMSolverMultistepScheduler, 3.0),
    ],
)
def test_the_same_picture_as_diffusers_pipeline(
    name: str, kind: Any, guidance: float, rivals: tuple[Base, StableDiffusionXLPipeline], halves: Path
) -> None:
    base, pipeline = rivals
    content, style = (load_adapter(halves / f"{half}.safetensors", base.unet) for half in ("content", "style"))
    chosen = QUICK.model_copy(update={"scheduler": name, "guidance_scale": guidance, "steps": 6, "width_px": 48})
    draw = Draw(content, style, PROMPTS[0], seed=0, content_strength=0.9, style_strength=1.1)
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    shape = (1, 4, 32 // base.vae_scale_factor, 48 // base.vae_scale_factor)

    def theirs(output_type: str) -> Any:
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return pipeline(
            draw.prompt, num_inference_steps=6, guidance_scale=guidance, height=32, width=48,
            latents=noise, output_type=output_type,
        ).images  # fmt: skip

    ours = sample_latents(base, [draw], chosen)
    torch.testing.assert_close(ours, theirs("latent"), atol=AGAINST_DIFFUSERS, rtol=0)
    (picture,) = sample(base, [draw], chosen)
    assert picture.shape == (32, 48, 3)
    difference = np.abs(picture.astype(int) - np.asarray(theirs("pil")[0]).astype(int))
    assert difference.max() <= 1
    plain = sample_latents(base, [replace(draw, content=None, style=None)], chosen)
    assert (ours - plain).abs().max() > 100 * AGAINST_DIFFUSERS, "the adapters must show, or agreement says nothing"


def test_guidance_from_the_base_amplifies_the_adapters_too(v_base: Base, adapters: list[Adapter]) -> None:
    """Over one step latents are linear in the prediction, so that guidance is a straight line between two pictures.

    The one step starts at a sigma of 4096, where single precision leaves an error of 2e-3.
    """
    tolerance = 1e-2
    one_step = QUICK.model_copy(update={"steps": 1, "scheduler": "euler"})
    alone = one_step.model_copy(update={"guidance_scale": 1.0})
    draw = Draw(adapters[0], adapters[1], PROMPTS[0], 3, 6.0, 6.0, negative_prompt="blurry")
    adapted, plain = (
        sample_latents(v_base, [replace(draw, prompt="blurry", content=content, style=style)], alone)
        for content, style in ((draw.content, draw.style), (None, None))
    )
    own = sample_latents(v_base, [draw], alone)
    for origin, start in (("adapted", adapted), ("base", plain)):
        guided = one_step.model_copy(update={"guidance_scale": 3.0, "guidance_from": origin})
        found = sample_latents(v_base, [draw], guided)
        torch.testing.assert_close(found, start + 3 * (own - start), atol=tolerance, rtol=0)
    assert (adapted - plain).abs().max() > 10 * tolerance, "or the two could not be told apart"


def test_seed_zero_is_a_seed_and_no_two_seeds_are_one(base: Base) -> None:
    def noise(seed: int) -> torch.Tensor:
        return torch.randn(4, generator=generator_of(seed))

    assert torch.equal(noise(0), torch.randn(4, generator=torch.Generator().manual_seed(0)))
    different = {tuple(noise(seed).tolist()) for seed in (0, 1, 2**32, 2**32 + 1, 2**33, 2**62, 2**63 - 1)}
    assert len(different) == 7
    torch.manual_seed(123)
    zero = sample(base, [Draw(None, None, "a", 0)] * 2, QUICK)
    torch.manual_seed(321)
    again = sample(base, [Draw(None, None, "a", 0), Draw(None, None, "a", 1)], QUICK)
    assert np.array_equal(zero[0], again[0])
    assert not np.array_equal(again[0], again[1])


def test_strength_is_linear_and_the_squared_reading_has_a_name(base: Base, adapters: list[Adapter]) -> None:
    content, style = adapters[0].content, adapters[1].style
    draw = Draw(content, style, "a", 3, style_strength=0.5)
    scaled = replace(draw, style=style.scaled(0.5), style_strength=1.0)
    squared = replace(draw, style_strength=strength_from_reference(0.5))
    scaled_squared = replace(draw, style=style.scaled(0.25), style_strength=1.0)
    none, zero = replace(draw, style=None), replace(draw, style_strength=0.0)
    half, as_scaled, quarter, as_squared, without, at_zero = sample_latents(
        base, [draw, scaled, squared, scaled_squared, none, zero], QUICK
    )
    torch.testing.assert_close(half, as_scaled, atol=ACROSS_BATCH_SIZES, rtol=0)
    torch.testing.assert_close(quarter, as_squared, atol=ACROSS_BATCH_SIZES, rtol=0)
    assert torch.equal(without, at_zero)
    assert min((half - quarter).abs().max(), (quarter - without).abs().max()) > 10 * ACROSS_BATCH_SIZES


def test_only_the_half_that_is_asked_for_is_used(base: Base, adapters: list[Adapter]) -> None:
    whole, half = Draw(adapters[0], adapters[1], "a", 1), Draw(adapters[0].content, adapters[1].style, "a", 1)
    assert torch.equal(sample_latents(base, [whole], QUICK), sample_latents(base, [half], QUICK))
    with pytest.raises(KeyMismatchError, match="lacks a layer"):
        sample(base, [Draw(adapters[0].style, None, "a", 1)], QUICK)


def test_the_content_prompt_reaches_the_content_block_alone(base: Base, adapters: list[Adapter]) -> None:
    """Seen in the keys that the cross-attention of each block works with."""
    seen: dict[str, Any] = {}
    blocks = [
        f"{part}.attentions.{index}"
        for part, count in (("down_blocks.1", 2), ("mid_block", 1), ("up_blocks.0", 3), ("up_blocks.1", 3))
        for index in range(count)
    ]

    def look(name: str) -> Any:
        return lambda module, args: seen.__setitem__(name, module.attn2.to_k)

    inner = {name: base.unet.get_submodule(f"{name}.transformer_blocks.0") for name in blocks}
    hooks = [block.register_forward_pre_hook(look(name)) for name, block in inner.items()]
    draws = [
        Draw(adapters[0], adapters[1], "a storm", 5, content_prompt="A [c]", negative_prompt="blurry"),
        Draw(adapters[0], adapters[1], "a storm", 5),
        Draw(adapters[0], adapters[1], "a storm", 5, content_prompt="a storm"),
    ]
    try:
        split, plain, same = sample_latents(base, draws, QUICK.model_copy(update={"steps": 1}))
    finally:
        for hook in hooks:
            hook.remove()
    storm, thing, blurry = base.encode_prompts(["a storm", "A [c]", "blurry"]).hidden
    nothing = base.encode_negative_prompts([""]).hidden[0]
    for name in blocks:
        special = thing if name == BLOCKS["content"] else storm
        told = torch.stack([blurry, special, nothing, storm, nothing, storm])
        with torch.no_grad():
            assert torch.equal(seen[name].output, seen[name].base(told)), name
    assert all(type(layer) is not Remembered for layer in base.unet.modules())
    assert torch.equal(plain, same)
    assert not torch.equal(split, plain)


def test_guidance_leads_away_from_the_draws_own_negative_prompt(base: Base) -> None:
    of_all = QUICK.model_copy(update={"negative_prompt": "blurry"})
    bare, own = Draw(None, None, "a", 1), Draw(None, None, "a", 1, negative_prompt="dark")
    assert torch.equal(
        sample_latents(base, [bare, own], of_all),
        sample_latents(base, [replace(bare, negative_prompt="blurry"), own], QUICK),
    )
    assert not torch.equal(sample_latents(base, [bare], of_all), sample_latents(base, [bare], QUICK))


def test_the_unet_is_left_as_it_was_even_after_an_error(base: Base, adapters: list[Adapter]) -> None:
    modules = {name: id(module) for name, module in base.unet.named_modules()}
    draw = Draw(adapters[0], adapters[1], "a", 1, content_prompt="b")
    sample(base, [draw], QUICK)

    def stop(report: SampleReport) -> None:
        raise KeyboardInterrupt

    try:
        sample(base, [draw], QUICK, on_step=stop)
    except KeyboardInterrupt as interrupt:
        # The traceback still holds every frame here: clean-up must not wait for it to be dropped.
        assert interrupt.__traceback__ is not None
        assert {name: id(module) for name, module in base.unet.named_modules()} == modules
        content = base.unet.get_submodule(BLOCKS["content"])
        assert not content._forward_pre_hooks
    else:
        pytest.fail("the interrupt was swallowed")


def test_reports_count_all_batches(base: Base) -> None:
    reports: list[SampleReport] = []
    draws = [Draw(None, None, "a", seed) for seed in range(3)]
    pictures = sample(base, draws, QUICK.model_copy(update={"batch_size": 2}), on_step=reports.append)
    assert len(pictures) == 3
    assert [(r.step, r.steps, r.finished, r.pictures) for r in reports] == [
        (1, 6, 0, 3), (2, 6, 0, 3), (3, 6, 2, 3), (4, 6, 2, 3), (5, 6, 2, 3), (6, 6, 3, 3),
    ]  # fmt: skip
    assert all(report.seconds > 0 for report in reports)
    assert sample(base, [], QUICK) == []


def test_what_cannot_be_drawn_is_refused_at_once(base: Base) -> None:
    draws = [Draw(None, None, "a", -1), Draw(None, None, "a", 2**63, style_strength=float("nan"))]
    with pytest.raises(SettingsError) as caught:
        sample(base, draws, QUICK.model_copy(update={"precision": "bf16", "width_px": 33}))
    assert {fault.field for fault in caught.value.faults} == {
        "sample.precision", "sample.width_px", "draws[0].seed", "draws[1].seed", "draws[1].style_strength",
    }  # fmt: skip


def test_a_picture_of_nothing_but_nan_is_an_error(base: Base, adapters: list[Adapter]) -> None:
    wild = adapters[0].content.scaled(1e38)
    with warnings.catch_warnings(), pytest.raises(BloraError, match=r"not finite: received draws \[1\] in fp32"):
        warnings.simplefilter("ignore")
        sample(base, [Draw(None, None, "a", 1), Draw(wild, None, "a", 1)], QUICK)


def test_a_draw_that_fails_leaves_the_others_as_they_were(base: Base, adapters: list[Adapter]) -> None:
    palette = Palette(picture(1), "guidance", 0.5)
    sound = [Draw(adapters[0], None, "a", seed, palette=palette) for seed in range(4)]
    wild = replace(sound[1], content=adapters[0].content.scaled(1e38))
    halfless = replace(sound[2], content=adapters[0].style)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = sample_each(base, [sound[0], wild, halfless, sound[3]], QUICK)
    expected = sample(base, sound, QUICK)
    for number in (0, 3):
        one = drawn[number]
        assert not isinstance(one, BloraError) and np.array_equal(one, expected[number])
    assert isinstance(drawn[1], BloraError) and "not finite" in str(drawn[1])
    assert isinstance(drawn[2], KeyMismatchError) and "a content half" in str(drawn[2])
