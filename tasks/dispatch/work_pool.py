"""Packs and shards of a run as flow runs on the work pool of the GPUs, and what becomes of them.

One thread asks the server for the states of all flow runs that are watched, every `POLL_SECONDS`. It does not believe
"Running": a machine that is gone can say nothing, so the shard's lease in the store shows whether it is alive. When
that has lapsed the flow run is marked Crashed and its items go to another worker; should it live after all, both write
the same objects. A server that does not answer is asked again; nothing is lost by that but time.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Crashed

from manifests import ids, layout
from manifests.errors import StoreError
from manifests.store.store import Store
from tasks import environment
from tasks.dispatch.flow_runs import PAGE, mark_parent, run_tag, shards_of
from tasks.dispatch.shard_results import ShardResult, read_shard_result

log = logging.getLogger(__name__)

T = TypeVar("T")

DEPLOYMENT = "shard/shard"
POLL_SECONDS = 2.0
PATIENCE_SECONDS = 900.0
"""How long a server may be away before a run gives up; what was made until then stays."""

_BUSY = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class FlowRunEnd:
    """How a flow run ended.

    Attributes:
        attempt: what it left; None where it did not get to the end.
        reason: why not.
        cancelled: whether a person has ended it.
    """

    attempt: ShardResult | None
    reason: str = ""
    cancelled: bool = False


@dataclass
class _Watched:
    finish: Callable[[FlowRunEnd], None]
    state: StateType | None = None
    since: float = field(default_factory=time.monotonic)
    told: bool = False


class WorkPool:
    """The work pool as one run uses it: its flow runs there. Use as a context manager around a flow's work."""

    def __init__(self, store: Store, run_id: str, queue: str) -> None:
        """Hand over to the queue of that name."""
        self._store, self._run_id, self._queue = store, run_id, queue
        self._tag = run_tag(store.root, run_id)
        self._pass = secrets.token_hex(4)
        self._started = 0
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_over, name=f"work pool {run_id}", daemon=True)

    def __enter__(self) -> WorkPool:
        """Have the flow run that all this is part of found by the run, and begin to ask."""
        flow_run_id = runtime.flow_run.root_flow_run_id

        def mark() -> None:
            with get_client(sync_client=True) as client:
                mark_parent(client, UUID(flow_run_id), self._tag)

        patiently(mark)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop asking. Flow runs that go on are left alone: whoever takes up the run finds them by `going_on`."""
        self._over.set()
        self._thread.join()

    def start(self, train: bool, items: tuple[str, ...], only: tuple[str, ...] | None, name: str) -> str:
        """Create a flow run for some packs (`train`) or shards; returns its id.

        Creating is idempotent, so that it is tried again where the server does not answer: an answer that got lost
        does not make a second one.
        """
        self._started += 1
        parameters = {
            "run_id": self._run_id,
            "packs": list(items) if train else [],
            "shards": [] if train else list(items),
            "only": None if only is None else list(only),
            "options": {"root": self._store.root},
        }
        key = f"{self._run_id}/{ids.digest(list(items))}/{self._pass}-{self._started}"

        def create() -> Any:  # Prefect's types allow for a coroutine, which there is none outside an event loop
            return run_deployment(
                DEPLOYMENT,
                parameters=parameters,
                flow_run_name=name[:200],
                timeout=0,
                tags=[self._tag],
                idempotency_key=key,
                work_queue_name=self._queue,
            )

        return str(patiently(create).id)

    def going_on(self) -> Mapping[str, frozenset[str]]:
        """Flow runs of this run that have not ended: ids of their packs or shards by flow run id."""

        def ask() -> dict[str, frozenset[str]]:
            with get_client(sync_client=True) as client:
                flow_runs = shards_of(client, self._tag, going_on=True)
            return {
                str(flow_run.id): frozenset(
                    [*flow_run.parameters.get("packs", ()), *flow_run.parameters.get("shards", ())]
                )
                for flow_run in flow_runs
            }

        return patiently(ask)

    def watch(self, flow_run_id: str, finish: Callable[[FlowRunEnd], None]) -> None:
        """Have `finish` called, from another thread, once it has ended or is given up."""
        with self._lock:
            self._watched[flow_run_id] = _Watched(finish)

    def _poll_until_over(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            try:
                with get_client(sync_client=True) as client:
                    while not self._over.wait(POLL_SECONDS):
                        self._poll(client)
            except (httpx.HTTPError, PrefectHTTPStatusError, StoreError) as error:
                log.warning("run %s: its flow runs cannot be looked at just now (%s)", self._run_id, error)
            except Exception:  # were this thread to end, the run would wait for ever
                log.exception("run %s: looking at its flow runs failed; it is tried again", self._run_id)

    def _poll(self, client: SyncPrefectClient) -> None:
        with self._lock:
            known = list(self._watched)
        for start in range(0, len(known), PAGE):
            page = known[start : start + PAGE]
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=page))
            flow_runs = {
                str(flow_run.id): flow_run for flow_run in client.read_flow_runs(flow_run_filter=wanted, limit=PAGE)
            }
            for flow_run_id in page:
                end = self._look_at(client, flow_run_id, flow_runs.get(flow_run_id))
                if end is not None:
                    with self._lock:
                        watched = self._watched.pop(flow_run_id)
                    watched.finish(end)  # before anything that may fail: nobody looks at it again
                    self._delete_lease(flow_run_id)

    def _delete_lease(self, flow_run_id: str) -> None:
        """Tidy up after a flow run; what stays is one lapsed lease, which housekeeping finds."""
        try:
            self._store.delete(layout.shard_lease_key(flow_run_id))
        except StoreError as error:
            log.warning("run %s: the lease of flow run %s is left behind (%s)", self._run_id, flow_run_id, error)

    def _look_at(self, client: SyncPrefectClient, flow_run_id: str, flow_run: FlowRun | None) -> FlowRunEnd | None:
        """How a flow run ended; None while it goes on."""
        if flow_run is None or flow_run.state is None:
            return self._left(flow_run_id, "its flow run was deleted")
        state = flow_run.state
        if state.is_final():
            reason = f"flow run {flow_run.name}: {state.name} {state.message or ''}"
            return self._left(flow_run_id, reason, state.is_cancelled())
        watched = self._watched[flow_run_id]
        if watched.state != state.type:
            watched.state, watched.since = state.type, time.monotonic()
        silent = self._silent(flow_run_id, watched)
        if silent and (attempt := read_shard_result(self._store, self._run_id, flow_run_id)):
            return FlowRunEnd(attempt)  # it has done its work, and is slow to say so
        if silent:
            log.warning("run %s: flow run %s is given up: %s", self._run_id, flow_run.name, silent)
            client.set_flow_run_state(flow_run.id, Crashed(message=silent), force=True)
            return self._left(flow_run_id, silent)
        return None

    def _silent(self, flow_run_id: str, watched: _Watched) -> str:
        """Why a flow run that has not ended is taken for dead; empty if it is not."""
        age, patience = time.monotonic() - watched.since, environment.starting_seconds()
        if watched.state == StateType.RUNNING:
            held = self._store.look_at_lease(layout.shard_lease_key(flow_run_id), environment.lease_seconds())
            if held is None:
                return f"no sign of life in {age:.0f} s" if age > patience else ""
            # Released means that it is about to end; a lease needs its whole length to lapse.
            if held.expires_at and not held.is_live and age > environment.lease_seconds():
                return f"the lease of its machine {held.holder} has lapsed"
            return ""
        if watched.state == StateType.PENDING and age > patience:
            return f"taken by a worker, but not started in {age:.0f} s"
        if watched.state == StateType.SCHEDULED and age > patience and not watched.told:
            watched.told = True
            log.warning("run %s: no worker takes flow run %s; is there one on its pool?", self._run_id, flow_run_id)
        return ""

    def _left(self, flow_run_id: str, reason: str, cancelled: bool = False) -> FlowRunEnd:
        attempt = read_shard_result(self._store, self._run_id, flow_run_id)
        return FlowRunEnd(attempt, "" if attempt else reason, cancelled)


def patiently(ask: Callable[[], T]) -> T:
    """Ask the server until it answers, for `PATIENCE_SECONDS`: it may be busy, or be started again.

    Raises:
        httpx.HTTPError: It did not answer in that time, or it refused the question.
    """
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, 1.0
    while True:
        try:
            return ask()
        except httpx.HTTPError as error:
            refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code not in _BUSY
            if refused or time.monotonic() > deadline:
                raise
            log.warning("the Prefect server does not answer (%s); it is asked again", type(error).__name__)
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, 30.0)
