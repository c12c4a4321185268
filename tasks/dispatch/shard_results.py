"""What an attempt at some packs or shards on another machine came to: ``runs/<run_id>/attempts/<attempt_id>.json``.

The id is that of the flow run. What was made lies in the store like everything else; this says what failed and why,
and how long it took, which is what the parent cannot see from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from manifests import layout
from manifests.faults import Fault
from manifests.store.store import Store


@dataclass(frozen=True)
class ShardResult:
    """What came of it.

    Attributes:
        host: the machine it ran on.
        faults: failures of items.
        spent: by machine and slot, its seconds and the items it made, by kind of work.
        ended_at: UTC.
        refusal: why the machine could not begin any of it; None where it did.
    """

    host: str
    faults: tuple[Fault, ...]
    spent: Mapping[str, Mapping[str, float]]
    ended_at: datetime
    refusal: Fault | None = None


def write_shard_result(
    store: Store,
    run_id: str,
    attempt_id: str,
    host: str,
    faults: Sequence[Fault] = (),
    spent: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    refusal: Fault | None = None,
) -> None:
    """Keep what came of an attempt; `spent` is by slot of the host, `refusal` why it could not begin."""
    body = {
        "host": host,
        "faults": [vars(fault) for fault in faults],
        "spent": {f"{host} {slot}": dict(figures) for slot, figures in spent.items()},
        "ended_at": datetime.now(UTC).isoformat(),
        "refusal": refusal and vars(refusal),
    }
    store.replace(layout.attempt_key(run_id, attempt_id), json.dumps(body, indent=1, ensure_ascii=False).encode())


def read_shard_result(store: Store, run_id: str, attempt_id: str) -> ShardResult | None:
    """What came of an attempt; None if it left nothing, or goes on."""
    if (data := store.find(layout.attempt_key(run_id, attempt_id))) is None:
        return None
    body = json.loads(data)
    faults = tuple(Fault(**fault) for fault in body["faults"])
    refusal = Fault(**body["refusal"]) if body.get("refusal") else None
    return ShardResult(body["host"], faults, body["spent"], datetime.fromisoformat(body["ended_at"]), refusal)
