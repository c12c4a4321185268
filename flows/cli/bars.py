"""Progress bars on a terminal for work in this process."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from flows.cli.console import err
from tasks import progress
from tasks.errors import EndedWithFaults, TaskError
from tasks.progress import Event
from tasks.words import roughly

SAME_COMMAND = "the same command goes on where this one stopped"

STOP_SECONDS = 5.0
"""How long a command takes to stop at the most."""

TITLES = {"train": "training", "sample": "drawing", "score": "scoring", "probe": "drawing"}
"""What a kind of work is called; work of other kinds names itself."""


class _LeftColumn(ProgressColumn):
    """When a bar will be full, as far as that can be reckoned."""

    def __init__(self, tally: progress.Tally) -> None:
        super().__init__()
        self._tally = tally

    def render(self, task: Task) -> Text:
        """See `ProgressColumn.render`."""
        left = None if task.finished else self._tally.seconds_left(task.fields["kind"])
        return Text("" if left is None else f"{roughly(left)} left", style="progress.remaining")


@dataclass
class _Bar:
    """One bar: what is done of each item, beside what had been done before.

    Attributes:
        shown: its number on the terminal.
        total: of all items; None where it is known of those alone that have begun.
        already: done before.
        items: how many items there are.
        done: by item.
        totals: by item.
    """

    shown: TaskID
    total: int | None = None
    already: int = 0
    items: int = 1
    done: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)

    def expected(self) -> int:
        """The total; items that have not begun count as large as the largest that has."""
        if self.total is not None:
            return self.total
        return sum(self.totals.values()) + (self.items - len(self.totals)) * max(self.totals.values())


class Bars:
    """A bar for each kind of work. A listener for `tasks.progress`, and a context manager: shown while it is open.

    Attributes:
        subject: the run or probe that is being worked off; empty until its plan is kept.
    """

    def __init__(self, console: Console) -> None:
        """Show nothing yet."""
        self.subject = ""
        self._tally = progress.Tally()
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            _LeftColumn(self._tally),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._bars: dict[str, _Bar] = {}
        self._is_night = False
        self._parts = 1
        self._is_open = False  # shown from the first bar on

    def __enter__(self) -> Self:
        self._is_open = True
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bars:  # else nothing is shown, and it would leave an empty line
            self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self._tally(event)
        match event["kind"]:
            case "manifest":
                self._forget()
                self._say(f"manifest {event['done']} of {event['total']}: {event['id']}")
                self._is_night = True
            case "run":
                self.subject = event["id"]
                if self._is_night:  # a command has said it of its one run
                    self._say(event["text"])
            case "parts":
                self.subject, self._parts = event["id"], event["total"]
            case "work":
                self.subject = event["id"]
                self._announce(event["total"], event["done"])
            case "note":
                self._say(event["text"])
            case _:
                self._advance(event)

    def _say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)

    def _forget(self) -> None:
        """Let the bars of a run that has ended go: those of the next one take their place."""
        for bar in self._bars.values():
            self._progress.remove_task(bar.shown)
        self._bars = {}

    def step(self, what: str, done: int, total: int) -> None:
        """Show how much is done of one thing after another: a new one hides those before."""
        if what not in self._bars:
            for bar in self._bars.values():
                self._progress.update(bar.shown, visible=False)
        self._advance({"kind": "step", "id": what, "done": done, "total": total})

    def _announce(self, totals: Mapping[str, int], already: Mapping[str, int]) -> None:
        for kind, total in totals.items():
            if total:
                if before := self._bars.get(kind):  # a flow that tries again announces again
                    self._progress.remove_task(before.shown)
                self._bars[kind] = self._begin(kind, already[kind], total)

    def _begin(self, kind: str, already: int, total: int | None) -> _Bar:
        if self._is_open:
            self._progress.start()
        title, unit = TITLES.get(kind, kind), progress.UNITS.get(kind, "")
        shown = self._progress.add_task(title, total=total, completed=already, kind=kind, unit=unit, note="")
        return _Bar(shown, total, already, self._parts)

    def _advance(self, event: Event) -> None:
        item = str(event["id"])
        name = event["kind"] if event["kind"] in TITLES else item
        bar = self._bars.get(name) or self._begin(name, 0, None)
        self._bars[name] = bar
        bar.done[item], bar.totals[item] = event["done"], event["total"]
        note = f"loss {event['loss']:.4f}" if "loss" in event else ""
        done = bar.already + sum(bar.done.values())
        self._progress.update(bar.shown, completed=done, total=bar.expected(), note=note)


@contextmanager
def starting(what: str) -> Iterator[None]:
    """Say on a terminal that something starts, which takes seconds and has no steps; gone with the end of the block."""
    with err.status(f"starting {what}"):
        yield


@contextmanager
def interruptible(bars: Bars, again: str) -> Iterator[None]:
    """Have Ctrl-C, or a SIGTERM, stop the block in order, and say how to go on; a second one ends the process at once.

    In order means that slots let go of what they hold, and that the server hears of the end.

    Args:
        bars: whose subject is being worked at.
        again: see `run_with_bars`.

    Raises:
        typer.Exit: it was stopped, with the code that shells expect (130, or 143).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    code, told = 0, False

    def tell() -> None:
        nonlocal told
        told = True
        goes_on = again.replace("{subject}", bars.subject) if bars.subject else "nothing had been begun"
        err.print(f"stopped; {goes_on}", style="yellow", markup=False, highlight=False)

    def give_up(*_: object) -> None:
        if not told:
            tell()
        os._exit(code)

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal code
        code = 128 + number
        for name in before:
            signal.signal(name, give_up)
        logging.disable()  # a crash is what Prefect takes this for, and says at length
        late = threading.Timer(STOP_SECONDS, give_up)
        late.daemon = True
        late.start()
        raise KeyboardInterrupt

    before = {name: signal.signal(name, interrupt) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException as error:  # whatever Prefect, or a thread that was cut short, makes of an interrupt
        if not code:
            raise
        tell()
        raise typer.Exit(code) from error
    finally:
        for name, handler in before.items():
            signal.signal(name, give_up if code else handler)


def run_with_bars(
    flow: Callable[..., Any], *arguments: object, verbose: bool = False, again: str = SAME_COMMAND
) -> tuple[Any, str]:
    """Run a flow in this process with bars on the terminal.

    Args:
        flow: the flow.
        arguments: what it is given.
        verbose: show also all that Prefect logs.
        again: what goes on where a person stops it; ``{subject}`` in it is the run or probe.

    Returns:
        Its result, or the `EndedWithFaults` that it ended with; and the run or probe that it was about, if any.

    Raises:
        Exception: what it failed with.
        TaskError: it ended before it had begun with anything, or there is no Prefect server.
        typer.Exit: a person stopped it.
    """
    from tasks.dispatch.server import server_at_hand

    bars = Bars(err)
    with interruptible(bars, again), ExitStack() as stack:
        with starting("Prefect"):
            stack.enter_context(server_at_hand(verbose=verbose))
        stack.enter_context(progress.watching(bars))
        stack.enter_context(bars)
        state = flow(*arguments, return_state=True)
        ended = state.result(raise_on_failure=False)
        if isinstance(ended, Exception) and not isinstance(ended, EndedWithFaults):
            raise ended
    if ended is None and not bars.subject:
        raise TaskError(state.message or "the flow did not start")
    return ended, bars.subject
