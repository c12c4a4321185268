"""A lease has one holder at most, outlives its end only while somebody renews it, and frees itself after a death."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import Pool
from pathlib import Path

import pytest

from manifests import layout
from manifests.errors import StoreError
from manifests.store import leases
from manifests.store.leases import Lease
from manifests.store.store import Store
from tests.manifests.store import racers as racing
from tests.manifests.store.conftest import RACERS
from tests.manifests.store.flaky import Proxy
from tests.manifests.store.test_store import aws_environment

KEY = layout.lease_key("a" * 24)
LONG = 600.0


def take(store: Store, holder: str = "me", ttl_seconds: float = LONG, key: str = KEY) -> Lease:
    """Take a lease that must be free."""
    lease = store.acquire_lease(key, holder, ttl_seconds)
    assert lease is not None
    return lease


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process believe that an hour has passed (the leases' only clock)."""

    class Later:
        @staticmethod
        def time() -> float:
            return time.time() + 3600

    monkeypatch.setattr(leases, "time", Later)


def test_a_lease_has_one_holder_until_it_is_released(root: str) -> None:
    store, other = Store.open(root), Store.open(root)
    lease = take(store, "gpu 0 of night-1")
    assert (lease.key, lease.holder, lease.lost) == (KEY, "gpu 0 of night-1", False)
    assert abs(lease.expires_at - time.time() - LONG) < 60
    assert other.acquire_lease(KEY, "other", LONG) is None
    assert store.acquire_lease(KEY, "gpu 0 of night-1", LONG) is None  # the same name is not the same holder
    lease.release()
    assert lease.lost
    taken = take(other, "other")
    assert taken.nonce != lease.nonce


def test_leases_of_other_adapters_are_free(root: str) -> None:
    store = Store.open(root)
    take(store)
    take(store, key=layout.lease_key("b" * 24))


def test_the_record_says_who_and_until_when(root: str) -> None:
    store = Store.open(root)
    lease = take(store, "günther\n@host")
    record = {"holder": lease.holder, "nonce": lease.nonce, "expires_at": lease.expires_at, "seconds": LONG}
    assert json.loads(store.read(KEY)) == record
    assert lease.renew()
    assert json.loads(store.read(KEY)) == record | {"expires_at": lease.expires_at}
    assert lease.expires_at > record["expires_at"]  # type: ignore[operator]
    assert list(store.list("leases")) == [KEY]


def test_a_lapsed_lease_goes_to_the_next(root: str) -> None:
    store = Store.open(root)
    lease = take(store, "dead", 0.2)
    time.sleep(0.25)
    taken = take(store, "next")
    assert lease.renew() is False
    assert lease.lost
    lease.release()  # must not free what is now another's
    assert json.loads(store.read(KEY))["nonce"] == taken.nonce
    assert store.acquire_lease(KEY, "third", LONG) is None
    assert taken.renew()


def test_a_lapsed_lease_that_nobody_took_can_be_renewed(root: str) -> None:
    store = Store.open(root)
    lease = take(store, "slow", 0.2)
    time.sleep(0.25)
    assert lease.renew()
    assert not lease.lost


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"expires_at": "soon"}', b'{"expires_at": NaN}', b"\xff"])
def test_a_damaged_record_binds_nobody(root: str, record: bytes) -> None:
    store = Store.open(root)
    store.replace(KEY, record)
    take(store)


YEARS = 10 * 365 * 86400.0


def edited(store: Store, lease: Lease, expires_at: float, **changes: object) -> None:
    """Have a lease say another end, as if its holder's clock had stood wrong, or somebody had edited it."""
    record = json.loads(store.read(KEY)) | {"expires_at": expires_at} | changes
    store.replace(KEY, json.dumps(record).encode())


def seconds_until_taken(store: Store, ttl_seconds: float = LONG) -> float:
    """Try again and again, as a run that wants the lease does."""
    begun = time.monotonic()
    while store.acquire_lease(KEY, "next", ttl_seconds) is None:
        assert time.monotonic() < begun + 20, "it never lapses"
        time.sleep(0.05)
    return time.monotonic() - begun


@pytest.mark.parametrize("ahead", [400 * 86400.0, YEARS, 1e300])
def test_a_lease_from_the_future_binds_for_its_length_only(root: str, ahead: float) -> None:
    store = Store.open(root)
    edited(store, take(store, "killed", 1.5), time.time() + ahead)
    assert store.acquire_lease(KEY, "next", LONG) is None
    held = store.look_at_lease(KEY)
    assert held is not None and held.is_live and held.ends_at <= time.time() + 1.5
    assert seconds_until_taken(store) < 5
    assert json.loads(store.read(KEY))["holder"] == "next"


def test_a_lease_of_before_lengths_were_written_binds_for_that_of_whoever_wants_it(root: str) -> None:
    store = Store.open(root)
    store.replace(KEY, json.dumps({"holder": "old", "nonce": "n", "expires_at": time.time() + YEARS}).encode())
    assert seconds_until_taken(store, 1.5) < 5


