"""From pictures to training rows: what is cut, what the UNet is told, whose turn it is, and which noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blora.errors import TrainingDivergedError
from blora.models.model import Base, load_base
from blora.training.from_files import train_images
from blora.training.items import TrainItem
from blora.training.noise import draw_noise, seeded
from blora.training.optim import FlatFactors
from blora.training.photos import cut, frame_of, prepare_photos, read_pixels
from blora.training.stepper import Stepper
from blora.training.train import train
from tests.blora.small_training import SETTINGS, bit_equal, distance, item, poisoned, recipe, weights
from tests.tiny import picture


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


def test_the_reference_tells_of_a_square_whatever_the_picture_was(base: Base) -> None:
    """Else a small picture is trained as a small one, and drawn as a large one."""
    for crop in ("center", "none"):
        photo = prepare_photos(base, [picture(0, 16, 24)], recipe(size_conditioning="published", crop=crop))[0]
        assert photo.time_ids.tolist() == [[32, 32, 0, 0, 32, 32]]
        drawn = base.conditions(torch.zeros(1, 1), 32, 32)["time_ids"]
        assert torch.equal(photo.time_ids, drawn), "as it is drawn"


def test_uncropped_pictures_of_several_shapes_train_in_one_pack(base: Base) -> None:
    settings = recipe(crop="none", batch_size=2, steps=2)
    items = [item(0, 32, 64), item(1, 64, 32), TrainItem((picture(2, 32, 32), picture(3, 32, 64)), "two shapes")]
    for result, one in zip(train(base, items, settings), items, strict=True):
        assert distance(train(base, [one], settings)[0], result) < 1e-3


def test_photos_take_turns_and_their_order_is_irrelevant(base: Base) -> None:
    photos = tuple(picture(number) for number in range(3))
    settings = recipe(steps=3, batch_size=2)
    first = train(base, [TrainItem(photos, "object")], settings)[0]
    second = train(base, [TrainItem(photos[::-1], "object")], settings)[0]
    assert bit_equal(first, second)
    prepared = prepare_photos(base, photos, settings)
    turns = [row.photo for step in range(3) for row in draw_noise(seeded("k", 0), prepared, step, settings, 1000, "k")]
    assert sorted(turns[:3]) == sorted(turns[3:]) == [0, 1, 2]


@pytest.mark.parametrize("power", [1.0, 4.0])
def test_timesteps_crowd_at_the_noisy_end_as_told(base: Base, power: float) -> None:
    settings = recipe(batch_size=256, timestep_power=power)
    photos, generator = prepare_photos(base, (picture(0),), settings), seeded("k", 0)
    drawn = np.array(
        [row.timestep for step in range(8) for row in draw_noise(generator, photos, step, settings, 1000, "")]
    )
    assert drawn.min() >= 0 and drawn.max() == 999
    for level in (250, 500, 900):
        share, expected = (drawn >= level).mean(), (1 - level / 1000) ** (1 / power)
        assert abs(share - expected) < 4 * (expected * (1 - expected) / drawn.size) ** 0.5


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


def test_pictures_and_prompt_are_encoded_once(epsilon_folder: Path) -> None:
    base = load_base(epsilon_folder)
    calls = {"vae": 0, "text": 0}
    base.vae.encoder.register_forward_hook(lambda *_: calls.update(vae=calls["vae"] + 1))
    for _, encoder in base.text_encoders.load():
        encoder.register_forward_hook(lambda *_: calls.update(text=calls["text"] + 1))
    train(base, [item(0), item(1)], recipe(steps=3))
    assert calls == {"vae": 2, "text": 2}, "one picture each; one prompt in each of two encoders"
    assert not base.text_encoders.loaded
