"""What a terminal shows of the events of a run, a probe, another method and the benchmark."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from flows.cli.bars import Bars, run_with_bars
from tasks import progress
from tasks.errors import EndedWithFaults, TaskError


def shown(*events: dict[str, Any]) -> tuple[Bars, dict[str, str]]:
    """The bars after some events, and what each says, by the title; hidden ones are left out."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    bars = Bars(console)
    for event in events:
        bars(event)
    return bars, read(bars, console)


def read(bars: Bars, console: Console) -> dict[str, str]:
    with console.capture() as captured:
        console.print(bars._progress.get_renderable())
    form = r"^(\S.*?) +[━╸╺ ]+ +(\d+/\d+) +([a-z]*) +\d:\d\d:\d\d *(.*?) *$"
    lines = re.findall(form, captured.get(), re.MULTILINE)
    return {title: " ".join(part for part in parts if part) for title, *parts in lines}


def test_a_run_has_a_bar_for_each_kind_of_work_it_has() -> None:
    total, done = {"train": 0, "sample": 10, "score": 10}, {"train": 0, "sample": 4, "score": 3}
    bars, lines = shown(
        {"kind": "run", "id": "demo-1"},
        {"kind": "work", "id": "demo-1", "total": total, "done": done},
        {"kind": "sample", "id": "a", "done": 2, "total": 5},
        {"kind": "sample", "id": "b", "done": 1, "total": 5},
        {"kind": "sample", "id": "a", "done": 3, "total": 5},
        {"kind": "score", "id": "a", "done": 1, "total": 5},
    )
    assert bars.subject == "demo-1"
    assert lines == {"drawing": "8/10 pictures", "scoring": "4/10 scores"}, "an item counts once, beside what was there"


def test_work_that_is_begun_again_takes_the_place_of_its_bar() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    bars = Bars(console)
    for done in (0, 3):
        bars({"kind": "work", "id": "demo-1", "total": {"train": 20}, "done": {"train": done}})
    with console.capture() as captured:
        console.print(bars._progress.get_renderable())
    assert re.findall(r"^(\w+) .* (\d+/\d+) steps", captured.get(), re.M) == [("training", "3/20")]


def test_training_tells_its_loss() -> None:
    work = {"kind": "work", "id": "r", "total": {"train": 20}, "done": {"train": 0}}
    _, lines = shown(work, {"kind": "train", "id": "p", "done": 7, "total": 20, "loss": 0.12345})
    assert lines == {"training": "7/20 steps loss 0.1235"}


def test_each_bar_says_when_it_will_be_full() -> None:
    pace = {"train": 2.0, "sample": 10.0, "other": 60.0, "slots": 1.0}
    work = {"kind": "work", "id": "r", "total": {"train": 20, "sample": 30}, "done": {"train": 0, "sample": 0}}
    _, lines = shown(work | {"pace": pace})
    assert lines == {"training": "0/20 steps 2 min left", "drawing": "0/30 pictures 7 min left"}


def test_a_night_says_which_manifest_of_how_many_and_each_has_bars_of_its_own() -> None:
    console = Console(file=io.StringIO(), width=120)
    bars = Bars(console)
    for number, name in enumerate(("a.yaml", "b.yaml"), 1):
        bars({"kind": "manifest", "id": name, "done": number, "total": 2})
        bars({"kind": "run", "id": f"run-{number}", "text": f"run-{number}: 1 adapter"})
        bars({"kind": "work", "id": f"run-{number}", "total": {"sample": 4}, "done": {"sample": number}})
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert said == ["manifest 1 of 2: a.yaml", "run-1: 1 adapter", "manifest 2 of 2: b.yaml", "run-2: 1 adapter"]
    assert read(bars, console) == {"drawing": "2/4 pictures"}


def test_parts_of_a_probe_that_have_not_begun_count_as_large_as_the_largest() -> None:
    bars, lines = shown(
        {"kind": "parts", "id": "probe-1", "done": 0, "total": 3},
        {"kind": "probe", "id": "0", "done": 8, "total": 64},
        {"kind": "probe", "id": "1", "done": 4, "total": 16},
    )
    assert bars.subject == "probe-1" and lines == {"drawing": "12/144 pictures"}
    bars({"kind": "probe", "id": "2", "done": 0, "total": 16})
    assert read(bars, Console(file=io.StringIO(), width=120))["drawing"] == "12/96 pictures"


def test_another_method_has_a_bar_of_its_own() -> None:
    _, lines = shown(
        {"kind": "work", "id": "r", "total": {"sample": 4}, "done": {"sample": 4}},
        {"kind": "method", "id": "prompt: drawing", "done": 1, "total": 4},
        {"kind": "method", "id": "prompt: drawing", "done": 2, "total": 5},
    )
    assert lines == {"drawing": "4/4 pictures", "prompt: drawing": "2/5"}


def test_steps_hide_those_before() -> None:
    console = Console(file=io.StringIO(), width=120)
    bars = Bars(console)
    bars.step("blora: training", 5, 5)
    bars.step("blora: drawing", 1, 2)
    assert read(bars, console) == {"blora: drawing": "1/2"}


class State:
    """What a flow returns."""

    def __init__(self, ended: object, message: str = "") -> None:
        self.ended, self.message = ended, message

    def result(self, raise_on_failure: bool) -> object:
        assert not raise_on_failure
        return self.ended


@pytest.mark.usefixtures("prefect_api")
def test_a_flow_under_bars_gives_its_result_its_faults_or_its_error() -> None:
    def flow(ended: object, subject: str, return_state: bool) -> State:
        if subject:
            progress.publish({"kind": "run", "id": subject})
        return State(ended, "no slot was free")

    assert run_with_bars(flow, {"a": 1}, "r1") == ({"a": 1}, "r1")
    faults = EndedWithFaults("r2", "1 of 2")
    assert run_with_bars(flow, faults, "r2") == (faults, "r2")
    with pytest.raises(ValueError, match="bad"):
        run_with_bars(flow, ValueError("bad"), "r3")
    with pytest.raises(TaskError, match="no slot was free"):
        run_with_bars(flow, None, "")


def test_a_note_is_a_line_above_the_bars_as_it_was_written() -> None:
    console = Console(file=io.StringIO(), width=60, soft_wrap=True)
    with Bars(console) as bars:
        bars({"kind": "note", "id": "0 cpu", "text": "waits for 1 adapter: [wave]; until 12:00:00 UTC"})
    assert "waits for 1 adapter: [wave]; until 12:00:00 UTC\n" in console.file.getvalue()  # type: ignore[attr-defined]