@pytest.mark.parametrize("length", [YEARS, float("inf"), float("nan"), -1, "long", None])
def test_a_length_from_the_future_does_not_hide_it_either(root: str, length: object) -> None:
    store = Store.open(root)
    edited(store, take(store, "killed", 1.0), time.time() + YEARS, seconds=length)
    held = store.look_at_lease(KEY, 60)
    assert held is None or held.ends_at <= time.time() + leases.LONGEST_SECONDS


def test_a_disk_whose_clock_stood_ahead_is_not_asked_for_the_time(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    lease = take(store, "killed", 1.5)
    edited(store, lease, time.time() + YEARS)
    os.utime(tmp_path / KEY, (time.time() + YEARS, time.time() + YEARS))
    fresh = Store.open(str(tmp_path))
    assert 1 < seconds_until_taken(fresh) < 5


def test_a_watcher_that_starts_anew_goes_by_the_clock_of_the_store(root: str) -> None:
    edited(Store.open(root), take(Store.open(root), "killed", 2.0), time.time() + YEARS)
    time.sleep(3.1)  # servers tell seconds
    held = Store.open(root).look_at_lease(KEY)
    assert held is not None and not held.is_live
    take(Store.open(root), "next")


def test_an_object_is_never_said_to_be_older_than_it_is(root: str) -> None:
    store = Store.open(root)
    store.replace(KEY, b"before, so that the connection is open")
    time.sleep((0.9 - time.time()) % 1)  # servers tell seconds, cut down: this one would be a second old at once
    before = time.monotonic()
    store.replace(KEY, b"just written")
    time.sleep(0.2)
    version = store._backend.read_version(KEY)
    assert version is not None and version.age_seconds is not None
    assert version.age_seconds <= time.monotonic() - before


def test_a_holder_that_renews_keeps_its_lease_whatever_its_clock_says(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, watcher = Store.open(root), Store.open(root)
    lease = take(store, "ahead", 3.0)
    for _ in range(9):
        ahead = time.time() + YEARS
        with monkeypatch.context() as patch:
            patch.setattr(leases.time, "time", lambda: ahead)  # noqa: B023
            assert lease.renew()
        for _ in range(4):
            time.sleep(0.1)
            assert watcher.acquire_lease(KEY, "rival", LONG) is None
    assert not lease.lost


def test_of_two_watchers_one_gets_a_lease_from_the_future(root: str) -> None:
    edited(Store.open(root), take(Store.open(root), "killed", 1.0), time.time() + YEARS)
    watchers = [Store.open(root) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        won: list[bool] = []
        begun = time.monotonic()
        while not any(won) and time.monotonic() < begun + 20:
            won = [lease is not None for lease in pool.map(lambda one: one.acquire_lease(KEY, "w", LONG), watchers)]
    assert sum(won) == 1


def test_a_lease_that_is_broken_goes_to_the_next_and_its_holder_learns_of_it(root: str) -> None:
    store = Store.open(root)
    assert store.break_lease(KEY) is None
    lease = take(store, "alive")
    held = store.break_lease(KEY)
    assert held is not None and held.holder == "alive"
    assert store.break_lease(KEY) is None
    taken = take(Store.open(root), "next")
    assert lease.renew() is False and lease.lost
    assert taken.renew()


@pytest.mark.parametrize("ttl_seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_lease_needs_an_end(tmp_path: Path, ttl_seconds: float) -> None:
    with pytest.raises(ValueError, match="ttl_seconds"):
        Store.open(str(tmp_path)).acquire_lease(KEY, "me", ttl_seconds)


@pytest.mark.parametrize("state", ["free", "lapsed", "released"])
def test_one_of_many_threads_gets_it(root: str, state: str, request: pytest.FixtureRequest) -> None:
    store = Store.open(root)
    if state != "free":
        lease = take(store, "before", LONG)
        if state == "lapsed":
            request.getfixturevalue("later")
        else:
            lease.release()
    with ThreadPoolExecutor(12) as pool:
        got = list(pool.map(lambda number: store.acquire_lease(KEY, f"thread {number}", 7200), range(12)))
    winners = [lease for lease in got if lease]
    assert len(winners) == 1
    assert json.loads(store.read(KEY))["nonce"] == winners[0].nonce
    assert winners[0].renew()


@pytest.mark.parametrize("state", ["free", "lapsed"])
def test_one_of_many_processes_gets_it(root: str, state: str, racers: Pool) -> None:
    store = Store.open(root)
    for attempt in range(3):
        key = layout.lease_key(f"race-{attempt}")
        if state == "lapsed":
            take(store, "before", 0.01, key)
        start = time.time() + 0.3
        got = racers.starmap(racing.acquire, [(aws_environment(), start, root, key)] * RACERS, chunksize=1)
        winners = [nonce for nonce in got if nonce]
        assert len(winners) == 1
        assert json.loads(store.read(key))["nonce"] == winners[0]


def test_renewing_and_taking_over_at_once_leaves_one_holder(root: str) -> None:
    store = Store.open(root)
    for attempt in range(5):
        key = layout.lease_key(f"duel-{attempt}")
        lease = take(store, "old", 0.05, key)
        lease.ttl_seconds = LONG  # once renewed, it must not lapse within this test
        time.sleep(0.06)
        with ThreadPoolExecutor(2) as pool:
            renewed = pool.submit(lease.renew)
            taken = pool.submit(store.acquire_lease, key, "new", LONG)
        assert renewed.result() != (taken.result() is not None)


def test_keep_alive_outlives_the_end_and_a_dead_holder_does_not(root: str) -> None:
    store = Store.open(root)
    ttl_seconds = 3.0
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    holder = context.Process(
        target=racing.hold_for_ever, args=(aws_environment(), root, KEY, ttl_seconds, queue.put), daemon=True
    )
    holder.start()
    nonce = queue.get()
    deadline = time.monotonic() + 1.5 * ttl_seconds
    while time.monotonic() < deadline:
        assert store.acquire_lease(KEY, "rival", LONG) is None
        time.sleep(0.1)
    assert json.loads(store.read(KEY))["nonce"] == nonce
    holder.kill()
    holder.join()
    died = time.monotonic()
    while (lease := store.acquire_lease(KEY, "rival", LONG)) is None:
        assert time.monotonic() < died + ttl_seconds + 5
        time.sleep(0.1)
    assert lease.renew()


def test_keep_alive_notices_a_loss(root: str, later: None, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(root)
    lease = take(store, "old", 0.3)
    store.replace(KEY, b'{"holder": "new", "nonce": "x", "expires_at": 1e12}')
    with lease.keep_alive() as held:
        deadline = time.monotonic() + 20
        while not held.lost and time.monotonic() < deadline:
            time.sleep(0.05)
    assert lease.lost
    assert json.loads(store.read(KEY))["holder"] == "new"


@pytest.mark.s3
def test_keep_alive_outlives_a_bad_network(
    s3_root: str, network: Proxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manifests.store.retries.ATTEMPTS", 1)
    lease = take(Store.open(s3_root), "me", 0.9)
    before = lease.expires_at
    network.trouble("PUT", "slow down", "slow down", "slow down")
    with lease.keep_alive():
        deadline = time.monotonic() + 20
        while lease.expires_at == before and time.monotonic() < deadline:
            time.sleep(0.05)
    assert lease.expires_at > before
    assert not lease.lost
    assert sum("could not be renewed" in record.message for record in caplog.records) == 3


@pytest.mark.s3
def test_a_renewal_whose_answer_is_lost_is_no_loss(
    s3_root: str, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manifests.store.retries.ATTEMPTS", 1)
    lease = take(Store.open(s3_root))
    network.trouble("PUT", "lost answer", "reset")  # a cut connection is tried once more, unseen, by aiohttp
    with pytest.raises(StoreError):
        lease.renew()
    assert network.queue == []
    assert lease.renew()
    assert not lease.lost
    assert Store.open(s3_root).acquire_lease(KEY, "rival", LONG) is None


@pytest.mark.s3
def test_a_release_after_a_lost_answer_frees_the_lease(
    s3_root: str, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manifests.store.retries.ATTEMPTS", 1)
    lease = take(Store.open(s3_root))
    network.trouble("PUT", "lost answer", "reset")
    with pytest.raises(StoreError):
        lease.renew()
    lease.release()
    take(Store.open(s3_root), "next")


@pytest.mark.s3
def test_whoever_took_over_after_a_lost_answer_keeps_the_lease(
    s3_root: str, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manifests.store.retries.ATTEMPTS", 1)
    lease = take(Store.open(s3_root), ttl_seconds=0.2)
    network.trouble("PUT", "lost answer", "reset")
    with pytest.raises(StoreError):
        lease.renew()
    time.sleep(0.25)
    taken = take(Store.open(s3_root), "next")
    assert lease.renew() is False
    assert lease.lost
    assert json.loads(Store.open(s3_root).read(KEY))["nonce"] == taken.nonce


def test_a_disk_that_fails_once_all_is_written_takes_no_lease_away(
    tmp_path: Path, failing_folder_sync: list[str]
) -> None:
    lease = take(Store.open(str(tmp_path)))
    assert lease.renew()
    assert len(failing_folder_sync) == 2


@pytest.mark.s3
def test_release_does_not_hide_the_result_of_the_work(
    s3_root: str, network: Proxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manifests.store.retries.ATTEMPTS", 1)
    lease = take(Store.open(s3_root))
    network.trouble("PUT", "slow down", "slow down")
    with pytest.raises(StoreError):
        lease.renew()
    assert not lease.lost
    lease.release()
    assert lease.lost
    assert "not released" in caplog.text
