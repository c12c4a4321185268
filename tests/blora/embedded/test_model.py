"""The embedded model as shipped: whole, loadable by our code and by diffusers' own, and the size it may have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from blora.embedded import CLIP_DIR, MODEL_DIR, REVISION, verify
from blora.embedded.clip import load_embedded_clip
from blora.embedded.words.captions import with_article
from blora.embedded.words.clip import PADS
from blora.embedded.words.name_layers import heard, plain_encoder
from blora.models.model import load_base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample
from blora.settings.resolve import resolve

EXAMPLES = Path(__file__).parents[3] / "manifests" / "examples" / "pictures"


def test_its_files_are_the_ones_that_its_revision_names() -> None:
    assert len(REVISION) == 64
    verify()


def test_it_stays_small() -> None:
    sizes = {
        path: path.stat().st_size for folder in (MODEL_DIR, CLIP_DIR) for path in folder.rglob("*") if path.is_file()
    }
    assert sum(sizes.values()) < 48e6
    assert {path.suffix for path in sizes} <= {".json", ".txt", ".safetensors"}


def test_ours_and_the_unmodified_pipeline_draw_the_same_picture() -> None:
    settings = resolve("demo", {"sample": {"steps": 3, "batch_size": 1}}).sample
    (ours,) = sample(load_base("embedded"), [Draw(None, None, "A [v]", seed=0)], settings)
    pipeline = StableDiffusionXLPipeline.from_pretrained(MODEL_DIR, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "A [v]",
        num_inference_steps=3,
        guidance_scale=settings.guidance_scale,
        height=settings.height_px,
        width=settings.width_px,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    assert ours.std() > 5, "a picture of one colour"
    assert np.abs(ours.astype(float) - theirs * 255).max() <= 2


def test_its_clip_tells_one_look_from_another() -> None:
    """On drawings of things that it has never seen."""
    model, preprocess, tokenizer = load_embedded_clip()
    drawn = [preprocess(Image.open(EXAMPLES / f"{name}.png").convert("RGB")) for name in ("blueprint", "sunset")]
    with torch.no_grad():
        words = model.encode_text(tokenizer(["blueprint style", "sunset style"]), normalize=True)
        pictures = model.encode_image(torch.stack(drawn), normalize=True)
    assert (pictures @ words.T).argmax(dim=1).tolist() == [0, 1]


def test_names_of_things_draw_them() -> None:
    """Told to all blocks; without the layers that say names the pictures are as like any other thing's name, by .02."""
    things = "cat tiger elephant penguin watermelon carrot guitar umbrella bus key anchor bomb".split()
    captions = [f"a drawing of {with_article(thing)}" for thing in things]
    settings = resolve("demo", {"sample": {"steps": 14, "batch_size": len(things)}}).sample
    pictures = sample(load_base("embedded"), [Draw(None, None, words, seed=1) for words in captions], settings)
    model, preprocess, tokenizer = load_embedded_clip()
    with torch.no_grad():
        words = model.encode_text(tokenizer(captions), normalize=True)
        drawn = model.encode_image(torch.stack([preprocess(Image.fromarray(p)) for p in pictures]), normalize=True)
    likeness = drawn @ words.T
    own, others = likeness.diagonal().mean(), (likeness.sum() - likeness.trace()) / (likeness.numel() - len(things))
    assert own - others > 0.04


def test_the_prompt_that_adapters_are_trained_by_says_what_it_said_before_names_were_learnt() -> None:
    shipped = CLIPTextModel.from_pretrained(MODEL_DIR / "text_encoder").float().eval()
    ids = CLIPTokenizer.from_pretrained(MODEL_DIR / "tokenizer")(
        ["A [v]", "a cat"], padding="max_length", max_length=77
    )
    with torch.no_grad():
        now, before = (
            heard(one, torch.tensor(ids.input_ids))[:, PADS:]
            for one in (shipped, plain_encoder(MODEL_DIR / "text_encoder").float().eval())
        )
    changed = (now - before).square().mean((1, 2)).sqrt()
    assert changed[0] < 0.01 < 0.3 < changed[1]
