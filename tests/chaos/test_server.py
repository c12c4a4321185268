"""A server as an operator runs it, on Postgres and Redis, with every part of it killed in the middle of one run."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.chaos.episode import Player
from tests.chaos.schedule import SERVER_PARTS, Episode, Fault
from tests.chaos.session import server_picture
from tests.chaos.stage import Stage, set_up
from tests.production import ProductionServer, missing_servers, serve_production
from tests.servers import S3Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing_servers()), reason=missing_servers()),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductionServer]:
    with serve_production(tmp_path_factory.mktemp("production")) as server:
        yield server


@pytest.fixture(scope="module")
def stage(s3_server: S3Server, server: ProductionServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    with set_up(folder, s3_server, server.environment(), server.parts) as stage:
        yield stage


def test_one_command_outlives_every_part_of_its_server(stage: Stage) -> None:
    faults = tuple(Fault(part, "work", 0.2, 1.0, 0.0) for part in SERVER_PARTS)
    player = Player(stage, Episode(1, "folder", 1, False, faults))
    result = player.play()
    assert result.faults == []
    assert result.failed_commands == 0, player.commands[0].log.read_text()[-3000:]
    assert result.kills == dict.fromkeys(SERVER_PARTS, 1)
    faults_shown, states = server_picture(stage, [1])
    assert faults_shown == [], states
    assert states["flow runs completed"] == 1


def test_the_api_asks_for_a_password(server: ProductionServer) -> None:
    assert httpx.post(f"{server.api_url}/flow_runs/filter", json={}).status_code == 401
    user, _, password = server.auth.partition(":")
    assert httpx.post(f"{server.api_url}/flow_runs/filter", json={}, auth=(user, password)).status_code == 200
