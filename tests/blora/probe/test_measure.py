"""The block probe: real passes of tiny UNets, in which it is known beforehand which block can answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn

from blora.adapters.blocks import inner_blocks
from blora.errors import SettingsError, TopologyError
from blora.metrics.clip import load_clip
from blora.metrics.lite0 import Features
from blora.models.model import Base, load_base
from blora.probe.measure import measure
from blora.probe.plain_unets import PlainBase
from blora.probe.prompts import default_prompts, noise_seeds
from blora.probe.proposal import summarize
from blora.probe.readings import ProbePair
from blora.sampling.denoise import Model
from blora.sampling.draw import Draw
from blora.sampling.sample import sample
from blora.settings.sampling import SampleSettings
from tests.tiny import RESOLUTION_PX, unet
from tests.tiny_plain import plain_unet, save_plain_base

Picture = NDArray[np.uint8]
QUICK = SampleSettings(steps=2, width_px=RESOLUTION_PX, height_px=RESOLUTION_PX, batch_size=8)
SDXL_BLOCKS = (
    "down_blocks.2.attentions.0",
    "down_blocks.2.attentions.1",
    "mid_block.attentions.0",
    "up_blocks.0.attentions.0",
    "up_blocks.0.attentions.1",
    "up_blocks.0.attentions.2",
)
PAIRS = (
    ProbePair("content", "a photo of a car", "a photo of a dog", (7,)),
    ProbePair("content", "a photo of a hat", "a photo of a cup and a cat on the table", (7,)),
    ProbePair("style", "a photo of a red car", "a photo of a blue car", (7,)),
    ProbePair("style", "a photo of a red dog", "a photo of a black and white dog", (7,)),
)


class OwnPictures:
    """A judge that knows what a base draws for a text: a text's embedding is that picture's, as centred pixels."""

    def __init__(self, draw: Callable[[str], Picture]) -> None:
        self._draw = functools.cache(draw)

    def extract(self, pictures: Sequence[Picture]) -> Features:
        pixels = torch.from_numpy(np.stack(pictures)).flatten(1).double()
        unit = nn.functional.normalize(pixels - pixels.mean(dim=1, keepdim=True), dim=1)
        return Features(content=unit, style=unit)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return self.extract([self._draw(text) for text in texts]).content


def own_pictures(base: Base) -> OwnPictures:
    return OwnPictures(lambda text: sample(base, [Draw(None, None, text, seed=7)], QUICK)[0])


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_plain_base(tmp_path_factory.mktemp("bases") / "plain")


@contextmanager
def deaf_but(model: nn.Module, hearing: Sequence[str]) -> Iterator[None]:
    """For the time of the block only the cross-attention of these blocks changes the picture, and strongly."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".attn2.to_out." in name:
                weight.mul_(10 if any(name.startswith(f"{block}.") for block in hearing) else 0)
            if name.startswith("add_embedding.linear_2."):
                weight.zero_()  # SDXL's other way of hearing a prompt
    try:
        yield
    finally:
        model.load_state_dict(kept)


def test_the_inner_blocks_of_sdxl_are_the_papers_six() -> None:
    assert inner_blocks(unet()) == SDXL_BLOCKS


def test_the_inner_blocks_of_sd15_leave_out_its_outermost_level() -> None:
    assert inner_blocks(plain_unet()) == (
        *(f"down_blocks.{level}.attentions.{index}" for level in (1, 2) for index in (0, 1)),
        "mid_block.attentions.0",
        *(f"up_blocks.{level}.attentions.{index}" for level in (1, 2) for index in (0, 1, 2)),
    )


def test_a_unet_without_cross_attention_is_refused() -> None:
    shape = {"sample_size": 8, "block_out_channels": (8, 8), "norm_num_groups": 4, "cross_attention_dim": 8}
    deaf = UNet2DConditionModel(
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, mid_block_type=None, **shape
    )
    with pytest.raises(TopologyError, match="received none"):
        inner_blocks(deaf)


@pytest.mark.parametrize("hearing", SDXL_BLOCKS[1:5])
def test_the_one_block_that_hears_is_named(base: Base, hearing: str) -> None:
    with deaf_but(base.unet, [hearing]):
        readings = measure(base, own_pictures(base), PAIRS, QUICK, SDXL_BLOCKS)
    summary = summarize(PAIRS, readings)
    for kind in ("content", "style"):
        gains = {block.block: block.gain.mean for block in summary.kinds[kind].blocks}  # type: ignore[index]
        assert max(gains, key=gains.__getitem__) == hearing and gains[hearing] > 2e-5
        assert all(abs(gain) < 1e-6 for block, gain in gains.items() if block != hearing)
    assert hearing in {choice.block for choice in summary.proposal.values() if choice.best}
    assert len({choice.block for choice in summary.proposal.values()}) == 2


