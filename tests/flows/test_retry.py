"""Prefect's own buttons: a retried run does only what is missing, and a cancelled one takes its shards with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import AwaitingRetry, Cancelling

from manifests.store.store import Store
from tasks.dispatch.flow_runs import run_tag, shards_of
from tasks.run.plan import load_plan
from tests.flows.conftest import SETTINGS, Project, live_leases
from tests.processes import wait_for
from tests.servers import PrefectServer, Worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Site:
    """A server to which was deployed, one worker that plans and two that compute, all of which do as they are told."""

    def __init__(self, server: PrefectServer, folder: Path, base: Path, client: SyncPrefectClient) -> None:
        self.folder, self.base, self.client = folder, base, client
        self.store = Store.open(str(folder / "store"))
        self.told = folder / "told.json"
        self.tell()
        self.environment = server.environment() | {
            "BLORA_ROOT": self.store.root,
            "BLORA_SLOT_MODULE": "tests.told_slot",
            "BLORA_TOLD": str(self.told),
            "BLORA_LEASE_SECONDS": "20",
        }
        self.command("flows.cli", "deploy", "--root", self.store.root)
        pools = {"control": "blora-control", "gpu-0": "blora-gpu", "gpu-1": "blora-gpu"}
        self.workers = [Worker(pool, name, folder, self.environment, supervised=True) for name, pool in pools.items()]

    def tell(self, *refuse: str, seconds: float = 0) -> None:
        self.told.write_text(json.dumps({"refuse": refuse, "seconds": seconds}))

    def command(self, module: str, *arguments: str) -> str:
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name: str, shards: str) -> UUID:
        """Start the deployment on a manifest of that name: one content, two styles, a pack and a shard for each."""
        project = Project(self.folder / name, self.base, contents=1, styles=2)
        for number, picture in enumerate(("c0", "s0", "s1")):
            project.draw(picture, sum(map(ord, name)) + number)
        project.write(name=name, settings=SETTINGS | {"pack_size": 1, "shard_size": 1})
        options = {"root": self.store.root, "shards": shards, "devices": "cpu", "allowed_roots": [str(self.base)]}
        deployment = self.client.read_deployment_by_name("stylize/stylize")
        parameters = {"manifest": str(project.path), "options": options}
        return self.client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id

    def wait_for_end(self, flow_run_id: UUID, attempt: int = 1) -> FlowRun:
        def ended() -> FlowRun | None:
            flow_run = self.client.read_flow_run(flow_run_id)
            final = flow_run.state is not None and flow_run.state.is_final()
            return flow_run if final and flow_run.run_count >= attempt else None

        flow_run: FlowRun = wait_for(ended, 420, f"end of attempt {attempt}")
        try:
            wait_for(
                lambda: not self.workers[0].engines(), 180, f"end of the process of a run that is {flow_run.state}"
            )
        except AssertionError as error:
            error.add_note(self.workers[0].abort_engines())
            raise
        return flow_run

    def run_id(self, name: str) -> str:
        def ids() -> set[str]:
            return {key.split("/")[1] for key in self.store.list("runs/") if key.startswith(f"runs/{name}-")}

        return wait_for(ids, 420, "run").pop()

    def times_started(self, name: str) -> Counter[str]:
        """How often each pack and shard of a run was handed over, by the names of what is in it."""
        plan = load_plan(self.store, self.run_id(name))
        names = {pack.pack_id: "".join(adapter.name for adapter in pack.adapters) for pack in plan.packs}
        names |= {shard.shard_id: "".join(one.style_name for one in shard.samples) + " drawn" for shard in plan.shards}
        given = [flow_run.parameters for flow_run in self.shards(name)]
        return Counter(names[item] for one in given for item in [*one["packs"], *one["shards"]])

    def shards(self, name: str) -> list[FlowRun]:
        return shards_of(self.client, run_tag(self.store.root, self.run_id(name)))

    def made(self, name: str) -> dict[str, Any]:
        """When each picture and half of a run was written."""
        plan = load_plan(self.store, self.run_id(name))
        ours = {adapter.adapter_id for adapter in plan.adapters}
        entries = {**self.store.list("samples/"), **self.store.list("adapters/")}
        return {key: entry.modified for key, entry in entries.items() if key.split("/")[1] in ours}


@pytest.fixture(scope="module")
def site(prefect_server: PrefectServer, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}), get_client(sync_client=True) as client:
        one = Site(prefect_server, tmp_path_factory.mktemp("site"), tiny_base, client)
        yield one
        for worker in one.workers:
            worker.kill()


def test_the_button_does_only_what_is_missing(site: Site) -> None:
    """What the UI does when "Retry" is pressed."""
    site.tell("s0")
    flow_run_id = site.start("button", "here")
    first = site.wait_for_end(flow_run_id)
    assert first.state is not None and first.state.is_failed()
    assert first.state.message == "1 of 2 pictures, 2 of 3 adapters, 1 fault"
    made = site.made("button")
    site.tell()
    site.client.set_flow_run_state(flow_run_id, AwaitingRetry())
    second = site.wait_for_end(flow_run_id, attempt=2)
    assert second.state is not None and second.state.is_completed(), second.state
    assert second.state.message == "2 of 2 pictures, 3 of 3 adapters"
    after = site.made("button")
    assert made.items() < after.items(), "something was made again"
    assert sorted(key.split("/")[0] for key in after.keys() - made.keys()) == ["adapters"] * 3 + ["samples"]


def test_a_retried_parent_starts_only_shards_without_a_completed_run(site: Site) -> None:
    """`prefect flow-run retry` of a run whose work is done by other machines."""
    site.tell("s0")
    flow_run_id = site.start("pool", "pool")
    first = site.wait_for_end(flow_run_id)
    assert first.state is not None and first.state.is_failed(), first.state
    before, made = site.times_started("pool"), site.made("pool")
    assert set(before.values()) == {1} and {"c0", "s0", "s1", "s1 drawn"} <= set(before)
    site.tell()
    site.command("prefect", "flow-run", "retry", str(flow_run_id))
    second = site.wait_for_end(flow_run_id, attempt=2)
    assert second.state is not None and second.state.is_completed(), second.state
    assert site.times_started("pool") - before == {"s0": 1, "s0 drawn": 1}
    assert made.items() < site.made("pool").items(), "something was made again"


def test_a_cancelled_parent_takes_its_shards_with_it(site: Site) -> None:
    site.tell(seconds=600)
    flow_run_id = site.start("cancelled", "pool")
    wait_for(lambda: len([key for key in live_leases(site.store) if "/shard-" in key]) == 2, 420, "shards at work")
    # They are handed over one after another: two may be at work before the third is there.
    wait_for(lambda: len(site.shards("cancelled")) == 3, 120, "a third shard that waits for a worker")
    site.client.set_flow_run_state(flow_run_id, Cancelling())
    parent = site.wait_for_end(flow_run_id)
    assert parent.state is not None and parent.state.is_cancelled(), parent.state

    def states() -> Counter[str]:
        return Counter(one.state.name for one in site.shards("cancelled") if one.state)

    wait_for(lambda: states() == {"Cancelled": 3}, 120, "end of the shards")
    wait_for(lambda: not live_leases(site.store), 60, "end of the leases")
    assert site.made("cancelled") == {}
