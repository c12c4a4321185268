"""Many machines: three workers, one server, one real S3. Killed on purpose; what is left is what should be there.

Two of the workers have machines of their own as far as the network can tell (`tests.networks`), where this one allows.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.scheduling.refusals import ENOUGH
from manifests import layout
from manifests.loading.load import load_manifest
from manifests.store.store import Store
from manifests.tables.parquet import from_parquet_bytes
from manifests.tables.run import SLOTS
from tasks.closing.status import full_status
from tasks.dispatch.flow_runs import run_tag, shards_of
from tasks.planning.make import make_plan, publish
from tasks.run.outcome import recorded_faults
from tasks.run.plan import load_plan
from tests.flows.conftest import SETTINGS, Project, live_leases
from tests.networks import Network, missing_networks, open_networks
from tests.processes import wait_for
from tests.servers import PrefectServer, Worker
from tests.stub_slot import adapter_bytes, picture_of

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(900)]


class Fleet:
    """Three workers on the pool of the GPUs, and the command that hands a run's work over to them."""

    def __init__(
        self,
        root: str,
        project: Project,
        server: PrefectServer,
        scratch: Path,
        networks: Sequence[Network] = (),
        **extra: str,
    ) -> None:
        self.root, self.project, self.server, self.scratch = root, project, server, scratch
        self.networks = networks
        self.store = Store.open(root)
        self.environment = server.environment() | {
            "BLORA_ROOT": root,
            "BLORA_SLOT_MODULE": "tests.stub_slot",
            "BLORA_LEASE_SECONDS": "20",
            **extra,
        }
        self.workers = [self._worker(number) for number in range(3)]

    def _worker(self, number: int) -> Worker:
        """The first is on this machine, the others each in a network of its own, if there are any."""
        if not 0 < number <= len(self.networks):
            return Worker("blora-gpu", f"gpu-{number}", self.scratch, self.environment)
        network = self.networks[number - 1]
        addresses = {
            "PREFECT_API_URL": self.environment["PREFECT_API_URL"],
            "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"],
        }
        found = self.environment | {name: network.reach(url) for name, url in addresses.items()}
        return Worker("blora-gpu", f"gpu-{number}", self.scratch, found, network.inside())

    @property
    def hosts(self) -> set[str]:
        """The host names of the workers."""
        return {socket.gethostname(), *(network.name for network in self.networks)}

    def command(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.scratch / f"command-{time.monotonic_ns()}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *arguments],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )

    def run(self) -> subprocess.Popen[bytes]:
        return self.command("run", str(self.project.path), *self.project.allow, "--shards", "pool")

    def run_id(self) -> str:
        return wait_for(lambda: {key.split("/")[1] for key in self.store.list("runs/")}, 420, "run").pop()

    def flow_runs(self) -> list[FlowRun]:
        with temporary_settings({PREFECT_API_URL: self.server.api_url}), get_client(sync_client=True) as client:
            return shards_of(client, run_tag(self.root, self.run_id()))

    def busy(self) -> list[Worker]:
        """Workers that have taken a flow run."""
        return [worker for worker in self.workers if "submitted to infrastructure" in worker.log.read_text()]

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(self.scratch.glob("*.log")))


def holders(fleet: Fleet) -> set[str]:
    """Host names of those that hold a shard."""
    leases = [fleet.store.look_at_lease(key) for key in fleet.store.list("leases/") if "/shard-" in key]
    return {lease.holder.partition(": ")[2].partition(",")[0] for lease in leases if lease and lease.is_live}


def slots_of(fleet: Fleet) -> list[str]:
    """The slots that did the run, by name."""
    table = fleet.store.read(layout.run_key(fleet.run_id(), "slots.parquet"))
    slots = from_parquet_bytes(table, SLOTS).to_pylist()
    assert all(0 < slot["busy_share"] <= 1 for slot in slots)
    return [slot["slot"] for slot in slots]


def items(flow_run: FlowRun) -> list[str]:
    return [*flow_run.parameters["packs"], *flow_run.parameters["shards"]]


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> PrefectServer:
    """The server, deployed to once; of a root only the nights know, and each run is told its own."""
    command = [sys.executable, "-m", "flows.cli", "deploy", "--root", str(tmp_path_factory.mktemp("store"))]
    subprocess.run(command, env={**os.environ, **prefect_server.environment()}, check=True, timeout=420)
    return prefect_server


@pytest.fixture
def fleet(s3_root: str, tiny_base: Path, deployed: PrefectServer, tmp_path: Path) -> Iterator[Fleet]:
    project = Project(tmp_path / "project", tiny_base, contents=3, styles=3)
    project.write(settings=SETTINGS | {"pack_size": 2})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_networks(*(() if missing_networks() else ("far-1", "far-2"))) as networks:
        one = Fleet(s3_root, project, deployed, scratch, networks, BLORA_STUB_SECONDS="10")
        yield one
        for worker in one.workers:
            worker.kill()


