"""Train one pack in a slot: lease, train or resume, write halves, then the marker.

Nothing is trained twice: an adapter whose marker and halves are in the store is left alone, and one that another run
is training is waited for. A half that has gone missing is computed again in the pack's own layout, which gives the
same bytes on the same kind of processor, on a GPU with `train.deterministic` alone; where it gives others, both halves
are written anew, so that a pair of halves always comes from one training.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

from blora.adapters.adapter import Adapter
from blora.checks.limits import training_identity
from blora.errors import CheckpointError
from blora.models.model import Base
from blora.sampling.denoise import sampler_of
from blora.settings.sampling import SampleSettings
from blora.settings.training import recipe_version
from blora.training.items import StepReport, TrainItem, TrainResult
from blora.training.train import train
from manifests import layout
from manifests.errors import Missing
from manifests.faults import Fault
from manifests.store.store import Store
from tasks.messages import Advance, TrainAnswer, TrainPack
from tasks.run.heartbeat import here, take_lease, uninterrupted, waiting_for
from tasks.run.inventory import is_whole
from tasks.run.plan import Pack, PlannedAdapter, RunInfo
from tasks.worker.attempts import Attempt, checkpoint_key, checkpoint_keys, diverged, train_until_good
from tasks.worker.checkpoints import CheckpointKeeper
from tasks.worker.session import Session

WRITERS = 4  # adapters written at once: the device waits for the slowest, not for all in turn
POLL_SECONDS = 1.0  # between two looks at an adapter that another run is training


def train_pack(session: Session, job: TrainPack) -> TrainAnswer:
    """Make every adapter of a pack exist."""
    plan, pack = session.pack(job.run_id, job.pack_id)
    wanted = [adapter for adapter in pack.adapters if job.only is None or adapter.adapter_id in job.only]
    holder = f"{plan.run.run_id}: {here()}"
    trained: list[str] = []
    faults = [_gone(a) for a in wanted if a.is_finished and not is_whole(session.store, a.adapter_id)]
    started, busy_seconds = session.clock(), 0.0
    while True:
        settled = {*trained, *(fault.item for fault in faults)}
        missing = [a for a in wanted if a.adapter_id not in settled and not is_whole(session.store, a.adapter_id)]
        if not missing:
            break
        with _leases() as stack:
            mine = _lease(session.store, missing, holder, stack)
            if not mine:
                # Their end is awaited, or that of their leases.
                session.wait(*waiting_for(session.store, missing))
                time.sleep(POLL_SECONDS)
                continue
            done, failed, seconds = _train(session, plan.run, pack, mine)
            busy_seconds += seconds
            trained += done
            faults += failed
    for key in checkpoint_keys(plan.run, pack):
        session.store.delete(key)
    return TrainAnswer(
        trained=tuple(trained),
        faults=tuple(faults),
        train_seconds=session.clock() - started if trained else 0.0,
        busy_seconds=busy_seconds,
    )


def _gone(adapter: PlannedAdapter) -> Fault:
    """The fault of a finished adapter that is no longer in the store, and that no training can replace."""
    return Fault(
        kind="train",
        item=adapter.adapter_id,
        what=f"the adapter {adapter.name} is missing in the store, and came as a file",
        received="nothing",
        accepted=f"its halves and its marker, as {adapter.source_file} has them",
        hint="run the manifest again, which brings it in",
    )


@contextmanager
def _leases() -> Iterator[ExitStack]:
    """What lets go of every lease at the end, whole: a stop that arrives meanwhile waits for it."""
    stack = ExitStack()
    try:
        yield stack
    finally:
        with uninterrupted():
            stack.close()


def _lease(store: Store, missing: Sequence[PlannedAdapter], holder: str, stack: ExitStack) -> set[str]:
    """Lease what can be leased, in the order of ids so that two runs never wait for each other crosswise."""
    mine: set[str] = set()
    for adapter_id in sorted(adapter.adapter_id for adapter in missing):
        with uninterrupted():  # else one that is being taken when a stop arrives would bind others until it lapses
            lease = take_lease(store, layout.lease_key(adapter_id), holder)
            if lease is None:
                continue
            stack.callback(lease.release)
            stack.enter_context(lease.keep_alive())
        if not is_whole(store, adapter_id):  # its last holder may have finished between the look and the lease
            mine.add(adapter_id)
    return mine


def _train(session: Session, run: RunInfo, pack: Pack, mine: set[str]) -> tuple[list[str], list[Fault], float]:
    """Train the whole layout of the pack and write what is `mine` and missing; also return the device's seconds."""
    watch = _Watch(session, run, pack)
    started = session.clock()
    kept = train_until_good(
        session, run, pack.adapters, lambda items, number: _pass(session, run, pack, items, number, watch)
    )
    busy_seconds = session.clock() - started
    seconds = busy_seconds / len(pack.adapters)
    watch.write_log()
    trained: list[str] = []
    faults: list[Fault] = []
    with ThreadPoolExecutor(WRITERS) as threads:
        writes = []
        for adapter, attempt in zip(pack.adapters, kept, strict=True):
            if adapter.adapter_id not in mine:
                continue
            if attempt.result.adapter is None:
                faults.append(diverged(adapter, attempt.result))
                continue
            marker = _marker(run, pack, adapter, attempt, seconds, session.device)
            writes.append(threads.submit(_write, session.store, attempt.result.adapter, marker))
            trained.append(adapter.adapter_id)
        for write in writes:
            write.result()
    return trained, faults, busy_seconds


