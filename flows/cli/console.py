"""What the commands share: options, exit codes, and how errors and tables reach the terminal."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from typer.core import TyperGroup

from blora.errors import BloraError
from manifests.errors import ManifestsError, PermanentStoreError, counted, printable
from manifests.faults import Fault
from manifests.faults import told as told_faults
from manifests.notes import Note, told
from manifests.parsing.fault_list import shown
from manifests.schema.fields import PresetName
from tasks import environment
from tasks.devices import devices_here
from tasks.errors import RunRefused, TaskError

if TYPE_CHECKING:
    from manifests.store.store import Store

Options = TypeVar("Options", bound=BaseModel)

OK, FAULTS, UNUSABLE = 0, 1, 2
_MANY, _LISTED = 100, 10  # of more faults than the first, only the second are printed; a run's tables keep them all

out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)


def refuse_empty(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Refuse a path that was given as nothing, as an unset variable of a script is: no default stands for it."""
    is_given = str(context.get_parameter_source(str(parameter.name))).endswith("COMMANDLINE")
    if is_given and "" in (value if isinstance(value, list | tuple) else [str(value)]):
        raise ValueError(
            f"{parameter.opts[0]}: received ''; accepted: a path or s3:// address; leave it out, or name one"
        )
    return value


def complete_run(context: typer.Context, incomplete: str) -> list[str]:
    """Return what may stand for a run and begins so, for a shell."""
    from tasks.run.which import names_nearby

    return names_nearby(context.params.get("root") or environment.store_root(), incomplete)


def complete_preset(incomplete: str) -> list[str]:
    """Return the presets that begin so, for a shell."""
    return [name for name in get_args(PresetName) if name.startswith(incomplete)]


def complete_setting(incomplete: str) -> list[str]:
    """Return the settings that begin so, for a shell."""
    from blora.settings.catalogue import catalogue

    return [f"{entry.path}=" for entry in catalogue() if entry.path.startswith(incomplete)]


MAKE, LOOK, NIGHTS, RESEARCH = "Make", "Look", "Nights", "Research"
"""Panels of the help."""

ManifestArgument = Annotated[
    str,
    typer.Argument(
        metavar="MANIFEST",
        help="Manifest: YAML, JSON, CSV, JSON Lines or Parquet; a path or s3:// address.",
        callback=refuse_empty,
    ),
]
RUN_HELP = "A run: its id, the beginning of one, its manifest's name, or latest."
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP, autocompletion=complete_run)]
Root = Annotated[
    str,
    typer.Option(
        "--root",
        metavar="PLACE",
        help="The store: a folder or s3://bucket/prefix. Default: BLORA_ROOT, else ./blora-store.",
        callback=refuse_empty,
    ),
]
Base = Annotated[
    str,
    typer.Option(
        "--base",
        metavar="BASE",
        help="Replaces the manifest's base: sdxl, embedded, org/model@<40 hex digits>, a folder, a .safetensors file, "
        "or {model: ..., vae: ..., fuse: [...], quantize: ..., rest: ...}.",
    ),
]
BaseOf = Annotated[
    str, typer.Option("--base", metavar="BASE", help="The base model, in any form that a manifest may name.")
]
_PRESETS = "|".join(get_args(PresetName))
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar=_PRESETS,
        help="Settings to start from, in place of the manifest's; `blora presets` shows them.",
        autocompletion=complete_preset,
    ),
]
PresetOf = Annotated[
    str,
    typer.Option("--preset", metavar=_PRESETS, help="Settings to start from.", autocompletion=complete_preset),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting, e.g. train.steps=200; `blora settings` lists them. May be repeated.",
        autocompletion=complete_setting,
    ),
]
OnFault = Annotated[
    str | None,
    typer.Option("--on-fault", metavar="record|stop", help="What a failed item does: record (default), stop."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only", metavar="PART", help="A part: faults, content=NAME, style=NAME, seed=NUMBER. May be repeated."
    ),
]
Devices = Annotated[str, typer.Option("--devices", metavar="DEVICES", help="auto, cpu, or cuda:0,cuda:1.")]
Shards = Annotated[
    str,
    typer.Option(
        "--shards",
        metavar="here|pool",
        help="here, or pool: as flow runs for the workers of the GPUs (see `blora deploy`).",
    ),
]
AllowRoot = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-root",
        metavar="PLACE",
        help="A further folder or s3:// prefix that pictures may lie under. May be repeated.",
        callback=refuse_empty,
    ),
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
def _errors_shown() -> Iterator[None]:
    """Errors made for people are shown as such, without a traceback."""
    try:
        yield
    except RunRefused as error:
        if len(error.faults) != 1:
            show_faults(error.faults)
        _say(f"refused: {error}" if len(error.faults) != 1 else str(error.faults[0]))
        # A command's own options are not used as they can be; what stands in a file is a fault of that.
        is_usage = error.faults and not any(fault.file for fault in error.faults)
        raise typer.Exit(UNUSABLE if is_usage else FAULTS) from error
    except ValidationError as error:  # of what the options of a flow may say
        for fault in _option_faults(error):
            _say(str(fault))
        raise typer.Exit(UNUSABLE) from error
    except (BloraError, ManifestsError, TaskError, ValueError) as error:
        _say(str(error))
        raise typer.Exit(UNUSABLE) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever reads our output has seen enough
            raise
        place = f"{printable(str(error.filename))}: " if error.filename else ""
        _say(f"{place}{error.strerror or error}; nothing can be read or written there: choose another place or mend it")
        raise typer.Exit(UNUSABLE) from error


