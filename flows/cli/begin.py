"""The first commands: a manifest from folders of pictures."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import OK, Base, Preset, err, refuse_empty, show_faults, show_notes
from flows.cli.overrides import parse_base_option
from manifests.errors import counted
from manifests.store.address import local_path

app = typer.Typer()

_SOURCES = "a folder, a pattern in quotes ('photos/*.jpg') or a file. May be repeated."


@app.command()
def init(
    contents: Annotated[
        list[str], typer.Option("--contents", help=f"Pictures of things: {_SOURCES}", callback=refuse_empty)
    ],
    styles: Annotated[
        list[str], typer.Option("--styles", help=f"Pictures with a look: {_SOURCES}", callback=refuse_empty)
    ],
    base: Base = "",
    preset: Preset = None,
    out_: Annotated[
        str,
        typer.Option(
            "--out",
            help="The .yaml file to write; without it, standard output. Paths are relative to it, or to this folder.",
            callback=refuse_empty,
        ),
    ] = "",
) -> None:
    """Write a manifest of folders of pictures: every content in every style. Pictures that cannot be used are left out.

    Without --preset it is paper for a --base, and else demo: the small model that every machine can run.

    Examples: `blora init --contents photos/ --styles looks/ > night.yaml` · `blora init --contents 'photos/*.jpg'
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


def _redirected() -> str:
    """What standard output is redirected to, where that can be known."""
    try:
        target = Path(os.readlink("/proc/self/fd/1"))
    except OSError:
        return "MANIFEST"
    return shlex.quote(os.path.relpath(target)) if target.suffix in (".yaml", ".yml") else "MANIFEST"
