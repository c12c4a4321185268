"""Commands that measure: the scores of a run, the block probe of a base, and the paired benchmark."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.console import (
    LOOK,
    OK,
    RESEARCH,
    RUN_HELP,
    AllowRoot,
    Devices,
    ManifestArgument,
    Preset,
    PresetOf,
    Root,
    RunArgument,
    Set,
    Verbose,
    complete_run,
    err,
    open_run,
    open_store,
    out,
    print_aligned,
    print_pairs,
    refuse_empty,
)
from flows.cli.overrides import parse_overrides
from manifests.errors import counted
from tasks import environment
from tasks.devices import ready_devices

if TYPE_CHECKING:
    from manifests.store.store import Store

app = typer.Typer()


@app.command(rich_help_panel=RESEARCH)
def probe(
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="BASE",
            help="embedded, org/model@REVISION, or a diffusers folder, also FLUX's or of SD 1.5's shape.",
        ),
    ] = "embedded",
    pairs: Annotated[
        int, typer.Option("--pairs", min=1, metavar="NUMBER", help="Pairs of prompts of each kind (content, style).")
    ] = 20,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, metavar="NUMBER", help="Pictures for each pair and block.")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="NUMBER", help="Of prompts, noise and bootstrap.")] = 0,
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="CSV with the columns kind, p, q; replaces --pairs.",
            callback=refuse_empty,
        ),
    ] = "",
    blocks: Annotated[
        str,
        typer.Option(
            "--blocks",
            metavar="NAMES",
            help="What to compare, separated by commas, instead of a UNet's inner blocks or FLUX's five by five.",
            callback=refuse_empty,
        ),
    ] = "",
    root: Root = "",
    preset: Preset = None,
    set_: Set = None,
    devices: Devices = "auto",
    verbose: Verbose = False,
) -> None:
    """The paper's block analysis: which block of a base answers to the object, which to the look.

    Examples: `blora probe --base embedded --pairs 20 --root demo` · `blora probe --base ./sdxl --prompts pairs.csv
    --seeds 4 --devices cuda:0,cuda:1` · `blora probe --base ./sd15 --set sample.steps=25 --set sample.precision=fp32` ·
    `blora probe --base ./flux --blocks single_transformer_blocks.0-9,single_transformer_blocks.10-37`
    """
    options = {
        "root": root,
        "pairs": pairs,
        "seeds": seeds,
        "seed": seed,
        "prompts": prompts,
        "blocks": tuple(name.strip() for name in blocks.split(",") if blocks),
        "preset": preset,
        "overrides": parse_overrides(set_),
        "devices": devices,
    }
    environment.quiet_prefect(verbose)
    from flows.cli.bars import run_with_bars
    from flows.params import ProbeOptions
    from flows.probe import analyze

    chosen = ProbeOptions.model_validate(options)
    store = open_store(chosen.root)
    ready_devices(chosen.devices)
    _, probe_id = run_with_bars(analyze, base, chosen, verbose=verbose)
    _report_probe(store, probe_id)


@app.command(rich_help_panel=RESEARCH)
def bench(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            help="Folder for tables, report and trained adapters, or s3://bucket/folder.",
            callback=refuse_empty,
        ),
    ],
    split: Annotated[
        str, typer.Option(metavar="validation|test", help="validation (to choose settings by) or test (to report).")
    ] = "validation",
    pairs: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="At least so many pairs; the grid is completed.")
    ] = 200,
    style_pictures: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="Pictures that show each style, in turn; 1 says little of it.")
    ] = 1,
    rows: Annotated[
        str, typer.Option(metavar="ROWS", help="Some rows only, such as blora,prompt; the real drawings always.")
    ] = "",
    base: Annotated[str, typer.Option(metavar="BASE", help="embedded, a folder, or org/model@revision.")] = "embedded",
    preset: PresetOf = "demo",
    set_: Set = None,
    devices: Annotated[str, typer.Option("--devices", metavar="DEVICE", help="One: cpu or cuda:0.")] = "cpu",
    device: Annotated[str, typer.Option("--device", hidden=True, help="What --devices was called.")] = "",
) -> None:
    """Measure B-LoRA and its rivals where the truth is drawn: one thing by one hand, asked for as another drew it.

    What lies in the folder's `adapters/` is not trained again.

    Examples: `blora bench out --pairs 16 --rows blora,style` · `blora bench out --split test --set
    sample.guidance_scale=2`
    """
    from flows.cli.bars import Bars
    from manifests.store.store import Store
    from tasks.measuring.benchmark import BenchRequest, measure, write_report, write_tables

    if split not in ("validation", "test"):
        raise ValueError(f"--split: received {split!r}; accepted: validation, test")
    asked = [row.strip() for row in rows.split(",") if row.strip()]
    part: Literal["validation", "test"] = "test" if split == "test" else "validation"
    if len(names := ready_devices(device or devices)) != 1:
        raise ValueError(f"--devices: received {device or devices!r}; accepted: one device, cpu or cuda:0")
    request = BenchRequest(part, pairs, style_pictures, asked, base, preset, parse_overrides(set_), names[0])
    place = Store.open(folder)
    with Bars(err) as bars:
        measurement = measure(place, request, bars.step)
    write_tables(place, measurement)
    written = write_report(place, measurement)
    out.print(written, markup=False, highlight=False)
    raise typer.Exit(OK)


@app.command(rich_help_panel=LOOK)
def scores(
    run_id: Annotated[
        str, typer.Argument(metavar="RUN", help=f"{RUN_HELP} None with --explain.", autocompletion=complete_run)
    ] = "",
    root: Root = "",
    sort: Annotated[str, typer.Option(metavar="SCORE", help="Score to sort by; overall where there is one.")] = "",
    best: Annotated[bool, typer.Option("--best", help="Best rows first; worst first otherwise.")] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="content=NAME, style=NAME, seed=N, chosen=yes, a score with <, <=, > or >=; several joined by and.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Rows to show; 0 shows all.")] = 0,
    format_: Annotated[
        str, typer.Option("--format", metavar="table|csv|json", help="How the table is written.")
    ] = "table",
    explain: Annotated[bool, typer.Option("--explain", help="Say what each score means instead.")] = False,
) -> None:
    """The score table of a run, and below it how steady its clips are (table clips.parquet has all numbers).

    Examples: `blora scores RUN --best --top 10` · `blora scores RUN --where "style=wave and style_lite0 < 0.6"
    --format csv` · `blora scores --explain`
    """
    from blora.settings.score_meanings import KINDS, meanings
    from tasks.planning.clips import clip_lines, load_measures
    from tasks.review.score_filter import parse_conditions, told_of_none
    from tasks.review.score_table import all_names, render, score_table, shared_end
    from tasks.run.plan import load_run

    if not run_id and not explain:
        raise ValueError("scores: give a run, or --explain")
    if not run_id:
        out.print("\n".join(meanings(KINDS)), markup=False, highlight=False)
        raise typer.Exit(OK)
    store, run_id = open_run(root, run_id)
    every = score_table(store, load_run(store, run_id), sort=sort, best_first=best)
    if explain:
        out.print("\n".join(meanings(all_names(every))), markup=False, highlight=False)
        raise typer.Exit(OK)
    conditions = parse_conditions(where or (), every)
    rows = [row for row in every if all(condition.meets(row) for condition in conditions)]
    text = render(rows[: top or None], format_)
    if every and not rows:
        err.print(told_of_none(conditions, every), style="yellow", markup=False, highlight=False)
    notes = [*shared_end(rows, sort), *clip_lines(load_measures(store, run_id))] if format_ == "table" else []
    sys.stdout.write(text)
    for line in notes:
        out.print(line, markup=False, highlight=False)
    raise typer.Exit(OK)


@app.command(rich_help_panel=RESEARCH)
def rescore(
    run_id: RunArgument,
    scorer: Annotated[
        list[str],
        typer.Option(
            "--scorer",
            metavar="SCORER",
            help="csd, dinov2-small, dinov2-base, dinov2-large, clip-l14 or clip-bigg14; with its own weights, "
            "csd=./csd.safetensors. May be repeated.",
        ),
    ],
    root: Root = "",
    devices: Devices = "auto",
    verbose: Verbose = False,
) -> None:
    """Judge the pictures of a run by further scorers; nothing is drawn again, and nothing judged twice.

    The rows stand beside the run's own in `blora scores`, on its page and in the data set, all at once at the end.
    After a rerun that drew more pictures, the same command judges those.

    Examples: `blora rescore RUN --scorer csd --scorer dinov2-base` · `blora rescore RUN --scorer
    csd=s3://bucket/models/csd.safetensors --devices cuda:0`
    """
    environment.quiet_prefect(verbose)
    from flows.cli.bars import run_with_bars
    from flows.params import SlotOptions
    from flows.rescore import rescore as flow

    chosen = SlotOptions.model_validate({"root": root, "devices": devices})
    ready_devices(chosen.devices)
    store, run_id = open_run(chosen.root, run_id)
    ended, _ = run_with_bars(flow, run_id, tuple(scorer), chosen, verbose=verbose)
    lines = {
        kind: f"{counted(count, 'picture')} judged, version {ended['versions'][kind]}"
        for kind, count in ended["judged"].items()
    }
    print_pairs({**lines, "scores": f"blora scores {run_id}", "page": f"{store.root}/runs/{run_id}/report/index.html"})
    raise typer.Exit(OK)


@app.command("compare-methods", rich_help_panel=RESEARCH)
def compare_methods(
    manifest: ManifestArgument,
    methods: Annotated[
        str, typer.Option(metavar="METHODS", help="Some of all_attention, prompt, magenta; blora is always among them.")
    ] = "all_attention,prompt,magenta",
    root: Root = "",
    preset: Preset = None,
    set_: Set = None,
    devices: Devices = "auto",
    allow_root: AllowRoot = None,
    verbose: Verbose = False,
) -> None:
    """Alternatives side by side from one manifest: scores with intervals, seconds and bytes of each method.

    The manifest is worked off as by `blora run`; LoRA on all attention, the words alone and Magenta's fast stylisation
    then draw the same pairs, judged by the same scorers.

    Examples: `blora compare-methods manifests/examples/demo.yaml --root demo` · `blora compare-methods pairs.csv
    --methods all_attention --preset paper --devices cuda:0`
    """
    environment.quiet_prefect(verbose)
    from flows.cli.bars import run_with_bars
    from flows.compare_methods import compare_methods as flow
    from flows.params import MethodOptions
    from tasks.measuring.methods_comparison import gather_methods
    from tasks.measuring.methods_report import table_rows
    from tasks.run.plan import load_plan

    asked = tuple(name.strip() for name in methods.split(",") if name.strip())
    options = {"root": root, "preset": preset, "overrides": parse_overrides(set_), "devices": devices}
    chosen = MethodOptions.model_validate(options | {"methods": asked, "allowed_roots": tuple(allow_root or ())})
    store = open_store(chosen.root)
    ready_devices(chosen.devices)
    ended, _ = run_with_bars(flow, manifest, chosen, verbose=verbose)
    comparison = gather_methods(store, load_plan(store, ended["run_id"]), ended["methods"], ended["left_out"])
    print_aligned(table_rows(comparison))
    for name, reason in comparison.left_out.items():
        err.print(f"{name} is left out: {reason}", style="yellow", markup=False, highlight=False)
    folder = f"{store.root}/runs/{ended['run_id']}/methods"
    print_pairs(
        {"pictures": f"{len(comparison.pictures)} of each method", "sheet": f"{folder}/sheet.png", "tables": folder}
    )
    raise typer.Exit(OK)


def _report_probe(store: Store, probe_id: str) -> None:
    """What a probe leaves on the terminal: gains, the proposal, where everything lies; ends the command."""
    from tasks.measuring.block_probe import gather, load_probe, summary_of
    from tasks.measuring.probe_report import proposal_lines

    probe = load_probe(store, probe_id)
    summary = summary_of(probe, gather(store, probe))
    for kind, measured in summary.kinds.items():
        rows = [(block.block, str(block.gain), f"{block.best_in:.0%}") for block in measured.blocks]
        print_aligned([(f"{kind}: {counted(measured.pairs, 'pair')}", "gain, 95 % interval", "best in"), *rows])
    for line in proposal_lines(summary):
        out.print(line.replace("**", ""), markup=False, highlight=False)
    print_pairs({"probe": probe_id, "chart": f"{store.root}/probes/{probe_id}/blocks.png"})
    raise typer.Exit(OK)
