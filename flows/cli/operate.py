"""Commands of an operator: how runs stand, their pictures, the night, what a server must hold, housekeeping."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import (
    FAULTS,
    LOOK,
    MAKE,
    NIGHTS,
    OK,
    RUN_HELP,
    AllowRoot,
    BaseOf,
    Devices,
    Preset,
    Root,
    Set,
    Shards,
    Verbose,
    complete_run,
    err,
    open_run,
    open_store,
    open_to_read,
    out,
    print_aligned,
    print_pairs,
    show_faults,
)
from flows.cli.overrides import parse_base_option, parse_overrides
from manifests.errors import counted
from tasks import environment
from tasks.devices import ready_devices
from tasks.errors import EndedWithFaults
from tasks.words import NOT_JUDGED

if TYPE_CHECKING:
    from tasks.operations.night_record import Night

app = typer.Typer()


@app.command(rich_help_panel=NIGHTS)
def nightly(
    root: Root = "",
    hours: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Begin no further manifest after so many hours.")
    ] = None,
    preset: Preset = None,
    set_: Set = None,
    devices: Devices = "auto",
    shards: Shards = "here",
    allow_root: AllowRoot = None,
    verbose: Verbose = False,
    last: Annotated[bool, typer.Option("--last", help="Do nothing; show what the last night did.")] = False,
) -> None:
    """Work off every manifest in the store's inbox/ that has no finished run, one run each; then say what became of it.

    Examples: `blora nightly --root s3://bucket/art` · `blora nightly --hours 5 --devices cuda:0,cuda:1` · `blora
    nightly --last --root s3://bucket/art`
    """
    from tasks.operations.night_record import load_night

    options = {
        "root": root,
        "hours": hours,
        "preset": preset,
        "overrides": parse_overrides(set_),
        "devices": devices,
        "shards": shards,
        "allowed_roots": tuple(allow_root or ()),
    }
    store = open_store(root)
    if last:
        night = load_night(open_to_read(root))
    else:
        environment.quiet_prefect(verbose)
        from flows.cli.bars import run_with_bars
        from flows.nightly import nightly as flow
        from flows.params import NightOptions

        chosen = NightOptions.model_validate(options)
        ready_devices(chosen.devices)
        ended, _ = run_with_bars(flow, chosen, verbose=verbose)
        night = load_night(store, ended.subject if isinstance(ended, EndedWithFaults) else ended["night_id"])
    _show_night(night)


@app.command(rich_help_panel=NIGHTS)
def deploy(
    root: Root = "",
    cron: Annotated[
        str,
        typer.Option(metavar="CRON", help="When the night begins: minute hour day month weekday. At first: 0 2 * * *."),
    ] = "",
    timezone: Annotated[
        str, typer.Option(metavar="ZONE", help="Of --cron: an IANA name such as Europe/London. At first: UTC.")
    ] = "",
    gpu_pool: Annotated[
        str, typer.Option(metavar="process|kubernetes", help="process (workers on bare machines) or kubernetes (jobs).")
    ] = "process",
    template: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Base job template of a Kubernetes pool.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The deployments. Default: those of this version.")
    ] = None,
    zombie_seconds: Annotated[
        int | None,
        typer.Option(
            min=60,
            metavar="SECONDS",
            help="A run is taken for crashed so long after its last heartbeat. At first: 540.",
        ),
    ] = None,
) -> None:
    """Make a Prefect server hold all that the nights need: pools, queues, webhook, automations, deployments.

    Goes to PREFECT_API_URL. Safe to run again: what you have set there, such as another time of the night or further
    parameters, stays unless you ask for something else here. BLORA_WEBHOOK_URL says where failed and crashed runs are
    told.

    Examples: `blora deploy --root s3://bucket/art --cron "0 2 * * *" --timezone Europe/London` · `blora deploy
    --gpu-pool kubernetes --template infra/k8s/gpu-base-job-template.json`
    """
    from manifests.store.address import local_path
    from tasks.dispatch.server import server_at_hand
    from tasks.operations import deploy as work
    from tasks.operations.deployments import Asked

    if gpu_pool not in ("process", "kubernetes"):
        raise ValueError(f"--gpu-pool: received {gpu_pool!r}; accepted: process, kubernetes")
    asked = root or environment.asked_root()
    request = work.DeployRequest(
        Asked(
            root=open_store(asked).root if asked else "",
            cron=cron or environment.night_cron(),
            timezone=timezone or environment.night_timezone(),
        ),
        default_root=open_store("").root,
        prefect_file=local_path(str(file)) if file else None,
        gpu_pool="kubernetes" if gpu_pool == "kubernetes" else "process",
        job_template=local_path(str(template)) if template else None,
        zombie_seconds=zombie_seconds,
    )
    with server_at_hand(lasting=True):
        for step in work.deploy(request):
            out.print(f"{step.what:<11}  {step.name:<48}  {step.outcome}", markup=False, highlight=False)
    raise typer.Exit(OK)


@app.command(rich_help_panel=NIGHTS)
def gc(
    root: Root = "",
    older_than: Annotated[
        float, typer.Option(min=1, metavar="DAYS", help="Days since what no run refers to was written.")
    ] = 30,
    runs_older_than: Annotated[
        float | None,
        typer.Option(min=1, metavar="DAYS", help="Drop runs in which nothing was written for so many days, too."),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Really delete; without it, only say what would go.")
    ] = False,
) -> None:
    """Drop adapters, pictures and inputs that no run refers to any more. Says what it would do; `--delete` does it.

    Examples: `blora gc --root s3://bucket/art` · `blora gc --older-than 60 --runs-older-than 365 --delete`
    """
    from datetime import timedelta

    from tasks.operations.gc import delete_waste, find_waste

    store = open_to_read(root)
    retention = None if runs_older_than is None else timedelta(days=runs_older_than)
    findings = find_waste(store, timedelta(days=older_than), retention)
    for line in findings.unreadable:
        err.print(f"adapters, pictures and inputs are all kept: {line}", style="red", markup=False, highlight=False)
    rows = [
        (waste.kind, str(len(waste.names)), str(len(waste.keys)), f"{waste.bytes / 1e6:.1f} MB")
        for waste in findings.waste
    ]
    if rows:
        print_aligned([("kind", "items", "objects", "size"), *rows])
    if not delete:
        out.print("nothing deleted; --delete does it" if rows else "nothing to delete", highlight=False)
        raise typer.Exit(OK)
    gone = sum(number for _, number in delete_waste(store, findings))
    out.print(f"{counted(gone, 'object')} deleted", highlight=False)
    raise typer.Exit(OK)


@app.command(rich_help_panel=MAKE)
def doctor(base: BaseOf = "sdxl", root: Root = "", devices: Devices = "auto") -> None:
    """Check this machine before hours are spent: torch, driver, devices, the base and its size, disk, store, Prefect.

    Examples: `blora doctor` · `blora doctor --base juggernaut.safetensors --root s3://bucket/art --devices cuda:0`
    """
    from tasks.operations.doctor import examine

    environment.quiet_prefect(False)
    is_well = True
    for found in examine(parse_base_option(base), root or environment.store_root(), devices):
        is_well = is_well and found.is_well
        out.print(f"{'ok  ' if found.is_well else 'FAIL'} {found.name:<8} {found.told}", markup=False, highlight=False)
        if not found.is_well:
            out.print(f"     {'':<8} do: {found.hint}", markup=False, highlight=False)
    raise typer.Exit(OK if is_well else FAULTS)


@app.command(rich_help_panel=LOOK)
def status(
    run_id: Annotated[
        str, typer.Argument(metavar="RUN", help=f"{RUN_HELP} None lists all.", autocompletion=complete_run)
    ] = "",
    root: Root = "",
) -> None:
    """How runs stand, by what the store holds: who is at work where, what is left, what failed and why, and its log.

    A run is at work, interrupted (killed or stopped; blora rerun goes on), incomplete (it ended and lacks something, or
    has faults) or finished.

    Examples: `blora status` · `blora status latest` · `blora status demo-3f2a9c01d4e5 --root demo`
    """
    from tasks.closing.status import full_status, list_runs

    if not run_id:
        rows = list_runs(open_to_read(root))
        print_aligned([("run", "state", "created", "outcome"), *rows] if rows else [("no run yet",)])
        raise typer.Exit(OK)
    store, run_id = open_run(root, run_id, is_told=False)
    status = full_status(store, run_id)
    stand = status.outcome
    print_pairs(
        {
            "run": stand.run_id,
            "state": status.state,
            **({"doing": status.doing} if status.doing else {}),
            "outcome": stand.sentence,
            "left": str(status.left),
            **({"passed": status.passed or NOT_JUDGED} if stand.samples_done else {}),
            "everything": f"{store.root}/runs/{stand.run_id}/",
        }
    )
    for holder in status.at_work:
        print_pairs({"at work": f"{holder.what}: {holder.who}, lease {holder.until}"})
    show_faults(stand.faults)
    for fault in stand.faults:
        if fault.item in status.logs:
            err.print(
                f"  log of {fault.name}: {status.logs[fault.item]}", style="yellow", markup=False, highlight=False
            )
    raise typer.Exit(OK if stand.complete else FAULTS)


def _show_night(night: Night) -> None:
    """Print a night: a table, then every fault, then the sentence; ends the command."""
    rows = [(entry.manifest, entry.state, entry.run_id, entry.sentence) for entry in night.entries]
    if rows:
        print_aligned([("manifest", "state", "run", "outcome"), *rows])
    for entry in night.entries:
        for fault in entry.faults:
            err.print(f"{entry.manifest}: {fault}", style="yellow", markup=False, highlight=False)
    out.print(f"night {night.night_id}: {night.sentence}", markup=False, highlight=False)
    raise typer.Exit(FAULTS if night.failed else OK)
