"""SDXL's tokenizers and the two text encoders, from the trained CLIPs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import open_clip
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from blora.embedded.clip import text_keys
from blora.embedded.training.clip import CONFIG, SHORT

LENGTH, VOCABULARY, BEGIN, END = 77, 49408, 49406, 49407


def write_tokenizers(folder: Path) -> None:
    """CLIP's vocabulary in the form transformers reads; the second pads with "!", as SDXL's does."""
    source = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.open(source, "rt", encoding="utf-8").read().split("\n")[1 : 49152 - 256 - 2 + 1]
    encoder = open_clip.SimpleTokenizer().encoder
    vocabulary = {
        k.replace("<start_of_text>", "<|startoftext|>").replace("<end_of_text>", "<|endoftext|>"): v
        for k, v in encoder.items()
    }
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        tokenizer = CLIPTokenizer(
            vocab=vocabulary, merges=[tuple(m.split()) for m in merges], pad_token=pad, model_max_length=LENGTH
        )
        tokenizer.save_pretrained(folder / name)
        (folder / name / "vocab.json").write_text(
            json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
        )
        (folder / name / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


def convert(clip: dict[str, torch.Tensor], seed: int, projection: bool) -> CLIPTextModel | CLIPTextModelWithProjection:
    """The text tower of a trained CLIP as a transformers model, its hidden states brought to unit size.

    Two changes leave its answers as they are. (1) No training caption reaches beyond SHORT tokens, so the places after
    that were never trained; they get vectors drawn by lot, which makes the padding of a short prompt many distinct
    tokens: a B-LoRA, which must say everything through one fixed prompt, needs something to hold on to. (2) The
    residual stream is scaled as a whole, which the layer norms undo.
    """
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
    places = state[prefix + "embeddings.position_embedding.weight"]
    noise = torch.Generator().manual_seed(seed)
    size = 5 * float(state[prefix + "embeddings.token_embedding.weight"].std() + places[:SHORT].std())
    places[SHORT:] = torch.randn(places[SHORT:].shape, generator=noise) * size
    model.load_state_dict(state)
    model.eval().requires_grad_(False)
    ids = torch.tensor([[BEGIN, 320, 58, 85, 60, END] + [0 if projection else END] * (LENGTH - 6)])  # "A [v]"
    scale = 1 / float(model(ids, output_hidden_states=True).hidden_states[-2].std())
    for key, value in model.named_parameters():
        if "embedding" in key or "out_proj" in key or "fc2" in key:
            value.mul_(scale)
    return model


class TextPair:
    """Both encoders, used exactly as the SDXL pipeline uses them."""

    def __init__(self, folder: Path, device: str) -> None:
        self.tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2")]
        self.encoders = [
            CLIPTextModel.from_pretrained(folder / "text_encoder").float().to(device).eval(),
            CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2").float().to(device).eval(),
        ]
        self.device = device

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Context (N, 77, both widths) and pooled embedding of the second."""
        hidden, pooled = [], torch.empty(0)
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            ids = tokenizer(prompts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
            out = encoder(ids.input_ids.to(self.device), output_hidden_states=True)
            hidden.append(out.hidden_states[-2])
            pooled = out[0]
        return torch.cat(hidden, -1), pooled
