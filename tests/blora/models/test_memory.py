"""The model of memory: what is chosen for which budget, and that its counted part is what autograd keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blora.errors import OutOfMemoryError
from blora.models import memory
from blora.models.model import Base
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings
from tests.benchmarks.full_size import FullSize
from tests.benchmarks.operations import draws_of, stepper_of
from tests.tiny import RESOLUTION_PX

GB = 10**9
TRAIN, SAMPLE = TrainSettings(precision="bf16"), SampleSettings(precision="bf16")


@pytest.mark.parametrize(
    ("budget_gb", "size", "checkpointing", "encoders_on_cpu", "vae_in_tiles"),
    [(80, 16, False, False, False), (24, 4, False, False, False), (16, 2, False, False, False),
     (12, 1, False, False, False), (8, 1, True, True, True)],
)  # fmt: skip
def test_a_budget_gets_the_largest_pack_that_fits(
    budget_gb: int, size: int, checkpointing: bool, encoders_on_cpu: bool, vae_in_tiles: bool
) -> None:
    plan = memory.plan_training(budget_gb * GB, TRAIN)
    assert (plan.size, plan.checkpointing, plan.encoders_on_cpu, plan.vae_in_tiles) == (
        size, checkpointing, encoders_on_cpu, vae_in_tiles
    )  # fmt: skip
    assert plan.needed_bytes <= budget_gb * GB
    drawn = memory.plan_sampling(budget_gb * GB, SAMPLE)
    assert 1 <= drawn.size <= SAMPLE.batch_size and drawn.needed_bytes <= budget_gb * GB
    assert drawn.vae_in_tiles == (budget_gb <= 8)


def test_below_the_floor_the_message_names_it() -> None:
    with pytest.raises(OutOfMemoryError, match=r"received 6\.0 GB free.*accepted 7\.5 GB or more"):
        memory.plan_training(6 * GB, TRAIN)
    with pytest.raises(OutOfMemoryError, match=r"accepted 9\.9 GB or more"):
        memory.plan_training(8 * GB, TRAIN.model_copy(update={"checkpointing": "off"}))
    with pytest.raises(OutOfMemoryError, match=r"drawing one picture.*GB or more"):
        memory.plan_sampling(6 * GB, SAMPLE)
    assert memory.plan_training(7.5 * GB, TRAIN).size == 1


def test_more_memory_never_means_less() -> None:
    packs = [memory.plan_training(gb * GB, TRAIN).size for gb in range(8, 100)]
    assert packs == sorted(packs) and packs[-1] == 16
    fewer = memory.plan_training(24 * GB, TRAIN.model_copy(update={"batch_size": 4})).size
    assert fewer < memory.plan_training(24 * GB, TRAIN).size


def test_auto_asks_the_device() -> None:
    assert memory.pack_size(None, TRAIN, on_gpu=True) == 1
    assert memory.pack_size(1 * GB, TRAIN, on_gpu=True) == 1, "the training itself says that it does not fit"
    assert memory.pack_size(200 * GB, TRAIN, on_gpu=True) == 16
    small = memory.ModelSize.like_sdxl({"block_out_channels": [32, 48, 128]}, 4, 50_000)
    assert memory.pack_size(8 * GB, TRAIN.model_copy(update={"resolution_px": 64}), small, on_gpu=False) == 8


@pytest.mark.parametrize(("checkpointing", "expected_gb"), [("off", 3.26), ("on", 0.45)])
def test_what_a_row_keeps_is_counted(checkpointing: str, expected_gb: float) -> None:
    """Saved for the backward pass of SDXL at 1024 px, on the device meta; its unfused attention's scores left out."""
    base = FullSize()
    settings = TRAIN.model_copy(update={"checkpointing": checkpointing})
    frozen = {id(value) for value in base.unet.parameters()}
    kept: dict[int, Any] = {}
    tokens = {1024, 4096}

    def keep(tensor: Tensor) -> Tensor:
        scores = tensor.dim() >= 3 and tensor.shape[-2] in tokens and tensor.shape[-1] in {*tokens, 77}
        if not scores and id(tensor) not in frozen:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage
        return tensor

    with stepper_of(base, settings, 1) as stepper:
        for layer in (*stepper.factors.layers.values(), [p for p in base.unet.parameters()]):
            frozen |= {part.untyped_storage()._cdata for part in layer}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            stepper.run(draws_of(base, settings, 1), [1.0])
    total = sum(storage.nbytes() for key, storage in kept.items() if key not in frozen)
    assert total / GB == pytest.approx(expected_gb, rel=0.03)


def test_saving_memory_changes_where_and_not_what(base: Base) -> None:
    before = base.encode_prompts(["a cat"]).hidden
    latents = torch.randn(1, base.latent_channels, RESOLUTION_PX, RESOLUTION_PX)  # four times a tile's side
    whole = base.decode(latents)
    base.text_encoders._known.clear()
    base.save_memory(encoders_on_cpu=True, vae_in_tiles=True)
    try:
        assert torch.equal(base.encode_prompts(["a cat"]).hidden, before)
        assert base.vae.use_tiling
        assert base.decode(latents).shape == whole.shape
    finally:
        base.save_memory(encoders_on_cpu=False, vae_in_tiles=False)
    assert (base.decode(latents) == whole).all()
