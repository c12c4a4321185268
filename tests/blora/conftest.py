"""Fixtures of the method's tests: tiny bases of both families on disk, written once, and loaded once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from blora.models.model import Base, load_base
from tests.tiny import save_tiny_base
from tests.tiny_flux import save_tiny_flux


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors are slower on several threads, and one thread makes timings steady."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def epsilon_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base that predicts noise, as SDXL does; do not change it."""
    return save_tiny_base(tmp_path_factory.mktemp("bases") / "epsilon")


@pytest.fixture(scope="session")
def v_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base that predicts v with zero terminal signal-to-noise ratio; do not change it."""
    return save_tiny_base(tmp_path_factory.mktemp("bases") / "v", "v_prediction", seed=1)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """What `--device` says. On a GPU as exact as on a CPU and the same each time, as the tests expect of a CPU."""
    name: str = request.config.getoption("--device")
    if name != "cpu":
        torch.backends.cudnn.allow_tf32 = False
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    return name


@pytest.fixture(scope="session")
def base(epsilon_folder: Path, device: str) -> Base:
    """The epsilon base, loaded; tests leave its UNet as they found it."""
    return load_base(epsilon_folder, device)


@pytest.fixture(scope="session")
def v_base(v_folder: Path, device: str) -> Base:
    """The v base, loaded; tests leave its UNet as they found it."""
    return load_base(v_folder, device)


@pytest.fixture(scope="session")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FLUX that is told a scale of guidance, as FLUX.1-dev is; do not change it."""
    return save_tiny_flux(tmp_path_factory.mktemp("bases") / "flux-dev")


@pytest.fixture(scope="session")
def flux(flux_folder: Path) -> Base:
    """The tiny FLUX, loaded; tests leave its transformer as they found it."""
    return load_base(flux_folder)
