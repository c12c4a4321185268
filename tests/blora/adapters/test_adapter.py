"""An adapter as a value: linear strength, every dialect, nothing left over, and the same effect in diffusers."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save
from torch import Tensor

from blora.adapters.adapter import Adapter, mix, strength_from_reference
from blora.adapters.blocks import block_of, target_layers
from blora.adapters.factors import Factors
from blora.adapters.load import load_adapter
from blora.adapters.packed import Rows, inject, stack
from blora.errors import KeyMismatchError
from blora.models.model import Base
from tests.blora.adapters.test_blocks import DIALECTS, spell
from tests.blora.adapters.test_packed import random_adapter, unet_inputs


@pytest.fixture(scope="module")
def adapter(base: Base) -> Adapter:
    """An adapter whose weights are exact in fp16, so that files can be compared bit by bit."""
    made = random_adapter(base, 4, 7)
    layers = {name: Factors(f.down.half().float(), f.up.half().float()) for name, f in made.layers.items()}
    return Adapter(layers, {"key": "seven"})


def tensors_of(adapter: Adapter, key: Callable[[str, str], str]) -> dict[str, Tensor]:
    return {
        key(name, half): getattr(factors, half).clone()
        for name, factors in adapter.layers.items()
        for half in ("down", "up")
    }


def diffusers_key(name: str, half: str) -> str:
    return f"unet.{name}.lora.{half}.weight"


def assert_same(first: Adapter, second: Adapter) -> None:
    assert first.layers.keys() == second.layers.keys()
    for name, factors in first.layers.items():
        assert torch.equal(factors.down, second.layers[name].down) and torch.equal(factors.up, second.layers[name].up)


def test_strength_is_linear(adapter: Adapter, base: Base) -> None:
    half = adapter.scaled(0.5)
    for name, factors in adapter.layers.items():
        assert torch.equal(half.layers[name].delta, factors.delta * 0.5)
    assert not any(factors.delta.any() for factors in adapter.scaled(0).layers.values())
    assert_same(adapter.scaled(2.0).scaled(0.5), adapter)
    inputs = unet_inputs(base, 1)
    with torch.no_grad():
        with inject(base.unet, stack([adapter.scaled(0.5)], adapter.layers), Rows([0])):
            scaled = base.unet(**inputs).sample
        with inject(base.unet, stack([adapter], adapter.layers), Rows([0], 0.5)):
            torch.testing.assert_close(base.unet(**inputs).sample, scaled, rtol=1e-4, atol=1e-5)


def test_the_references_reading_is_squared() -> None:
    assert strength_from_reference(1.1) == pytest.approx(1.21)
    assert strength_from_reference(0.5) == 0.25


def test_halves_and_mixing(adapter: Adapter, base: Base) -> None:
    content, style = adapter.content, adapter.style
    assert tuple(content.layers) == target_layers(base.unet, "content")
    assert not content.layers.keys() & style.layers.keys()
    assert len(content.layers) + len(style.layers) == len(adapter.layers)
    other = random_adapter(base, 2, 8)
    mixed = mix(adapter, other)
    assert_same(mixed.content, adapter.content)
    assert_same(mixed.style, other.style)
    assert mixed.metadata["content.key"] == "seven" and mixed.rank == 4


def test_an_adapter_is_a_value(adapter: Adapter) -> None:
    with pytest.raises(TypeError):
        adapter.layers["x"] = None  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        adapter.metadata = {}  # type: ignore[misc]
    source = dict(adapter.layers)
    copy = Adapter(source)
    source.clear()
    assert len(copy.layers) == len(adapter.layers)
    again = pickle.loads(pickle.dumps(adapter))
    assert_same(again, adapter)
    assert again.metadata == adapter.metadata


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_the_same_adapter(adapter: Adapter, base: Base, dialect: str) -> None:
    data = save(tensors_of(adapter, lambda name, half: spell(dialect, name, half)))
    assert_same(load_adapter(data, base.unet), adapter)


def test_alpha_is_folded_in_once(adapter: Adapter, base: Base) -> None:
    tensors = tensors_of(adapter, lambda name, half: spell("kohya", name, half))
    for name in adapter.layers:
        tensors[f"lora_unet_{name.replace('.', '_')}.alpha"] = torch.tensor(2.0)  # half of the rank
    assert_same(load_adapter(save(tensors), base.unet), adapter.scaled(0.5))


def test_files_written_by_peft_and_diffusers_are_read(adapter: Adapter, epsilon_folder: Path, tmp_path: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(epsilon_folder, subfolder="unet")
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=list(adapter.layers)))
    state = get_peft_model_state_dict(unet)
    for key in state:
        name, _, kind = key.partition(".lora_")
        state[key] = getattr(adapter.layers[name], "down" if kind.startswith("A") else "up").contiguous()
    assert_same(load_adapter(save(state)), adapter)
    StableDiffusionXLPipeline.save_lora_weights(tmp_path, unet_lora_layers=state)
    assert_same(load_adapter(tmp_path / "pytorch_lora_weights.safetensors", unet), adapter)


@pytest.mark.parametrize("half", ["content", "style"])
def test_a_saved_half_comes_back(adapter: Adapter, base: Base, tmp_path: Path, half: str) -> None:
    part: Adapter = getattr(adapter, half)
    data = part.save_half(tmp_path / "half.safetensors")
    assert (tmp_path / "half.safetensors").read_bytes() == data == part.save_half()
    assert [path.name for path in tmp_path.iterdir()] == ["half.safetensors"]
    read = load_adapter(tmp_path / "half.safetensors", base.unet)
    assert_same(read, part)
    assert read.metadata == {"key": "seven", "half": half, "format": "pt"}
    stored = load_file(tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert set(stored) == {diffusers_key(name, half) for name in part.layers for half in ("down", "up")}
    assert read.save_half() == part.save_half()


def test_equal_adapters_give_equal_bytes(adapter: Adapter) -> None:
    metadata = {f"name {number}": str(number) for number in range(30)}
    backwards = dict(reversed(metadata.items()))
    first = Adapter(adapter.style.layers, metadata).save_half()
    second = Adapter(dict(reversed(adapter.style.layers.items())), backwards).save_half()
    assert first == second


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_a_saved_half_does_the_same_in_diffusers(
    adapter: Adapter, base: Base, epsilon_folder: Path, tmp_path: Path
) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(epsilon_folder)
    plain_inputs = unet_inputs(base, 2)
    strengths = {"content": 1.0, "style": 0.5}
    layouts = {}
    for half in strengths:
        getattr(adapter, half).save_half(tmp_path / f"{half}.safetensors")
        pipeline.load_lora_weights(tmp_path, weight_name=f"{half}.safetensors", adapter_name=half)
        layouts[half] = load_adapter(tmp_path / f"{half}.safetensors", base.unet)
    with torch.no_grad():
        for chosen in ({"content": 1.0}, {"style": 1.0}, strengths):
            pipeline.set_adapters(list(chosen), list(chosen.values()))
            there = pipeline.unet(**plain_inputs).sample
            injections = [
                inject(base.unet, stack([layouts[half]], layouts[half].layers), Rows([0, 0], strength))
                for half, strength in chosen.items()
            ]
            here = base.unet(**plain_inputs).sample
            for injection in injections:
                injection.eject()
            torch.testing.assert_close(here, there, rtol=0, atol=1e-4)
            assert (here - base.unet(**plain_inputs).sample).abs().max() > 1e-2


def test_the_metadata_of_the_file_is_readable_by_others(adapter: Adapter, tmp_path: Path) -> None:
    from safetensors import safe_open

    adapter.style.save_half(tmp_path / "style.safetensors")
    with safe_open(tmp_path / "style.safetensors", "pt") as file:
        assert file.metadata()["key"] == "seven"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, first: t.update({"lora_te1_text_model.lora_up.weight": torch.ones(2, 2)}), "outside the content"),
        (lambda t, first: t.update({"unet.conv_in.lora.up.weight": torch.ones(2, 2)}), "outside the content"),
        (
            lambda t, first: t.update({f"unet.{first.replace('.1.', '.10.', 1)}.lora.up.weight": torch.ones(2, 2)}),
            "outside",
        ),
        (lambda t, first: t.update({"training_step": torch.ones(1)}), "no known dialect: received training_step"),
        (lambda t, first: t.pop(diffusers_key(first, "up")), "without both factors"),
        (lambda t, first: [t.pop(diffusers_key(first, half)) for half in ("down", "up")], "missing from the file"),
        (lambda t, first: t.update({f"unet.unet.{first}.lora.up.weight": torch.ones(2, 2)}), "a second time"),
        (lambda t, first: t.update({diffusers_key(first, "up"): torch.ones(64, 3)}), "do not multiply"),
        (lambda t, first: t.update({diffusers_key(first, "up"): torch.ones(9, 4)}), "shape does not fit"),
        (lambda t, first: t[diffusers_key(first, "up")].fill_(float("nan")), "not finite"),
        (lambda t, first: t.clear(), "no layers"),
        (
            lambda t, first: t.update({diffusers_key(f"{first}.9", half): torch.ones(4, 4) for half in ("down", "up")}),
            "does not have",
        ),
    ],
)
def test_nothing_is_left_over(adapter: Adapter, base: Base, change: Callable[..., object], message: str) -> None:
    tensors = tensors_of(adapter.style, diffusers_key)
    assert block_of(next(iter(adapter.style.layers))) == "style"
    change(tensors, next(iter(adapter.style.layers)))
    with pytest.raises(KeyMismatchError, match=message):
        load_adapter(save(tensors), base.unet, name="file")


@pytest.mark.parametrize("data", [b"", b"nonsense", pickle.dumps({"a": 1})])
def test_only_whole_safetensors_are_read(adapter: Adapter, data: bytes) -> None:
    with pytest.raises(KeyMismatchError, match="not a readable adapter file"):
        load_adapter(data)
    with pytest.raises(KeyMismatchError, match="not a readable adapter file"):
        load_adapter(adapter.style.save_half()[:-1])


def test_only_one_half_at_a_time_is_saved(adapter: Adapter, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"use \.content or \.style"):
        adapter.save_half(tmp_path / "both.safetensors")
    with pytest.raises(KeyMismatchError, match="not finite in fp16"):
        adapter.style.scaled(1e9).save_half(tmp_path / "huge.safetensors")
    assert not list(tmp_path.iterdir())
