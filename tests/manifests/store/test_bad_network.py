"""A store on a bad network: a real S3 server behind a proxy that throttles, resets and loses answers."""

from __future__ import annotations

import logging

import pytest

from manifests.errors import Missing, PermanentStoreError, TransientStoreError
from manifests.store import bucket, retries
from manifests.store.store import Store
from tests.manifests.store.flaky import Proxy, Trouble
from tests.servers import free_ports

pytestmark = pytest.mark.s3
KEY = "adapters/abc/adapter.json"


@pytest.mark.parametrize("trouble", ["slow down", "reset", "lost answer"])
def test_reads_and_writes_outlive_trouble(s3_root: str, network: Proxy, trouble: Trouble) -> None:
    store = Store.open(s3_root)
    for method in ("PUT", "GET", "HEAD", "DELETE"):
        network.trouble(method, trouble, trouble)
    store.replace(KEY, b"x")
    assert store.read(KEY) == b"x"
    assert store.exists(KEY)
    store.delete(KEY)
    assert network.queue == []
    network.trouble("GET", trouble)
    assert store.list("") == {}


def test_retries_are_told_and_end(
    s3_root: str, network: Proxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 3)
    network.trouble("GET", "slow down", "slow down", "slow down", "slow down")
    with caplog.at_level(logging.WARNING, "manifests"), pytest.raises(TransientStoreError, match="SlowDown"):
        Store.open(s3_root).read(KEY)
    assert len(network.seen) == 3
    assert [record.message.split("; ")[-1].split(",")[0] for record in caplog.records] == [
        "attempt 1 of 3",
        "attempt 2 of 3",
    ]


def test_what_will_not_pass_is_not_tried_again(s3_root: str, network: Proxy) -> None:
    with pytest.raises(Missing):
        Store.open(s3_root).read(KEY)
    assert len(network.seen) == 1


def test_a_server_that_is_away_is_a_transient_error(
    s3_root: str, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(TransientStoreError, match="check AWS_ENDPOINT_URL and the network"):
        Store.open(s3_root).read(KEY)


def test_whose_answer_was_lost_still_knows_that_it_wrote(s3_root: str, network: Proxy) -> None:
    store = Store.open(s3_root)
    network.trouble("PUT", "lost answer", "reset")
    assert store.write_once(KEY, b"mine") is True
    assert store.write_once(KEY, b"mine") is False


def test_whose_rival_came_between_its_attempts_knows_that_it_did_not(s3_root: str, network: Proxy) -> None:
    store = Store.open(s3_root)
    store.write_once("warm", b"")
    store.replace(KEY, b"same bytes")
    network.trouble("PUT", "reset", "slow down")
    assert store.write_once(KEY, b"same bytes") is False


def test_a_lost_answer_to_the_end_of_a_large_upload(
    s3_root: str, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PART_BYTES", 5 * 2**20)
    data = bytes(11 * 2**20)
    store = Store.open(s3_root)
    store.write_once("warm", b"")
    network.trouble("POST", "slow down", "lost answer")  # the first POST begins the upload
    assert store.write_once(KEY, data) is True
    assert store.read(KEY) == data
    network.queue.clear()


def test_a_lease_survives_lost_answers(s3_root: str, network: Proxy) -> None:
    store = Store.open(s3_root)
    network.trouble("PUT", "lost answer")
    lease = store.acquire_lease("leases/a.json", "me", 600)
    assert lease is not None
    network.trouble("PUT", "lost answer")
    assert lease.renew()
    assert lease.renew()
    network.trouble("PUT", "lost answer")
    lease.release()
    assert store.acquire_lease("leases/a.json", "other", 600) is not None
    assert network.queue == []


def test_a_server_that_ignores_conditions_is_refused(s3_root: str, network: Proxy) -> None:
    network.ignore_conditions = True
    store = Store.open(s3_root)
    with pytest.raises(PermanentStoreError, match=r"ignores If-None-Match.*use a server with conditional writes"):
        store.write_once(KEY, b"x")
    with pytest.raises(PermanentStoreError, match="ignores If-None-Match"):
        store.acquire_lease("leases/a.json", "me", 600)
    network.ignore_conditions = False
    assert store.list("") == {}
    assert not any("/.probe-" in path for method, path, _ in network.seen[-1:])


def test_aws_region_is_heard(s3_root: str, network: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    Store.open(s3_root).exists(KEY)
    assert "/eu-west-3/s3/" in network.seen[-1][2]
