"""What is typed in an hour and read of it, without what differs from day to day and from machine to machine."""

from __future__ import annotations

import difflib
import os
import re
import socket
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from tests.journeys.terminal import type_in

GOLDEN = Path(__file__).parent / "golden"
REMAKE = "REMAKE_GOLDENS"

MASKS = (
    (r"https?://127\.0\.0\.1:\d+", "http://<host>"),
    (r"(?<=<host>/)[\w-]{16,}", "<secret>"),
    (r"\b[0-9a-f]{40}\b|\b[0-9a-f]{64}\b", "<hex>"),
    (r"\b\d{8}-\d{6}-[0-9a-f]{4}\b", "<night>"),
    (r"\b[0-9a-f]{24}\b|\b[0-9a-f]{12}\b", "<id>"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(\+00:00|Z| UTC)?", "<time>"),
    (r"\b\d{4}-\d\d-\d\d\b", "<date>"),
    (r"\b\d+:\d\d:\d\d\b", "<clock>"),
    (r"\b(\d+ h )?(\d+ min )?\d+(\.\d+)? (s|min|h)\b", "<duration>"),
    (r"\b[\d.,]+ ([kMG]i?B|TFLOP/s)", r"<number> \1"),
    (r"goes from [+-]?\d\S* to [+-]?\d\S*$", "goes from <number> to <number>"),  # of three digits, which may be whole
    (r"\b\d+\.\d+\.\d+[\w.+]*", "<version>"),
    (r"(?<![\w.])[+-]?\d+(\.\d+(e[+-]\d+)?|e[+-]\d+)(?![\w.])", "<number>"),
    (r"no clear difference|\b[ab] is better", "<verdict>"),
    (r"^ {9,}", " " * 8),  # columns are as wide as what stood in them
    (r"(?<=\S)  +", "  "),
)
"""Patterns, and what stands for them in a transcript; each is laid over what those before it have left."""

FAULTY = (
    r"Traceback",
    r"\[Errno",
    r"\b\w+(Error|Exception)\b",
    r"\b1 (pack|picture|adapter|slot|run|manifest|fault|content|style|file|object)s\b",
    r"do: did you mean",
    r"gpu hours",
    r"<(lambda|str|int|bool|float)>",
)
"""What nobody is to read on a terminal."""


class Transcript:
    """One user's hour."""

    def __init__(self, folder: Path, known: Mapping[str, str] | None = None, **environment: str) -> None:
        """Begin an hour.

        Args:
            folder: where everything is typed.
            known: texts that another day has others for, such as a bucket, by what stands for them.
            environment: variables beside those of a fresh account.
        """
        self.folder, self._parts = folder, list[str]()
        self._wrong: list[str] = []
        self._known = {**(known or {}), "folder": str(folder), "machine": socket.gethostname()}
        folder.mkdir(parents=True, exist_ok=True)
        self._environment = {
            "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "CUDA_VISIBLE_DEVICES": "",
            "DO_NOT_TRACK": "1",
            **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
            "OMP_NUM_THREADS": "1",  # another number rounds otherwise, and of hardly trained ones some are at a limit
            **environment,
        }
        (folder / "home").mkdir(exist_ok=True)

    def say(self, heading: str) -> None:
        """Begin a part of the hour."""
        self._parts.append(f"\n# {heading}")

    def type(
        self,
        *arguments: str,
        interrupt_at: str = "",
        before: Callable[[str], None] = lambda text: None,
        after: str = "",
        is_exact: bool = False,
        has_bars: bool = True,
    ) -> None:
        """Type a `blora` command; see `type_in`.

        Args:
            arguments: of the command.
            interrupt_at: see there.
            before: see there.
            after: see there.
            is_exact: compare its numbers, too.
            has_bars: compare its bars; how far they came before a key was pressed or something failed, is chance.
        """
        text, code, seconds = type_in(
            ["blora", *arguments], self.folder, self._environment, interrupt_at=interrupt_at, after=after, before=before
        )
        if interrupt_at:
            assert code < 0 or seconds < 10, f"{seconds:.0f} s from Ctrl-C to the end"
        ended = f"[{code}]" if not interrupt_at else f"[Ctrl-C at {interrupt_at!r}: {code}]"
        typed = " ".join(f'"{word}"' if re.search(r"[^\w./:=,@+-]", word) else word for word in ("blora", *arguments))
        shown = has_bars and not interrupt_at
        read = "\n".join(line for line in text.splitlines() if shown or "━" not in line)
        part = "\n".join([f"$ {typed}", *([read] if read else []), ended])
        self._parts.append(part if is_exact else masked(part, self._known))
        self._wrong += [f"{typed}: {wrong[0]!r}" for words in FAULTY if (wrong := re.search(words, text))]
        lines = text.splitlines()
        is_a_fault_each = all(re.match(r"(--set )?[\w.-]+: ", line) for line in lines)
        if code == 2 and lines[1:] and "Usage:" not in text and not is_a_fault_each:
            self._wrong.append(f"{typed}: refused, and not in a line a fault")

    def look(self, what: str, text: str) -> None:
        """Look at something else than the terminal."""
        self._parts.append(masked(f"[{what}]\n{text.rstrip()}", self._known))

    def left_behind(self) -> list[str]:
        """The processes that this hour's commands have left; none, after each of them."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") == self._environment["HOME"] and process.status() != "zombie":
                    found.append(" ".join(process.cmdline()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def compare(self, name: str) -> None:
        """Compare with the golden text of a name, or write it anew where that is asked for; nothing read is faulty."""
        read, file = "\n".join(self._parts).strip() + "\n", GOLDEN / f"{name}.txt"
        if os.environ.get(REMAKE):
            file.parent.mkdir(exist_ok=True)
            file.write_text(read)
        expected = file.read_text()
        if read != expected:
            diff = difflib.unified_diff(expected.splitlines(), read.splitlines(), "golden", "read", lineterm="")
            pytest.fail("\n".join(diff), pytrace=False)
        assert self._wrong == []


def masked(text: str, known: Mapping[str, str]) -> str:
    """What was read without what differs from run to run; rows of scores in the order of their names."""
    for word, value in known.items():
        text = text.replace(value, f"<{word}>")
    for pattern, stands in MASKS:
        text = re.sub(pattern, stands, text, flags=re.M)
    return re.sub(
        r"(?:^.*(?:  <number>){3,}.*\n)+", lambda rows: "".join(sorted(rows[0].splitlines(True))), text, flags=re.M
    )