def _pass(
    session: Session, run: RunInfo, pack: Pack, items: list[TrainItem], number: int, watch: _Watch
) -> list[TrainResult]:
    """Train some adapters of a pack once, from the attempt's own checkpoint if there is one."""
    base = session.base(run.base, run.settings.train.precision)
    _check_scheduler(base, run.settings.sample)
    settings = session.training(run.base, run.settings.train, len(items))
    key, watch.attempt = checkpoint_key(run, pack, number), number
    with CheckpointKeeper(session.store, key) as keeper:
        try:
            return train(base, items, settings, checkpoint=keeper.find(), on_step=watch, on_checkpoint=keeper)
        except CheckpointError:
            # Of another version of the code, say: worth less than an honest start.
            session.store.delete(key)
            return train(base, items, settings, on_step=watch, on_checkpoint=keeper)


def _check_scheduler(base: Base, sample: SampleSettings) -> None:
    """Refuse a scheduler that the base cannot be drawn with before hours are trained, not at the first picture.

    Raises:
        SettingsError: with what is wrong with it.
    """
    sampler_of(base, sample)


def _write(store: Store, adapter: Adapter, marker: dict[str, Any]) -> None:
    """Write halves, then the marker; never leave halves of two trainings under one marker."""
    adapter_id = marker["adapter_id"]
    halves = {
        layout.adapter_key(adapter_id, "content"): adapter.content.save_half(),
        layout.adapter_key(adapter_id, "style"): adapter.style.save_half(),
    }
    marker["content_bytes"], marker["style_bytes"] = (len(data) for data in halves.values())
    marker["sha256"] = [hashlib.sha256(data).hexdigest() for data in halves.values()]
    marker_key = layout.adapter_marker_key(adapter_id)
    try:
        same = json.loads(store.read(marker_key))["sha256"] == marker["sha256"]
    except (Missing, ValueError, LookupError, TypeError):  # or it cannot be read
        same = False
    if not same:
        store.delete(marker_key)
    for key, data in halves.items():
        if same:
            store.write_once(key, data)
        else:
            store.replace(key, data)
    store.write_once(marker_key, json.dumps(marker, indent=2).encode())


def _marker(
    run: RunInfo, pack: Pack, adapter: PlannedAdapter, attempt: Attempt, seconds: float, device: str
) -> dict[str, Any]:
    """The content of adapter.json: the row of the ADAPTERS table, the check's verdict, and the settings."""
    return {
        "run_id": run.run_id,
        "adapter_id": adapter.adapter_id,
        "name": adapter.name,
        "image_ids": list(adapter.image_ids),
        "base": run.base,
        "base_revision": run.base_revision,
        "rank": run.settings.train.rank,
        "steps": run.settings.train.steps,
        "final_loss": attempt.result.final_loss,
        "skipped_steps": attempt.result.skipped_steps,
        "train_seconds": seconds,
        "pack_id": pack.pack_id,
        "pack_size": len(pack.adapters),
        "device": device,
        "trained_at": datetime.now(UTC).isoformat(),
        "settings": training_identity(run.settings, run.base_revision, adapter.prompt),
        "check": attempt.to_json(run.settings.check.attempts),
        "recipe_version": recipe_version(len(adapter.image_ids)),
    }


class _Watch:
    """Turns step reports into events, a few a second, and into the training log, one line every few steps."""

    def __init__(self, session: Session, run: RunInfo, pack: Pack) -> None:
        self.session, self.run, self.pack = session, run, pack
        self.lines: list[str] = []
        self.last_event = 0.0
        self.attempt = 1

    def __call__(self, report: StepReport) -> None:
        last = report.step == report.steps
        if last or time.monotonic() - self.last_event > 0.5:
            self.last_event = time.monotonic()
            loss = sum(report.losses) / len(report.losses)
            self.session.emit(Advance("train", self.pack.pack_id, report.step, report.steps, loss))
        if last or report.step % 10 == 0:
            again = {"attempt": self.attempt} if self.attempt > 1 else {}
            self.lines.append(json.dumps(again | {"step": report.step, "losses": list(report.losses)}))

    def write_log(self) -> None:
        """Per-step logs belong in the store, not in Prefect's database."""
        key = layout.training_log_key(self.run.run_id, self.pack.pack_id)
        self.session.store.replace(key, "\n".join(self.lines).encode())
