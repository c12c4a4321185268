"""Picture files to adapters: the short forms of training, for scripts and notebooks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from blora.adapters.adapter import Adapter
from blora.models.model import Base
from blora.settings.training import TrainSettings
from blora.training.items import StepReport, TrainItem
from blora.training.photos import pixel_digest, read_pixels
from blora.training.train import train

__all__ = ["train_images", "train_object"]


def train_images(
    base: Base, images: Sequence[str | Path | Image.Image], settings: TrainSettings, *, progress: bool = True
) -> list[Adapter]:
    """Train one adapter a picture: the short form for scripts and notebooks.

    Args:
        base: Loaded with the precision that the settings name.
        images: Files or pictures; turned upright, transparency on white. Equal pictures give equal adapters.
        settings: The recipe.
        progress: Show a bar with the mean loss, if there is a terminal to show it on.

    Raises:
        TrainingDivergedError: An adapter was given up.
        SettingsError: The settings do not fit the base.
        OutOfMemoryError: The pictures do not fit on the device in one pass.
    """
    pixels = [read_pixels(image) for image in images]
    keys = [pixel_digest(rgb) for rgb in pixels]
    unique = {key: TrainItem((rgb,), key, {"image_ids": key}) for key, rgb in zip(keys, pixels, strict=True)}
    with tqdm(total=settings.steps, desc=f"training {len(unique)}", disable=None if progress else True) as bar:

        def show(report: StepReport) -> None:
            finite = [loss for loss in report.losses if math.isfinite(loss)]
            bar.set_postfix(loss=f"{sum(finite) / max(len(finite), 1):.4f}", refresh=False)
            bar.update()

        results = dict(zip(unique, train(base, list(unique.values()), settings, on_step=show), strict=True))
    for result in results.values():
        if result.error is not None:
            raise result.error
    return [adapter for key in keys if (adapter := results[key].adapter) is not None]


def train_object(
    base: Base, photos: Sequence[str | Path | Image.Image], settings: TrainSettings, class_word: str = ""
) -> Adapter:
    """Train one adapter on several photos of one object, whose order is irrelevant.

    Args:
        base: Loaded with the precision that the settings name.
        photos: Files or pictures; turned upright, transparency on white.
        settings: The recipe.
        class_word: What kind of thing it is: the training's prompt "A [v]" becomes "A [v] dog". Prompts to draw should
            say the same (`TrainSettings.with_tokens`).

    Raises:
        TrainingDivergedError: The adapter was given up.
        SettingsError: The settings do not fit the base, or there is no photo.
        OutOfMemoryError: A step does not fit on the device.
    """
    pixels = {pixel_digest(rgb): rgb for rgb in map(read_pixels, photos)}
    names = sorted(pixels)
    metadata = {"image_ids": ",".join(names)}
    prompt = settings.of_class(class_word).prompt
    (result,) = train(base, [TrainItem(tuple(pixels.values()), " ".join(names), metadata, prompt=prompt)], settings)
    if result.adapter is None:
        raise result.error or AssertionError("a training ends with an adapter or an error")
    return result.adapter
