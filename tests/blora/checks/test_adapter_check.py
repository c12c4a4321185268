"""The check of an adapter and the calibration, on real trainings of a tiny base."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blora.checks.adapter_check import check_adapters, reconstruct
from blora.checks.calibrate import own_drawings
from blora.checks.evidence import gather_evidence
from blora.checks.limits import reconstruction_settings
from blora.errors import OutOfMemoryError
from blora.models.model import Base
from blora.settings.presets import Settings
from blora.settings.resolve import resolve
from blora.training.items import TrainItem
from blora.training.train import train
from tests.blora.adapters.test_packed import random_adapter
from tests.tiny import RESOLUTION_PX, picture

SIZE = {"width_px": RESOLUTION_PX, "height_px": RESOLUTION_PX}


@pytest.fixture(scope="module")
def settings() -> Settings:
    """A short training, and a check in two steps with a limit that nothing and one that everything reaches."""
    return resolve(
        "demo",
        {
            "train": {"resolution_px": RESOLUTION_PX, "rank": 2, "steps": 4, "batch_size": 1},
            "sample": SIZE,
            "check": {"steps": 2, "reconstruction_distance": 0, "white_background": 1},
        },
    )


def test_an_adapter_is_not_judged_by_pictures_that_did_not_fit_on_the_device(base: Base, settings: Settings) -> None:
    """One that comes out not finite would be black; of one that was not drawn there is nothing to say."""

    def short(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    handle = base.unet.register_forward_pre_hook(short)
    try:
        with pytest.raises(OutOfMemoryError, match="drawing a picture does not fit on the device"):
            check_adapters(base, [(random_adapter(base, 2, 0), picture(1))], settings)
    finally:
        handle.remove()


def test_a_verdict_is_of_the_adapters_own_image_and_no_other_adapters(base: Base, settings: Settings) -> None:
    images = [picture(seed, RESOLUTION_PX, RESOLUTION_PX) for seed in (1, 2)]
    results = train(base, [TrainItem((one,), str(seed)) for seed, one in enumerate(images)], settings.train)
    one, other = (result.adapter for result in results)
    assert one is not None and other is not None
    both = check_adapters(base, [(one, images[0]), (other, images[1])], settings)
    (alone,) = check_adapters(base, [(one, images[0])], settings)
    (mistaken,) = check_adapters(base, [(one, images[1])], settings)
    assert dict(alone.measures) == pytest.approx(dict(both[0].measures), abs=0.5)
    assert abs(mistaken.measures["reconstruction_distance"] - alone.measures["reconstruction_distance"]) > 1
    assert alone.failed == ("reconstruction_distance",) and alone.passed is False
    drawn = reconstruct(base, [one, other], settings)
    assert [len(group) for group in drawn] == [settings.check.pictures] * 2
    assert not np.array_equal(drawn[0][0], drawn[0][1]), "each from a seed of its own"
    few = reconstruction_settings(settings)
    assert (few.steps, few.width_px, few.guidance_scale) == (2, RESOLUTION_PX, settings.sample.guidance_scale)


def test_an_adapter_that_draws_nothing_finite_fails_alone(base: Base, settings: Settings) -> None:
    sound = random_adapter(base, rank=2, seed=1).scaled(1e-3)
    image = picture(1, RESOLUTION_PX, RESOLUTION_PX)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wild, kept = check_adapters(base, [(sound.scaled(1e38), image), (sound, image)], settings)
    assert wild.measures["grey_collapse"] == 1 and wild.passed is False
    assert 0 <= kept.measures["grey_collapse"] < 1


def test_pictures_of_ones_own_give_limits_for_all_but_copies_of_the_style(
    base: Base, settings: Settings, tmp_path: Path
) -> None:
    for number in range(3):
        Image.fromarray(picture(number, 40, 40)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    drawings = own_drawings(tmp_path)
    assert len(drawings.pictures) == 3 and drawings.truths == []
    found = gather_evidence(base, drawings, [0, 2], settings)
    fog = found["structure_loss"]
    assert len(fog.good) == 3 * 2 and len(fog.bad) == 4 * len(fog.good), "each in the colours of both others"
    assert "style_copy" not in found and "reconstruction_distance" in found and "split_image" in found
    near, far = found["reconstruction_distance"].good, found["reconstruction_distance"].bad
    assert len(near) == 2 * 4 and len(far) == 2 * (4 + 4), "each against the other image, and the base alone"
    told = found["split_image"].summary()
    assert told["good"] == 3 and 0 <= told["false_alarms"] <= 1 and told["real"] == 8
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="a folder with 2 or more"):
        own_drawings(tmp_path / "empty")
