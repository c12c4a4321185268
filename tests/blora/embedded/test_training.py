"""The training of the embedded model's UNet: what it is told, how it begins, and that a break leaves no trace."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from diffusers.models import Transformer2DModel
from safetensors.torch import save_file

from blora.embedded import MODEL_DIR, compute_revision
from blora.embedded.drawings.pictures import Pictures
from blora.embedded.learning import progress, schedule
from blora.embedded.learning.budget import Stop
from blora.embedded.training import export, names, vae
from blora.embedded.training.batches import NOTHING, WORDS, ConditionedBatches
from blora.embedded.training.encoders import BESIDE, CODE, EncoderTraining
from blora.embedded.training.named_codes import spoken, typical_codes
from blora.embedded.training.train import Trainee, UnetTraining
from blora.embedded.training.unet import OWN, PLACES, PlacedTokens, build, start_open, watch_lookup
from blora.embedded.words import name_layers
from blora.embedded.words.clip import PADS
from blora.embedded.words.text import TextPair

TINY = {"widths": (8, 8, 128), "heads": (1, 1, 2), "inner": 1}
ARGS = argparse.Namespace(batch=4, first_batch=2, lr=1e-3, ema=0.9, device="cpu", half=False)


def _training(folder: Path, half: bool = False) -> UnetTraining:
    torch.manual_seed(0)
    text = TextPair(folder / "text", "cpu")
    trainee = Trainee(vae.CHANNELS, 128, text, **TINY)
    batches = ConditionedBatches(Pictures.read(folder), text, trainee.tokens, np.random.default_rng(0), "cpu")
    return UnetTraining(trainee, batches, argparse.Namespace(**vars(ARGS) | {"half": half}))


def test_passes_in_half_precision_teach_the_same_and_leave_weights_in_single(prepared: Path) -> None:
    single, half = (_training(prepared, half) for half in (False, True))
    for training in (single, half):
        for _ in range(4):
            training.step(0.1)
    assert single.means != half.means
    for name, value in single.means.items():
        assert half.means[name] == pytest.approx(value, rel=0.06), name
    assert {q.dtype for q in half.trainee.unet.parameters()} == {torch.float32}


def test_a_break_leaves_no_trace(prepared: Path, tmp_path: Path) -> None:
    whole = _training(prepared)
    for _ in range(3):
        whole.step(0.1)
    torch.save(whole.state(), tmp_path / "state.pt")
    for _ in range(3):
        whole.step(0.1)
    again = _training(prepared)
    again.resume(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(3):
        again.step(0.1)
    for a, b in zip(whole.averaged.values, again.averaged.values, strict=True):
        assert torch.equal(a, b)
    assert whole.means == again.means


def test_words_of_one_side_come_half_of_the_time_with_words_of_the_other(prepared: Path) -> None:
    batches, count = _training(prepared).batches, 400
    things, looks = [f"thing{i}." for i in range(count)], [f"look{i}." for i in range(count)]
    kinds = np.stack([np.arange(count) % 3] * 2)
    before = kinds.copy()
    for side, said in enumerate(batches._say(things, looks, kinds)):
        own, other = (things, "look") if side == 0 else (looks, "thing")
        worded, nothing = before[side] == WORDS, before[side] == NOTHING
        assert all((own[i] in said[i]) != nothing[i] for i in range(count))
        beside = np.array([other in words for words in said])
        assert 0.4 < beside[worded].mean() < 0.6 and 0.4 < beside[nothing].mean() < 0.6
        assert np.array_equal(kinds[side] == WORDS, worded | (nothing & beside))
        assert np.array_equal(kinds[side] == NOTHING, nothing & ~beside)


def test_padding_is_orthogonal_and_captions_keep_their_meaning(prepared: Path) -> None:
    words = ["an owl, blueprint style", "A [v]", "cactus"]
    shipped, ours = TextPair(MODEL_DIR, "cpu"), TextPair(prepared / "text", "cpu")
    (context, pooled), (_, before) = ours(words), shipped(words)
    padding = torch.nn.functional.normalize(context[1, PADS:], dim=-1)
    assert len(padding) == PLACES
    cosines = (padding @ padding.T - torch.eye(PLACES)).abs()
    assert cosines.mean() < 0.05 and cosines.max() < 0.3
    assert torch.cosine_similarity(pooled, before).min() > 0.999
    assert 0.5 < context[1].std() < 2


def test_codes_of_zero_leave_the_prompt_as_it_is() -> None:
    tokens, prompt = PlacedTokens(128), torch.randn(1, 77, 128)
    assert torch.equal(tokens.content(prompt, torch.zeros(2, PLACES, CODE)), prompt.expand(2, -1, -1))
    told = tokens.content(prompt, torch.randn(2, PLACES, CODE))
    assert torch.equal(told[:, :PADS], prompt[:, :PADS].expand(2, -1, -1))
    assert (told[:, PADS:] - prompt[:, PADS:]).std().item() == pytest.approx(1, abs=0.15)


@torch.no_grad()
def test_plain_attention_is_diffusers_attention(prepared: Path) -> None:
    torch.manual_seed(0)
    unet = build(**TINY)
    x, context = torch.randn(2, 8, 32, 32), torch.randn(1, 77, 128).expand(2, -1, -1)
    added = {"text_embeds": torch.randn(2, 64), "time_ids": torch.ones(2, 6)}
    theirs = unet(x, 500, context, added_cond_kwargs=added).sample
    watch_lookup(unet)
    torch.testing.assert_close(unet(x, 500, context, added_cond_kwargs=added).sample, theirs, atol=1e-4, rtol=1e-4)


def test_at_the_start_only_the_two_blocks_speak_on_the_way_up() -> None:
    torch.manual_seed(0)
    unet, speaks = build(**TINY), {}
    start_open(unet)
    for name, module in unet.named_modules():
        if name.startswith("up_blocks") and isinstance(module, Transformer2DModel):

            def note(module: torch.nn.Module, args: tuple, output: tuple, name: str = name) -> None:
                speaks[name] = not torch.equal(output[0], args[0])

            module.register_forward_hook(note)
    added = {"text_embeds": torch.randn(1, 64), "time_ids": torch.ones(1, 6)}
    with torch.no_grad():
        unet(torch.randn(1, 8, 32, 32), 900, torch.randn(1, 77, 128), added_cond_kwargs=added)
    assert {name for name, does in speaks.items() if does} == set(OWN)
    assert len(speaks) > len(OWN)


def test_the_lookup_is_learnt(prepared: Path) -> None:
    training = _training(prepared)
    for _ in range(12):
        training.step(0.0)
    early = training.means["local"]
    for _ in range(80):
        training.step(0.0)
    assert training.means["local"] > 1.3 * early


def test_a_checkpoint_exports_to_a_pipeline_that_diffusers_loads(prepared: Path, tmp_path: Path) -> None:
    training = _training(prepared)
    training.step(0.0)
    progress.save(prepared / "unet.pt", training.state())
    export.main(["--data", str(prepared), "--out", str(tmp_path)])
    pipeline = StableDiffusionXLPipeline.from_pretrained(tmp_path / "model")
    for own, value in zip(pipeline.unet.parameters(), training.averaged.values, strict=False):
        torch.testing.assert_close(own.float(), value, atol=1e-2, rtol=1e-2)
    assert pipeline.vae.config.scaling_factor == pytest.approx(vae.load(prepared).config.scaling_factor)
    assert (tmp_path / "revision.txt").read_text().strip() == compute_revision(tmp_path)


def test_a_term_signal_saves_before_it_ends(prepared: Path) -> None:
    path = prepared / "encoders.pt"
    before = torch.load(path, weights_only=True)["steps"]
    command = [sys.executable, "-m", "blora.embedded.training.encoders", "--data", str(prepared), "--device", "cpu"]
    child = subprocess.Popen([*command, "--minutes", "60", "--save-minutes", "0.02", "--batch", "4", "--threads", "1"])
    deadline = time.monotonic() + 300
    while torch.load(path, weights_only=True)["steps"] == before and time.monotonic() < deadline:
        time.sleep(0.2)
    first = torch.load(path, weights_only=True)["steps"]
    child.terminate()
    assert child.wait(120) == 0
    assert before < first <= torch.load(path, weights_only=True)["steps"]


@pytest.mark.parametrize("more", [[], ["--decoder-only"]], ids=["whole", "decoder"])
def test_an_autoencoder_to_go_on_from_scales_latents_as_it_did(built: Path, tmp_path: Path, more: list[str]) -> None:
    shutil.copytree(built, folder := tmp_path / "data", ignore=shutil.ignore_patterns("*.pt", "latents.npy"))
    start = MODEL_DIR / "vae"
    vae.main(["--data", str(folder), "--start", str(start), "--minutes", "0", "--device", "cpu", *more])
    assert vae.load(folder).config.scaling_factor == AutoencoderKL.from_pretrained(start).config.scaling_factor


def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_average_follows_and_swaps() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    average = schedule.Averaged([weight], keep=0.9)
    with torch.no_grad():
        weight += 1
    average.update(step=10_000)
    average.swap()
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.1))
    average.swap()
    assert weight.tolist() == [1, 1, 1]


def test_rates_warm_up_and_end_at_nothing() -> None:
    assert schedule.flat_then_down(0.0, step=0) == pytest.approx(0.01)
    assert schedule.flat_then_down(0.5, step=1000) == 1
    assert schedule.flat_then_down(1.0, step=1000) == 0
    assert schedule.cosine(1.0, step=1000) == pytest.approx(0.02)


def test_a_training_goes_on_from_what_was_shipped(prepared: Path, tmp_path: Path) -> None:
    """Encoders, tokens and heads travel beside the UNet, within the rounding of fp16."""
    first = _training(prepared)
    for _ in range(2):
        first.step(0.1)
    nets = EncoderTraining(Pictures.read(prepared), argparse.Namespace(seed=1, device="cpu", lr=1e-3, batch=2))
    progress.save(tmp_path / "unet.pt", first.state())
    progress.save(tmp_path / "encoders.pt", nets.state())
    export.write_beside(tmp_path, tmp_path / "out" / BESIDE)
    (tmp_path / "out/model/unet").mkdir(parents=True)
    save_file(first.trainee.unet.state_dict(), tmp_path / "out/model/unet/diffusion_pytorch_model.safetensors")
    again = _training(prepared)
    again.start(tmp_path / "out", 500)
    assert again.seen == 500
    for (name, a), b in zip(first.trainee.named_parameters(), again.trainee.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3, msg=name)
    other = EncoderTraining(Pictures.read(prepared), argparse.Namespace(seed=2, device="cpu", lr=1e-3, batch=2))
    other.start(tmp_path / "out")
    for (name, a), b in zip(nets.nets.named_parameters(), other.nets.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3, msg=name)
    again.step(0.1)


def test_encoding_takes_the_number_format_that_was_asked_for(prepared: Path, tmp_path: Path) -> None:
    """On a CPU without fast bfloat16 the other one takes six times as long."""
    made = {}
    for half in ("--half", "--no-half"):
        folder = tmp_path / half
        shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns("latents.npy"))
        vae.main(["--data", str(folder), "--encode", "--device", "cpu", half])
        made[half] = np.load(folder / "latents.npy")
    exact = vae.load(prepared)
    pixels = np.load(prepared / "pictures.npy")
    with torch.no_grad():
        wanted = exact.encode(vae.to_unit(pixels)).latent_dist.mode() * exact.config.scaling_factor
    assert np.abs(made["--no-half"] - wanted.numpy()).max() < 0.005  # stored in float16
    assert 0 < np.abs(made["--half"] - made["--no-half"]).mean() < 0.02


def test_layers_put_in_before_the_last_change_nothing_until_they_are_trained_and_come_out_again(tmp_path: Path) -> None:
    plain = name_layers.plain_encoder(MODEL_DIR / "text_encoder").float().eval()
    longer = name_layers.lengthened(plain)
    ids = torch.tensor([[49406, 320, 2368, 49407] + [49407] * 73])
    with torch.no_grad():
        own, long = name_layers.heard(plain, ids), name_layers.heard(longer, ids)
    torch.testing.assert_close(long, own, atol=1e-5, rtol=1e-5)
    longer.save_pretrained(tmp_path)
    again = name_layers.plain_encoder(tmp_path).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in plain.state_dict().items())


def test_names_are_learnt_and_a_prompt_without_them_stays(prepared: Path, tmp_path: Path) -> None:
    """The two things that are not held out come to say the codes of their own drawings."""
    shutil.copytree(prepared, folder := tmp_path / "data")
    progress.save(folder / "unet.pt", _training(prepared).state())
    plain = name_layers.plain_encoder(folder / "text" / "text_encoder").float()
    budget = ["--minutes", "0.7", "--batch", "16", "--device", "cpu", "--threads", "1"]
    names.main(["--data", str(folder), *budget])
    log = json.loads((folder / "names.jsonl").read_text().splitlines()[-1])
    assert log["unsaid"] < 0.2 and log["added_to_neutral"] < 0.05
    trainee = names.read_trainee(folder, None)
    ids = trainee.text.tokenizers[0](["A [v]", "a drawing of a thing 1"], padding="max_length", max_length=77)
    with torch.no_grad():
        after, before = (
            name_layers.heard(one, torch.tensor(ids.input_ids))[:, PADS:] for one in (trainee.text.encoders[0], plain)
        )
    added = after - before
    said = torch.from_numpy(typical_codes(Pictures.read(folder))[1]) @ spoken(trainee, 64).T
    assert added[0].square().mean() < 0.05 * added[1].square().mean()
    assert torch.cosine_similarity(added[1].flatten(), said.flatten(), dim=0) > 0.9
