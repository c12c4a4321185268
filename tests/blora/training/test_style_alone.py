"""Rows that the style's half is trained on alone, on turned copies of the picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from blora.adapters.blocks import BLOCKS, attention_layers, block_of
from blora.models.model import Base
from blora.settings.training import TrainSettings
from blora.training.items import TrainItem
from blora.training.noise import Noise, draw_noise, seeded
from blora.training.optim import FlatFactors
from blora.training.photos import Photo, prepare_photos, turned_copies
from blora.training.stepper import Stepper
from blora.training.train import train
from tests.benchmarks.operations import both_halves
from tests.blora.small_training import SavedCheckpoints, bit_equal, distance, item, recipe
from tests.tiny import RESOLUTION_PX, picture

SHARE = 1 / 3


def photos_of(count: int) -> list[Photo]:
    """So many photos, and the copies of each."""
    nothing = torch.zeros(1, 1, 2, 2)
    return [*[Photo(nothing, nothing, nothing)] * count, *[Photo(nothing, nothing, nothing, True)] * (8 * count)]


def factors_of(base: Base, settings: TrainSettings, count: int = 1) -> FlatFactors:
    """Adapters in the middle of their training: neither matrix is zero."""
    factors = FlatFactors(both_halves(base), count, settings.rank)
    factors.values.normal_(std=0.1, generator=torch.Generator().manual_seed(5))
    return factors


def test_copies_are_all_eight_ways_to_see_a_picture_and_nothing_else() -> None:
    rgb = picture(0, 24, 32)
    copies = turned_copies(rgb)
    assert np.array_equal(copies[0], rgb) and len({copy.tobytes() + bytes(copy.shape[:2]) for copy in copies}) == 8
    assert {tuple(sorted(map(tuple, copy.reshape(-1, 3).tolist()))) for copy in copies} == {
        tuple(sorted(map(tuple, rgb.reshape(-1, 3).tolist())))
    }


@pytest.mark.parametrize("share", [0.25, SHARE, 0.5, 0.9])
def test_rows_of_the_style_alone_lie_evenly_among_the_others_whatever_the_batch(share: float) -> None:
    photos = photos_of(3)
    shown: dict[int, list[int]] = {}
    for batch in (1, 2, 5):
        settings = recipe(style_alone_share=share, batch_size=batch)
        steps = range(240 // batch)
        shown[batch] = [
            row.photo for step in steps for row in draw_noise(seeded("k", 0), photos, step, settings, 9, "k")
        ]
    assert shown[1] == shown[2] == shown[5]
    alone = [photos[photo].style_alone for photo in shown[1]]
    for end in range(1, 241):
        assert abs(sum(alone[:end]) - end * share) < 1
    seen = Counter(shown[1])
    for first, last in ((0, 3), (3, 27)):
        often = [seen[photo] for photo in range(first, last)]
        assert max(often) - min(often) <= 1, "some photo, or copy, is shown more often than others"


def test_a_row_of_the_style_alone_is_nothing_to_the_contents_half(base: Base) -> None:
    """The style's half has the gradient that it has where there is no content; in other rows both have one."""
    settings = recipe(style_alone_share=0.5, batch_size=2)
    photos = [prepare_photos(base, item(0).images, settings)]
    latent = photos[0][0].mean.shape[1:]
    generator = torch.Generator().manual_seed(1)

    def noise(photo: int) -> Noise:
        return Noise(photo, 700, torch.zeros(latent), torch.randn(latent, generator=generator))

    rows = {"both": [noise(0), noise(0)], "mixed": [noise(0), noise(4)], "alone": [noise(2), noise(7)]}
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, drawn in rows.items():
        factors = factors_of(base, settings)
        with Stepper(base, photos, factors, settings) as stepper:
            stepper.run([rows["both"]], [1.0])
            stepper.run([drawn], [1.0])
        found[name] = by_half(factors)
    assert all(gradient.any() for half in ("both", "mixed") for gradient in found[half].values())
    assert found["alone"]["style"].any() and not found["alone"]["content"].any()

    without = factors_of(base, settings)
    for layer, (_, up) in without.exact.items():
        if block_of(layer) == "content":
            up.zero_()
    with Stepper(base, photos, without, settings) as stepper:
        stepper.run([rows["alone"]], [1.0])
    assert torch.allclose(by_half(without)["style"], found["alone"]["style"], atol=1e-7)


