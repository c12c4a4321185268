"""SDXL's tokenizers and the two text encoders, from the trained CLIPs; what the UNet is trained on is what ships.

    python -m blora.embedded.words.text --data DIR [--start FOLDER] [--like FOLDER]

Writes tokenizers and text encoders to DIR/text, in half precision. `--start` takes the encoders of a pipeline folder in
place of DIR/clip1.pt and DIR/clip2.pt, where they are not there. `--like` gives new encoders the padding of those of a
pipeline folder, so that a UNet that was trained on those goes on with the new ones.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import open_clip
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from blora.embedded.clip import text_keys
from blora.embedded.words.clip import CONFIG, END, PADS

LENGTH, VOCABULARY, BEGIN = 77, 49408, 49406
LOUD = 16
"""How much louder the padding's places are than 5 times the trained ones; at 4 their mean cosine is .19, at 16 .03."""
NAMES = ("tokenizer", "tokenizer_2")
Encoder = CLIPTextModel | CLIPTextModelWithProjection


def write_tokenizers(folder: Path) -> None:
    """CLIP's vocabulary in the form transformers reads; the second pads with "!", as SDXL's does."""
    source = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.open(source, "rt", encoding="utf-8").read().split("\n")[1 : 49152 - 256 - 2 + 1]
    encoder = open_clip.SimpleTokenizer().encoder
    vocabulary = {
        k.replace("<start_of_text>", "<|startoftext|>").replace("<end_of_text>", "<|endoftext|>"): v
        for k, v in encoder.items()
    }
    for name, pad in zip(NAMES, ("<|endoftext|>", "!"), strict=True):
        tokenizer = CLIPTokenizer(
            vocab=vocabulary, merges=[tuple(m.split()) for m in merges], pad_token=pad, model_max_length=LENGTH
        )
        tokenizer.save_pretrained(folder / name)
        (folder / name / "vocab.json").write_text(
            json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
        )
        (folder / name / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


def convert(clip: dict[str, torch.Tensor], projection: bool) -> Encoder:
    """The text tower of a trained CLIP as a transformers model."""
    text = CONFIG["text_cfg"]
    width, layers = text["width"], text["layers"]
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=text["heads"],
        max_position_embeddings=LENGTH,
        hidden_act="gelu",
        projection_dim=width,
        bos_token_id=BEGIN,
        eos_token_id=END,
        pad_token_id=0 if projection else END,
    )
    model = CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)
    prefix = "text_model." if any(k.startswith("text_model.") for k in model.state_dict()) else ""
    state = {prefix + ours: clip[theirs].clone() for theirs, ours in text_keys(layers).items()}
    for layer in range(layers):
        for kind in ("weight", "bias"):
            parts = clip[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                state[f"{prefix}encoder.layers.{layer}.self_attn.{name}_proj.{kind}"] = part.clone()
    if projection:
        state["text_projection.weight"] = clip["text_projection"].T.contiguous()
    model.load_state_dict(state)
    return model


@torch.no_grad()
def prepare(model: Encoder, seed: int) -> Encoder:
    """Give the padding distinct hidden states, and all hidden states unit size; answers to captions stay as they are.

    (1) No training caption reaches the place PADS, so the places from there on were never trained. They get orthogonal
    vectors, LOUD times as large as they were: a B-LoRA has to say everything through the padding of one fixed
    prompt, and what differs between places it can only say if the places differ. (2) The residual stream is scaled as
    a whole, which the layer norms undo.
    """
    model.eval().requires_grad_(False)
    places = next(q for name, q in model.named_parameters() if "position_embedding" in name)
    noise = torch.randn(LENGTH - PADS, places.shape[1], generator=torch.Generator().manual_seed(seed))
    rows = torch.linalg.qr(noise.T).Q.T if len(noise) <= places.shape[1] else torch.linalg.qr(noise).Q
    words = next(q for name, q in model.named_parameters() if "token_embedding" in name)
    size = 5 * float(words.std() + places[:PADS].std())
    places[PADS:] = rows / rows.std() * size * LOUD
    scale = 1 / float(model(_ids(model), output_hidden_states=True).hidden_states[-2].std())
    for key, value in model.named_parameters():
        if "embedding" in key or "out_proj" in key or "fc2" in key:
            value.mul_(scale)
    return model


def hear_alike(model: Encoder, other: Encoder, steps: int = 400) -> None:
    """Have the padding of one encoder say what that of another says, by the places of the padding alone.

    What a UNet reads there is nearly the same for any prompt, so it is brought together for "A [v]".
    """
    ids, asked = _ids(model), {"output_hidden_states": True}
    with torch.no_grad():
        wanted = other.eval()(ids, **asked).hidden_states[-2][:, PADS:]
    name, places = next((n, q) for n, q in model.named_parameters() if "position_embedding" in n)
    moved = places[PADS:].detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([moved], lr=0.02 * float(moved.detach().std()))
    decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.99)
    for _ in range(steps):
        weights = {name: torch.cat([places[:PADS].detach(), moved])}
        said = torch.func.functional_call(model, weights, (ids,), asked).hidden_states[-2][:, PADS:]
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(said, wanted).backward()
        optimiser.step()
        decay.step()
    with torch.no_grad():
        places[PADS:] = moved


