"""Play one episode: start the command, kill what the schedule says, start the same command again until the run ends."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from manifests import layout
from manifests.store.store import Store
from tests.chaos import checks
from tests.chaos.ledger import Entry, Trainings, count_trainings, in_flight, read_ledger
from tests.chaos.schedule import SERVER_PARTS, Episode, Fault
from tests.chaos.stage import Stage
from tests.servers import Worker

END_SECONDS = 600
"""A run that does not end in this time after the last fault does not end."""
STARTS = 12
"""A command that ends with an error so often although nobody killed it is broken."""


@dataclass
class Command:
    """One of the commands of an episode, through all its starts."""

    log: Path
    process: subprocess.Popen[bytes]
    started_at: float
    done: bool = False
    killed: int = 0
    failed: int = 0
    """How often it ended with an error although nobody had killed it."""


@dataclass
class Result:
    """What came of an episode.

    Attributes:
        number: the episode's.
        kills: how many of what were killed.
        hit: what was in flight when a slot, a command or a worker was killed.
        failed_commands: commands that ended with an error without being killed; they were started again.
        trainings: how often adapters were trained.
        faults: every rule that was broken; none in a good episode.
        seconds: how long it took.
    """

    number: int
    kills: Counter[str] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=Counter)
    failed_commands: int = 0
    trainings: Trainings = field(default_factory=lambda: Trainings(0, 0, 0, 0, (), ()))
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Player:
    """Plays an episode on a stage."""

    def __init__(self, stage: Stage, episode: Episode) -> None:
        """Take a fresh root; nothing is started yet."""
        self.stage, self.episode = stage, episode
        self.root = stage.root(episode.number, episode.place)
        self.store = Store.open(self.root)
        self.ledger = stage.folder / f"ledger-{episode.number}.jsonl"
        self.environment = stage.environment(self.root, episode.place, self.ledger, episode.on_pool)
        self.arguments = ["run", str(stage.manifest(episode.number)), "--devices", "cpu,cpu"]
        self.arguments += ["--shards", "pool"] if episode.on_pool else []
        self.watch = checks.Watch(self.store, stage.truth)
        self.result = Result(episode.number)
        self.workers: list[Worker] = []
        self.commands: list[Command] = []
        self._killed_at: dict[int, float] = {}
        self._struck_at = time.monotonic()
        self._seen_signs: object = None

    def play(self) -> Result:
        """Play it to its end."""
        began = time.monotonic()
        try:
            if self.episode.on_pool:
                self.workers = [self.stage.worker(self.environment, number) for number in range(2)]
            self.commands = [self._new_command(number) for number in range(self.episode.commands)]
            for fault in self.episode.faults:
                if self._wait_for(fault):
                    self._strike(fault)
            self._wait_until(self._all_done, END_SECONDS)
            if not self._all_done():
                self.result.faults.append(f"the run did not end in {END_SECONDS} s: {self._last_words()}")
            self._judge()
        finally:
            for command in self.commands:
                command.process.kill()
                command.process.wait()
            for worker in self.workers:
                worker.kill()
        self.result.seconds = time.monotonic() - began
        return self.result

    def _judge(self) -> None:
        """Compare what is left with the rules."""
        self.result.trainings = trainings = count_trainings(self._entries(), self._killed_at)
        self.result.failed_commands = sum(command.failed for command in self.commands)
        self.result.faults += self.watch.compare()
        self.result.faults += checks.held_by_the_living(self.store)
        self.result.faults += [f"{one}: trained although it was finished" for one in trainings.twice]
        self.result.faults += [f"{one}: trained by two at once" for one in trainings.at_once]
        # Of the model itself there is no ledger; that finished adapters stay as they are is seen by `Watch`.
        cut_off = self.result.hit["train"] + trainings.failed
        if trainings.again > cut_off:
            self.result.faults.append(f"{trainings.again} trainings begun again, but {cut_off} were cut off")

    def _new_command(self, number: int) -> Command:
        log = self.stage.folder / f"episode-{self.episode.number}-{number}.log"
        return Command(log, self.stage.command(self.environment, log, *self.arguments), time.monotonic())

    def _start_again(self, command: Command) -> None:
        command.process = self.stage.command(self.environment, command.log, *self.arguments)
        command.started_at = time.monotonic()

    def _tend(self) -> None:
        """Start again what should be running."""
        self.stage.tend()
        for command in self.commands:
            code = None if command.done else command.process.poll()
            if code == 0:
                command.done = True
            elif code is not None:
                command.failed += 1
                self._start_again(command)

    def _all_done(self) -> bool:
        return all(command.done or command.failed >= STARTS for command in self.commands)

    def _wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Tend until a condition holds; False if it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
            self._tend()
        return True

    def _wait_for(self, fault: Fault) -> bool:
        """Wait for the moment of a fault; False if the run ends before it comes."""
        if fault.after == "start":
            started = max(command.started_at for command in self.commands)
            due = max(started, self._struck_at) + fault.seconds
        else:
            self._wait_until(lambda: self._all_done() or self._signs() != self._seen_signs, END_SECONDS)
            due = time.monotonic() + fault.seconds
        self._wait_until(lambda: self._all_done() or time.monotonic() >= due, END_SECONDS)
        return not self._all_done()

    def _signs(self) -> object:
        """What changes when a slot does something: the stub's ledger, or what the model leaves in the store."""
        if self.stage.stub:
            return self.ledger.stat().st_size if self.ledger.exists() else None
        made = {key: entry.modified for key, entry in self.store.list("").items() if not key.startswith("leases/")}
        return made if any("checkpoints/" in key or key.startswith("adapters/") for key in made) else None

    def _entries(self) -> list[Entry]:
        return read_ledger(self.ledger)

    def _strike(self, fault: Fault) -> None:
        """Kill, look at what is visible, and have the killed started again."""
        if fault.target in SERVER_PARTS:
            self.stage.kill_part(fault.target, fault.down_seconds)
        elif fault.target == "worker":
            self._kill_worker(fault)
        elif fault.target == "parent":
            self._kill_parent(fault)
        elif not self._kill_slot(fault):
            return
        self.result.kills[fault.target] += 1
        self._struck_at, self._seen_signs = time.monotonic(), self._signs()
        self.result.faults += [f"after {fault}: {one}" for one in self.watch.look()]

    def _kill_slot(self, fault: Fault) -> bool:
        """Kill a slot; False where none is running, as between two commands."""
        slots = [slot for command in self._running() for slot in slots_of(command.process.pid)]
        if not slots:
            return False
        slot = slots[int(fault.pick * len(slots))]
        slot.kill()
        self._count([slot])
        return True

    def _kill_parent(self, fault: Fault) -> None:
        running = self._running()
        command = running[int(fault.pick * len(running))]
        slots = slots_of(command.process.pid)
        command.process.kill()
        command.process.wait()
        command.killed += 1
        _, alive = psutil.wait_procs(slots, timeout=60)  # one that has just been started notices once it has imported
        self.result.faults += [f"slot {slot.pid} outlived its parent" for slot in alive]
        self._count(slots)
        self._start_again(command)

    def _kill_worker(self, fault: Fault) -> None:
        number = int(fault.pick * len(self.workers))
        slots = slots_of(self.workers[number].process.pid)
        self.workers[number].kill()
        self._count(slots)
        self.workers[number] = self.stage.worker(self.environment, number)

    def _running(self) -> list[Command]:
        return [command for command in self.commands if not command.done]

    def _count(self, slots: list[psutil.Process]) -> None:
        """Note when slots died and what they were at."""
        ids = {slot.pid for slot in slots}
        self._killed_at |= dict.fromkeys(ids, time.monotonic())
        jobs = in_flight(self._entries(), ids)
        if not self.stage.stub:
            jobs = ["the embedded model"]
        elif not jobs:
            planned = self.store.exists(layout.run_key(self.stage.truth.run_id, "plan.parquet"))
            jobs = ["between items" if planned else "planning"]
        self.result.hit.update(jobs)

    def _last_words(self) -> str:
        return " | ".join(command.log.read_text(errors="replace")[-800:] for command in self.commands)


def slots_of(process_id: int) -> list[psutil.Process]:
    """The slots among the descendants of a process."""
    found: list[psutil.Process] = []
    try:
        for child in psutil.Process(process_id).children(recursive=True):
            try:
                if {"tests.stub_slot", "tasks.worker.main"} & set(
                    child.cmdline()
                ) and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return []
    return found
