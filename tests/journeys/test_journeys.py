"""The first hours of an artist, an operator and a researcher; see `tests.journeys`. They share one trained run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.documents import ROOT, console_lines
from tests.journeys.artist import artists_hour
from tests.journeys.operator import operators_hour
from tests.journeys.researcher import drawing_steps, researchers_hour
from tests.journeys.transcript import FAULTY, GOLDEN, Transcript
from tests.servers import S3Server, serve_prefect


@pytest.fixture(scope="module")
def artist(tmp_path_factory: pytest.TempPathFactory) -> Transcript:
    """An artist's hour, after which the folder has a store with two runs."""
    hour = Transcript(tmp_path_factory.mktemp("artist"))
    artists_hour(hour)
    return hour


@pytest.mark.slow
def test_the_artists_hour(artist: Transcript) -> None:
    artist.compare("artist")
    assert artist.left_behind() == []


@pytest.mark.slow
@pytest.mark.s3
def test_the_operators_hour(
    artist: Transcript,
    s3_server: S3Server,
    s3_environment: dict[str, str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """On a server of its own: what others have deployed would be read."""
    root = s3_server.fresh_root()
    with serve_prefect(tmp_path_factory.mktemp("server")) as server:
        known = {"store": root, "bucket": s3_server.bucket, "server": server.api_url}
        environment = {"BLORA_ROOT": root, "HF_ENDPOINT": "http://127.0.0.1:9", **server.environment()}
        hour = Transcript(tmp_path, known, **environment)
        operators_hour(hour, artist.folder, s3_server, root, server.api_url)
    hour.compare("operator")
    assert hour.left_behind() == []


@pytest.mark.slow
def test_the_researchers_hour(artist: Transcript, tmp_path: Path) -> None:
    shutil.copytree(artist.folder / "blora-store", tmp_path / "blora-store")
    runs = sorted((tmp_path / "blora-store" / "runs").iterdir(), key=drawing_steps)
    hour = Transcript(tmp_path, {"FEW": runs[0].name, "MORE": runs[1].name})
    researchers_hour(hour, artist.folder, *(run.name for run in runs))
    hour.compare("researcher")


@pytest.mark.parametrize("document", ["README.md", "flows/README.md"])
def test_documents_that_are_read_first_have_nothing_that_nobody_is_to_read(document: str) -> None:
    text = (ROOT / document).read_text()
    assert [wrong[0] for words in FAULTY if (wrong := re.search(words, text))] == []


def test_every_command_of_the_first_session_is_typed_in_one_of_the_hours() -> None:
    typed = "".join(file.read_text() for file in GOLDEN.glob("*.txt"))
    told = {line.split()[1] for line in console_lines((ROOT / "README.md").read_text()) if line.startswith("blora ")}
    assert len(told) > 5 and {name for name in told if not re.search(rf"^\$ blora {name}\b", typed, re.M)} == set()
