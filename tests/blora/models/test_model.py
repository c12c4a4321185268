"""Base models: the same embeddings and latents as diffusers' pipeline, fixed revisions, and clear refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

import blora.embedded
from blora.bases.locate import base_revision, locate_base
from blora.bases.topology import check_topology
from blora.errors import BaseModelError, BaseUnreachableError, TopologyError
from blora.models import autoencoder
from blora.models.autoencoder import vae_format
from blora.models.families import text_encoders
from blora.models.families.text_encoders import encoder_format
from blora.models.model import Base, load_base
from tests.tiny import picture

COMMIT = "462165984030d82259a11f4367a4eed129e94a7b"


@pytest.fixture(scope="module")
def pipeline(epsilon_folder: Path) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline.from_pretrained(epsilon_folder)


def test_prompts_are_embedded_as_the_pipeline_does(base: Base, pipeline: StableDiffusionXLPipeline) -> None:
    prompts = ["A [v]", "", "a pepper in [wave] style"]
    ours = base.encode_prompts(prompts)
    with torch.no_grad():
        hidden, _, pooled, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
    torch.testing.assert_close(ours.hidden, hidden, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.pooled, pooled, rtol=1e-5, atol=1e-5)


def test_an_embedding_does_not_depend_on_its_neighbours(base: Base) -> None:
    together = base.encode_prompts(["one", "two", "one"])
    alone = base.encode_prompts(["two"])
    assert torch.equal(together.hidden[1], alone.hidden[0]) and torch.equal(together.hidden[0], together.hidden[2])


def test_encoders_are_released_and_come_back(epsilon_folder: Path) -> None:
    base = load_base(epsilon_folder)
    first = base.encode_prompts(["kept"])
    base.release_encoders()
    assert not base.text_encoders.loaded
    assert torch.equal(base.encode_prompts(["kept"]).hidden, first.hidden)
    assert not base.text_encoders.loaded, "a remembered prompt needs no encoder"
    base.encode_prompts(["new"])
    assert base.text_encoders.loaded


def test_encoders_in_fp16_lose_about_as_much_as_rounding_to_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why a bf16 run on a GPU encodes in fp16: on real encoders, those of the embedded model.

    Twice, because the embedded model's first encoder takes large numbers from each other where it says names.
    """
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    halves = [encoder_format(cuda, torch.bfloat16), encoder_format(cuda, torch.float16)]
    assert halves == [torch.float16] * 2 and encoder_format(cuda, torch.float32) == torch.float32
    assert encoder_format(cpu, torch.bfloat16) == torch.float32

    def embedded(number_format: torch.dtype) -> torch.Tensor:
        monkeypatch.setattr(text_encoders, "encoder_format", lambda device, dtype: number_format)
        encoders = text_encoders.TextEncoders(locate_base("embedded"), cpu, torch.float32)
        return encoders.encode(["A [c] in [s] style", "a red kite over the sea", ""]).hidden

    exact = embedded(torch.float32)
    lost = {kind: float((embedded(kind) - exact).norm()) for kind in (torch.float16, torch.bfloat16)}
    rounding = float((exact.bfloat16().float() - exact).norm())
    assert lost[torch.float16] < 2 * rounding < lost[torch.bfloat16] / 2


