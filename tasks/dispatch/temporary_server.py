"""The temporary Prefect server of a command, in a process of its own that ends with whoever started it.

    python -m tasks.dispatch.temporary_server PORT

Its standard input is a pipe that its parent holds and never writes to. However the parent ends, kill -9 included, the
pipe closes, and the server goes. (A signal on the parent's death would do the same on Linux alone.)
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import uvicorn

_GRACE_SECONDS = 5.0


def _end_with_parent() -> None:
    """Wait for the end of the pipe, then end this process: politely, and then at once."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    threading.Timer(_GRACE_SECONDS, os._exit, (1,)).start()
    os.kill(os.getpid(), signal.SIGTERM)


def main(port: int) -> None:
    """Serve Prefect's API on a port of this machine, for programs of this machine alone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
