"""The harness itself: its schedules replay, and its checks notice what they are there to notice."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from manifests import layout
from manifests.store.store import Store
from tests.chaos.checks import Truth, Watch, held_by_the_living
from tests.chaos.episode import Result
from tests.chaos.ledger import Entry, count_trainings, in_flight, read_ledger
from tests.chaos.schedule import SERVER_PARTS, plan_episode
from tests.chaos.session import Summary


def test_a_seed_fixes_every_episode_and_another_seed_gives_others() -> None:
    first = [plan_episode(7, number, True, True) for number in range(40)]
    assert first == [plan_episode(7, number, True, True) for number in range(40)]
    assert first != [plan_episode(8, number, True, True) for number in range(40)]
    targets = Counter(fault.target for episode in first for fault in episode.faults)
    assert targets.keys() == {"slot", "parent", "worker", *SERVER_PARTS}
    assert {episode.place for episode in first} == {"folder", "s3", "faulty s3"}
    assert {episode.commands for episode in first} == {1, 2}


def test_without_workers_or_a_server_in_parts_neither_is_hit() -> None:
    faults = [fault for number in range(40) for fault in plan_episode(7, number, False, False).faults]
    assert {fault.target for fault in faults} == {"slot", "parent"}


def test_a_summary_adds_up_and_can_be_written_down() -> None:
    results = [Result(number, Counter(slot=2, parent=1), Counter(train=number)) for number in (1, 2)]
    figures = json.loads(json.dumps(Summary(7, results).to_dict()))
    assert figures["kills"] == 6 and figures["by_target"] == {"slot": 4, "parent": 2}
    assert figures["in_flight"] == {"train": 3}
    assert figures["results"][1]["trainings"]["begun"] == 0


def train(at: float, process_id: int, event: str, item: str = "a") -> Entry:
    return Entry(at, process_id, event, "train", item)


def test_a_training_that_was_cut_off_may_be_begun_again() -> None:
    entries = [train(1, 10, "begin"), train(5, 11, "begin"), train(6, 11, "end")]
    found = count_trainings(entries, killed_at={10: 2.0})
    assert (found.begun, found.finished, found.again, found.twice, found.at_once) == (2, 1, 1, (), ())
    assert in_flight(entries[:1], {10}) == ["train"] and in_flight(entries, {11}) == []


def test_a_finished_adapter_that_is_trained_again_is_noticed() -> None:
    entries = [train(1, 10, "begin"), train(2, 10, "end"), train(3, 11, "begin"), train(4, 11, "end")]
    assert count_trainings(entries, {}).twice == ("a",)


def test_two_that_train_one_adapter_at_a_time_are_noticed() -> None:
    entries = [train(1, 10, "begin"), train(2, 11, "begin"), train(3, 10, "end"), train(4, 11, "end")]
    assert count_trainings(entries, {}).at_once == ("a",)
    assert count_trainings(entries, {10: 2.5}).at_once == ("a",), "killed, but only after the other had begun"


def test_a_ledger_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    assert read_ledger(path) == []
    entries = [train(2, 11, "begin"), train(1, 10, "begin")]
    path.write_text("".join(json.dumps(vars(entry)) + "\n" for entry in entries))
    assert [entry.process_id for entry in read_ledger(path)] == [10, 11]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    """A watch over a store in which one adapter is whole."""
    halves = {layout.adapter_key("a", "content"): b"content", layout.adapter_key("a", "style"): b"style"}
    store = Store.open(str(tmp_path / "store"))
    for key, data in halves.items():
        store.replace(key, data)
    store.replace(layout.adapter_marker_key("a"), b"{}")
    return Watch(store, Truth("run", halves, ()))


def test_whole_objects_are_no_fault(watch: Watch) -> None:
    assert watch.look() == []


def test_a_marker_without_its_data_is_noticed(watch: Watch) -> None:
    watch.store.delete(layout.adapter_key("a", "style"))
    assert watch.look() == ["adapters/a/adapter.json: visible without adapters/a/style.safetensors"]


def test_a_finished_adapter_that_is_written_again_is_noticed(watch: Watch) -> None:
    assert watch.look() == []
    time.sleep(0.02)
    watch.store.replace(layout.adapter_marker_key("a"), b"{}")
    assert watch.look() == ["adapters/a/adapter.json: trained again, although it was finished"]


@pytest.mark.parametrize(
    ("key", "data", "fault"),
    [
        (layout.adapter_key("a", "style"), b"sty", "3 bytes that differ from the undisturbed 5"),
        (layout.adapter_key("b", "style"), b"style", "no undisturbed run makes it"),
        (layout.run_key("run", "samples.parquet"), b"PAR1 half", "cannot be read"),
        (layout.run_key("run", "run.json"), b'{"state": "fin', "cannot be read"),
        (layout.run_key("run", "logs/pack.jsonl"), b'{"step": 1}\n{"st', "cannot be read"),
    ],
)
def test_a_partial_or_strange_object_is_noticed(watch: Watch, key: str, data: bytes, fault: str) -> None:
    watch.store.replace(key, data)
    assert any(one.startswith(key) and fault in one for one in watch.look())


def test_a_lease_counts_against_the_living_alone(watch: Watch) -> None:
    from tasks.run.heartbeat import here

    assert watch.store.acquire_lease(layout.lease_key("a"), f"run: {here()}", 60) is not None
    assert watch.store.acquire_lease(layout.lease_key("b"), "run: host, process 99999999, since", 60) is not None
    (fault,) = held_by_the_living(watch.store)
    assert fault.startswith(layout.lease_key("a"))
