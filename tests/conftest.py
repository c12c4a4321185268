"""What every test gets: a scrubbed environment, and a real S3 server for those that ask for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers import PrefectServer, S3Server, serve_prefect, serve_s3

SCRUBBED_PREFIXES = ("AWS_", "BLORA_", "FSSPEC_", "PREFECT_")
"""Variables of whoever runs the tests that must not reach them."""

WAITING = ("tests/flows/", "tests/chaos/")
"""Tests that wait for servers and processes for most of their time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the method's tests compute (`tests/blora`)."""
    parser.addoption("--device", default="cpu", help="of the fixtures base and v_base: cpu, cuda or cuda:<index>")


def pytest_configure(config: pytest.Config) -> None:
    """Scrub the environment before any test module is imported: some libraries read it at import."""
    for name in [name for name in os.environ if name.startswith(SCRUBBED_PREFIXES)]:
        del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["DO_NOT_TRACK"] = "1"
    if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores: more threads would wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    settings.register_profile("any machine", deadline=None)  # how long an example takes says nothing about the code
    settings.load_profile("any machine")
    _check_device(config.getoption("--device"))


def _check_device(name: str) -> None:
    """Refuse a device that nothing can be computed on, before hundreds of tests fail for it."""
    if name == "cpu":
        return
    import torch

    there = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    accepted = ["cpu", *(["cuda", *there] if there else [])]
    if name not in accepted:
        raise pytest.UsageError(f"--device: received {name!r}; accepted here: {', '.join(accepted)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with those that wait, so that others compute meanwhile and none is left waiting alone at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(WAITING))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One SeaweedFS for the whole session; its bucket is shared, so take a fresh root of it (`s3_root`)."""
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server in one process, with all services and SQLite; processes find it by its `environment`."""
    with serve_prefect(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The AWS variables of the S3 server, also set for this test and the processes it starts."""
    variables = s3_server.environment()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def s3_root(s3_server: S3Server, s3_environment: dict[str, str]) -> str:
    """A fresh "s3://bucket/prefix" that this test can reach."""
    return s3_server.fresh_root()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh root of each kind: the test runs once on a local folder and once on S3."""
    return str(request.getfixturevalue("s3_root")) if request.param == "s3" else str(tmp_path / "store")


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DINOv2 ViT-S/14 at full size (22 M parameters) with random weights, as transformers saves it."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    from blora.metrics import vision_transformers

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dino")
    Dinov2Model(
        Dinov2Config(image_size=518, patch_size=14, **vision_transformers.DINOV2["dinov2-small"])
    ).save_pretrained(folder)
    return folder
