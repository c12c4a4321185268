"""The `blora` command.

Exit codes: 0 all is well; 1 faults (refused rows, missing pictures); 2 the command could not run (usage, no such run,
no store). Heavy imports happen inside the commands: `blora --help` and `blora validate` do not wait for Prefect.
"""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import adapters, begin, measure, operate, review
from flows.cli.console import (
    FAULTS,
    LOOK,
    MAKE,
    OK,
    AllowRoot,
    Base,
    Commands,
    Devices,
    ManifestArgument,
    OnFault,
    Only,
    Preset,
    Root,
    RunArgument,
    Set,
    Shards,
    TakeOver,
    Verbose,
    devices_or_faults,
    err,
    open_store,
    options_or_faults,
    out,
    print_pairs,
    show_faults,
    show_notes,
)
from flows.cli.overrides import parse_base_option, parse_overrides
from manifests.errors import counted
from tasks import environment
from tasks.devices import ready_devices

if TYPE_CHECKING:
    from manifests.store.store import Store

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help=(
        "B-LoRA in batches: train one adapter per picture, draw every content in every style, score each picture.\n\n"
        "**Start with** folders of pictures: `blora init --contents photos/ --styles looks/ --out kitchen.yaml`, "
        "`blora plan kitchen.yaml`, `blora run kitchen.yaml`, `blora serve latest --open`."
    ),
)


def _told_version(is_asked: bool) -> None:
    """Say the version of this package and of those that make the pictures; read without importing any."""
    if is_asked:
        import platform
        from importlib.metadata import version

        of = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "prefect"))
        out.print(f"blora {version('blora-pipeline')} ({of}, Python {platform.python_version()})", highlight=False)
        raise typer.Exit(OK)


@app.callback()
def blora(
    version: Annotated[
        bool, typer.Option("--version", help="Say the version and end.", is_eager=True, callback=_told_version)
    ] = False,
) -> None:
    """See the help of the app: it stands above."""


app.command(rich_help_panel=MAKE)(begin.init)  # the first of a panel stands first in it


@app.command(rich_help_panel=MAKE)
def validate(
    manifest: ManifestArgument, allow_root: AllowRoot = None, base: Base = "", preset: Preset = None, set_: Set = None
) -> None:
    """Check a manifest and its pictures; report every fault at once. Needs no store.

    Examples: `blora validate pairs.csv` · `blora validate s3://bucket/inbox/night.yaml --allow-root s3://bucket/pictures`
    """
    from manifests.loading.load import load_manifest
    from tasks.planning.make import survey

    loaded = load_manifest(manifest, allowed_roots=allow_root or ())
    found = survey(loaded, parse_base_option(base), preset, parse_overrides(set_))
    asked = found.asked_for()
    faults = (*found.refused, *found.faults, *(asked.faults if asked else ()))
    show_notes((*found.notes, *(asked.notes if asked else ())))
    show_faults(faults)
    if loaded.manifest is not None:
        counts = {"content": len(found.manifest.contents), "style": len(found.manifest.styles)}
        counts |= {"pair": asked.pairs, "picture": len(asked.samples)} if asked else {"pair": len(found.manifest.pairs)}
        counts["fault"] = len(faults)
        out.print(", ".join(counted(some, noun) for noun, some in counts.items()), highlight=False)
    raise typer.Exit(FAULTS if faults else OK)


@app.command(rich_help_panel=MAKE)
def plan(
    manifest: ManifestArgument,
    root: Root = "",
    base: Base = "",
    preset: Preset = None,
    set_: Set = None,
    devices: Devices = "auto",
    shards: Shards = "here",
    allow_root: AllowRoot = None,
) -> None:
    """Show what a run would do and cost: counts, what the store already has, seconds and bytes. Writes nothing.

    Examples: `blora plan pairs.csv` · `blora plan pairs.csv --base sdxl --set train.steps=500 --root s3://bucket/art`
    """
    from manifests.loading.load import load_manifest
    from tasks.devices import devices_told, gpu_name
    from tasks.memory import front_pool_told, memory_told
    from tasks.planning.cost import estimate
    from tasks.planning.make import make_plan, survey
    from tasks.words import roughly, seconds_in_words

    store, elsewhere = open_store(root), shards == "pool"
    here, refused = ((), ()) if elsewhere else devices_or_faults(devices)
    loaded = load_manifest(manifest, allowed_roots=allow_root or ())
    found = survey(loaded, parse_base_option(base), preset, parse_overrides(set_), refused)
    draft = make_plan(store, found, devices="" if elsewhere else devices)
    settings = draft.plan.run.settings
    cost = estimate(store, draft.plan, draft.held, here, gpu := gpu_name(here))
    told = memory_told(draft.plan.run.base, settings, here)
    fronts = front_pool_told(draft.plan.run.base, settings.train)
    show_notes(draft.notes)
    show_faults(draft.plan.run.faults)
    parts = {"training": cost.train_seconds, "drawing": cost.sample_seconds, "scoring": cost.score_seconds}
    told_parts = [f"{seconds_in_words(seconds)} {work}" for work, seconds in parts.items()]
    besides = f"{seconds_in_words(cost.other_seconds)} start and end"
    packs = counted(_missing_packs(draft), "pack")
    print_pairs(
        {
            "run": draft.plan.run.run_id,
            "base": f"{draft.plan.run.base} @ {draft.plan.run.base_revision[:12]}",
            "adapters": f"{cost.adapters}, of which {cost.adapters_missing} to train in {packs}",
            "packs": _packs_said(draft, elsewhere),
            "device": "GPUs of the pool, not known here" if elsewhere else devices_told(here, gpu, devices != "auto"),
            **({"memory": told} if told else {}),
            **({"front pool": fronts} if fronts else {}),
            "pictures": f"{cost.samples}, of which {cost.samples_missing} to draw",
            "time": f"{roughly(cost.seconds)} on {counted(cost.slots, 'slot')}: {' + '.join([*told_parts, besides])}"
            if cost.slot_seconds
            else "no training and no picture is missing",
            "slot hours": f"{cost.slot_seconds / 3600:.3f}",
            "bytes": f"{cost.bytes / 1e6:.1f} MB to be written",
            "basis": cost.basis,
        }
    )
    raise typer.Exit(FAULTS if draft.plan.run.faults else OK)