def by_half(factors: FlatFactors) -> dict[str, torch.Tensor]:
    """Gradients of both halves, as vectors."""
    placed: dict[str, list[torch.Tensor]] = {name: [] for name in BLOCKS}
    start = 0
    for layer, (down, up) in factors.exact.items():
        size = down[0].numel() + up[0].numel()
        placed[block_of(layer) or "content"].append(factors.grads[0, start : start + size])
        start += size
    return {half: torch.cat(parts) for half, parts in placed.items()}


@pytest.mark.parametrize("batch", [1, 3])
def test_a_pack_is_its_members_and_a_resumed_training_the_undisturbed_one(
    batch: int, base: Base, tmp_path: Path
) -> None:
    """With one row a step, some steps are the style's alone."""
    settings = recipe(steps=7, batch_size=batch, style_alone_share=SHARE, checkpoint_every_steps=2)
    saved = SavedCheckpoints(tmp_path)
    items = [item(0), item(1, 32, 48), TrainItem((picture(2), picture(3)), "two photos")]
    pack = train(base, items, settings, on_checkpoint=saved)
    for one, result in zip(items, pack, strict=True):
        assert distance(train(base, [one], settings)[0], result) < 1e-4
    resumed = train(base, items, settings, checkpoint=saved[1])
    assert all(bit_equal(one, other) for one, other in zip(pack, resumed, strict=True))
    plain = train(base, items, recipe(steps=7, batch_size=batch))
    assert all(distance(one, other) > 1e-2 for one, other in zip(pack, plain, strict=True))


def test_candidates_of_one_image_and_draws_that_come_again_share_their_rows(base: Base) -> None:
    rgb = picture(0)
    shared = [TrainItem((rgb,), f"candidate {number}", draws="one") for number in range(2)]
    settings = recipe(steps=5, batch_size=2, style_alone_share=SHARE)
    for together, one in zip(train(base, shared, settings), shared, strict=True):
        assert distance(train(base, [one], settings)[0], together) < 1e-4
    pooled = settings.model_copy(update={"front_pool": 5})
    assert bit_equal(train(base, [item(0)], settings)[0], train(base, [item(0)], pooled)[0])


def test_a_picture_that_is_not_cropped_is_turned_whole(base: Base) -> None:
    settings = recipe(steps=6, batch_size=2, style_alone_share=0.5, crop="none")
    photos = prepare_photos(base, (picture(0, 32, 64),), settings)
    upright = [photo.mean.shape[-2:] for photo in photos]
    assert len(photos) == 9 and upright.count(upright[0]) == 5 and upright.count(upright[0][::-1]) == 4
    items = [TrainItem((picture(0, 32, 64),), "long"), item(1, 32, 32)]
    pack = train(base, items, settings)
    for one, result in zip(items, pack, strict=True):
        assert distance(train(base, [one], settings)[0], result) < 1e-4


def test_a_training_without_halves_has_no_such_rows(base: Base) -> None:
    layers, settings = attention_layers(base.unet), recipe(batch_size=2)
    plain, told = (
        train(base, [item(0)], settings.model_copy(update={"style_alone_share": share}), layers=layers)[0]
        for share in (0.0, 0.5)
    )
    assert bit_equal(plain, told)


def test_no_adapter_is_named_by_a_share_of_none() -> None:
    plain = recipe()
    assert "style_alone_share" not in plain.identity()
    assert recipe(style_alone_share=0.25).identity() == plain.identity() | {"style_alone_share": 0.25}
    assert recipe(style_alone_share=0).identity() == plain.identity()


def test_a_captured_graph_has_rows_of_one_kind() -> None:
    with pytest.raises(ValueError, match="execution eager or compiled with style_alone_share"):
        recipe(style_alone_share=0.25, execution="graph")
    assert TrainSettings(style_alone_share=0.25, execution="compiled", resolution_px=RESOLUTION_PX).style_alone_share
