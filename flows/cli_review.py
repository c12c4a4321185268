"""Commands for looking at what was made: pages, decisions, comparisons, nights over time."""

from __future__ import annotations

import webbrowser
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.console import OK, Root, RunArgument, errors_shown, open_store, out, print_pairs

if TYPE_CHECKING:
    from manifests.store import Store

app = typer.Typer()

Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser; of a bucket, a copy is made.")]


@app.command()
def report(
    run_id: RunArgument,
    root: Root = "",
    out_: Annotated[str, typer.Option("--out", help="Write a copy with all that it shows into this folder.")] = "",
    open_: Open = False,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Whether a copy holds the pictures in full size.")
    ] = True,
) -> None:
    """Write the page of a run again, or a copy of it to take away.

    Examples: `blora report RUN --open` · `blora report RUN --out ./for-ada --no-pictures --root s3://bucket/art`
    """
    with errors_shown():
        _report_run(open_store(root), run_id, out_, open_, pictures)
    raise typer.Exit(OK)


@app.command()
def review(
    run_id: RunArgument,
    decisions: Annotated[str, typer.Argument(help="The file that the page exported; a path or s3:// address.")],
    root: Root = "",
) -> None:
    """Record what a reviewer marked on the page of a run: keep, reject, redo.

    Of several marks on one picture the last one counts. For each picture to be redone the run gets a further one of the
    same pair with another seed, which `blora rerun` draws; the old picture stays.

    Examples: `blora review RUN RUN.decisions.json` · `blora export RUN ./delivery --kept`
    """
    from tasks.review.decisions import load_marks, read_marks
    from tasks.review.redo import record_review
    from tasks.review.report import write_report
    from tasks.runs import load_plan

    with errors_shown():
        store = open_store(root)
        plan = load_plan(store, run_id)
        marks = read_marks(decisions, plan)
        added = record_review(store, plan, marks)
        write_report(store, load_plan(store, run_id))
        standing = Counter(mark.decision for mark in load_marks(store, run_id).values())
    lines = {
        "read": f"{len(marks)} decisions",
        "standing": f"{standing['keep']} kept, {standing['reject']} rejected, {standing['redo']} redone",
    }
    if added:
        lines["next"] = f"blora rerun {run_id} draws {len(added)} pictures with new seeds"
    print_pairs(lines)
    raise typer.Exit(OK)


def _report_run(store: Store, run_id: str, folder: str, open_: bool, pictures: bool) -> None:
    from tasks.review.report import copy_report, write_report
    from tasks.runs import load_plan

    page = f"{store.root}/{write_report(store, load_plan(store, run_id))}"
    if not folder and open_ and store.root.startswith("s3://"):
        folder = f"{run_id}-report"
    if folder:
        page = str(copy_report(store, run_id, folder, pictures=pictures))
    out.print(page, markup=False, highlight=False)
    if open_:
        _open(page)


def _open(page: str) -> None:
    if not webbrowser.open(Path(page).resolve().as_uri()):
        raise ValueError(f"--open: no browser was found on this machine; the page is {page}")
