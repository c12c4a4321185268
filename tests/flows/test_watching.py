"""What a run learns of the flow runs that it handed over to a work pool, whatever the store does; a real server."""

from __future__ import annotations

import queue
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import flow

from manifests import layout
from manifests.errors import PermanentStoreError
from manifests.store.store import Store
from tasks.dispatch import work_pool
from tasks.dispatch.work_pool import FlowRunEnd, WorkPool

pytestmark = pytest.mark.usefixtures("prefect_api")


def test_a_lease_that_cannot_be_deleted_costs_no_run_its_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_pool, "POLL_SECONDS", 0.1)
    store, deleted = Store.open(str(tmp_path)), [str(uuid4()) for _ in range(2)]
    (tmp_path / "leases").symlink_to("leases")  # leads nowhere
    with pytest.raises(PermanentStoreError):
        store.delete(layout.shard_lease_key(deleted[0]))

    @flow(name="parent")
    def parent() -> list[FlowRunEnd]:
        ended: queue.SimpleQueue[FlowRunEnd] = queue.SimpleQueue()
        with WorkPool(store, "run-a", "on-demand") as watching:
            for flow_run_id in deleted:
                watching.watch(flow_run_id, ended.put)
            return [ended.get(timeout=20) for _ in deleted]

    assert [end.reason for end in parent()] == ["its flow run was deleted"] * 2
