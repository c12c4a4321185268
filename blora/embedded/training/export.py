"""Put the trained parts together as they are shipped.

    python -m blora.embedded.training.export --data DIR --out FOLDER

At any checkpoint of the UNet. Writes to FOLDER `model/` (an SDXL pipeline folder), `clip/` (the visual tower of the
scorer), revision.txt, and `training/beside.safetensors`, with which later trainings go on from here (`--start`). Checks
that the pipeline loads and draws and that the rebuilt scorer gives the trained one's answers. Where DIR has no
clip2.pt, as its text encoders are those of the shipped model, the shipped scorer is taken. FOLDER `blora/embedded`
replaces the shipped model.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from blora.embedded import CLIP_DIR, compute_revision
from blora.embedded.clip import load_embedded_clip
from blora.embedded.learning import progress
from blora.embedded.training import vae
from blora.embedded.training.encoders import BESIDE
from blora.embedded.training.train import Trainee
from blora.embedded.training.unet import BETAS
from blora.embedded.words import clip
from blora.embedded.words.text import NAMES, TextPair


def averaged_trainee(data: Path) -> tuple[Trainee, dict[str, Any]]:
    """The UNet and its tokens with their averaged weights, and the checkpoint that they come from."""
    state = progress.load(data / "unet.pt")
    if state is None:
        raise SystemExit(f"no unet.pt in {data}: train the UNet first")
    text = TextPair(data / "text", "cpu")
    trainee = Trainee(vae.CHANNELS, 128, text, **state["sizes"])
    for q, value in zip(trainee.parameters(), state["averaged"], strict=True):
        q.data.copy_(value)
    return trainee, state


def write_model(data: Path, folder: Path) -> dict[str, Any]:
    """The pipeline folder; returns the state of the UNet's checkpoint."""
    trainee, state = averaged_trainee(data)
    pipeline = StableDiffusionXLPipeline(
        vae=vae.load(data),
        unet=trainee.unet,
        scheduler=EulerDiscreteScheduler(**BETAS),
        text_encoder=CLIPTextModel.from_pretrained(data / "text" / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(data / "text" / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(data / "text" / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(data / "text" / "tokenizer_2"),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    for name in ("text_encoder", "text_encoder_2"):
        # transformers would go by the stored type, and the pipeline would mix half and single precision.
        path = folder / name / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "dtype": "float32"}, indent=2) + "\n")
    for name in NAMES:
        for extra in ("vocab.json", "merges.txt"):
            shutil.copy(data / "text" / name / extra, folder / name / extra)
        (folder / name / "tokenizer.json").unlink(missing_ok=True)  # the same content again, three times the bytes
    return state


def write_beside(data: Path, path: Path) -> None:
    """What the UNet was trained with and is shipped without: the nets of stage 0, tokens, heads of side tasks."""
    state, stage0 = progress.load(data / "unet.pt"), progress.load(data / "encoders.pt")
    if state is None or stage0 is None:
        raise SystemExit(f"no unet.pt or no encoders.pt in {data}")
    kept = {name: value for name, value in state["model"].items() if name.startswith(("tokens.", "tasks."))}
    kept |= {f"encoders.{name}": value for name, value in stage0["nets"].items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: (v.half() if v.ndim > 1 else v).contiguous() for k, v in kept.items()}, path)


def write_clip(data: Path, folder: Path) -> None:
    """The scorer's visual tower and temperature; its text tower is the pipeline's second text encoder."""
    if not (data / "clip2.pt").exists():
        if folder.resolve() != CLIP_DIR.resolve():
            shutil.copytree(CLIP_DIR, folder, dirs_exist_ok=True)
        return
    trained = torch.load(data / "clip2.pt", map_location="cpu", weights_only=True)["model"]
    weights = {k: v.contiguous() for k, v in trained.items() if k.startswith("visual.") or k == "logit_scale"}
    folder.mkdir(parents=True, exist_ok=True)
    halves = {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in weights.items()}
    save_file(halves, folder / "visual.safetensors")
    look = {"mean": clip.MEAN_STD, "std": clip.MEAN_STD, "interpolation": "bicubic"}
    config = {"model_cfg": clip.CONFIG, "preprocess_cfg": look}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


@torch.no_grad()
def check(data: Path, out: Path) -> dict[str, float]:
    """Load what was written as a user would; smallest cosine between rebuilt and trained scorer, if it was trained."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(out / "model")
    pipeline.set_progress_bar_config(disable=True)
    pipeline("A [v]", num_inference_steps=2, output_type="np")
    rebuilt, _, tokenizer = load_embedded_clip(folder=out)
    words = tokenizer(["an owl, blueprint style", "A lion in sepia photograph style", "cactus"])
    if not torch.allclose(pipeline.text_encoder_2(words)[0], rebuilt.encode_text(words), atol=1e-3):
        raise RuntimeError("the scorer's text tower is not the pipeline's second text encoder")
    if not (data / "clip2.pt").exists():
        return {}
    trained = clip.build().eval()
    trained.load_state_dict(torch.load(data / "clip2.pt", map_location="cpu", weights_only=True)["model"])
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pairs = {
        "text": (trained.encode_text(words), rebuilt.encode_text(words)),
        "image": (trained.encode_image(x), rebuilt.encode_image(x)),
    }
    low = {name: float(torch.cosine_similarity(a, b).min()) for name, (a, b) in pairs.items()}
    if min(low.values()) < 0.999:
        raise RuntimeError(f"the rebuilt scorer is not the trained one: {low}")
    return low


def main(given: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(given)
    state = write_model(args.data, args.out / "model")
    write_clip(args.data, args.out / "clip")
    write_beside(args.data, args.out / BESIDE)
    cosines = check(args.data, args.out)
    revision = compute_revision(args.out)
    (args.out / "revision.txt").write_text(revision + "\n")
    files = [path for name in ("model", "clip") for path in (args.out / name).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"steps {state['steps']} pictures {state['seen']} size {size:.1f} MB revision {revision[:12]} {cosines}")


if __name__ == "__main__":
    main()
