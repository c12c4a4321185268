"""How much of a prompt the text encoders read, told by their tokenizer alone: without torch and without a base model.

Every base of SDXL's kind has CLIP's byte-pair encoding, the embedded one included, whose files are used here. FLUX
reads by T5, whose tokenizer lies beside its weights: some hundred tokens, so that a prompt counts as read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from blora.bases.topology import FamilyName
from blora.embedded import MODEL_DIR

__all__ = ["CONTEXT_TOKENS", "READ_TOKENS", "PromptReading", "read_prompt"]

CONTEXT_TOKENS: Final = 77
"""What a text encoder takes, the tokens of start and end included."""

READ_TOKENS: Final = CONTEXT_TOKENS - 2
"""What it reads of a prompt."""

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class PromptReading:
    """What the text encoders make of a prompt.

    Attributes:
        key: Equal of two prompts where the same is read of both.
        unread: What they do not read: its end, from where the first token begins that is too many; empty for nothing.
    """

    key: str
    unread: str = ""


@lru_cache(maxsize=4096)
def read_prompt(prompt: str, family: FamilyName = "sdxl") -> PromptReading:
    """Tell how much of a prompt the text encoders of a family read."""
    if family == "flux":
        return PromptReading(prompt)
    if len(prompt.encode()) < READ_TOKENS:  # no token has less than one byte
        return PromptReading(prompt)
    tokens = _tokenizer().encode(prompt)
    if len(tokens.ids) < READ_TOKENS:
        return PromptReading(prompt)
    # By numbers, since a word that is cut is in other pieces than what is left of it.
    key = " ".join(map(str, tokens.ids[:READ_TOKENS]))
    rest = tokens.offsets[READ_TOKENS:]
    return PromptReading(key, prompt[rest[0][0] :] if rest else "")


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    """CLIP's, as transformers builds it, which would import torch."""
    folder = MODEL_DIR / "tokenizer"
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    tokenizer = Tokenizer(BPE.from_file(*files, unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])  # each is one token wherever it stands
    return tokenizer
