"""Progress bars on a terminal for a run in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tasks.progress import Event


class _Shown:
    """What all have in common: shown while the context is open."""

    _progress: Progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()


class Bars(_Shown):
    """Three bars: training steps, pictures, scores. A listener for `tasks.progress` and a context manager.

    Attributes:
        run_id: the run that is being worked off; empty until its plan is kept.
    """

    def __init__(self, console: Console) -> None:
        """Show nothing yet."""
        self.run_id = ""
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}
        self._done: dict[tuple[str, str], int] = {}
        self._already: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if event["kind"] == "run":
            self.run_id = event["id"]
            return
        if event["kind"] == "work":
            self._begin(event["total"], event["done"])
            return
        kind = event["kind"]
        self._done[kind, event["id"]] = event["done"]
        done = self._already[kind] + sum(count for (one, _), count in self._done.items() if one == kind)
        note = f"loss {event['loss']:.4f}" if "loss" in event else ""
        self._progress.update(self._bars[kind], completed=done, note=note)

    def _begin(self, totals: Mapping[str, int], already: Mapping[str, int]) -> None:
        self._already = dict(already)
        names = {"train": "training", "sample": "pictures", "score": "scores"}
        for kind, total in totals.items():
            if total:
                bar = self._progress.add_task(names[kind], total=total, completed=already[kind], note="")
                self._bars[kind] = bar


class MethodBars(Bars):
    """The bars of a run, and one for what other methods do after it."""

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if event["kind"] != "method":
            super().__call__(event)
            return
        what = str(event["id"])
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=event["total"], note="")
        self._progress.update(self._bars[what], completed=event["done"], total=event["total"])


class ProbeBar(_Shown):
    """One bar: pictures of a block probe. A listener for `tasks.progress` and a context manager.

    Attributes:
        probe_id: the probe that is being measured; empty until its plan is kept.
    """

    def __init__(self, console: Console) -> None:
        """Show nothing yet."""
        self.probe_id = ""
        self._progress = Progress(
            TextColumn("pictures "), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._parts = 0
        self._done: dict[str, Event] = {}
        self._bar: TaskID | None = None

    def __call__(self, event: Event) -> None:
        """Take one event; all parts count as large as the largest until their own number of pictures is known."""
        if event["kind"] == "parts":
            self.probe_id, self._parts = event["id"], event["total"]
            return
        self._done[event["id"]] = event
        known = [int(one["total"]) for one in self._done.values()]
        total = sum(known) + (self._parts - len(known)) * max(known)
        if self._bar is None:
            self._bar = self._progress.add_task("pictures", total=total)
        self._progress.update(self._bar, completed=sum(int(one["done"]) for one in self._done.values()), total=total)


class RescoreBar(_Shown):
    """One bar: pictures that further scorers have judged. A listener for `tasks.progress` and a context manager."""

    def __init__(self, console: Console) -> None:
        """Show nothing yet."""
        self._progress = Progress(
            TextColumn("scores   "), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._done: dict[str, int] = {}
        self._bar: TaskID | None = None

    def __call__(self, event: Event) -> None:
        """Take one event; the first says how many pictures there are to judge."""
        if event["kind"] == "rescore":
            self._bar = self._progress.add_task("scores", total=event["total"])
        elif self._bar is not None:
            self._done[event["id"]] = event["done"]
            self._progress.update(self._bar, completed=sum(self._done.values()))


class Steps(_Shown):
    """One bar at a time, named after what is being done; a context manager and a callback."""

    def __init__(self, console: Console) -> None:
        """Show nothing yet."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._bars: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show how much is done; a new name begins a new bar and hides the one before."""
        if what not in self._bars:
            for bar in self._bars.values():
                self._progress.update(bar, visible=False)
            self._bars[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._bars[what], completed=done, total=total)
