"""What runs inside a slot's child process: ``python -m tasks.worker.main DEVICE STORE_ROOT ANSWER_FD``.

Reads jobs, does them, and writes how far they are and then the answer or the error (`tasks.messages`). Kept apart from
Prefect: a child starts in the time that torch takes to import.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from manifests.store.store import Store
from tasks.errors import is_transient
from tasks.messages import (
    DrawMethod,
    GenerateShard,
    Heartbeat,
    JobAnswer,
    JobError,
    Message,
    ProbePart,
    RescoreShard,
    ScoreShard,
    TrainMethod,
    TrainPack,
    from_line,
    to_line,
)
from tasks.worker.generate import generate_shard
from tasks.worker.methods import draw_method, train_method
from tasks.worker.probe import probe_part
from tasks.worker.rescore import rescore_shard
from tasks.worker.score import score_shard
from tasks.worker.session import Session
from tasks.worker.train import train_pack

JOBS: Mapping[type, Callable[[Session, Any], JobAnswer]] = {
    TrainPack: train_pack,
    GenerateShard: generate_shard,
    ScoreShard: score_shard,
    RescoreShard: rescore_shard,
    TrainMethod: train_method,
    DrawMethod: draw_method,
    ProbePart: probe_part,
}
"""What does a job, by the type of its message."""


UNWIND_SECONDS = 10.0
"""How long a job may take to let go of what it holds, once it is interrupted."""


def read_requests() -> queue.SimpleQueue[bytes]:
    """Standard input, line by line, read by a thread that ends the process when the parent goes away.

    The job at hand is interrupted, so that its leases are released and nobody waits for them to lapse.
    """
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        late = threading.Timer(UNWIND_SECONDS, os._exit, (0,))
        late.daemon = True
        late.start()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # wakes it where it waits, too

    threading.Thread(target=read, daemon=True).start()
    return lines


def main(device: str, store_root: str, answer_fd: int) -> NoReturn:
    """Serve requests until the parent closes the input, then end the process."""
    try:
        _serve(device, store_root, answer_fd)
    except KeyboardInterrupt:
        os._exit(0)  # threads of libraries may go on for as long as they like


def _serve(device: str, store_root: str, answer_fd: int) -> NoReturn:
    answers = os.fdopen(answer_fd, "wb", buffering=0)
    requests = read_requests()

    one_at_a_time = threading.Lock()
    number = 0  # of the request that is being served

    def send(message: Message) -> None:
        with one_at_a_time:
            answers.write(to_line(number, message))

    session = Session(
        device,
        Store.open(store_root),
        send,
        beat=lambda doing: send(Heartbeat(doing)),
        wait=lambda doing, until: send(Heartbeat(doing, until)),
    )
    while True:
        number, job = from_line(requests.get())
        try:
            send(JOBS[type(job)](session, job))
        except Exception as error:
            traceback.print_exc()
            send(JobError(type(error).__name__, str(error), is_transient(error)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
