"""The model of memory: what is chosen for which budget, and that its counted part is what autograd keeps."""

from __future__ import annotations

import pytest
import torch

from blora.errors import OutOfMemoryError
from blora.models import memory, sizes
from blora.models.model import Base
from blora.models.passes.front import front_of
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings
from tests.benchmarks.full_size import FullSize
from tests.benchmarks.operations import draws_of, sampling_step, stepper_of, unet_inputs
from tests.benchmarks.peak import peak_bytes

GB = 10**9
TRAIN, SAMPLE = TrainSettings(precision="bf16"), SampleSettings(precision="bf16", batch_size=4)


@pytest.fixture(scope="module")
def sdxl() -> FullSize:
    """SDXL's configuration on the device meta."""
    return FullSize()


@pytest.fixture(scope="module")
def counted(sdxl: FullSize) -> dict[str, float]:
    """The most bytes at once, beside weights: of a step and a picture of one adapter, and of the autoencoder."""
    known = [*sdxl.unet.parameters(), *sdxl.vae.parameters()]
    sdxl.encode_prompts([TRAIN.prompt])
    counts: dict[str, float] = {}
    for how in ("off", "on"):
        settings = TRAIN.model_copy(update={"checkpointing": how})
        with stepper_of(sdxl, settings, 1) as stepper:
            draws = draws_of(sdxl, settings, 1)
            counts[f"checkpointing {how}"] = peak_bytes(lambda run=stepper.run, draws=draws: run(draws, [1.0]), known)
    pixels, latents = torch.zeros(1, 3, 1024, 1024, device="meta"), torch.zeros(1, 4, 128, 128, device="meta")
    with torch.no_grad():
        counts["drawn"] = peak_bytes(lambda: sampling_step(sdxl, SAMPLE, 64, 1), known)
        for in_tiles in (False, True):
            sdxl.save_memory(encoders="stay", vae_in_tiles=in_tiles)
            counts[f"encoded {in_tiles}"] = peak_bytes(lambda: sdxl.vae.encode(pixels), known)
            counts[f"decoded {in_tiles}"] = peak_bytes(lambda: sdxl.vae.decode(latents), known)
    return counts


@pytest.mark.parametrize(
    ("budget_gb", "trained", "drawn"),
    [
        (24, (4, False, "leave", False), (4, "stay", False)),
        (16, (2, False, "leave", False), (4, "stay", False)),
        (12, (1, False, "leave", False), (4, "leave", False)),
        (8, (1, True, "cpu", True), (1, "cpu", True)),
    ],
)
def test_a_budget_gets_the_best_way_that_fits(
    budget_gb: int,
    trained: tuple[int, bool, str, bool],
    drawn: tuple[int, str, bool],
    sdxl: FullSize,
    counted: dict[str, float],
) -> None:
    """What is planned for small cards, and that what it holds at once by count is below the card's memory."""
    plan, draw = memory.plan_memory(budget_gb * GB, TRAIN), memory.plan_memory(budget_gb * GB, SAMPLE)
    assert (plan.size, plan.checkpointing, plan.encoders, plan.vae_in_tiles) == trained
    assert (draw.size, draw.encoders, draw.vae_in_tiles) == drawn
    unet, vae = (sum(p.nbytes for p in part.parameters()) for part in (sdxl.unet, sdxl.vae))
    weights = 64 * sizes.SDXL.adapter_parameters_per_rank * (4 + 4 + 8 + 2) + (0 if plan.vae_in_tiles else vae)
    step = plan.size * (counted[f"checkpointing {'on' if plan.checkpointing else 'off'}"] + weights)
    assert unet + max(vae + counted[f"encoded {plan.vae_in_tiles}"], step) < plan.needed_bytes < 0.92 * budget_gb * GB
    encoders = sizes.SDXL.encoder_bytes / 2 if draw.encoders == "stay" else 0
    pictures = max(draw.size * counted["drawn"], counted[f"decoded {draw.vae_in_tiles}"])
    assert unet + vae + encoders + pictures < draw.needed_bytes < 0.92 * budget_gb * GB


def test_what_the_model_of_memory_counts_with_is_counted(counted: dict[str, float]) -> None:
    copies = 2 * 64 * sizes.SDXL.adapter_parameters_per_rank / GB  # of the adapter in the UNet's format
    expected = {
        "checkpointing off": 3.13 + copies, "checkpointing on": 0.42 + copies, "drawn": 2 * 0.195 + 0.056,
        "encoded False": 2.70, "decoded False": 3.23, "encoded True": 0.69, "decoded True": 0.82,
    }  # fmt: skip
    assert {name: count / GB for name, count in counted.items()} == pytest.approx(expected, rel=0.03)


def test_below_the_floor_the_message_names_it() -> None:
    with pytest.raises(OutOfMemoryError, match=r"received 6\.0 GB free.*accepted 7\.8 GB or more"):
        memory.plan_memory(6 * GB, TRAIN)
    with pytest.raises(OutOfMemoryError, match=r"accepted 10\.8 GB or more"):
        memory.plan_memory(8 * GB, TRAIN.model_copy(update={"checkpointing": "off"}))
    with pytest.raises(OutOfMemoryError, match=r"drawing one picture.*accepted 7\.9 GB or more"):
        memory.plan_memory(6 * GB, SAMPLE)
    assert memory.plan_memory(7.8 * GB, TRAIN).size == 1


