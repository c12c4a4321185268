"""The text that image browsers read, parted as its readers part it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from blora.sampling.generation_text import generation_text
from blora.settings.sampling import SampleSettings


def parted(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and settings: the last line, split at its commas and colons; no quotes are needed."""
    *lines, last = text.split("\n")
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    settings = dict(re.findall(r"\s*([\w ]+): ([^,:]*)(?:,|$)", last))
    assert len(settings) == last.count(",") + 1 == last.count(":")
    return prompt.strip(), negative.strip(), settings


def told(**changes: Any) -> tuple[str, str, dict[str, str]]:
    given: dict[str, Any] = {
        "prompt": "A [v] in [v] style",
        "negative_prompt": "",
        "seed": 2**62,
        "settings": SampleSettings(steps=30, guidance_scale=5, width_px=512, height_px=768),
        "base": "embedded",
        "base_scheduler": "EulerDiscreteScheduler",
    }
    return parted(generation_text(**given | changes))


def test_every_setting_that_readers_know_is_told() -> None:
    prompt, negative, settings = told(negative_prompt="blurry, text: none", more={"Style strength": 1.25, "Style": "a"})
    assert (prompt, negative) == ("A [v] in [v] style", "blurry, text: none")
    assert settings == {
        "Steps": "30",
        "Sampler": "Euler",
        "CFG scale": "5",
        "Seed": str(2**62),
        "Size": "512x768",
        "Model": "embedded",
        "Style strength": "1.25",
        "Style": "a",
        "Version": "blora",
    }


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("base", "Euler"),
        ("dpm++", "DPM++ 2M"),
        ("EulerAncestralDiscreteScheduler", "Euler a"),
        ("DEISMultistepScheduler", "DEISMultistepScheduler"),
    ],
)
def test_samplers_have_the_names_that_readers_know(asked: str, expected: str) -> None:
    assert told(settings=SampleSettings(scheduler=asked))[2]["Sampler"] == expected


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (f"stabilityai/stable-diffusion-xl-base-1.0@{'a' * 40}", "stable-diffusion-xl-base-1.0"),
        ("/home/anna/models/my, own: base/", "my own base"),
        ("s3://bucket/models/sdxl", "sdxl"),
        (f"/home/anna/juggernaut.safetensors#sha256:{'a' * 64}", "juggernaut"),
        ('{"model": "/home/anna/juggernaut.safetensors", "vae": "/x/vae", "fuse": [{"lora": "/x/lcm"}]}', "juggernaut"),
    ],
)
def test_a_model_is_told_by_its_last_name(base: str, expected: str) -> None:
    assert told(base=base)[2]["Model"] == expected


@pytest.mark.parametrize("word", ["", "Negative prompt: x", "Steps: 3, Sampler: x, Seed: 4", "夜の船", "a\nSteps: 1"])
def test_no_prompt_is_taken_for_something_else(word: str) -> None:
    for negative in ("", word):
        prompt, read, settings = told(prompt=f"A boat {word}", negative_prompt=negative)
        assert prompt.replace(" :", ":") == " ".join(f"A boat {word}".split())
        assert read.replace(" :", ":") == " ".join(negative.split())
        assert settings["Steps"] == "30"