def _ids(model: Encoder) -> torch.Tensor:
    """The prompt "A [v]", padded."""
    return torch.tensor([[BEGIN, 320, 58, 85, 60, END] + [model.config.pad_token_id] * (LENGTH - 6)])


class TextPair:
    """Both encoders, used exactly as the SDXL pipeline uses them; each prompt is read once."""

    def __init__(self, folder: Path, device: str) -> None:
        """Read what `write` wrote."""
        self.tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in NAMES]
        self.encoders = [
            CLIPTextModel.from_pretrained(folder / "text_encoder").float().to(device).eval(),
            CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2").float().to(device).eval(),
        ]
        self.device = device
        self.known: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Context (N, 77, both widths) and pooled embedding of the second."""
        new = sorted({p for p in prompts if p not in self.known})
        if new:
            context, pooled = self._read(new)
            self.known |= {p: (c[None], e[None]) for p, c, e in zip(new, context, pooled, strict=True)}
        found = [self.known[p] for p in prompts]
        if len(self.known) > 4096:
            self.known.clear()
        return torch.cat([c for c, _ in found]), torch.cat([e for _, e in found])

    @torch.no_grad()
    def _read(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, pooled = [], torch.empty(0)
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            ids = tokenizer(prompts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
            out = encoder(ids.input_ids.to(self.device), output_hidden_states=True)
            hidden.append(out.hidden_states[-2])
            pooled = out[0]
        return torch.cat(hidden, -1), pooled


def write(data: Path, start: Path | None, like: Path | None) -> None:
    """Tokenizers and both encoders in DIR/text."""
    folder = data / "text"
    write_tokenizers(folder)
    for seed, kind, name in ((1, CLIPTextModel, "text_encoder"), (2, CLIPTextModelWithProjection, "text_encoder_2")):
        trained = data / f"clip{seed}.pt"
        if start and not trained.exists():
            model = prepare(kind.from_pretrained(start / name).float(), seed)
        else:
            weights = torch.load(trained, map_location="cpu", weights_only=True)["model"]
            model = prepare(convert(weights, projection=seed == 2), seed)
            if like:
                hear_alike(model, kind.from_pretrained(like / name).float().requires_grad_(False))
        model.half().save_pretrained(folder / name)


def main(given: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="folder of a pipeline: its encoders where none were trained")
    parser.add_argument("--like", type=Path, help="folder of a pipeline whose padding new encoders are to have")
    args = parser.parse_args(given)
    write(args.data, args.start, args.like)
    states = TextPair(args.data / "text", "cpu")(["A [v]"])[0][0, PADS:]
    unit = torch.nn.functional.normalize(states, dim=-1)
    cosine = ((unit @ unit.T).abs().sum() - len(unit)) / (len(unit) * (len(unit) - 1))
    print(f"padding of 'A [v]': mean cosine {float(cosine):.3f}, size {float(states.std()):.3f}")


if __name__ == "__main__":
    main()
