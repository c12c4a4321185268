"""Put the trained parts into the package.

    python -m blora.embedded.training.export --data DIR --text      once both CLIPs are trained, before the UNet
    python -m blora.embedded.training.export --data DIR             at any checkpoint of the UNet

The second form writes `model/` (an SDXL pipeline folder), `clip/` (the visual tower of the scorer) and revision.txt,
and checks that the folder loads and that the rebuilt scorer gives the trained one's answers.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from blora.embedded import CLIP_DIR, MODEL_DIR, compute_revision
from blora.embedded.clip import load_embedded_clip
from blora.embedded.training import clip, unet, vae
from blora.embedded.training.text import convert, write_tokenizers


def _clip_weights(data: Path, seed: int) -> dict[str, torch.Tensor]:
    return torch.load(data / f"clip{seed}.pt", map_location="cpu", weights_only=True)["model"]


def write_text(data: Path) -> None:
    """Tokenizers and text encoders in DIR/text, in half precision: what the UNet is trained on is what ships."""
    folder = data / "text"
    write_tokenizers(folder)
    convert(_clip_weights(data, 1), seed=1, projection=False).half().save_pretrained(folder / "text_encoder")
    convert(_clip_weights(data, 2), seed=2, projection=True).half().save_pretrained(folder / "text_encoder_2")


def write_model(data: Path) -> dict:
    """The pipeline folder; returns the state of the UNet's checkpoint."""
    state = torch.load(data / "unet.pt", map_location="cpu", weights_only=True)
    small_vae = vae.load(data)
    small_unet = unet.build(small_vae.config.latent_channels)
    for q, value in zip(
        small_unet.parameters(), state["ema"], strict=False
    ):  # the encoders' weights follow; not shipped
        q.data.copy_(value)
    pipeline = StableDiffusionXLPipeline(
        vae=small_vae,
        unet=small_unet,
        scheduler=EulerDiscreteScheduler(**unet.BETAS),
        text_encoder=CLIPTextModel.from_pretrained(data / "text" / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(data / "text" / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(data / "text" / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(data / "text" / "tokenizer_2"),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    shutil.rmtree(MODEL_DIR, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(MODEL_DIR, safe_serialization=True)
    for name in ("text_encoder", "text_encoder_2"):
        # transformers would go by the stored type, and the pipeline would mix half and single precision.
        path = MODEL_DIR / name / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "dtype": "float32"}, indent=2) + "\n")
    for name in ("tokenizer", "tokenizer_2"):
        for extra in ("vocab.json", "merges.txt"):
            shutil.copy(data / "text" / name / extra, MODEL_DIR / name / extra)
        (MODEL_DIR / name / "tokenizer.json").unlink(missing_ok=True)  # the same content again, three times the bytes
    return state


def write_clip(data: Path) -> None:
    """The scorer's visual tower and temperature; its text tower is the pipeline's second text encoder."""
    weights = {
        k: v.contiguous() for k, v in _clip_weights(data, 2).items() if k.startswith("visual.") or k == "logit_scale"
    }
    CLIP_DIR.mkdir(exist_ok=True)
    save_file(
        {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in weights.items()},
        CLIP_DIR / "visual.safetensors",
    )
    config = {
        "model_cfg": clip.CONFIG,
        "preprocess_cfg": {"mean": clip.MEAN_STD, "std": clip.MEAN_STD, "interpolation": "bicubic"},
    }
    (CLIP_DIR / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


@torch.no_grad()
def check(data: Path) -> dict[str, float]:
    """Load what was written as a user would; smallest cosine between rebuilt and trained scorer."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(MODEL_DIR)
    pipeline.set_progress_bar_config(disable=True)
    pipeline("A [v]", num_inference_steps=2, output_type="np")
    trained = clip.build().eval()
    trained.load_state_dict(_clip_weights(data, 2))
    rebuilt, _, tokenizer = load_embedded_clip()
    words = tokenizer(["a drawing of an owl, blueprint style", "A lion in sepia photograph style", "cactus"])
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pairs = (
        (trained.encode_text(words), rebuilt.encode_text(words)),
        (trained.encode_image(x), rebuilt.encode_image(x)),
    )
    low = [float(torch.cosine_similarity(a, b).min()) for a, b in pairs]
    direct = pipeline.text_encoder_2(words)[0]
    if not torch.allclose(direct, rebuilt.encode_text(words), atol=1e-3) or min(low) < 0.999:
        raise RuntimeError(f"the rebuilt scorer is not the trained one: {low}")
    return {"text": low[0], "image": low[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text", action="store_true")
    args = parser.parse_args()
    if args.text:
        write_text(args.data)
        return
    state = write_model(args.data)
    write_clip(args.data)
    cosines = check(args.data)
    revision = compute_revision()
    (MODEL_DIR.parent / "revision.txt").write_text(revision + "\n")
    size = sum(p.stat().st_size for folder in (MODEL_DIR, CLIP_DIR) for p in folder.rglob("*") if p.is_file())
    print(f"step {state['step']} pictures {state['seen']} size {size / 1e6:.1f} MB revision {revision[:12]} {cosines}")


if __name__ == "__main__":
    main()
