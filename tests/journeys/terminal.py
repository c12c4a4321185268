"""A terminal that a command runs in, and what a person reads on it in the end.

The command gets a pty, as wide as `COLUMNS`, with its own session, so that Ctrl-C is the key and not a signal that a
test sends. What it writes is drawn on a page without edges: a line is as long as the command wrote it, and of a bar
that is drawn again and again only the last state is left.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

COLUMNS, ROWS = 160, 50
CTRL_C = b"\x03"
PATIENCE_SECONDS = 240
"""How long a command may take on a machine that has other things to do."""

_TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b[\]P].*?(?:\x07|\x1b\\)|[\r\n\b]|[^\x1b\r\n\b]+", re.S)


class Page:
    """What has been written so far, as a terminal shows it; a sequence that it does not know is an error."""

    def __init__(self) -> None:
        """Begin with an empty page."""
        self._lines: list[str] = [""]
        self._row = self._column = 0

    def write(self, text: str) -> None:
        """Draw what a command wrote."""
        end = 0
        for token in _TOKEN.finditer(text):
            assert token.start() == end, f"not understood: {text[end : token.start()]!r}"
            end = token.end()
            if token[2]:
                self._control(token[1], token[2])
            else:
                self._put(token[0])
        assert end == len(text), f"not understood: {text[end:]!r}"

    def text(self) -> str:
        """The page, without spaces at the ends of lines and without empty lines at its end."""
        return "\n".join(line.rstrip() for line in self._lines).rstrip("\n")

    def _put(self, text: str) -> None:
        match text:
            case "\r":
                self._column = 0
            case "\n":
                self._row += 1
                self._lines += [""] * (self._row + 1 - len(self._lines))
            case "\b":
                self._column = max(0, self._column - 1)
            case _ if not text.startswith("\x1b"):
                line = self._lines[self._row].ljust(self._column)
                self._lines[self._row] = line[: self._column] + text + line[self._column + len(text) :]
                self._column += len(text)

    def _control(self, numbers: str, letter: str) -> None:
        count = int(numbers) if numbers.isdigit() else 1
        match letter:
            case "m" | "h" | "l" | "n":  # colours, modes and questions
                pass
            case "A":
                self._row = max(0, self._row - count)
            case "K" if numbers == "2":
                self._lines[self._row] = ""
            case "K" if numbers in ("", "0"):
                self._lines[self._row] = self._lines[self._row][: self._column]
            case _:
                raise AssertionError(f"not understood: ESC[{numbers}{letter}")


def type_in(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    interrupt_at: str = "",
    before: Callable[[str], None] = lambda text: None,
    after: str = "",
) -> tuple[str, int, float]:
    """Run a command in a pty to its end.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        environment: all that it has.
        interrupt_at: press Ctrl-C once this stands on the page.
        before: what to do before that, with what stands there.
        after: press it not before this stands there, too: on a busy machine it may come later.

    Returns:
        What a person reads in the end, the exit code, and how many seconds passed from the start, or from Ctrl-C, to
        the end.
    """
    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        termios.tcsetwinsize(0, (ROWS, COLUMNS))
        os.execvpe(command[0], list(command), dict(environment))
    page, waits, began = Page(), interrupt_at, time.monotonic()
    try:
        while written := _read(terminal, began + PATIENCE_SECONDS, page):
            page.write(written)
            if waits and waits in page.text() and after in page.text():
                before(page.text())
                waits, began = "", time.monotonic()
                os.write(terminal, CTRL_C)
        _, status = os.waitpid(child, 0)
        child = 0
    finally:
        os.close(terminal)
        if child:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert not waits, f"never said {waits!r}:\n{page.text()}"
    return page.text(), os.waitstatus_to_exitcode(status), time.monotonic() - began


def _read(terminal: int, deadline: float, page: Page) -> str:
    """What is written next; empty at the end."""
    read = b""
    while True:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"no end in {PATIENCE_SECONDS} s:\n{page.text()}"
        try:
            read += (more := os.read(terminal, 65536))
        except OSError:  # nobody has the other end open any more
            return read.decode(errors="replace")
        if not more:
            return read.decode(errors="replace")
        # A letter or a sequence may be cut in two: read on until it is whole.
        try:
            text = read.decode()
        except UnicodeDecodeError:
            continue
        if not re.search(r"\x1b(\[[?\d;]*)?\Z|\r\Z", text):
            return text
