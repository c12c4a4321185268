"""Several photos of one object: all are learned, in turns drawn by lot; a pack may hold several prompts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from blora.adapters.adapter import Adapter
from blora.adapters.blocks import BLOCKS, target_layers
from blora.models.model import Base, load_base
from blora.settings.resolve import resolve
from blora.settings.training import TrainSettings, recipe_version
from blora.training.from_files import train_object
from blora.training.items import TrainItem
from blora.training.noise import draw_noise, photo_of_turn
from blora.training.optim import FlatFactors
from blora.training.photos import prepare_photos, read_pixels
from blora.training.stepper import Stepper
from blora.training.train import train
from tests.blora.small_training import SavedCheckpoints, bit_equal, distance, item, recipe
from tests.tiny import picture

PHOTOS = tuple(picture(number) for number in range(3))
EXAMPLES = Path(__file__).parents[3] / "manifests" / "examples" / "pictures"


def reconstruction_error(base: Base, adapter: Adapter | None, rgb: NDArray[np.uint8], settings: TrainSettings) -> float:
    """Mean squared error of what is predicted of a noisy photo, for noise that no training drew."""
    layers = [name for half in BLOCKS for name in target_layers(base.unet, half, settings.layers)]  # type: ignore[arg-type]
    shapes = {name: tuple(base.unet.get_parameter(f"{name}.weight").shape) for name in layers}
    factors = FlatFactors(shapes, 1, settings.rank)  # type: ignore[arg-type]
    if adapter is not None:
        for name, (down, up) in factors.layers.items():
            down.data[0], up.data[0] = adapter.layers[name].down, adapter.layers[name].up
    photos = [prepare_photos(base, [rgb], settings)]
    many = settings.model_copy(update={"batch_size": 24})
    unseen = draw_noise(torch.Generator().manual_seed(5), photos[0], 0, many, 1000, "")
    with Stepper(base, photos, factors, many) as stepper:
        return float(stepper.run([unseen], [1.0])[0][0])


@pytest.mark.slow
def test_every_photo_is_learned() -> None:
    """On the embedded model: each photo is predicted better than by the base, and than by one not shown that photo."""
    base, settings = (
        load_base("embedded"),
        resolve("demo", {"train.steps": 100, "train.rank": 8, "train.learning_rate": 1e-3}).train,
    )
    photos = [read_pixels(EXAMPLES / f"{name}.png") for name in ("apple", "owl", "saxophone")]
    leaving_out = [TrainItem(tuple(p for p in photos if p is not one), f"{n}") for n, one in enumerate(photos)]
    together, *without = train(base, [TrainItem(tuple(photos), "all"), *leaving_out], settings)
    for photo, other in zip(photos, without, strict=True):
        plain, held, left_out = (
            reconstruction_error(base, adapter, photo, settings) for adapter in (None, together.adapter, other.adapter)
        )
        print("ERR", plain, held, left_out)
        assert held < 0.95 * plain
        assert held < 0.95 * left_out


def test_photos_take_turns_in_an_order_drawn_by_lot() -> None:
    rounds = [tuple(photo_of_turn(5 * round_ + place, 5, "key", 0) for place in range(5)) for round_ in range(40)]
    assert {tuple(sorted(order)) for order in rounds} == {(0, 1, 2, 3, 4)}, "each once before any comes again"
    assert len(set(rounds)) > 20, "every round in an order of its own"
    first = Counter(order[0] for order in rounds)
    assert min(first[photo] for photo in range(5)) >= 2
    others = [[photo_of_turn(turn, 5, key, seed) for turn in range(20)] for key, seed in (("key", 1), ("other", 0))]
    assert [photo for order in rounds[:4] for photo in order] not in others
    assert {photo_of_turn(turn, 1, "key", 0) for turn in range(9)} == {0}


def test_neither_packing_nor_resuming_changes_whose_turn_it_is(
    base: Base, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, list[int]] = {}

    def noted(*arguments: object) -> list[object]:
        rows = draw_noise(*arguments)  # type: ignore[arg-type]
        seen.setdefault(str(arguments[5]), []).extend(row.photo for row in rows)
        return list(rows)

    monkeypatch.setattr("blora.training.step_queue.draw_noise", noted)
    settings, one = recipe(steps=4, batch_size=2, checkpoint_every_steps=2), TrainItem(PHOTOS, "object")
    kept = SavedCheckpoints(tmp_path)
    alone = train(base, [one], settings, on_checkpoint=kept)[0]
    expected = seen.pop("object")
    packed = train(base, [item(7), one, item(8)], settings)[1]
    assert seen.pop("object") == expected and distance(alone, packed) < 1e-3
    assert bit_equal(alone, train(base, [one], settings, checkpoint=kept[0])[0])
    assert seen.pop("object") == expected[4:]


def test_a_pack_may_hold_different_prompts(base: Base) -> None:
    items = [
        TrainItem(item(n).images, f"item {n}", prompt=told) for n, told in enumerate(("A [v] dog", "", "A [v] cat"))
    ]
    settings = recipe(batch_size=2)
    results = train(base, items, settings)
    for one, result in zip(items, results, strict=True):
        told = settings.model_copy(update={"prompt": one.prompt or settings.prompt})
        alone = train(base, [TrainItem(one.images, one.key)], told)[0]
        assert distance(alone, result) < 1e-3
        assert result.adapter is not None and result.adapter.metadata["prompt"] == told.prompt
    silent = train(base, [TrainItem(items[0].images, items[0].key)], settings)[0]
    assert distance(silent, results[0]) > 1e-2, "the prompt must matter for this test to mean anything"


def test_candidates_of_one_image_may_differ_in_their_prompts(base: Base) -> None:
    """They share noise, and with it a row of the frozen front, only where the front is told the same."""
    told = ("A [v] dog", "A [v] dog", "A [v] cat")
    items = [TrainItem(item(0).images, f"c{n}", draws="s", prompt=words) for n, words in enumerate(told)]
    settings = recipe(batch_size=2)
    for one, result in zip(items, train(base, items, settings), strict=True):
        assert distance(train(base, [one], settings)[0], result) < 1e-3


def test_a_class_word_stands_behind_the_token() -> None:
    settings = recipe(prompt="A photo of [v] on white")
    assert settings.of_class("dog").prompt == "A photo of [v] dog on white"
    assert settings.of_class("") is settings
    assert settings.with_tokens("A [c] in [s] style", "dog") == "A [v] dog in [v] style"
    assert settings.with_tokens("A [c] in [s] style", "", "oil painting") == "A [v] in [v] oil painting style"
    assert recipe_version(1) != recipe_version(2) == recipe_version(3)


def test_the_short_form_trains_one_adapter_on_all_photos(base: Base) -> None:
    photos = [Image.fromarray(photo) for photo in PHOTOS]
    one = train_object(base, photos, recipe(), "dog")
    other = train_object(base, [photos[2], *photos], recipe(), "dog")
    assert distance(one, other) == 0.0 and one.metadata["prompt"] == "A [v] dog"
    assert len(one.metadata["image_ids"].split(",")) == 3
    assert distance(one, train_object(base, photos[:2], recipe(), "dog")) > 1e-2
