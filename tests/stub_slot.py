"""A slot's child without a model: ``python -m tests.stub_slot DEVICE STORE_ROOT ANSWER_FD``.

In place of the GPU where orchestration is what is tested: it speaks the protocol of `tasks.worker.main`, keeps the
store's contract (leases, data first, marker last, one put a picture) and makes objects whose bytes follow from their
ids, so that what any order of accidents leaves can be compared byte for byte. `BLORA_STUB_SECONDS` is what an adapter
and a batch of pictures take. `BLORA_STUB_LOG` names a file that each slot appends to when it begins and ends something:
JSON lines, whole ones even where the slot is killed, for `tests.chaos.ledger`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from PIL import Image

from manifests import layout
from manifests.store.store import Store
from manifests.tables.parquet import to_parquet_bytes, to_table
from manifests.tables.run import SCORES
from tasks.errors import is_transient
from tasks.messages import (
    GenerateAnswer,
    GenerateShard,
    Heartbeat,
    JobAnswer,
    JobError,
    Message,
    ScoreAnswer,
    ScoreShard,
    TrainAnswer,
    TrainPack,
    from_line,
    to_line,
)
from tasks.report.thumbnails import write_shard_thumbnails
from tasks.run.heartbeat import here, take_lease
from tasks.run.inventory import is_whole
from tasks.run.plan import Pack, Plan, PlannedSample, load_plan, scores_key

SECONDS = float(os.environ.get("BLORA_STUB_SECONDS", "0"))
"""What an adapter, and a batch of pictures, takes."""

COPIES = int(os.environ.get("BLORA_STUB_COPIES", "1"))
"""Half an adapter is 64 bytes, so many times."""

LOG = os.environ.get("BLORA_STUB_LOG", "")


def _note(event: str, job: str, item: str) -> None:
    line = {"at": time.monotonic(), "process_id": os.getpid(), "event": event, "job": job, "item": item}
    descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, json.dumps(line).encode() + b"\n")  # one write of a short line is not torn
    os.close(descriptor)


@contextmanager
def logged(job: str, item: str) -> Iterator[None]:
    """Note the begin and the end of something, if anybody wants to know."""
    if not LOG:
        yield
        return
    _note("begin", job, item)
    try:
        yield
    except BaseException:
        _note("fail", job, item)
        raise
    _note("end", job, item)


class Stub:
    """Plans are kept in memory, as a real slot keeps them."""

    def __init__(self, device: str, store: Store, beat: Callable[[str], None]) -> None:
        self.device, self.store, self.beat = device, store, beat
        self.plan = lru_cache(maxsize=4)(lambda run_id: load_plan(store, run_id))

    def train_pack(self, job: TrainPack) -> TrainAnswer:
        plan: Plan = self.plan(job.run_id)
        pack = plan.pack(job.pack_id)
        started, trained = time.monotonic(), []
        wanted = [a.adapter_id for a in pack.adapters if job.only is None or a.adapter_id in job.only]
        while missing := [one for one in wanted if not is_whole(self.store, one)]:
            done = False
            with ExitStack() as stack:
                for adapter_id in sorted(missing):
                    lease = take_lease(self.store, layout.lease_key(adapter_id), f"{plan.run.run_id}: {here()}")
                    if lease is None:
                        continue
                    stack.callback(lease.release)
                    stack.enter_context(lease.keep_alive())
                    if not is_whole(self.store, adapter_id):
                        with logged("train", adapter_id):
                            time.sleep(SECONDS / 2)
                            self._write(plan, pack, adapter_id)
                        trained.append(adapter_id)
                        done = True
            if not done:
                self.beat("waits for another run's training")
                time.sleep(0.2)
        seconds = time.monotonic() - started
        lines = [json.dumps({"adapter_id": one, "seconds": seconds}) for one in trained]
        if lines:
            key = layout.training_log_key(plan.run.run_id, pack.pack_id)
            self.store.replace(key, "\n".join(lines).encode())
        return TrainAnswer(tuple(trained), train_seconds=seconds, busy_seconds=SECONDS * len(trained))

    def generate_shard(self, job: GenerateShard) -> GenerateAnswer:
        shard = self.plan(job.run_id).shard(job.shard_id)
        started, busy_seconds = time.monotonic(), 0.0
        drawn: list[str] = []
        orphans: list[str] = []
        present = self.store.list(layout.samples_prefix(shard.samples[0].content_id)).keys()
        for batch in shard.batches:
            missing = [s for s in batch if s.key not in present and (job.only is None or s.sample_id in job.only)]
            if missing:
                with logged("draw", missing[0].sample_id):
                    time.sleep(SECONDS)
                    self._draw(missing, drawn, orphans)
                busy_seconds += SECONDS
        seconds = time.monotonic() - started
        return GenerateAnswer(tuple(drawn), tuple(orphans), sample_seconds=seconds, busy_seconds=busy_seconds)

    def score_shard(self, job: ScoreShard) -> ScoreAnswer:
        plan: Plan = self.plan(job.run_id)
        shard = plan.shard(job.shard_id)
        present = self.store.list(layout.samples_prefix(shard.samples[0].content_id)).keys()
        scored = [sample for sample in shard.samples if sample.key in present]
        rows = [
            {field: getattr(s, field) for field in
             ("sample_id", "content_id", "style_id", "content_name", "style_name", "seed")}
            | {"run_id": plan.run.run_id, "score": "transfer", "value": int(s.sample_id[:4], 16) / 65536,
               "scorer": "stub", "scorer_version": "1", "scored_at": plan.run.created_at}
            for s in scored
        ]  # fmt: skip
        with logged("score", shard.shard_id):
            time.sleep(SECONDS / 2)
            self.store.replace(scores_key(plan.run, shard), to_parquet_bytes(to_table(rows, SCORES)))
            shown: dict[str, Image.Image | None] = {sample.sample_id: plain_picture(sample) for sample in scored}
            write_shard_thumbnails(self.store, plan.run.run_id, shard.samples, shown)
        return ScoreAnswer(tuple(sample.sample_id for sample in scored))

    def _draw(self, missing: list[PlannedSample], drawn: list[str], orphans: list[str]) -> None:
        for sample in missing:
            if all(is_whole(self.store, side) for side in (sample.content_id, sample.style_id)):
                if self.store.write_once(sample.key, picture_of(sample)):
                    drawn.append(sample.sample_id)
            else:
                orphans.append(sample.sample_id)

    def _write(self, plan: Plan, pack: Pack, adapter_id: str) -> None:
        halves = {half: adapter_bytes(adapter_id, half) for half in ("content", "style")}
        for half, data in halves.items():
            self.store.write_once(layout.adapter_key(adapter_id, half), data)  # type: ignore[arg-type]
            time.sleep(SECONDS / 4)  # a kill may well come between two objects of an adapter
        adapter = next(one for one in pack.adapters if one.adapter_id == adapter_id)
        run = plan.run
        marker = {
            "run_id": run.run_id, "adapter_id": adapter_id, "name": adapter.name,
            "image_ids": list(adapter.image_ids), "base": run.base, "base_revision": run.base_revision,
            "rank": run.settings.train.rank, "steps": run.settings.train.steps, "final_loss": 0.0, "skipped_steps": 0,
            "train_seconds": SECONDS, "pack_id": pack.pack_id, "pack_size": len(pack.adapters), "device": self.device,
            "content_bytes": len(halves["content"]), "style_bytes": len(halves["style"]),
            "trained_at": datetime.now(UTC).isoformat(),
        }  # fmt: skip
        self.store.write_once(layout.adapter_marker_key(adapter_id), json.dumps(marker).encode())


def adapter_bytes(adapter_id: str, half: str) -> bytes:
    """The whole of one half, from its id."""
    return hashlib.sha512(f"{adapter_id} {half}".encode()).digest() * COPIES


def plain_picture(sample: PlannedSample) -> Image.Image:
    """A picture of one colour, from the sample's id."""
    return Image.new("RGB", (16, 16), "#" + sample.sample_id[:6])


def picture_of(sample: PlannedSample) -> bytes:
    """The same as a file."""
    buffer = io.BytesIO()
    plain_picture(sample).save(buffer, format="PNG")
    return buffer.getvalue()


def main(device: str, store_root: str, answer_fd: int) -> None:
    """Serve requests until the parent closes the input."""
    answers = os.fdopen(answer_fd, "wb", buffering=0)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            requests.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    number = 0

    def send(message: Message) -> None:
        answers.write(to_line(number, message))

    stub = Stub(device, Store.open(store_root), lambda doing: send(Heartbeat(doing)))
    jobs: dict[type, Callable[[Any], JobAnswer]] = {
        TrainPack: stub.train_pack,
        GenerateShard: stub.generate_shard,
        ScoreShard: stub.score_shard,
    }
    while True:
        number, job = from_line(requests.get())
        try:
            send(jobs[type(job)](job))
        except Exception as error:
            send(JobError(type(error).__name__, str(error), is_transient(error)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
