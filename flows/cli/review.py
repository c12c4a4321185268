"""Commands for looking at what was made: pages, decisions, comparisons, nights over time."""

from __future__ import annotations

import webbrowser
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from flows.cli.adapters import FormOption
from flows.cli.console import (
    FAULTS,
    LOOK,
    OK,
    RUN_HELP,
    Root,
    RunArgument,
    complete_run,
    err,
    open_run,
    open_to_read,
    out,
    print_aligned,
    print_pairs,
    refuse_empty,
)
from manifests.errors import counted
from manifests.store.address import is_bucket

if TYPE_CHECKING:
    from blora.adapters.forms import Form
    from manifests.store.store import Store

app = typer.Typer()

Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser; of a bucket, a copy is made.")]


@app.command(rich_help_panel=LOOK)
def report(
    run_id: Annotated[
        str, typer.Argument(metavar="RUN", help=f"{RUN_HELP} None with --nights.", autocompletion=complete_run)
    ] = "",
    root: Root = "",
    nights: Annotated[
        int,
        typer.Option(
            "--nights",
            min=0,
            metavar="NUMBER",
            help="Instead of a run: yield, scores, cost and faults of so many nights.",
        ),
    ] = 0,
    out_: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Write a copy with all that it shows into this folder, or s3://bucket/folder, instead.",
            callback=refuse_empty,
        ),
    ] = "",
    open_: Open = False,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Whether a copy holds the pictures in full size.")
    ] = True,
) -> None:
    """Write the page of a run again, or a copy of it to take away; or the page about nights over time.

    With --nights, the exit code is 1 where the last night's scores fall out of the band of the nights before.

    Examples: `blora report RUN --open` · `blora report RUN --out ./for-ada --no-pictures` · `blora report --nights 30
    --root s3://bucket/art`
    """
    if bool(run_id) == bool(nights):
        raise ValueError("report: give a run id, or --nights NUMBER, and not both")
    if nights:
        if out_:
            raise ValueError("report: --out copies the page of a run, and does not go with --nights")
        alarms = _report_nights(open_to_read(root), nights, open_)
        raise typer.Exit(FAULTS if alarms else OK)
    store, run_id = open_run(root, run_id)
    _report_run(store, run_id, out_, open_, pictures)
    raise typer.Exit(OK)


@app.command(rich_help_panel=LOOK)
def review(
    run_id: RunArgument,
    decisions: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="The file that the page exported; a path or s3:// address.", callback=refuse_empty
        ),
    ],
    root: Root = "",
) -> None:
    """Record what a reviewer marked on the page of a run: keep, reject, redo.

    Of several marks on one picture the last one counts. For each picture to be redone the run gets a further one of the
    same pair with another seed, which `blora rerun` draws; the old picture stays.

    Examples: `blora review RUN RUN.decisions.json` · `blora review RUN ./ada.json --root s3://bucket/art`
    """
    from tasks.closing.reviewing import take_review
    from tasks.review.decisions import load_marks, read_marks
    from tasks.run.plan import load_plan

    store, run_id = open_run(root, run_id)
    plan = load_plan(store, run_id)
    marks = read_marks(decisions, plan)
    added = take_review(store, plan, marks)
    standing = Counter(mark.decision for mark in load_marks(store, run_id).values())
    lines = {
        "read": f"{len(marks)} decisions",
        "standing": f"{standing['keep']} kept, {standing['reject']} rejected, {standing['redo']} redone",
    }
    if added:
        lines["next"] = f"blora rerun {run_id} draws {counted(len(added), 'picture')} with new seeds"
    print_pairs(lines)
    raise typer.Exit(OK)


