"""The first commands: a manifest from folders of pictures, and what may be set in one."""

from __future__ import annotations

import os
import shlex
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import MAKE, OK, Base, Preset, err, out, print_aligned, refuse_empty, show_faults, show_notes
from flows.cli.overrides import parse_base_option
from manifests.errors import counted
from manifests.store.address import local_path

app = typer.Typer()

_SOURCES = "a folder, a pattern in quotes ('photos/*.jpg') or a file. May be repeated."


def init(
    contents: Annotated[
        list[str],
        typer.Option("--contents", metavar="PICTURES", help=f"Pictures of things: {_SOURCES}", callback=refuse_empty),
    ],
    styles: Annotated[
        list[str],
        typer.Option("--styles", metavar="PICTURES", help=f"Pictures with a look: {_SOURCES}", callback=refuse_empty),
    ],
    base: Base = "",
    preset: Preset = None,
    out_: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The .yaml file to write; without it, standard output. Paths are relative to it, or to this folder.",
            callback=refuse_empty,
        ),
    ] = "",
) -> None:
    """Write a manifest of folders of pictures: every content in every style. Pictures that cannot be used are left out.

    Without --preset it is paper for a --base, and else demo: the small model that every machine can run.

    Examples: `blora init --contents photos/ --styles looks/ --out night.yaml` · `blora init --contents 'photos/*.jpg'
    --styles looks/ --base sdxl --preset draft --out night.yaml`
    """
    from tasks.operations.begin import begin

    path = local_path(out_) if out_ else None
    if path and path.suffix not in (".yaml", ".yml"):
        raise ValueError(f"--out: received {out_!r}; accepted: a name that ends in .yaml; correct it")
    if path and path.exists():
        raise ValueError(f"--out: received {out_!r}, which is there; accepted: a new name; choose one, or delete it")
    begun = begin(contents, styles, str(path.parent) if path else os.getcwd(), parse_base_option(base), preset or "")
    show_notes(begun.notes)
    show_faults(begun.left_out)
    if path:
        path.write_text(begun.text, "utf-8")
    else:
        sys.stdout.write(begun.text)
    counts = {"content": begun.contents, "style": begun.styles, "picture": begun.contents * begun.styles}
    told = ", ".join(counted(number, noun) for noun, number in counts.items())
    if begun.left_out:
        told += f"; {counted(len(begun.left_out), 'file')} left out"
    allow = "".join(f" --allow-root {shlex.quote(folder)}" for folder in begun.outside)
    manifest = shlex.quote(str(path)) if path else _redirected()
    err.print(f"{told}\nnext: blora plan {manifest}{allow}", markup=False, highlight=False)
    raise typer.Exit(OK)


@app.command(rich_help_panel=MAKE)
def presets() -> None:
    """Show the presets: what each is for, and the settings in which they differ.

    Examples: `blora presets` · `blora run night.yaml --preset draft`
    """
    from blora.settings.catalogue import differing
    from blora.settings.presets import PRESETS, PURPOSES

    print_aligned([(name, PURPOSES[name]) for name in PRESETS])
    out.print()
    print_aligned([("setting", *PRESETS), *((path, *values) for path, values in differing().items())])
    out.print("\nevery setting: blora settings; one set otherwise: --set train.steps=200", highlight=False)
    raise typer.Exit(OK)


@app.command(rich_help_panel=MAKE)
def settings(
    word: Annotated[
        str, typer.Argument(metavar="WORD", help="Only those with it in their name or meaning. None lists all.")
    ] = "",
) -> None:
    """List the settings: what each accepts, what it is where nobody says it, and what it means.

    A manifest has them under settings, a command takes them as `--set NAME=VALUE`.

    Examples: `blora settings` · `blora settings guidance` · `blora settings train.steps`
    """
    from blora.settings.catalogue import catalogue
    from manifests.parsing.records import suggest

    every = catalogue()
    found = [entry for entry in every if word.lower() in f"{entry.path} {entry.meaning}".lower()]
    if not found:
        near = suggest(word, tuple(entry.path for entry in every), "blora settings lists all")
        raise ValueError(f"settings: received {word!r}, which no setting has in its name or meaning; {near}")
    for entry in found:
        out.print(entry.path, style="bold", end="", markup=False, highlight=False)
        default = "nothing" if entry.default == "-" else entry.default
        out.print(f"  {entry.accepted}; by default {default}", markup=False, highlight=False)
        meaning = textwrap.fill(entry.meaning, out.width, initial_indent=" " * 4, subsequent_indent=" " * 4)
        out.print(meaning, markup=False, highlight=False)
    raise typer.Exit(OK)


def _redirected() -> str:
    """What standard output is redirected to, where that can be known."""
    try:
        target = Path(os.readlink("/proc/self/fd/1"))
    except OSError:
        return "MANIFEST"
    return shlex.quote(os.path.relpath(target)) if target.suffix in (".yaml", ".yml") else "MANIFEST"
