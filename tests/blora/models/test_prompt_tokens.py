"""What the text encoders read of a prompt, against their real tokenizers."""

from __future__ import annotations

import random

import pytest
from transformers import CLIPTokenizer

from blora.embedded import MODEL_DIR
from blora.models.families.prompt_tokens import CONTEXT_TOKENS, READ_TOKENS, read_prompt

_WORDS = (
    *(
        "red",
        "Boat",
        "it's",
        "[v]",
        "日本語",
        "naïve",
        "🚤",
        "12345",
        "<|endoftext|>",
        "...",
        "ﬁ",
        "İstanbul",
        "ßtraße",
    ),
    *("über-gross", "x" * 30, "a,b"),
)


@pytest.mark.parametrize("folder", ["tokenizer", "tokenizer_2"])
def test_two_prompts_are_read_alike_exactly_where_the_encoders_get_the_same(folder: str) -> None:
    real = CLIPTokenizer.from_pretrained(MODEL_DIR / folder)
    draw = random.Random(0)
    seen: dict[str, list[int]] = {}
    for length in range(0, 120, 2):
        prompt = " ".join(draw.choice(_WORDS) for _ in range(length))
        for text in (prompt, f"{prompt} and a boat", f"{prompt}s"):
            reading = read_prompt(text)
            given = real(text, max_length=CONTEXT_TOKENS, truncation=True).input_ids
            assert seen.setdefault(reading.key, given) == given, text
            assert bool(reading.unread) == (len(real(text).input_ids) - 2 > READ_TOKENS), text
            assert text.endswith(reading.unread)
    assert len({tuple(given) for given in seen.values()}) == len(seen), "equal tokens, two keys"


def test_what_is_not_read_begins_with_the_first_token_too_many() -> None:
    assert read_prompt("red " * 75 + "blue boat").unread == "blue boat"
    assert read_prompt("red " * 74 + "blue boat").unread == "boat"
    assert read_prompt("red " * 75).unread == ""