@app.command(rich_help_panel=MAKE)
def run(
    manifest: ManifestArgument,
    root: Root = "",
    base: Base = "",
    preset: Preset = None,
    set_: Set = None,
    on_fault: OnFault = None,
    devices: Devices = "auto",
    shards: Shards = "here",
    allow_root: AllowRoot = None,
    verbose: Verbose = False,
) -> None:
    """Work a manifest off: train, draw, score. What the store already has is not made again.

    Examples: `blora run manifests/examples/demo.yaml --root demo` · `blora run pairs.csv --preset paper --devices
    cuda:0,cuda:1`
    """
    options = {
        "root": root,
        "base": parse_base_option(base),
        "preset": preset,
        "overrides": parse_overrides(set_),
        "on_fault": on_fault,
        "devices": devices,
        "shards": shards,
        "allowed_roots": tuple(allow_root or ()),
    }
    _run_flow("stylize", manifest, options, verbose)


@app.command(rich_help_panel=MAKE)
def rerun(
    run_id: RunArgument,
    root: Root = "",
    only: Only = None,
    devices: Devices = "auto",
    shards: Shards = "here",
    take_over: TakeOver = False,
    verbose: Verbose = False,
) -> None:
    """Do just what a run still lacks: failed trainings, missing or deleted pictures, missing scores.

    Examples: `blora rerun demo-3f2a9c01d4e5` · `blora rerun demo-3f2a9c01d4e5 --only faults` · `blora rerun
    demo-3f2a9c01d4e5 --only style=wave --only style=ink --root s3://bucket/art`
    """
    options = {"root": root, "only": tuple(only or ()), "devices": devices, "shards": shards, "take_over": take_over}
    _run_flow("rerun", run_id, options, verbose)


app.add_typer(begin.app)
app.add_typer(review.app)
app.add_typer(adapters.app, name="adapter", rich_help_panel=LOOK)
app.add_typer(operate.app)
app.add_typer(measure.app)


def main() -> None:
    """Entry point of the `blora` command."""
    app()


def _run_flow(name: str, subject: str, options: dict[str, Any], verbose: bool) -> None:
    """Run one of the two flows in this process with progress bars, then say how it ended; ends the command."""
    from flows.params import RunOptions
    from flows.prepare import handed_over, opening, prepare, prepare_again
    from tasks.run.which import try_store

    store = open_store(options["root"])
    chosen, refused = options_or_faults(RunOptions, options)
    if chosen.shards == "here":
        refused += devices_or_faults(chosen.devices, ready_devices)[1]
    ready = (prepare if name == "stylize" else prepare_again)(store, subject, chosen, refused)
    try_store(store)
    err.print(opening(store, ready), markup=False, highlight=False)  # before what takes seconds to import
    environment.quiet_prefect(verbose)
    from flows.cli.bars import run_with_bars, starting

    with starting("Prefect"):
        from flows import stylize as flows

    # A run with faults has ended all the same; what it says of itself is read from the store.
    flow = flows.stylize if name == "stylize" else flows.rerun
    where = f" --root {shlex.quote(chosen.root)}" if chosen.root else ""
    again = f"go on with: blora rerun {{subject}}{where}"
    with handed_over(ready):
        _, run_id = run_with_bars(flow, subject, chosen, verbose=verbose, again=again)
    _report(store, run_id, chosen.root, time.monotonic() - ready.began)


def _report(store: Store, run_id: str, root: str = "", took_seconds: float | None = None) -> None:
    """What a run leaves on the terminal: its worst pictures, faults, how it ended, what next; ends the command."""
    from tasks.closing.farewell import farewell
    from tasks.planning.clips import clip_lines, load_measures
    from tasks.run.outcome import recorded_faults, recorded_notes

    end = farewell(store, run_id, root, took_seconds)
    sys.stdout.write(end.worst)
    for line in clip_lines(load_measures(store, run_id)):
        out.print(line, markup=False, highlight=False)
    show_notes(recorded_notes(store, run_id))
    show_faults(recorded_faults(store, run_id), f"{store.root}/runs/{run_id}/faults.parquet")
    for line in end.failed:
        err.print(line, style="yellow", markup=False, highlight=False)
    out.print(end.summary, markup=False, highlight=False)
    for command in end.commands:
        out.print(f"  {command}", markup=False, highlight=False)
    raise typer.Exit(OK if end.is_complete else FAULTS)


def _missing_packs(draft: Any) -> int:
    return sum(any(a.adapter_id not in draft.held.adapters for a in pack.adapters) for pack in draft.plan.packs)


def _packs_said(draft: Any, elsewhere: bool) -> str:
    """How large the packs are, and who said so."""
    size = max(len(pack.adapters) for pack in draft.plan.packs)
    if draft.plan.run.settings.pack_size != "auto":
        return f"of up to {size}, as pack_size says"
    known = "not known for machines of a pool" if elsewhere and size == 1 else "of the machine that planned it"
    return f"of up to {size}, by the memory ({known}); --set pack_size=N says otherwise"