def check_everything_is_there(fleet: Fleet) -> None:
    """Bytes follow from ids, so what an undisturbed run would leave is known."""
    plan = load_plan(fleet.store, fleet.run_id())
    for adapter in plan.adapters:
        for half in ("content", "style"):
            key = layout.adapter_key(adapter.adapter_id, half)  # type: ignore[arg-type]
            assert fleet.store.read(key) == adapter_bytes(adapter.adapter_id, half)
    for sample in plan.samples:
        assert fleet.store.read(sample.key) == picture_of(sample)
    status = full_status(fleet.store, fleet.run_id())
    assert (status.state, status.outcome.sentence, status.outcome.scored) == (
        "finished",
        "9 of 9 pictures, 6 of 6 adapters",
        9,
    )
    assert live_leases(fleet.store) == []
    assert set(slots_of(fleet)) <= {f"{host} 0 cpu" for host in fleet.hosts}


def test_a_crashed_workers_shard_is_taken_by_another(fleet: Fleet) -> None:
    command = fleet.run()
    wait_for(lambda: any("/shard-" in key for key in fleet.store.list("leases/")), 420, "shard at work")
    (attempt_id,) = [
        key.split("shard-")[1].removesuffix(".json") for key in fleet.store.list("leases/") if "/shard-" in key
    ][:1]
    (name,) = [one.name for one in fleet.flow_runs() if str(one.id) == attempt_id]
    (victim,) = [one for one in fleet.workers if f"'{name}' submitted to infrastructure" in one.log.read_text()]
    victim.kill()
    assert command.wait(timeout=600) == 0, fleet.logs()
    check_everything_is_there(fleet)
    assert not [key for key in fleet.store.list("leases/") if "/shard-" in key], "a shard's lease was left behind"
    assert len(fleet.busy()) == 3
    by_state = Counter(flow_run.state.name for flow_run in fleet.flow_runs() if flow_run.state)
    assert by_state["Crashed"] == 1 and by_state["Running"] == 0, by_state
    times_started = Counter(item for flow_run in fleet.flow_runs() for item in items(flow_run))
    assert sorted(times_started.values())[-1] == 2, "what was lost is started once more"
    assert sum(count == 2 for count in times_started.values()) == 1, "and nothing else"


def test_a_parent_that_is_started_again_adopts_what_goes_on(fleet: Fleet) -> None:
    first = fleet.run()
    wait_for(lambda: len([key for key in fleet.store.list("leases/") if "/shard-" in key]) >= 2, 420, "shards at work")
    first.kill()
    first.wait()
    second = fleet.run()
    assert second.wait(timeout=600) == 0, fleet.logs()
    check_everything_is_there(fleet)
    times_started = Counter(item for flow_run in fleet.flow_runs() for item in items(flow_run))
    assert set(times_started.values()) == {1}, "a shard that was going on was started again"


@pytest.mark.skipif(bool(missing_networks()), reason=f"no network namespaces: {missing_networks()}")
def test_a_machine_that_loses_its_network_loses_its_shard_and_tears_nothing_when_it_comes_back(fleet: Fleet) -> None:
    command = fleet.run()
    cut_off = fleet.networks[0]
    wait_for(lambda: cut_off.name in holders(fleet), 420, f"shard at work on {cut_off.name}")
    cut_off.unplug()
    assert command.wait(timeout=600) == 0, fleet.logs()
    check_everything_is_there(fleet)
    finished = fleet.store.list("")
    assert f"{cut_off.name} 0 cpu" not in slots_of(fleet)
    cut_off.plug_in()
    (returned,) = [worker for worker in fleet.workers if worker.log.name == "gpu-1.log"]
    wait_for(lambda: not returned.engines(), 300, "end of the shard that was cut off")
    check_everything_is_there(fleet)
    now = fleet.store.list("")
    written = {key for key in now if key not in finished or now[key].version != finished[key].version}
    assert not {key for key in written if key.startswith(("adapters/", "samples/"))}, (
        "work that was done was done again"
    )


def test_a_base_that_no_worker_can_have_is_one_fault(fleet: Fleet, tmp_path: Path) -> None:
    base, away = tmp_path / "base", tmp_path / "away"
    shutil.copytree(fleet.project.base, base)
    fleet.project.write(settings=SETTINGS | {"pack_size": 2}, base=str(base))
    draft = make_plan(fleet.store, load_manifest(str(fleet.project.path), allowed_roots=[str(base)]))
    run_id = publish(fleet.store, draft).run.run_id
    base.rename(away)
    assert fleet.command("rerun", run_id, "--shards", "pool").wait(timeout=600) == 1, fleet.logs()
    (fault,) = recorded_faults(fleet.store, run_id)
    hosts = {host for host in fleet.hosts if host in fault.what.partition(":")[0]}
    assert hosts and ": the base cannot be had: unknown base model" in fault.what and str(base) in fault.received
    assert not re.search(r"\b[0-9a-f]{20,}", fault.text), "ids are for machines"
    assert f"blora doctor --base {base}" in fault.hint
    ended = fleet.flow_runs()
    assert {one.state.name for one in ended if one.state} == {"Failed"} and len(ended) <= len(draft.plan.packs) + ENOUGH
    assert all(str(one.state and one.state.message).endswith(fault.text.partition(": ")[2]) for one in ended)
    away.rename(base)
    assert fleet.command("rerun", run_id, "--shards", "pool").wait(timeout=600) == 0, fleet.logs()
    check_everything_is_there(fleet)
