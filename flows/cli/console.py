"""What the commands share: options, exit codes, and how errors and tables reach the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console

from blora.errors import BloraError
from manifests.errors import ManifestsError, counted
from manifests.schema.fields import PRESET_NAMES
from tasks import environment
from tasks.errors import RunRefused, TaskError

if TYPE_CHECKING:
    from manifests.store.store import Store

OK, FAULTS, UNUSABLE = 0, 1, 2
_LISTED = 10  # faults that are printed; the tables of a run keep them all

out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)

ManifestArgument = Annotated[str, typer.Argument(help="Manifest: YAML, JSON, CSV or Parquet; a path or s3:// address.")]
RunArgument = Annotated[str, typer.Argument(help="Run id, as `blora status` lists it.")]
Root = Annotated[
    str,
    typer.Option("--root", help="The store: a folder or s3://bucket/prefix. Default: BLORA_ROOT, else ./blora-store."),
]
Preset = Annotated[str | None, typer.Option("--preset", help=f"{PRESET_NAMES}; replaces the manifest's.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A setting, e.g. train.steps=200. May be repeated.")]
OnFault = Annotated[str | None, typer.Option("--on-fault", help="record (default) or stop.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="A part: faults, content=NAME, style=NAME, seed=NUMBER. May be repeated."),
]
Devices = Annotated[str, typer.Option("--devices", help="auto, cpu, or cuda:0,cuda:1.")]
Shards = Annotated[
    str, typer.Option("--shards", help="here, or pool: as flow runs for the workers of the GPUs (see `blora deploy`).")
]
AllowRoot = Annotated[
    list[str] | None, typer.Option("--allow-root", help="A further folder or s3:// prefix that pictures may lie under.")
]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Do not wait for leases of other processes on this run's trainings: take them. For those who know that "
        "nobody is at work there.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show Prefect's log lines.")]


@contextmanager
def errors_shown() -> Iterator[None]:
    """Errors made for people are shown as such, without a traceback."""
    try:
        yield
    except RunRefused as error:
        show_faults(error.faults)
        err.print(f"refused: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(FAULTS) from error
    except (BloraError, ManifestsError, TaskError, ValueError) as error:
        err.print(f"{type(error).__name__}: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(UNUSABLE) from error


def open_store(root: str) -> Store:
    """Open the store that the user or the environment names."""
    from manifests.store.store import Store

    return Store.open(root or environment.store_root())


def parse_overrides(pairs: list[str] | None) -> dict[str, Any]:
    """``train.steps=200`` -> {"train": {"steps": 200}}; values are read as YAML."""
    nested: dict[str, Any] = {}
    for pair in pairs or []:
        path, equals, value = pair.partition("=")
        if not equals or not path:
            raise typer.BadParameter(f"--set: received {pair!r}; accepted: NAME=VALUE, e.g. train.steps=200")
        *groups, name = path.split(".")
        level: Any = nested
        for group in groups:
            level = level.setdefault(group, {})
            if not isinstance(level, dict):
                raise typer.BadParameter(
                    f"--set: {group} is set as a whole and {path} as a part of it; give one of them"
                )
        try:
            level[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"--set {path}: received {value!r}; accepted: a value as in YAML") from error
    return nested


def show_faults(faults: Any) -> None:
    """Print the first faults to standard error, a line each, and how many more there are."""
    listed = list(faults)
    for fault in listed[:_LISTED]:
        err.print(str(fault), style="yellow", markup=False, highlight=False)
    if (more := len(listed) - _LISTED) > 0:
        err.print(f"and {counted(more, 'more fault')}: correct these first", style="yellow", highlight=False)


def print_pairs(pairs: dict[str, str]) -> None:
    """Print names and values, values aligned."""
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        out.print(f"{name.ljust(width)}  {value}", markup=False, highlight=False)


def print_aligned(rows: list[tuple[str, ...]]) -> None:
    """Print rows as columns of their full width: a number that is cut off to fit a terminal is a wrong one."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.print(line.rstrip(), markup=False, highlight=False)


def print_table(head: tuple[str, ...], rows: Any) -> None:
    """Print a table with a head."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*head)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # as it is: [x] in a name is no markup
    out.print(table)