def _option_faults(error: ValidationError) -> list[Fault]:
    faults = []
    for detail in error.errors():
        option = "--" + ".".join(str(part) for part in detail["loc"]).replace("_", "-")
        accepted = detail["msg"].removeprefix("Input should be ")
        faults.append(
            Fault("settings", f"{option}: received {shown(detail['input'])}; accepted: {accepted}", "", "", "")
        )
    return faults


def options_or_faults(model: type[Options], said: Mapping[str, Any]) -> tuple[Options, tuple[Fault, ...]]:
    """Return the options of a flow, without those that it does not take, and what is wrong with these."""
    try:
        return model.model_validate(said), ()
    except ValidationError as error:
        bad = {detail["loc"][0] for detail in error.errors()}
        good = {name: value for name, value in said.items() if name not in bad}
        return model.model_validate(good), tuple(_option_faults(error))


def devices_or_faults(
    asked: str, choose: Callable[[str], tuple[str, ...]] = devices_here
) -> tuple[tuple[str, ...], tuple[Fault, ...]]:
    """Return the devices that are asked for, or what keeps them from work."""
    try:
        return choose(asked), ()
    except ValueError as error:
        return (), (Fault("settings", str(error), "", "", ""),)


def _say(message: str) -> None:
    err.print(message, style="red", markup=False, highlight=False)


def without_python_types(params: list[Any]) -> list[Any]:
    """Have help show no Python type beside arguments and options that take no value; the same list."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
        elif param.param_type_name == "argument":  # whose Python type typer shows, and has no setting for it
            param.display_type_rich = lambda ctx: None
    return params


class Commands(TyperGroup):
    """The commands, each of which shows the errors that are made for people as such."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Find a command, whose help shows no Python types."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            without_python_types(command.get_params(ctx))
        return command

    def get_params(self, ctx: Any) -> Any:
        """Return the options that stand before a command, shown likewise."""
        return without_python_types(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run a command; its options are read in here, too."""
        with _errors_shown():
            return super().invoke(ctx)


def open_store(root: str) -> Store:
    """Open the store that the user or the environment names."""
    from manifests.store.store import Store

    try:
        return Store.open(root or environment.store_root())
    except PermanentStoreError as error:
        source = "--root" if root else "BLORA_ROOT"
        raise PermanentStoreError(f"{source}: {error.what}", error.received, error.accepted, error.hint) from error


def open_to_read(root: str) -> Store:
    """Open a store that is to be there already.

    Raises:
        NoStore: nothing lies there.
    """
    from tasks.run.which import require_store

    store = open_store(root)
    require_store(store)
    return store


def open_run(root: str, asked: str, *, is_told: bool = True) -> tuple[Store, str]:
    """Open a store and find the run that is meant.

    Args:
        root: as the user gave it.
        asked: the run, as the user named it.
        is_told: say which run it is where that was not said in full.

    Raises:
        NoStore: nothing lies there.
        RunNotFound: no run, or more than one, is meant.
    """
    from tasks.run.which import find_run

    store = open_store(root)
    run_id = find_run(store, asked)
    if is_told and run_id != asked:
        err.print(f"run {run_id}", style="dim", markup=False, highlight=False)
    return store, run_id


def show_faults(faults: Any, kept_at: str = "") -> None:
    """Print faults to standard error, a line for each reason; of too many, the first and the number of the others.

    Args:
        faults: the faults.
        kept_at: where all of them can be read; empty where they are kept nowhere.
    """
    every = told_faults(faults)
    listed = every if len(every) <= _MANY else every[:_LISTED]
    for line in listed:
        err.print(line, style="yellow", markup=False, highlight=False)
    if more := len(every) - len(listed):
        where = f"all are in {kept_at}" if kept_at else "correct these first"
        err.print(f"and {counted(more, 'more fault')}: {where}", style="yellow", markup=False, highlight=False)


def show_notes(notes: Iterable[Note]) -> None:
    """Print to standard error what there is to know of rows that are taken all the same, a line each."""
    for line in told(notes):
        err.print(f"note: {line}", style="dim", markup=False, highlight=False)


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