def test_larger_pictures_are_decoded_in_tiles_where_smaller_ones_are_not() -> None:
    """The same answer for loading and drawing: they once asked two functions, of which one did not look at the size."""
    large = SAMPLE.model_copy(update={"width_px": 2048, "height_px": 2048})
    assert not memory.plan_memory(16 * GB, SAMPLE).vae_in_tiles
    assert memory.plan_memory(16 * GB, large).vae_in_tiles


def test_more_memory_never_means_less() -> None:
    packs = [memory.plan_memory(gb * GB, TRAIN) for gb in range(8, 100)]
    kept = [plan.size for plan in packs if not plan.checkpointing]
    assert kept == sorted(kept) and kept[-1] == 16
    assert all(plan.checkpointing for plan in packs[: len(packs) - len(kept)])
    fewer = memory.plan_memory(24 * GB, TRAIN.model_copy(update={"batch_size": 4})).size
    assert fewer < memory.plan_memory(24 * GB, TRAIN).size
    assert memory.plan_memory(80 * GB, TRAIN, most=3).size == 3


def test_a_pool_of_fronts_is_counted_and_leaves_the_device_before_anything_is_recomputed(sdxl: FullSize) -> None:
    row = unet_inputs(sdxl, 1024)
    given = (row["sample"], row["timestep"], row["encoder_hidden_states"], row["added_cond_kwargs"])
    made = sum(part.nbytes for part in front_of(sdxl.unet, *given))
    pooled = TRAIN.model_copy(update={"front_pool": 16, "batch_size": 2})
    assert memory.front_bytes(pooled) == pytest.approx(32 * made, rel=0.001) == pytest.approx(1.72e9, rel=0.001)
    assert memory.front_bytes(TRAIN.model_copy(update={"front_pool": 5000})) == pytest.approx(1000 * made, rel=0.001)
    assert memory.front_bytes(TRAIN) == 0
    one, beside = memory.MemoryPlan(4), memory.MemoryPlan(4, fronts_on_host=True)
    assert memory.needed_bytes(pooled, one) - memory.needed_bytes(pooled, beside) == 4 * memory.front_bytes(pooled)
    pooled = TRAIN.model_copy(update={"front_pool": 16})
    found = {gb: memory.plan_memory(gb * GB, pooled) for gb in (24, 12)}
    assert (found[24].size, found[24].fronts_on_host) == (3, False), "one adapter less than without a pool"
    assert (found[12].size, found[12].fronts_on_host, found[12].checkpointing) == (1, True, False)
    onto = pooled.model_copy(update={"front_place": "device"})
    assert memory.plan_memory(12 * GB, onto).vae_in_tiles, "on the device as asked for, which costs the autoencoder"
    away = pooled.model_copy(update={"front_place": "host"})
    assert memory.plan_memory(24 * GB, away).size == memory.plan_memory(24 * GB, TRAIN).size


def test_auto_asks_the_device() -> None:
    assert memory.pack_size(None, TRAIN, on_gpu=True) == 1
    assert memory.pack_size(1 * GB, TRAIN, on_gpu=True) == 1, "the training itself says that it does not fit"
    assert memory.pack_size(200 * GB, TRAIN, on_gpu=True) == 16
    small = sizes.ModelSize.like_sdxl({"block_out_channels": [32, 48, 128]}, 4, 50_000)
    assert memory.pack_size(8 * GB, TRAIN.model_copy(update={"resolution_px": 64}), small, on_gpu=False) == 8


@pytest.mark.parametrize(("work", "sides", "calls"), [("decode", (4, 128), 9), ("encode", (3, 1024), 9)])
def test_tiles_are_smaller_than_a_picture_of_sdxl(
    work: str, sides: tuple[int, int], calls: int, sdxl: FullSize
) -> None:
    """A tile of diffusers' own has the size of SDXL's pictures, so that tiling alone changed nothing at 1024 px."""
    seen: list[tuple[int, ...]] = []
    part = sdxl.vae.decoder if work == "decode" else sdxl.vae.encoder
    watched = part.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[-2:])))
    tensor = torch.zeros(1, sides[0], sides[1], sides[1], device="meta")
    for in_tiles in (False, True):
        sdxl.save_memory(encoders="stay", vae_in_tiles=in_tiles)
        with torch.no_grad():
            getattr(sdxl.vae, work)(tensor)
    watched.remove()
    assert seen[0] == sides[1:] * 2 and len(seen) == 1 + calls
    assert max(max(size) for size in seen[1:]) == sides[1] // 2


def test_saving_memory_changes_where_and_not_what(base: Base) -> None:
    before = base.encode_prompts(["a cat"]).hidden
    latents = torch.randn(1, base.latent_channels, 80, 80, generator=torch.Generator().manual_seed(0))
    whole = base.decode(latents)
    base.text_encoders._known.clear()
    base.save_memory(encoders="cpu", vae_in_tiles=True)
    try:
        assert torch.equal(base.encode_prompts(["a cat"]).hidden, before)
        assert base.decode(latents).shape == whole.shape
        base.save_memory(encoders="leave", vae_in_tiles=False)
        base.remember_prompts(["a cat", "a dog", "a cat"])
        assert not base.text_encoders.loaded and torch.equal(base.encode_prompts(["a cat"]).hidden, before)
    finally:
        base.save_memory(encoders="stay", vae_in_tiles=False)
    assert (base.decode(latents) == whole).all()