@app.command(rich_help_panel=LOOK)
def serve(
    run_id: Annotated[
        str, typer.Argument(metavar="RUN", help=f"{RUN_HELP} None: a list of all pages.", autocompletion=complete_run)
    ] = "",
    root: Root = "",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port of this machine; 0 takes any free one.")
    ] = 8421,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show the store's pages on this machine, where decisions are saved into the store without a file; Ctrl-C ends it.

    Only this machine can reach them (127.0.0.1), and only by the address that is printed, which has a secret in it.

    Examples: `blora serve RUN --open` · `blora serve --root s3://bucket/art --port 0`
    """
    from tasks.closing.page_server import PageServer
    from tasks.report.run_page import write_report
    from tasks.run.plan import load_plan

    store, run_id = open_run(root, run_id) if run_id else (open_to_read(root), "")
    if run_id:
        write_report(store, load_plan(store, run_id))
    server = PageServer(store, port)
    page = server.page(run_id) if run_id else server.address
    with suppress(KeyboardInterrupt):  # is how it ends, whether the server hears of it or has not begun to listen
        out.print(page, markup=False, highlight=False)
        if open_ and not webbrowser.open(page):
            err.print("no browser was found on this machine: open the address above", markup=False, highlight=False)
        server.serve()
    raise typer.Exit(OK)


@app.command(rich_help_panel=LOOK)
def export(
    run_id: RunArgument,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Folder to write to, or s3://bucket/folder.", callback=refuse_empty)
    ],
    root: Root = "",
    kept: Annotated[bool, typer.Option("--kept", help="Only pictures that a review says to keep.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Only the best of the candidates of each picture.")] = False,
    mp4: Annotated[
        bool, typer.Option("--mp4", help="Clips also as MP4, where the program ffmpeg is installed.")
    ] = False,
    adapters: Annotated[
        bool, typer.Option("--adapters", help="Also each adapter, as a file for other programs.")
    ] = False,
    form: FormOption = "kohya",
) -> None:
    """Copy a run's pictures out under names a person reads (content__style__seed.png), with tables and contact sheet.

    Clips come as animated GIFs beside their frames (clip__style__seed.gif).

    Examples: `blora export demo-3f2a9c01d4e5 ./pictures` · `blora export RUN ./delivery --best --root s3://bucket/art`
    · `blora export RUN ./film --mp4` · `blora export RUN ./loras --adapters`
    """
    from tasks.closing.adapter_files import export_adapters
    from tasks.closing.export import FilmError, export_clips, export_films, export_run

    store, run_id = open_run(root, run_id)
    count, missing = export_run(store, run_id, folder, kept=kept, best=best)
    clips = export_clips(store, run_id, folder, kept=kept)
    files = export_adapters(store, run_id, folder, cast("Form", form)) if adapters else []
    try:
        films = export_films(store, run_id, folder, clips) if mp4 and clips else []
    except FilmError as error:  # MP4 is an extra: what was asked for besides is there
        films = []
        err.print(str(error), style="yellow", markup=False, highlight=False)
    for path in (*clips, *films, *files):
        out.print(path, markup=False, highlight=False)
    out.print(
        f"{counted(count, 'picture')} in {folder}"
        + (f"; {missing} are missing: blora rerun {run_id}" if missing else ""),
        highlight=False,
    )
    raise typer.Exit(FAULTS if missing else OK)


@app.command(rich_help_panel=LOOK)
def compare(
    run_a: Annotated[
        str,
        typer.Argument(metavar="RUN_A", help=f"The run that is compared with. {RUN_HELP}", autocompletion=complete_run),
    ],
    run_b: Annotated[
        str, typer.Argument(metavar="RUN_B", help="The run whose difference is told.", autocompletion=complete_run)
    ],
    root: Root = "",
    open_: Open = False,
) -> None:
    """The same pairs under two settings: paired differences of every score with 95 % intervals, tables and a page.

    Pairs have the same content images, style images and seed in both runs.

    Examples: `blora compare RUN_A RUN_B` · `blora compare RUN_A RUN_B --open --root s3://bucket/art`
    """
    from tasks.report.comparison import compare as compare_runs
    from tasks.report.comparison_page import write_comparison

    store, run_a = open_run(root, run_a)
    _, run_b = open_run(root, run_b)
    comparison = compare_runs(store, run_a, run_b)
    page = f"{store.root}/{write_comparison(store, comparison)}"
    rows = [
        (
            difference.score + (" (low is good)" if difference.lower_is_better else ""),
            f"{difference.mean_a:.4g}",
            f"{difference.mean_b:.4g}",
            f"{difference.difference:+.4g}",
            "-"
            if difference.low is None or difference.high is None
            else f"{difference.low:+.4g} to {difference.high:+.4g}",
            str(difference.pairs),
            difference.verdict,
        )
        for difference in comparison.differences
    ]
    print_aligned([("score", "a", "b", "b - a", "95 % interval", "pairs", "verdict"), *rows])
    for name, reason in comparison.left_out.items():
        out.print(f"{name} is not compared: {reason}", markup=False, highlight=False)
    if comparison.alone_a or comparison.alone_b:
        out.print(
            f"without counterpart: {counted(comparison.alone_a, 'picture')} of a, {comparison.alone_b} of b",
            highlight=False,
        )
    out.print(page, markup=False, highlight=False)
    if open_:
        _open(page)
    raise typer.Exit(OK)


def _report_nights(store: Store, last: int, open_: bool) -> int:
    """Write the report about nights; returns how many alarms the last one has."""
    from tasks.report.trends_page import write_nights

    key, alarms = write_nights(store, last)
    page = f"{store.root}/{key}"
    for (name, _), point in alarms:
        band = f"{point.low:.4g} to {point.high:.4g}"
        err.print(
            f"{point.date}: {name} {point.value:.4g} is {point.alarm} than the nights before ({band})",
            style="yellow",
            markup=False,
            highlight=False,
        )
    out.print(page, markup=False, highlight=False)
    if open_:
        _open(page)
    return len(alarms)


def _report_run(store: Store, run_id: str, folder: str, open_: bool, pictures: bool) -> None:
    """Write the page into the store, or a copy into a folder: then the store is only read."""
    from tasks.report.run_page import copy_report, write_report
    from tasks.run.plan import load_plan

    if not folder:
        page = f"{store.root}/{write_report(store, load_plan(store, run_id))}"
        folder = f"{run_id}-report" if open_ and is_bucket(page) else ""
    if folder:
        page = copy_report(store, run_id, folder, pictures=pictures)
    out.print(page, markup=False, highlight=False)
    if open_:
        _open(page)


def _open(page: str) -> None:
    """Open a page, which must lie on this machine."""
    if is_bucket(page):
        raise ValueError(f"--open: a browser cannot open {page}; open it where the bucket is served")
    if not webbrowser.open(Path(page).resolve().as_uri()):
        raise ValueError(f"--open: no browser was found on this machine; the page is {page}")
