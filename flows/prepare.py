"""What is known of a run before its work begins: the plan, what the store has of it, and what the rest will take.

Needs no Prefect: a command says it at once, and hands it over to the flow that it then starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from flows.params import InlineManifest, RunOptions
from manifests import layout
from manifests.errors import counted
from manifests.faults import Fault
from manifests.loading.load import Loaded, load_manifest, parse_manifest
from manifests.store.store import Store
from tasks.devices import chosen_devices, gpu_name
from tasks.errors import RunRefused
from tasks.planning.cost import Estimate, estimate
from tasks.planning.make import PlanDraft, make_plan, survey
from tasks.run.inventory import Holdings, holdings
from tasks.run.plan import Plan, load_plan
from tasks.run.which import find_run
from tasks.words import roughly


@dataclass(frozen=True)
class Prepared:
    """A run that can be begun.

    Attributes:
        plan: its plan; of a draft, before it is published.
        held: what the store has of it.
        cost: what the rest takes.
        began: when whoever asked began, by the monotonic clock of this process.
        draft: what is to be published first; None for a run that is taken up again.
    """

    plan: Plan
    held: Holdings
    cost: Estimate
    began: float
    draft: PlanDraft | None = None

    @property
    def pace(self) -> dict[str, float]:
        """What `tasks.progress.Tally` reckons by: seconds of a step, a picture and a score, and of all besides."""
        cost, settings = self.cost, self.plan.run.settings
        packs = [p for p in self.plan.packs if any(a.adapter_id not in self.held.adapters for a in p.adapters)]
        steps = len(packs) * settings.train.steps
        undrawn = cost.samples_missing
        return {
            "train": cost.train_seconds / steps if steps else 0.0,
            "sample": cost.sample_seconds / undrawn if undrawn else 0.0,
            "score": cost.score_seconds / undrawn if undrawn else 0.0,
            "other": cost.other_seconds,
            "slots": float(cost.slots),
        }


HANDED_OVER: ContextVar[Prepared | None] = ContextVar("prepared", default=None)
"""What a command has prepared for the flow that it starts."""


@contextmanager
def handed_over(prepared: Prepared) -> Iterator[None]:
    """Have the next run of this thread begin from what is prepared."""
    token = HANDED_OVER.set(prepared)
    try:
        yield
    finally:
        HANDED_OVER.reset(token)


def prepare(
    store: Store, manifest: str | InlineManifest, options: RunOptions, refused: Sequence[Fault] = ()
) -> Prepared:
    """Read a manifest and plan it; nothing is written.

    Args:
        store: the store.
        manifest: as for `flows.stylize.stylize`.
        options: likewise.
        refused: what is wrong with the options; nothing is prepared then.

    Raises:
        RunRefused: nothing of it can be worked off, or it is to stop at faults; all faults are in it.
    """
    began, is_here = time.monotonic(), options.shards == "here"
    found = survey(
        read_manifest(manifest, options.allowed_roots), options.base, options.preset, options.overrides, refused
    )
    draft = make_plan(store, found, on_fault=options.on_fault, devices=options.devices if is_here else "")
    return Prepared(draft.plan, draft.held, _cost(store, draft.plan, draft.held, options), began, draft)


def prepare_again(store: Store, asked: str, options: RunOptions, refused: Sequence[Fault] = ()) -> Prepared:
    """Look at what a run still lacks; see `prepare`.

    Raises:
        RunNotFound: the store has no such run.
        RunRefused: something is wrong with the options.
    """
    began = time.monotonic()
    if refused:
        raise RunRefused(f"nothing can be begun: {counted(len(refused), 'fault')}", refused)
    plan = load_plan(store, find_run(store, asked))
    held = holdings(store, [a.adapter_id for a in plan.adapters], [s.content_id for s in plan.samples])
    return Prepared(plan, held, _cost(store, plan, held, options), began)


def read_manifest(manifest: str | InlineManifest, allowed_roots: Sequence[str] = ()) -> Loaded:
    """Read a manifest from its address, or take an inline one."""
    if isinstance(manifest, str):
        return load_manifest(manifest, allowed_roots=allowed_roots)
    said: dict[str, Any] = manifest.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return parse_manifest(said, "json", "inline", allowed_roots)


def opening(store: Store, prepared: Prepared) -> str:
    """The first line about a run: its id, what there is and what is to do, how long that takes, and its page."""
    cost, run_id = prepared.cost, prepared.plan.run.run_id
    page = f"{store.root}/{layout.run_key(run_id, 'report/index.html')}"
    to_do = f"{counted(cost.adapters_missing, 'adapter')} to train, {counted(cost.samples_missing, 'picture')} to draw"
    is_open = cost.adapters_missing or cost.samples_missing
    is_measured = "about" if cost.basis.startswith("measured") else "perhaps"
    left = f"{to_do}; {is_measured} {roughly(cost.seconds)}" if is_open else "no training and no picture is missing"
    whole = f"{counted(cost.adapters, 'adapter')}, {counted(cost.samples, 'picture')}"
    return f"{run_id}: {whole}: {left}; page: {page}"


def _cost(store: Store, plan: Plan, held: Holdings, options: RunOptions) -> Estimate:
    if options.shards != "here":
        return estimate(store, plan, held, ["cuda:0"] * options.at_once)
    devices = chosen_devices(options.devices)
    return estimate(store, plan, held, devices, gpu_name(devices))
