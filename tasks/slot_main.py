"""What runs inside a slot's child process: ``python -m tasks.slot_main DEVICE STORE_ROOT ANSWER_FD``.

Reads one JSON request a line, runs the job, writes events and then the answer or the error. Kept apart from Prefect:
a child starts in the time that torch takes to import.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from manifests.store import Store
from tasks.faults import is_transient
from tasks.resident import Resident

Job = Callable[[Resident, dict[str, Any]], dict[str, Any]]


def find_job(name: str) -> Job:
    """The job of that name.

    Raises:
        LookupError: no such job.
    """
    if name == "train_pack":
        from tasks.train import train_pack

        return train_pack
    if name == "generate_shard":
        from tasks.generate import generate_shard

        return generate_shard
    if name == "score_shard":
        from tasks.score import score_shard

        return score_shard
    if name == "rescore_shard":
        from tasks.rescore import rescore_shard

        return rescore_shard
    if name in ("train_method", "draw_method"):
        from tasks import methods

        return methods.train_method if name == "train_method" else methods.draw_method
    if name == "probe_part":
        from tasks.probe import probe_part

        return probe_part
    known = "train_pack, generate_shard, score_shard, rescore_shard, train_method, draw_method, probe_part"
    raise LookupError(f"job: received {name!r}; accepted: {known}")


def read_requests() -> queue.SimpleQueue[bytes]:
    """Standard input, line by line, read by a thread that ends the process when the parent goes away."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


def main(device: str, store_root: str, answer_fd: int) -> None:
    """Serve requests until the parent closes the input."""
    answers = os.fdopen(answer_fd, "wb", buffering=0)
    requests = read_requests()

    number = 0  # of the request that is being served

    one_at_a_time = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        with one_at_a_time:
            answers.write(json.dumps({"request": number, **message}).encode() + b"\n")

    resident = Resident(
        device, Store.open(store_root), lambda event: send({"event": event}), lambda doing: send({"beat": doing})
    )
    while True:
        request = json.loads(requests.get())
        number = request["request"]
        try:
            send({"answer": find_job(request["job"])(resident, request["payload"])})
        except Exception as error:
            traceback.print_exc()
            verdict = is_transient(error)
            send({"error": {"error_class": type(error).__name__, "message": str(error), "transient": verdict}})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
