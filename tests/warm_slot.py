"""A slot's real child, forked from a process that has imported torch and diffusers: seconds of processor time saved.

A child computes for one or two seconds in most tests of flows, and takes ten to import what it computes with. So one
warm process a session imports that (`python -m tests.warm_slot ADDRESS`), and `BLORA_SLOT_MODULE` names this module in
place of `tasks.worker.main`: what a flow then starts as a child hands its pipes and environment to the warm process;
that forks, and the fork runs `tasks.worker.main.main` with them. Nothing but modules is loaded before the fork, no
model and nothing of a test. The flow's child ends as the fork ends, and the fork is killed when that child is.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

ADDRESS = "TESTS_WARM_SLOT"
"""The variable that names the warm process's socket."""

_IMPORTED_LATE = (
    "blora.models.families.text_encoders",
    "open_clip",
    "efficientnet_lite_pytorch",
    "diffusers.schedulers",
    "pandas",
)
"""What the jobs import inside their functions, and pyarrow where it is there; `tasks.worker.main` imports the rest."""


def hand_over(device: str, store_root: str, answer_fd: int) -> NoReturn:
    """What a flow starts: have the warm process fork, and end as the fork does."""
    with socket.socket(socket.AF_UNIX) as warm:
        warm.connect(os.environ[ADDRESS])
        told = {"device": device, "store_root": store_root, "folder": os.getcwd(), "environment": dict(os.environ)}
        message = json.dumps(told).encode()
        socket.send_fds(warm, [len(message).to_bytes(8, "big")], [0, 2, answer_fd])
        warm.sendall(message)
        for mine in (0, answer_fd):  # a pipe must be seen to close when the fork's end of it does
            os.close(mine)
        code = int(warm.makefile().readline() or 1)
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(address: str) -> None:
    """Import everything, say so on standard output, and fork for whoever connects."""
    slot_main = importlib.import_module("tasks.worker.main")
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    keepers: set[int] = set()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("warm", flush=True)
        while True:
            connection, _ = listener.accept()
            keepers -= {keeper for keeper in keepers if os.waitpid(keeper, os.WNOHANG)[0]}
            if (keeper := os.fork()) == 0:
                listener.close()
                _keep(connection, slot_main)
            keepers.add(keeper)
            connection.close()


def _keep(connection: socket.socket, slot_main: Any) -> NoReturn:
    """Fork once more; tell how that fork ended, or kill it if the one who asked for it is gone."""
    head, fds, _, _ = socket.recv_fds(connection, 8, 3)
    told = json.loads(connection.makefile("rb").read(int.from_bytes(head, "big")))
    fork = os.fork()
    if fork == 0:
        connection.close()
        _become(slot_main, told, *fds)
    for given in fds:
        os.close(given)
    ended = os.pidfd_open(fork)
    ready, _, _ = select.select([ended, connection], [], [])
    if connection in ready:
        os.kill(fork, signal.SIGKILL)
    _, status = os.waitpid(fork, 0)
    if connection not in ready:
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(slot_main: Any, told: dict[str, Any], stdin: int, stderr: int, answers: int) -> NoReturn:
    """Be the child that the flow meant to start."""
    os.dup2(stdin, 0)
    os.dup2(stderr, 2)
    for given in (stdin, stderr):
        os.close(given)
    os.environ.clear()
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    try:
        slot_main.main(told["device"], told["store_root"], answers)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        hand_over(sys.argv[1], sys.argv[2], int(sys.argv[3]))
