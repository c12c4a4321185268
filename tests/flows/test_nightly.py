"""The night, on a real S3 and a real Prefect server: what it finds, what it leaves, what it takes up again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.nightly import nightly
from flows.params import NightOptions
from manifests.store.store import Store
from tasks.operations.inbox import look
from tasks.operations.night_record import Night, load_night
from tests.flows.conftest import Project

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.usefixtures("prefect_api", "warm_slots")]


class Inbox:
    """The inbox of a fresh S3 root, and the nights worked off from it."""

    def __init__(self, root: str, project: Project) -> None:
        self.store, self.project = Store.open(root), project
        for picture in project.folder.glob("*.png"):
            self.put(picture.name, picture.read_bytes())

    def put(self, name: str, data: bytes) -> None:
        self.store.replace(f"inbox/{name}", data)

    def drop(self, file: str, **changes: Any) -> None:
        """Drop a manifest of one content and one style, with changed keys."""
        sides = {"contents": [{"image": "c0.png"}], "styles": [{"image": "s0.png"}]}
        self.project.write(**(sides | changes))
        self.put(file, self.project.path.read_bytes())

    def night(self, **options: Any) -> tuple[Any, Night]:
        """Work a night off; its final state and its record."""
        given = NightOptions(root=self.store.root, devices="cpu", allowed_roots=(str(self.project.base),), **options)
        state = nightly(given, return_state=True)
        return state, load_night(self.store)

    def runs(self) -> dict[str, dict[str, Any]]:
        keys = [key for key in self.store.list("runs/") if key.endswith("/run.json")]
        return {key.split("/")[1]: json.loads(self.store.read(key)) for key in keys}

    def made(self) -> dict[str, Any]:
        """When each picture and half was written."""
        entries = {**self.store.list("samples/"), **self.store.list("adapters/")}
        return {key: entry.modified for key, entry in entries.items()}


@pytest.fixture
def real_inbox(s3_root: str, project: Project) -> Inbox:
    """An inbox whose runs really train."""
    return Inbox(s3_root, project)


@pytest.fixture
def inbox(real_inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> Inbox:
    """An inbox whose runs make their objects without a model: here it is the order that is tested."""
    monkeypatch.setenv("BLORA_SLOT_MODULE", "tests.stub_slot")
    return real_inbox


def states(night: Night) -> dict[str, str]:
    return {entry.manifest.removeprefix("inbox/"): entry.state for entry in night.entries}


def test_a_bad_manifest_is_a_fault_and_not_the_end_of_the_night(inbox: Inbox) -> None:
    inbox.drop("a.json", name="first")
    inbox.put("b.json", b'{"version": 1, "contents": [')
    inbox.put("c.xlsx", b"PK\x03\x04 not a manifest")
    inbox.drop("d.json", name="fourth", contents=[{"image": "c1.png"}, {"image": "gone.png"}])
    inbox.drop("e.json", name="fifth", styles=[{"image": "s1.png"}])
    state, night = inbox.night()
    assert states(night) == {
        "a.json": "finished", "b.json": "refused", "d.json": "faults", "e.json": "finished"
    }  # fmt: skip
    assert list(states(night)) == ["a.json", "b.json", "d.json", "e.json"], "not in the order of dropping"
    assert state.is_failed()
    assert state.message == night.sentence
    assert (
        night.sentence
        == "2 manifests finished, 1 with faults (d.json), 1 refused (b.json), no manifest and ignored: c.xlsx"
    )
    by_name = {entry.manifest.removeprefix("inbox/"): entry for entry in night.entries}
    assert "b.json" in by_name["b.json"].faults[0]
    assert night.ignored == ("inbox/c.xlsx",)
    (fault,) = by_name["d.json"].faults
    assert "gone.png" in fault
    assert len(inbox.runs()) == 3
    assert night.ended_at is not None


def test_the_next_night_takes_up_only_what_is_left(inbox: Inbox) -> None:
    inbox.drop("a.json", name="first")
    inbox.drop("b.json", name="second", styles=[{"image": "later.png"}])
    _, first = inbox.night()
    assert states(first) == {"a.json": "finished", "b.json": "refused"}
    made = inbox.made()
    inbox.put("later.png", (inbox.project.folder / "s1.png").read_bytes())
    state, second = inbox.night()
    assert states(second) == {"a.json": "already finished", "b.json": "finished"}
    assert state.is_completed()
    assert made.items() <= inbox.made().items(), "something of the first night was made again"
    state, third = inbox.night()
    assert set(states(third).values()) == {"already finished"}
    assert state.is_completed() and third.sentence == "0 manifests finished, 2 finished before"


def test_a_manifest_is_known_by_what_it_says_and_not_by_its_name(inbox: Inbox) -> None:
    inbox.drop("a.json")
    inbox.drop("b.json")
    _, first = inbox.night()
    assert states(first) == {"a.json": "finished"}, "two equal manifests are one"
    inbox.drop("tomorrow.json")
    inbox.store.delete("inbox/a.json")
    _, second = inbox.night()
    assert set(states(second).values()) == {"already finished"}
    assert len(inbox.runs()) == 1
    inbox.drop("b.json", seeds=[1])  # another manifest under a known name
    _, third = inbox.night()
    assert states(third) == {"tomorrow.json": "already finished", "b.json": "finished"}
    assert len(inbox.runs()) == 2


def test_a_manifest_dropped_again_is_planned_anew_and_sees_a_replaced_picture(inbox: Inbox) -> None:
    inbox.drop("a.json")
    inbox.night()
    inbox.project.draw("s0", seed=77)
    inbox.put("s0.png", (inbox.project.folder / "s0.png").read_bytes())
    _, unaware = inbox.night()
    assert states(unaware) == {"a.json": "already finished"}
    inbox.drop("a.json")
    _, aware = inbox.night()
    assert states(aware) == {"a.json": "finished"}
    assert len(inbox.runs()) == 2


def test_a_training_that_diverged_is_not_trained_again_until_somebody_says_so(real_inbox: Inbox) -> None:
    inbox = real_inbox
    # A step of this size overflows within a few updates, whatever the picture.
    wild = {"learning_rate": 1e3, "max_lower_rates": 0, "reseeds_before_lower_rate": 0, "skips_before_reseed": 1,
            "steps": 40, "max_grad_norm": 1e6, "resolution_px": 32, "rank": 2, "batch_size": 1,
            "layers": "attention"}  # fmt: skip
    inbox.drop("a.json", settings={"train": wild})
    logs: Callable[[], dict[str, Any]] = lambda: {  # noqa: E731
        key: entry.modified for key, entry in inbox.store.list("runs/").items() if "/logs/" in key
    }
    _, first = inbox.night()
    assert states(first) == {"a.json": "faults"}
    trained = logs()
    assert len(trained) == 1
    state, second = inbox.night()
    assert states(second) == {"a.json": "faults"} and state.is_failed()
    assert second.entries[0].faults == first.entries[0].faults, "the reasons of the first night are still there"
    assert logs() == trained, "a training that cannot converge was paid for again"
    inbox.drop("a.json", settings={"train": wild})
    inbox.night()
    assert logs() != trained


def test_a_night_whose_time_is_over_leaves_the_rest_to_the_next(inbox: Inbox) -> None:
    inbox.drop("a.json", name="first")
    inbox.drop("b.json", name="second", styles=[{"image": "s1.png"}])
    state, night = inbox.night(hours=1 / 3600 / 1000)
    assert states(night) == {"a.json": "left", "b.json": "left"}
    assert state.is_completed() and "2 left for the next night (a.json, b.json)" in night.sentence
    assert inbox.runs() == {}


def test_an_empty_inbox_is_a_quiet_night(inbox: Inbox) -> None:
    state, night = inbox.night()
    assert state.is_completed()
    assert night.entries == () and night.sentence == "0 manifests finished"


def test_manifests_in_folders_are_found_and_their_pictures_are_not(tmp_path: Path, project: Project) -> None:
    store = Store.open(str(tmp_path / "store"))
    shutil.copytree(project.folder, Path(store.root) / "inbox" / "kitchen")
    (Path(store.root) / "inbox" / "loose.png").write_bytes(b"a picture")
    assert [dropped.key for dropped in look(store, None)] == ["inbox/kitchen/night.json"]
    same_elsewhere = Path(store.root) / "inbox" / "garden"
    same_elsewhere.mkdir()
    shutil.copy(project.path, same_elsewhere)
    assert len({dropped.manifest_id for dropped in look(store, None)}) == 2, "its paths mean other pictures there"


def test_a_damaged_run_is_told_and_the_night_goes_on(inbox: Inbox) -> None:
    inbox.drop("a.json", name="first")
    inbox.night()
    (run_id,) = inbox.runs()
    inbox.store.replace(f"runs/{run_id}/run.json", b"")
    inbox.put("a.json", inbox.store.read("inbox/a.json"))  # dropped once more
    inbox.drop("b.json", name="second", styles=[{"image": "s1.png"}])
    _, night = inbox.night()
    assert states(night)["b.json"] == "finished" and states(night)["a.json"] in ("faults", "refused")
    (line,) = night.entries[0].faults
    assert "run.json is damaged" in line and "delete it" in line and "\n" not in line
