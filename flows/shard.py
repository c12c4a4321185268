"""Some packs or shards of a run, on another machine: the same scheduling, slots and tasks as on one.

1. Read the run's plan from the store and take the given part of it.
2. Have the base brought to this machine; where it cannot be had, that is one fault, and no slot opens.
3. Work it off in this machine's slots; a lease shows that all this goes on.
4. Keep what failed and why for the parent, which looks into the store for what was made.

Inputs: ids of a kept plan, and `flows.params.SlotOptions`. Outputs: adapters, pictures and scores in the store, and
``runs/<run_id>/attempts/<attempt_id>.json``. Safe to run again at any time: what is there is not made again.
"""

from __future__ import annotations

import socket
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.params import SlotOptions
from flows.scheduling.board import Board
from flows.scheduling.slots import Slots, slots
from manifests import layout
from manifests.store.store import Store
from tasks import environment
from tasks.bases import fetch_fault
from tasks.devices import chosen_devices
from tasks.dispatch.flow_runs import tell_endings
from tasks.dispatch.shard_results import write_shard_result
from tasks.run.heartbeat import at_work
from tasks.run.plan import load_plan
from tasks.run.selection import Selection


@flow(name="shard", persist_result=False, validate_parameters=True)
def shard(
    run_id: str,
    packs: tuple[str, ...] = (),
    shards: tuple[str, ...] = (),
    only: tuple[str, ...] | None = None,
    options: SlotOptions = SlotOptions(),
) -> State[Any]:
    """Work off some packs or shards of a run that is planned.

    Args:
        run_id: The run, as `blora status` lists it.
        packs: Ids of packs whose adapters are to be trained.
        shards: Ids of shards whose pictures are to be drawn and scored; their adapters must exist.
        only: Ids of the adapters and pictures that are wanted of those. Empty: all.
        options: Where; every field has a default.
    """
    store = Store.open(options.root or environment.store_root())
    part = load_plan(store, run_id).part(packs, shards)
    wanted = Selection(frozenset(a.adapter_id for a in part.adapters), frozenset(s.sample_id for s in part.samples))
    if only is not None:
        wanted = Selection(wanted.adapters & set(only), wanted.samples & set(only))
    devices = chosen_devices(options.devices)
    host, attempt_id = socket.gethostname(), str(runtime.flow_run.id)
    with at_work(store, layout.shard_lease_key(attempt_id), run_id):
        if refusal := fetch_fault(part.run.base, part.run.precisions, run_id, get_run_logger().info):
            write_shard_result(store, run_id, attempt_id, host, refusal=refusal)
            return Failed(message=f"{host}: {refusal.text}")
        with slots(store, devices) as pool:
            place = Slots(run_id, pool)
            board = Board(store, part, wanted, place)
            board.run()
        write_shard_result(store, run_id, attempt_id, host, board.failures, board.spent)
    tell_endings(UUID(attempt_id), place.ends)
    timings = board.timings
    made = ", ".join(f"{timings.get(kind, 0):.0f} {kind}" for kind in ("trained", "drawn", "scored"))
    sentence = f"{made} on {host}" + (f", {len(board.failures)} failed" if board.failures else "")
    return (Failed if board.failures else Completed)(message=sentence)
