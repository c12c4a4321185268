"""The `blora` command.

Exit codes: 0 all is well; 1 faults (refused rows, missing pictures); 2 the command could not run (usage, no such run,
no store). Heavy imports happen inside the commands: `blora --help` and `blora validate` do not wait for Prefect.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blora.errors import BloraError
from flows import cli_measure
from flows.console import (
    FAULTS,
    OK,
    AllowRoot,
    Devices,
    ManifestArgument,
    OnFault,
    Preset,
    Root,
    RunArgument,
    Set,
    Verbose,
    duration,
    err,
    errors_shown,
    open_store,
    out,
    parse_overrides,
    print_pairs,
    print_table,
    show_faults,
)
from flows.params import RunOptions
from tasks import environment
from tasks.faults import TaskError

if TYPE_CHECKING:
    from manifests.store import Store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help=(
        "B-LoRA in batches: train one adapter per picture, draw every content in every style, score each picture.\n\n"
        "**Start with**: `blora validate pairs.csv`, `blora plan pairs.csv`, `blora run pairs.csv`."
    ),
)


@app.command()
def validate(manifest: ManifestArgument, allow_root: AllowRoot = None, preset: Preset = None, set_: Set = None) -> None:
    """Check a manifest and its pictures; report every fault at once. Needs no store.

    Examples: `blora validate pairs.csv` · `blora validate s3://bucket/inbox/night.yaml --allow-root s3://bucket/pictures`
    """
    from blora.config import resolve
    from manifests.checks import check_images
    from manifests.faults import Fault
    from manifests.schema import load_manifest
    from tasks.plan import merge

    with errors_shown():
        loaded = load_manifest(manifest, allowed_roots=allow_root or ())
        faults = list(loaded.faults)
        if loaded.manifest is not None:
            try:
                resolve(preset or loaded.manifest.preset, merge(loaded.manifest.settings, parse_overrides(set_)))
            except BloraError as error:
                for one in getattr(error, "faults", ()):
                    faults.append(
                        Fault(
                            "settings", one.what, one.received, one.accepted, one.hint, file=manifest, field=one.field
                        )
                    )
            _, image_faults = check_images(loaded.manifest)
            faults += image_faults
    show_faults(faults)
    if loaded.manifest is not None:
        good = loaded.manifest
        out.print(
            f"{len(good.contents)} contents, {len(good.styles)} styles, {len(good.pairs)} pairs, {len(faults)} faults",
            highlight=False,
        )
    raise typer.Exit(FAULTS if faults else OK)


@app.command()
def plan(
    manifest: ManifestArgument,
    root: Root = "",
    preset: Preset = None,
    set_: Set = None,
    allow_root: AllowRoot = None,
) -> None:
    """Show what a run would do and cost: counts, what the store already has, seconds and bytes. Writes nothing.

    Examples: `blora plan pairs.csv` · `blora plan pairs.csv --preset paper --set train.steps=500 --root s3://bucket/art`
    """
    from manifests.schema import load_manifest
    from tasks.cost import estimate
    from tasks.plan import make_plan

    with errors_shown():
        store = open_store(root)
        loaded = load_manifest(manifest, allowed_roots=allow_root or ())
        draft = make_plan(store, loaded, preset=preset, overrides=parse_overrides(set_))
        cost = estimate(store, draft)
    show_faults(draft.plan.run.faults)
    print_pairs(
        {
            "run": draft.plan.run.run_id,
            "base": f"{draft.plan.run.base} @ {draft.plan.run.base_revision[:12]}",
            "adapters": f"{cost.adapters}, of which {cost.adapters_missing} to train in {_missing_packs(draft)} packs",
            "pictures": f"{cost.samples}, of which {cost.samples_missing} to draw",
            "time": f"{duration(cost.train_seconds)} training + {duration(cost.sample_seconds)} drawing on one slot",
            "gpu hours": f"{(cost.train_seconds + cost.sample_seconds) / 3600:.3f} slot hours",
            "bytes": f"{cost.bytes / 1e6:.1f} MB to be written",
            "basis": cost.basis,
        }
    )
    raise typer.Exit(FAULTS if draft.plan.run.faults else OK)


@app.command()
def run(
    manifest: ManifestArgument,
    root: Root = "",
    preset: Preset = None,
    set_: Set = None,
    on_fault: OnFault = None,
    devices: Devices = "auto",
    allow_root: AllowRoot = None,
    verbose: Verbose = False,
) -> None:
    """Work a manifest off: train, draw, score. What the store already has is not made again.

    Examples: `blora run manifests/examples/demo.yaml --root demo` · `blora run pairs.csv --preset paper --devices
    cuda:0,cuda:1`
    """
    options = {
        "root": root,
        "preset": preset,
        "overrides": parse_overrides(set_),
        "on_fault": on_fault,
        "devices": devices,
        "allowed_roots": tuple(allow_root or ()),
    }
    _run_flow("stylize", manifest, options, verbose)


@app.command()
def rerun(run_id: RunArgument, root: Root = "", devices: Devices = "auto", verbose: Verbose = False) -> None:
    """Do just what a run still lacks: failed trainings, missing or deleted pictures, missing scores.

    Examples: `blora rerun demo-3f2a9c01d4e5` · `blora rerun demo-3f2a9c01d4e5 --root s3://bucket/art`
    """
    _run_flow("rerun", run_id, {"root": root, "devices": devices}, verbose)


@app.command()
def status(run_id: Annotated[str, typer.Argument(help="Run id; none lists all runs.")] = "", root: Root = "") -> None:
    """How runs stand, by what the store holds: done, missing, faults with reasons.

    Examples: `blora status` · `blora status demo-3f2a9c01d4e5 --root demo`
    """
    from tasks.status import list_runs, run_status

    with errors_shown():
        store = open_store(root)
        if not run_id:
            print_table(("run", "state", "created", "outcome"), list_runs(store))
            raise typer.Exit(OK)
        state, stand = run_status(store, run_id)
    print_pairs({"run": stand.run_id, "state": state, "outcome": stand.sentence, "store": store.root})
    show_faults(stand.faults)
    raise typer.Exit(OK if stand.complete else FAULTS)


@app.command()
def scores(
    run_id: RunArgument,
    root: Root = "",
    sort: Annotated[str, typer.Option(help="Score to sort by; transfer where there is one.")] = "",
    best: Annotated[bool, typer.Option("--best", help="Best rows first; worst first otherwise.")] = False,
    where: Annotated[
        list[str] | None, typer.Option(help="content=NAME, style=NAME, seed=N, a score with < or >.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Rows to show; 0 shows all.")] = 0,
    format_: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
) -> None:
    """The score table of a run.

    Examples: `blora scores RUN --best --top 10` · `blora scores RUN --where style=wave --where "leakage_lite0>0.6"
    --format csv`
    """
    from tasks.runs import load_plan
    from tasks.score_table import render, score_table

    with errors_shown():
        store = open_store(root)
        kept = load_plan(store, run_id)
        rows = score_table(store, kept, sort=sort, best_first=best, where=where or ())
        text = render(rows[: top or None], format_)
    sys.stdout.write(text)
    raise typer.Exit(OK)


@app.command()
def export(
    run_id: RunArgument, folder: Annotated[str, typer.Argument(help="Folder to write to.")], root: Root = ""
) -> None:
    """Copy a run's pictures out under names a person reads (content__style__seed.png), with tables and contact sheet.

    Examples: `blora export demo-3f2a9c01d4e5 ./pictures` · `blora export RUN ./pictures --root s3://bucket/art`
    """
    from tasks.export import export_run

    with errors_shown():
        count, missing = export_run(open_store(root), run_id, folder)
    out.print(
        f"{count} pictures in {folder}" + (f"; {missing} are missing: blora rerun {run_id}" if missing else ""),
        highlight=False,
    )
    raise typer.Exit(FAULTS if missing else OK)


app.add_typer(cli_measure.app)


def main() -> None:
    """Entry point of the `blora` command."""
    app()


def _run_flow(name: str, subject: str, options: dict[str, Any], verbose: bool) -> None:
    """Run one of the two flows in this process with progress bars, then print its scores; ends the command."""
    environment.quiet_prefect(verbose)
    from flows import stylize as flows
    from flows.terminal import Bars
    from tasks import progress

    with errors_shown():
        chosen = RunOptions.model_validate(options)
        store = open_store(chosen.root)
        environment.devices(chosen.devices)
        bars = Bars(err, store)
        with progress.watching(bars), bars:
            flow = flows.stylize if name == "stylize" else flows.rerun
            state = flow(subject, chosen, return_state=True)
        ended = state.result(raise_on_failure=False)
        error = ended if isinstance(ended, Exception) else None
        if error is None and not bars.run_id:
            error = TaskError(state.message or "the flow did not start")
        if error is not None:
            raise error
    _report(store, bars.run_id)


def _report(store: Store, run_id: str) -> None:
    """What a run leaves on the terminal: scores, faults, where everything lies; ends the command."""
    from tasks.runs import load_plan
    from tasks.score_table import render, score_table
    from tasks.status import run_status

    _, stand = run_status(store, run_id)
    rows = score_table(store, load_plan(store, run_id))
    if rows:
        sys.stdout.write(render(rows[:40], "table"))
    show_faults(stand.faults)
    print_pairs(
        {
            "run": run_id,
            "outcome": stand.sentence,
            "contact sheet": f"{store.root}/runs/{run_id}/report/contact_sheet.png",
        }
    )
    raise typer.Exit(OK if stand.complete else FAULTS)


def _missing_packs(draft: Any) -> int:
    return sum(any(a.adapter_id not in draft.held.adapters for a in pack.adapters) for pack in draft.plan.packs)


if __name__ == "__main__":
    main()
