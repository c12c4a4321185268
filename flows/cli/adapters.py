"""Commands about adapters as files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from flows.cli.console import OK, RUN_HELP, Commands, Root, complete_run, open_run, out

if TYPE_CHECKING:
    from blora.adapters.forms import Form

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Adapters as files for other programs.")

FormOption = Annotated[
    str,
    typer.Option(
        "--form", metavar="kohya|diffusers|peft", help="kohya (ComfyUI, A1111, Forge, kohya), diffusers or peft."
    ),
]


@app.callback()
def adapter() -> None:
    """Adapters as files for other programs."""


@app.command("export")
def export_adapter(
    target: Annotated[
        str, typer.Argument(metavar="FILE", help="The .safetensors file to write; for --form peft a folder.")
    ],
    content: Annotated[
        list[str] | None,
        typer.Option("--content", metavar="NAME", help="A content, or NAME=STRENGTH. May be repeated: a mix."),
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option("--style", metavar="NAME", help="A style, or NAME=STRENGTH. May be repeated: a mix."),
    ] = None,
    run_id: Annotated[
        str,
        typer.Option(
            "--run",
            metavar="RUN",
            autocompletion=complete_run,
            help=f"The run whose names these are; without it they are files. {RUN_HELP}",
        ),
    ] = "",
    form: FormOption = "kohya",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What programs show; the file's own name by default.")
    ] = "",
    only_blocks: Annotated[
        bool, typer.Option("--only-blocks", help="Take the two blocks' attention out of files that hold more.")
    ] = False,
    root: Root = "",
) -> None:
    """Write one adapter file for ComfyUI, A1111, Forge, kohya, diffusers or PEFT: a content, a style or both.

    Strengths and mixes are in the weights, so that the file is loaded at strength 1.

    Examples: `blora adapter export cat-in-waves.safetensors --run RUN --content cat --style wave=0.8` ·
    `blora adapter export blend.safetensors --style a.safetensors=0.5 --style b.safetensors=0.5`
    """
    from blora.adapters.forms import fits_flux, fits_sdxl
    from tasks.closing.adapter_files import asked, write_one

    of = open_run(root, run_id) if run_id else None
    sides = asked(content or [], style or [])
    written, whole = write_one(sides, target, cast("Form", form), name, of=of, only="blocks" if only_blocks else None)
    for path in written:
        out.print(str(path), markup=False, highlight=False)
    for key, names in whole.metadata.items():
        if key.rpartition(".")[2] == "dropped":
            out.print(f"left behind: {names}", markup=False, highlight=False)
    if not (fits_sdxl(whole.layers) or fits_flux(whole.layers)):
        out.print("not of SDXL's width: only the base that it was trained on can use it", highlight=False)
    raise typer.Exit(OK)
