"""The doctor: each check well and not, against a hub on loopback, real folders and the real torch."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
from prefect import __version__
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from flows.cli.main import app
from tasks import devices
from tasks.operations import doctor
from tasks.operations.doctor import Finding, examine
from tasks.operations.driver import Driver, read_driver
from tests.hub import COMMIT, REPO, serve_hub
from tests.servers import PrefectServer
from tests.tasks.test_devices import nvidia_smi
from tests.tiny import save_tiny_base


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_machine_that_can_work_and_one_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once by the command, once with everything wrong at the same time: no failed check hides another."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    base, store = save_tiny_base(tmp_path / "tiny"), tmp_path / "store"
    told = CliRunner().invoke(app, ["doctor", "--base", str(base), "--root", str(store), "--devices", "cpu"])
    names = [line.split()[:2] for line in told.stdout.splitlines()]
    assert names == [["ok", name] for name in ("torch", "driver", "cpu", "base", "disk", "store", "prefect")], (
        told.output
    )
    assert told.exit_code == 0 and "bf16 product" in told.stdout and not list(store.iterdir()), "and left no trace"

    monkeypatch.setattr(devices, "_PREFLIGHT", "libcuda.so")  # no such module: the process that tries them dies
    monkeypatch.setattr(doctor, "_SPARE_BYTES", 10**18)
    (base / "text_encoder_2" / "config.json").unlink()
    (tmp_path / "file").touch()
    found = by_name(list(examine(str(base), str(tmp_path / "file"), "cuda:7")))
    assert not any(found[name].is_well for name in ("devices", "torch", "base", "disk", "store"))
    assert all(finding.hint for finding in found.values() if not finding.is_well)
    assert "libcuda.so" in found["torch"].told and "unreadable configuration" in found["base"].told


def test_what_is_to_be_fetched_from_the_hub_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "served"
    for name, size in (
        ("unet/diffusion_pytorch_model.safetensors", 3_000_000),
        ("unet/diffusion_pytorch_model.fp16.safetensors", 7_000_000),
        ("vae/diffusion_pytorch_model.safetensors", 1_000_000),
        ("sd_xl_base_1.0.safetensors", 9_000_000),
        ("lora.safetensors", 2_000_000),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(size))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve_hub(folder) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(doctor, "GB", 10**6)
        model, lora, typo = f"{REPO}@{COMMIT}", f"{REPO}@{COMMIT}/lora.safetensors", f"{REPO}@{COMMIT}/lra.safetensors"
        finding, left = doctor._base(model)
        assert finding.is_well and "8.0 of 8.0 GB to be fetched" in finding.told, "the UNet in fp16, the rest in full"
        assert left == 8_000_000
        finding, left = doctor._base(lora)
        assert finding.is_well and left == 2_000_000, "one file of many"
        assert not doctor._base(typo)[0].is_well
        hub.refuse_with, hub.error_code = 401, "GatedRepo"
        finding, left = doctor._base(model)
        assert not finding.is_well and "gated" in finding.told and "HF_TOKEN" in finding.hint and not left
        hub.refuse_with, hub.error_code = 503, ""
        finding, _ = doctor._base(model)
        assert not finding.is_well and "its cache has nothing of it" in finding.told


def test_a_server_that_runs_is_told_with_its_version_and_one_that_does_not_with_what_to_do(
    prefect_server: PrefectServer,
) -> None:
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        found = doctor._prefect()
    assert found.is_well and found.told == f"{__version__}; the server at {prefect_server.api_url} has {__version__}"
    with temporary_settings({PREFECT_API_URL: "http://ada:secret@127.0.0.1:9/api"}):
        found = doctor._prefect()
    assert not found.is_well and "127.0.0.1:9/api" in found.told and "secret" not in found.told
    assert "PREFECT_API_URL" in found.hint


HEAD = """\
Fri Nov 27 02:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
"""


@pytest.mark.parametrize(
    ("table", "driver"),
    [
        (HEAD, Driver("550.54.15", (12, 4))),
        (HEAD.replace("12.4 ", "ERR!"), Driver("550.54.15", None)),
        (
            "| NVIDIA-SMI 418.40.04    Driver Version: 418.40.04    CUDA Version: 10.1     |",
            Driver("418.40.04", (10, 1)),
        ),
        ("| NVIDIA-SMI 595.10   KMD Version: 595.10   CUDA UMD Version: 13.2 |", Driver("595.10", (13, 2))),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", None),
        ("", None),
    ],
)
def test_what_nvidia_smi_prints_is_read(table: str, driver: Driver | None) -> None:
    assert read_driver(table) == driver


@pytest.mark.parametrize(
    ("cuda", "built_for", "is_too_old"),
    [
        ((12, 4), "13.0", True),
        ((12, 4), "12.8", False),  # another minor version
        ((13, 0), "12.8", False),
        ((13, 0), "13.0", False),
        (None, "13.0", False),  # nobody can tell
        ((12, 4), None, False),  # a torch without CUDA, of which another line speaks
    ],
)
def test_a_driver_of_an_older_major_cuda_is_too_old(
    cuda: tuple[int, int] | None, built_for: str | None, is_too_old: bool
) -> None:
    assert Driver("1.0", cuda).is_too_old(built_for) is is_too_old


def test_an_old_driver_is_told_with_what_to_do_and_a_hung_or_missing_one_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "head.txt").write_text(HEAD)
    nvidia_smi(tmp_path, monkeypatch, f"cat {tmp_path}/head.txt")
    found = doctor._driver("13.0")
    assert found.told == "550.54.15, CUDA up to 12.4: too old for torch, which is built for CUDA 13.0"
    assert not found.is_well and "a driver for CUDA 13 or newer, or a torch built for an older CUDA" in found.hint
    assert doctor._driver("12.8") == Finding("driver", True, "550.54.15, CUDA up to 12.4")
    nvidia_smi(tmp_path, monkeypatch, "exit 9")
    assert doctor._driver("13.0") == Finding("driver", True, "none is seen: nvidia-smi is not here, or finds none")
    nvidia_smi(tmp_path, monkeypatch, "sleep 20")
    monkeypatch.setattr(devices, "NVIDIA_SMI_SECONDS", 0.3)
    assert not doctor._driver("13.0").is_well
