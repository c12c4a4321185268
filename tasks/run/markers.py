"""What an adapter's marker says, and whether its halves are as long as it says: how damage of an adapter is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from manifests import layout
from manifests.errors import Damaged
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import damage_told, json_mapping
from manifests.store.store import Store
from manifests.tables.parquet import to_table
from manifests.tables.run import ADAPTERS

Marker = Mapping[str, Any]

REMEDY = "blora rerun trains it again; one brought in as a file comes back with the run's manifest"
"""What to do about an adapter that cannot be used."""


def read_markers(store: Store, adapter_ids: Sequence[str]) -> dict[str, Marker | Damaged]:
    """The marker of each adapter, by its id, or what is wrong with it; those that are not there are left out.

    Raises:
        StoreError: the store cannot be asked.
    """
    keys = list(map(layout.adapter_marker_key, adapter_ids))
    told: dict[str, Marker | Damaged] = {}
    for adapter_id, key, data in zip(adapter_ids, keys, in_parallel(store, store.find, keys), strict=True):
        if data is None:
            continue
        try:
            with damage_told(store, key, REMEDY):
                marker = json_mapping(data)
                columns = {name: marker.get(name) for name in ADAPTERS.names}
                # Which run uses it is said by that run's table; one brought in as a file names none.
                own = {"run_id": "", "trained_at": datetime.fromisoformat(marker["trained_at"])}
                to_table([columns | own], ADAPTERS)
            told[adapter_id] = marker
        except Damaged as error:
            told[adapter_id] = error
    return told


def cut_halves(store: Store, markers: Mapping[str, Marker]) -> dict[str, str]:
    """The halves that are not as long as their markers say: what is wrong with each, by its key.

    Raises:
        StoreError: the store cannot be asked.
    """
    listings = in_parallel(store, lambda adapter_id: store.list(layout.adapter_prefix(adapter_id)), list(markers))
    problems = {}
    for (adapter_id, marker), listing in zip(markers.items(), listings, strict=True):
        content, style, _ = layout.adapter_keys(adapter_id)
        for key, name in ((content, "content_bytes"), (style, "style_bytes")):
            if key in listing and listing[key].size != marker[name]:
                problems[key] = f"{listing[key].size:,} bytes of {marker[name]:,}"
    return problems