def test_q_everywhere_is_the_picture_that_sampling_draws(base: Base) -> None:
    readings = measure(base, own_pictures(base), PAIRS, QUICK, SDXL_BLOCKS)
    assert len(readings) == len(PAIRS) * len(SDXL_BLOCKS)
    assert min(reading.score_q for reading in readings) > 1 - 1e-5
    assert max(reading.score_p for reading in readings) < 1 - 1e-5
    assert len({reading.score for reading in readings[: len(SDXL_BLOCKS)]}) == len(SDXL_BLOCKS)


def test_the_batch_size_changes_no_score_beyond_rounding(base: Base) -> None:
    judge = load_clip("embedded", "")
    seeds = [ProbePair(pair.kind, pair.p, pair.q, noise_seeds(0, n, 2)) for n, pair in enumerate(PAIRS[:2])]
    one = measure(base, judge, seeds, QUICK, SDXL_BLOCKS[2:5])
    again = measure(base, judge, seeds, QUICK, SDXL_BLOCKS[2:5])
    other = measure(base, judge, seeds, QUICK.model_copy(update={"batch_size": 3}), SDXL_BLOCKS[2:5])
    assert one == again
    assert [(r.pair, r.seed, r.block) for r in one] == [(r.pair, r.seed, r.block) for r in other]
    np.testing.assert_allclose([r.score for r in one], [r.score for r in other], atol=1e-3)
    assert len({r.seed for r in one}) == 4


def test_progress_counts_pictures_and_a_wrong_size_is_refused(base: Base) -> None:
    told: list[tuple[int, int]] = []
    judge = load_clip("embedded", "")
    measure(base, judge, PAIRS[:1], QUICK, SDXL_BLOCKS[:2], on_step=lambda done, total: told.append((done, total)))
    assert told == [(0, 4), (4, 4)]
    with pytest.raises(SettingsError, match=r"sample\.precision"):
        measure(base, judge, PAIRS, QUICK.model_copy(update={"precision": "bf16"}), SDXL_BLOCKS)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_a_plain_base_draws_what_its_own_pipeline_draws(plain_folder: Path, guidance: float) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(plain_folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)

    def draw(text: str) -> Picture:
        pixels = pipeline(
            text, height=RESOLUTION_PX, width=RESOLUTION_PX, num_inference_steps=3, guidance_scale=guidance,
            generator=torch.Generator().manual_seed(7), output_type="np",
        ).images[0]  # fmt: skip
        return np.asarray((pixels * 255).round(), np.uint8)

    model = PlainBase(plain_folder)
    settings = QUICK.model_copy(update={"steps": 3, "guidance_scale": guidance})
    blocks = inner_blocks(model.unet)
    with deaf_but(model.unet, [blocks[3]]):
        pipeline.unet.load_state_dict(model.unet.state_dict())
        readings = measure(model, OwnPictures(draw), PAIRS, settings, blocks)
    assert min(reading.score_q for reading in readings) > 1 - 1e-4
    summary = summarize(PAIRS, readings)
    gains = {one.block: one.gain.mean for one in summary.kinds["content"].blocks}
    assert max(gains, key=gains.__getitem__) == blocks[3] and gains[blocks[3]] > 1e-6


def test_a_folder_of_another_shape_is_refused(plain_folder: Path, epsilon_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="without unet/"):
        PlainBase(tmp_path)
    with pytest.raises(TopologyError, match="addition_embed_type"):
        PlainBase(epsilon_folder)


def test_the_embedded_model_answers_to_looks() -> None:
    """The whole way on real weights: telling a look changes the picture toward that look."""
    model: Model = load_base("embedded")
    prompts = [one for one in default_prompts("embedded", 3, seed=0) if one[0] == "style"]
    pairs = [ProbePair(kind, p, q, noise_seeds(0, n, 1)) for n, (kind, p, q) in enumerate(prompts)]
    settings = SampleSettings(steps=4, width_px=64, height_px=64, guidance_scale=3)
    readings = measure(model, load_clip("embedded", ""), pairs, settings, SDXL_BLOCKS[3:5])
    found = summarize(pairs, readings).kinds["style"]
    assert found.gain_q.mean > 0.05