def test_prompts_are_encoded_on_the_cpu_where_the_device_has_no_room(
    base: Base, epsilon_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device here is meta, on which nothing has values: a prompt that has some came from the CPU."""
    encoders = text_encoders.TextEncoders(locate_base(str(epsilon_folder)), torch.device("meta"), torch.float32)
    load = text_encoders.TextEncoders.load

    def short(self: Any) -> Any:
        if self._runs_on.type == "meta":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return load(self)

    monkeypatch.setattr(text_encoders.TextEncoders, "load", short)
    assert encoders.encode(["A [v]"]).hidden.shape == base.encode_prompts(["A [v]"]).hidden.shape
    assert encoders._runs_on.type == "cpu"


def test_embeddings_that_are_not_finite_in_half_precision_are_computed_in_full(
    epsilon_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoders, "encoder_format", lambda device, dtype: torch.float16)
    encoders = text_encoders.TextEncoders(locate_base(str(epsilon_folder)), torch.device("cpu"), torch.float32)
    for _, encoder in encoders.load():
        next(encoder.parameters()).data.fill_(torch.inf)
    assert encoders.encode(["A [v]"]).hidden.isfinite().all() and encoders.number_format == torch.float32


def test_only_an_autoencoder_that_was_made_for_it_works_in_fp16() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    made_for_it = {"force_upcast": False}
    assert (
        vae_format(cuda, torch.bfloat16, made_for_it) == vae_format(cuda, torch.float16, made_for_it) == torch.float16
    )
    for device, dtype, config in (
        (cuda, torch.float32, made_for_it),
        (cpu, torch.bfloat16, made_for_it),
        (cuda, torch.float16, {"force_upcast": True}),
        (cuda, torch.float16, {}),  # as diffusers reads it
    ):
        assert vae_format(device, dtype, config) == torch.float32


def test_pictures_decoded_in_fp16_are_those_of_fp32_and_an_overflow_costs_none(
    epsilon_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = load_base(epsilon_folder)
    wanted, moments = exact.decode(latents), exact.encode_image_moments(picture(1))
    monkeypatch.setattr(autoencoder, "vae_format", lambda device, dtype, config: torch.float16)
    base = load_base(epsilon_folder)
    assert base.vae.dtype == torch.float16
    assert np.abs(base.decode(latents).astype(int) - wanted).max() <= 1
    torch.testing.assert_close(base.encode_image_moments(picture(1))[0], moments[0], rtol=0.01, atol=0.01)
    for one in (base, exact):
        weight = one.vae.decoder.conv_in.weight.data
        weight.mul_(60_000 / float(weight.abs().max()))
    assert np.abs(base.decode(latents).astype(int) - exact.decode(latents)).max() <= 1
    assert base.vae.dtype == torch.float32, "it overflowed, and all that follows is computed in fp32"


def test_an_empty_negative_prompt_is_zero_only_where_the_base_says_so(base: Base, v_base: Base) -> None:
    zeros = base.encode_negative_prompts(["", "blurry"])
    assert not zeros.hidden[0].any() and not zeros.pooled[0].any()
    assert torch.equal(zeros.hidden[1], base.encode_prompts(["blurry"]).hidden[0])
    assert torch.equal(v_base.encode_negative_prompts([""]).hidden, v_base.encode_prompts([""]).hidden)


def test_long_prompts_are_cut_with_a_warning(base: Base) -> None:
    with pytest.warns(UserWarning, match="cut to 75 of 100 tokens"):
        base.encode_prompts(["word " * 100])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        base.encode_prompts(["word " * 75])


def test_latents_are_those_of_the_pipeline(base: Base, pipeline: StableDiffusionXLPipeline) -> None:
    rgb = picture(0, 32, 48)
    mean, std = base.encode_image_moments(rgb)
    assert mean.shape == std.shape == (1, base.latent_channels, 8, 12) and base.vae_scale_factor == 4
    with torch.no_grad():
        moments = pipeline.vae.encode(
            pipeline.image_processor.preprocess((rgb[None] / 255.0).astype(np.float32))
        ).latent_dist
    torch.testing.assert_close(mean, moments.mean * 0.7, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std, moments.std * 0.7, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        expected = pipeline.image_processor.postprocess(pipeline.vae.decode(mean / 0.7).sample, output_type="np")
    ours = base.decode(torch.cat([mean * 0, mean]))
    assert ours.shape == (2, 32, 48, 3) and ours.dtype == np.uint8
    assert np.abs(ours[1] - expected[0] * 255).max() <= 0.51
    assert np.array_equal(ours[1], base.decode(mean)[0])


def test_shifted_latents_are_decoded_back(epsilon_folder: Path, tmp_path: Path) -> None:
    """A base may name a mean and a spread of each latent channel; encoding and decoding must agree on them."""
    folder = shutil.copytree(epsilon_folder, tmp_path / "base")
    plain = load_base(folder)
    plain_mean, plain_std = plain.encode_image_moments(picture(1))
    change_json(folder / "vae" / "config.json", latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[1.0, 2.0, 4.0, 8.0])
    shifted = load_base(folder)
    mean, std = shifted.encode_image_moments(picture(1))
    spread = torch.tensor([1.0, 2.0, 4.0, 8.0])[None, :, None, None]
    torch.testing.assert_close(std, plain_std / spread)
    torch.testing.assert_close(mean[:, 3], (plain_mean[:, 3] - 4 * 0.7) / 8)
    assert np.abs(shifted.decode(mean).astype(int) - plain.decode(plain_mean)).max() <= 1


def test_what_a_base_says_about_itself(base: Base, v_base: Base, epsilon_folder: Path) -> None:
    assert (base.prediction_type, v_base.prediction_type) == ("epsilon", "v_prediction")
    assert base.name == epsilon_folder.name and base.revision == base_revision(epsilon_folder)
    assert base.dtype == torch.float32 and base.device.type == "cpu"
    assert not any(parameter.requires_grad for parameter in base.unet.parameters())
    assert base.time_ids((48, 64), (0, 5), (32, 32)).tolist() == [[48, 64, 0, 5, 32, 32]]


def test_half_precision_is_the_unets_alone(epsilon_folder: Path) -> None:
    base = load_base(epsilon_folder, precision="bf16")
    assert base.unet.dtype == torch.bfloat16 and base.vae.dtype == torch.float32
    assert base.encode_prompts(["A [v]"]).hidden.dtype == torch.bfloat16
    base.release_vae()
    assert base._vae is None and base.vae.dtype == torch.float32


def test_weights_that_exist_only_in_half_precision_are_found(epsilon_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fp16"
    pipeline = StableDiffusionXLPipeline.from_pretrained(epsilon_folder).to(torch.float16)
    pipeline.save_pretrained(folder, variant="fp16")
    base = load_base(folder)
    assert base.unet.dtype == torch.float32
    assert base.encode_prompts(["A [v]"]).hidden.shape == (1, 77, 80)


def test_half_precision_takes_the_fp16_files_of_the_parts_that_have_them(epsilon_folder: Path, tmp_path: Path) -> None:
    """A folder with both kinds of the UNet, one kind of each text encoder, and an autoencoder that must stay whole."""
    folder = shutil.copytree(epsilon_folder, tmp_path / "both")
    full = load_base(folder).unet.state_dict()
    vae = load_base(folder).vae.state_dict()
    halves = StableDiffusionXLPipeline.from_pretrained(epsilon_folder).to(torch.float16)
    for part in ("unet", "vae", "text_encoder"):
        getattr(halves, part).save_pretrained(folder / part, variant="fp16")
    next((folder / "text_encoder").glob("model.safetensors")).unlink()
    revision = base_revision(folder)
    for precision, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)):
        base = load_base(folder, precision=precision)
        assert base.revision == revision and base.encode_prompts(["A [v]"]).hidden.shape == (1, 77, 80)
        half = {name: value.half().to(dtype) for name, value in full.items()}
        expected = full if precision == "fp32" else half
        assert all(torch.equal(value, expected[name]) for name, value in base.unet.state_dict().items())
        assert all(torch.equal(value, vae[name]) for name, value in base.vae.state_dict().items())


def test_an_fp16_file_changes_a_weight_in_bf16_by_a_sixteenth_of_a_step_at_most() -> None:
    """What `weight_files` says of its choice, on weights of many sizes."""
    full = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.02
    full = full[full.abs() > 2e-4].float()  # where fp16 has all its digits
    step = 2.0 ** (torch.frexp(full).exponent - 8)
    once, twice = ((value.float() - full).abs() / step for value in (full.bfloat16(), full.half().bfloat16()))
    assert once.max() <= 0.5 < twice.max() <= 9 / 16


def test_a_folders_revision_is_its_content(epsilon_folder: Path, v_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(epsilon_folder, tmp_path / "elsewhere")
    (copy / "README.md").write_text("not loaded")
    revision = base_revision(epsilon_folder)
    assert base_revision(copy) == base_revision(str(copy)) == revision != base_revision(v_folder)
    change_json(copy / "unet" / "config.json", sample_size=99)
    assert base_revision(copy) != revision


def test_a_tilde_is_the_home_folder(epsilon_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(epsilon_folder.parent))
    assert base_revision(f"~/{epsilon_folder.name}") == base_revision(epsilon_folder)
    assert locate_base(f"~/{epsilon_folder.name}").folder == epsilon_folder.resolve()


def test_the_embedded_models_revision_is_its_own() -> None:
    assert base_revision("embedded") == blora.embedded.REVISION


def test_a_hub_model_at_a_commit_needs_no_network_to_name_its_revision() -> None:
    assert base_revision(f"stabilityai/stable-diffusion-xl-base-1.0@{COMMIT}") == COMMIT


@pytest.mark.parametrize(
    "spec",
    [
        "stabilityai/stable-diffusion-xl-base-1.0",
        "stabilityai/stable-diffusion-xl-base-1.0@main",
        f"stabilityai/stable-diffusion-xl-base-1.0@{COMMIT[:12]}",
        "org/model@refs/pr/3",
    ],
)
def test_a_revision_that_may_move_is_refused(spec: str) -> None:
    with pytest.raises(BaseModelError, match=r"without a fixed commit.*40 hex digits"):
        base_revision(spec)
    with pytest.raises(BaseModelError, match="without a fixed commit"):
        load_base(spec)


@pytest.mark.parametrize("spec", ["s3://bucket/model", "no-such-folder", "./missing/base", "", "EMBEDDED"])
def test_other_specs_are_refused(spec: str) -> None:
    with pytest.raises(BaseModelError, match="unknown base model"):
        base_revision(spec)


def test_an_unreachable_hub_says_so(tmp_path: Path) -> None:
    """The call is real: its address is a closed port of this machine, in a process that has never loaded the client."""
    code = (
        "from blora.models.model import load_base\nfrom blora.errors import BaseUnreachableError\n"
        f"try: load_base('stabilityai/stable-diffusion-xl-base-1.0@{COMMIT}')\n"
        "except BaseUnreachableError as error: print(error.transient, error)"
    )
    environment = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "PATH": "",
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    assert done.stdout.startswith(f"True stabilityai/stable-diffusion-xl-base-1.0@{COMMIT}: the hub cannot be reached")
    assert "name the folder" in done.stdout


def test_an_unreachable_hub_does_not_matter_to_what_is_in_its_cache(epsilon_folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--org--model" / "snapshots" / COMMIT
    shutil.copytree(epsilon_folder, snapshot)
    code = f"from blora.bases.locate import locate_base; print(locate_base('org/model@{COMMIT}'))"
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    assert f"revision='{COMMIT}'" in done.stdout and str(snapshot) in done.stdout


def test_naming_a_revision_loads_no_torch(epsilon_folder: Path) -> None:
    code = "import sys; from blora import base_revision; print(base_revision(sys.argv[1]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, str(epsilon_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [base_revision(epsilon_folder), "False"]


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("unet", {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}, r"up_blocks\.0\.attentions\.0 or"),
        ("unet", {"layers_per_block": 0}, "no up_blocks"),
        ("unet", {"layers_per_block": [2, 2, 0]}, "no up_blocks"),
        ("unet", {"addition_embed_type": None}, "conditioning is None, not text_time"),
        ("unet", {"projection_class_embeddings_input_dim": 80}, "pooled prompt and six numbers"),
        ("unet", {"_class_name": "SD3Transformer2DModel"}, "not UNet2DConditionModel"),
        ("scheduler", {"prediction_type": "flow_prediction"}, "prediction type flow_prediction"),
    ],
)
def test_topology_is_checked_by_name(
    epsilon_folder: Path, tmp_path: Path, part: str, changes: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(epsilon_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    check_topology(folder, "spec")
    change_json(folder / part / ("config.json" if part == "unet" else "scheduler_config.json"), **changes)
    with pytest.raises(TopologyError, match=message):
        load_base(folder)


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "text_encoder_2"), TopologyError, "without text_encoder_2/"),
        (lambda folder: (folder / "unet/config.json").write_text("{"), TopologyError, "unreadable configuration"),
        (lambda folder: next((folder / "unet").glob("*.safetensors")).unlink(), BaseModelError, "unet"),
    ],
)
def test_incomplete_folders_are_refused(
    epsilon_folder: Path, tmp_path: Path, damage: Callable[[Path], object], kind: type[Exception], message: str
) -> None:
    folder = shutil.copytree(epsilon_folder, tmp_path / "base")
    damage(folder)
    with pytest.raises(kind, match=message) as caught:
        load_base(folder)
    assert not isinstance(caught.value, BaseUnreachableError)


def test_an_autoencoder_is_told_of_tiles_whether_it_is_loaded_before_or_after(epsilon_folder: Path) -> None:
    """A slot decides on tiles before the autoencoder is there; it also goes and comes back."""
    latents, calls = torch.zeros(1, 4, 80, 80), list[int]()
    base = load_base(epsilon_folder)
    for in_tiles in (True, False, True):
        base.save_memory(encoders="stay", vae_in_tiles=in_tiles)
        for _ in range(2):
            calls.clear()
            hook = base.vae.decoder.register_forward_pre_hook(lambda *_: calls.append(1))
            base.decode(latents)
            hook.remove()
            assert len(calls) == (4 if in_tiles else 1)
            base.release_vae()
        assert base.vae.use_tiling is in_tiles, "and it is there when the next is said"
