"""The `blora` command.

Exit codes: 0 all is well; 1 faults (refused rows, missing pictures); 2 the command could not run (usage, no such run,
no store). Heavy imports happen inside the commands: `blora --help` and `blora validate` do not wait for Prefect.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console

from blora.errors import BloraError
from flows.params import RunOptions
from manifests.errors import ManifestsError
from tasks import environment
from tasks.faults import RunRefused, TaskError

if TYPE_CHECKING:
    from manifests.store import Store

OK, FAULTS, UNUSABLE = 0, 1, 2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help=(
        "B-LoRA in batches: train one adapter per picture, draw every content in every style, score each picture.\n\n"
        "**Start with**: `blora validate pairs.csv`, `blora plan pairs.csv`, `blora run pairs.csv`."
    ),
)
out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)

ManifestArgument = Annotated[str, typer.Argument(help="Manifest: YAML, JSON, CSV or Parquet; a path or s3:// address.")]
RunArgument = Annotated[str, typer.Argument(help="Run id, as `blora status` lists it.")]
Root = Annotated[
    str,
    typer.Option("--root", help="The store: a folder or s3://bucket/prefix. Default: BLORA_ROOT, else ./blora-store."),
]
Preset = Annotated[str | None, typer.Option("--preset", help="demo, draft or paper; replaces the manifest's.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A setting, e.g. train.steps=200. May be repeated.")]
OnFault = Annotated[str | None, typer.Option("--on-fault", help="record (default) or stop.")]
Devices = Annotated[str, typer.Option("--devices", help="auto, cpu, or cuda:0,cuda:1.")]
AllowRoot = Annotated[
    list[str] | None, typer.Option("--allow-root", help="A further folder or s3:// prefix that pictures may lie under.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show Prefect's log lines.")]


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

    with _errors_shown():
        loaded = load_manifest(manifest, allowed_roots=allow_root or ())
        faults = list(loaded.faults)
        if loaded.manifest is not None:
            try:
                resolve(preset or loaded.manifest.preset, merge(loaded.manifest.settings, _overrides(set_)))
            except BloraError as error:
                for one in getattr(error, "faults", ()):
                    faults.append(
                        Fault(
                            "settings", one.what, one.received, one.accepted, one.hint, file=manifest, field=one.field
                        )
                    )
            _, image_faults = check_images(loaded.manifest)
            faults += image_faults
    _show_faults(faults)
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

    with _errors_shown():
        store = _store(root)
        loaded = load_manifest(manifest, allowed_roots=allow_root or ())
        draft = make_plan(store, loaded, preset=preset, overrides=_overrides(set_))
        cost = estimate(store, draft)
    _show_faults(draft.plan.run.faults)
    _print_pairs(
        {
            "run": draft.plan.run.run_id,
            "base": f"{draft.plan.run.base} @ {draft.plan.run.base_revision[:12]}",
            "adapters": f"{cost.adapters}, of which {cost.adapters_missing} to train in {_missing_packs(draft)} packs",
            "pictures": f"{cost.samples}, of which {cost.samples_missing} to draw",
            "time": f"{_duration(cost.train_seconds)} training + {_duration(cost.sample_seconds)} drawing on one slot",
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
        "overrides": _overrides(set_),
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

    with _errors_shown():
        store = _store(root)
        if not run_id:
            _print_table(("run", "state", "created", "outcome"), list_runs(store))
            raise typer.Exit(OK)
        state, stand = run_status(store, run_id)
    _print_pairs({"run": stand.run_id, "state": state, "outcome": stand.sentence, "store": store.root})
    _show_faults(stand.faults)
    raise typer.Exit(OK if stand.complete else FAULTS)


@app.command()
def scores(
    run_id: RunArgument,
    root: Root = "",
    sort: Annotated[str, typer.Option(help="Score to sort by.")] = "transfer",
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

    with _errors_shown():
        store = _store(root)
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

    with _errors_shown():
        count, missing = export_run(_store(root), run_id, folder)
    out.print(
        f"{count} pictures in {folder}" + (f"; {missing} are missing: blora rerun {run_id}" if missing else ""),
        highlight=False,
    )
    raise typer.Exit(FAULTS if missing else OK)


@app.command()
def probe(
    base: Annotated[
        str, typer.Option("--base", help="embedded, org/model@REVISION, or a diffusers folder, also of SD 1.5's shape.")
    ] = "embedded",
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Pairs of prompts of each kind (content, style).")] = 20,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Pictures for each pair and block.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of prompts, noise and bootstrap.")] = 0,
    prompts: Annotated[str, typer.Option("--prompts", help="CSV with the columns kind, p, q; replaces --pairs.")] = "",
    root: Root = "",
    preset: Preset = None,
    set_: Set = None,
    devices: Devices = "auto",
    verbose: Verbose = False,
) -> None:
    """The paper's block analysis: which block of a base answers to the object, which to the look.

    Examples: `blora probe --base embedded --pairs 20 --root demo` · `blora probe --base ./sdxl --prompts pairs.csv
    --seeds 4 --devices cuda:0,cuda:1` · `blora probe --base ./sd15 --set sample.steps=25 --set sample.precision=fp32`
    """
    options = {
        "root": root,
        "pairs": pairs,
        "seeds": seeds,
        "seed": seed,
        "prompts": prompts,
        "preset": preset,
        "overrides": _overrides(set_),
        "devices": devices,
    }
    environment.quiet_prefect(verbose)
    from flows.analyze import analyze
    from flows.params import ProbeOptions
    from flows.terminal import ProbeBar
    from tasks import progress

    with _errors_shown():
        chosen = ProbeOptions.model_validate(options)
        store = _store(chosen.root)
        bar = ProbeBar(err)
        with progress.watching(bar), bar:
            state = analyze(base, chosen, return_state=True)
        ended = state.result(raise_on_failure=False)
        if isinstance(ended, Exception):
            raise ended
    _report_probe(store, bar.probe_id)


@app.command()
def bench(
    folder: Annotated[str, typer.Argument(help="Folder for tables, report and trained adapters.")],
    split: Annotated[str, typer.Option(help="validation (to choose settings by) or test (to report).")] = "validation",
    pairs: Annotated[int, typer.Option(min=1, help="At least so many pairs; the grid is completed.")] = 200,
    rows: Annotated[str, typer.Option(help="Some rows only, such as blora,prompt; the real drawings always.")] = "",
    base: Annotated[str, typer.Option(help="embedded, a folder, or org/model@revision.")] = "embedded",
    preset: Annotated[str, typer.Option("--preset", help="demo, draft or paper.")] = "demo",
    set_: Set = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda:0.")] = "cpu",
) -> None:
    """Measure B-LoRA and its rivals where the truth is drawn: one thing by one hand, asked for as another drew it.

    What lies in the folder's `adapters/` is not trained again.

    Examples: `blora bench out --pairs 16 --rows blora,style` · `blora bench out --split test --set
    sample.guidance_scale=2`
    """
    from flows.bench import run
    from flows.terminal import Steps

    with _errors_shown(), Steps(err) as steps:
        if split not in ("validation", "test"):
            raise ValueError(f"--split: received {split!r}; accepted: validation, test")
        asked = [row.strip() for row in rows.split(",") if row.strip()]
        written = run(folder, split, pairs, asked, base, preset, _overrides(set_), device, steps)
    out.print(written, markup=False, highlight=False)
    raise typer.Exit(OK)


def main() -> None:
    """Entry point of the `blora` command."""
    app()


def _run_flow(name: str, subject: str, options: dict[str, Any], verbose: bool) -> None:
    """Run one of the two flows in this process with progress bars, then print its scores; ends the command."""
    environment.quiet_prefect(verbose)
    from flows import stylize as flows
    from flows.terminal import Bars
    from tasks import progress

    with _errors_shown():
        chosen = RunOptions.model_validate(options)
        store = _store(chosen.root)
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
    _show_faults(stand.faults)
    _print_pairs(
        {
            "run": run_id,
            "outcome": stand.sentence,
            "contact sheet": f"{store.root}/runs/{run_id}/report/contact_sheet.png",
        }
    )
    raise typer.Exit(OK if stand.complete else FAULTS)


def _report_probe(store: Store, probe_id: str) -> None:
    """What a probe leaves on the terminal: gains, the proposal, where everything lies; ends the command."""
    from tasks.probe_report import proposal_lines
    from tasks.probes import finish, load_probe

    summary = finish(store, load_probe(store, probe_id))
    for kind, found in summary.kinds.items():
        rows = [(one.block, str(one.gain), f"{one.best_in:.0%}") for one in found.blocks]
        _print_table((f"{kind}: {found.pairs} pairs", "gain, 95 % interval", "best in"), rows)
    for line in proposal_lines(summary):
        out.print(line.replace("**", ""), markup=False, highlight=False)
    _print_pairs({"probe": probe_id, "chart": f"{store.root}/probes/{probe_id}/blocks.png"})
    raise typer.Exit(OK)


@contextmanager
def _errors_shown() -> Iterator[None]:
    """Errors made for people are shown as such, without a traceback."""
    try:
        yield
    except RunRefused as error:
        _show_faults(error.faults)
        err.print(f"refused: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(FAULTS) from error
    except (BloraError, ManifestsError, TaskError, ValueError) as error:
        err.print(f"{type(error).__name__}: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(UNUSABLE) from error


def _store(root: str) -> Store:
    from manifests.store import Store

    return Store.open(root or environment.store_root())


def _overrides(pairs: list[str] | None) -> dict[str, Any]:
    """``train.steps=200`` -> {"train": {"steps": 200}}; values are read as YAML."""
    nested: dict[str, Any] = {}
    for pair in pairs or []:
        path, found, value = pair.partition("=")
        if not found or not path:
            raise typer.BadParameter(f"--set: received {pair!r}; accepted: NAME=VALUE, e.g. train.steps=200")
        *groups, name = path.split(".")
        level = nested
        for group in groups:
            level = level.setdefault(group, {})
        level[name] = yaml.safe_load(value)
    return nested


def _show_faults(faults: Any) -> None:
    for fault in faults:
        err.print(str(fault), style="yellow", markup=False, highlight=False)


def _missing_packs(draft: Any) -> int:
    return sum(any(a.adapter_id not in draft.held.adapters for a in pack.adapters) for pack in draft.plan.packs)


def _print_pairs(pairs: dict[str, str]) -> None:
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        out.print(f"{name.ljust(width)}  {value}", markup=False, highlight=False)


def _print_table(head: tuple[str, ...], rows: Any) -> None:
    from rich.table import Table

    table = Table(*head)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    out.print(table)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main()
