"""A finished run in a folder, without a model: planned and closed by the real code, with painted pictures.

For what looks at runs. Pictures, adapters and scores are made up; the flows' tests look at what a real run leaves.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests import layout
from manifests.loading.load import parse_manifest
from manifests.store.store import Store
from manifests.tables.parquet import to_parquet_bytes, to_table
from manifests.tables.run import SCORES
from tasks.closing.collect import close_run
from tasks.planning.make import make_plan, publish
from tasks.run.inventory import take_inventory
from tasks.run.outcome import Outcome
from tasks.run.plan import Plan, PlannedSample, scores_key

SCORE_NAMES = ("transfer", "style_lite0", "content_lite0", "colour_distance")
HOSTILE = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=2</script>\'"&\u2028`${1}'

Scorer = Callable[[PlannedSample, int], dict[str, float]]


def png(seed: int, side_px: int = 64) -> bytes:
    """A picture of coloured rectangles as PNG."""
    draw, buffer = np.random.default_rng(seed), io.BytesIO()
    rgb = np.empty((side_px, side_px, 3), np.uint8)
    rgb[:] = draw.integers(0, 256, 3)
    for _ in range(4):
        top, left = draw.integers(0, side_px * 3 // 4, 2)
        rgb[top : top + side_px // 3, left : left + side_px // 3] = draw.integers(0, 256, 3)
    Image.fromarray(rgb).save(buffer, format="PNG")
    return buffer.getvalue()


def made_scores(sample: PlannedSample, number: int) -> dict[str, float]:
    """Scores that differ from picture to picture, the same every time."""
    draw = np.random.default_rng(int(sample.sample_id[:8], 16))
    values = dict(zip(SCORE_NAMES, draw.uniform(0, 1, len(SCORE_NAMES)).tolist(), strict=True))
    return values | {"colour_distance": 40 * values["colour_distance"]}


def plan_run(
    root: Path, contents: Sequence[str], styles: Sequence[str], seeds: Sequence[int] = (0,), **changes: Any
) -> tuple[Store, Plan]:
    """Write pictures and plan a grid of them; the pictures of a name are the same in every run below one folder."""
    folder = root / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    sides = {}
    for side, names, offset in (("contents", contents, 0), ("styles", styles, 1000)):
        for number in range(len(names)):
            if not (path := folder / f"{side}{number}.png").exists():
                path.write_bytes(png(offset + number))
        sides[side] = [{"image": f"{side}{n}.png", "name": name, "word": "thing"} for n, name in enumerate(names)]
    pairs = [{"content": c, "style": s, "seeds": list(seeds)} for c in contents for s in styles]
    body = {"version": 1, "name": "night", **sides, "pairs": pairs} | changes
    loaded = parse_manifest(body, "json", "inline", (str(folder),))
    store = Store.open(str(root / "store"))
    draft = make_plan(store, loaded)
    assert not loaded.faults, loaded.faults[:3]
    return store, publish(store, draft)


def finish(store: Store, plan: Plan, *, scorer: Scorer = made_scores, missing: Sequence[int] = ()) -> Outcome:
    """Put adapters, pictures and scores in their places, all but the pictures of some numbers, and close the run."""
    root, now = Path(store.root), datetime.now(UTC)
    for adapter in plan.adapters:
        for half in ("content", "style"):
            _put(root / layout.adapter_key(adapter.adapter_id, "content" if half == "content" else "style"), b"half")
        marker = {
            "run_id": plan.run.run_id, "adapter_id": adapter.adapter_id, "name": adapter.name,
            "image_ids": list(adapter.image_ids), "base": "embedded", "base_revision": plan.run.base_revision,
            "rank": 4, "steps": 10, "final_loss": 0.1, "skipped_steps": 0, "train_seconds": 1.5, "pack_id": "p",
            "pack_size": 1, "device": "cpu", "content_bytes": 4, "style_bytes": 4, "trained_at": now.isoformat(),
        }  # fmt: skip
        _put(root / layout.adapter_marker_key(adapter.adapter_id), json.dumps(marker).encode())
    painted = [png(number) for number in range(40)]
    number = 0
    for shard in plan.shards:
        rows: list[dict[str, Any]] = []
        for sample in shard.samples:
            if number not in missing:
                _put(root / sample.key, painted[number % len(painted)])
                rows += [_row(plan, sample, name, value, now) for name, value in scorer(sample, number).items()]
            number += 1
        _put(root / scores_key(plan.run, shard), to_parquet_bytes(to_table(rows, SCORES)))
    count = len(plan.samples)
    timings = {"trained": len(plan.adapters), "train_seconds": 12.0, "drawn": count, "sample_seconds": 3.5}
    return close_run(store, plan, take_inventory(store, plan), (), timings | {"scored": count, "score_seconds": 0.5})


def record_reads(monkeypatch: pytest.MonkeyPatch, store: Store) -> list[str]:
    """The keys that a store is asked to read from now on."""
    keys: list[str] = []
    read = store.read

    def recorded(key: str, *args: Any, **kwargs: Any) -> bytes:
        keys.append(key)
        return read(key, *args, **kwargs)

    monkeypatch.setattr(store, "read", recorded)
    return keys


def _row(plan: Plan, sample: PlannedSample, name: str, value: float, now: datetime) -> dict[str, Any]:
    fields = ("sample_id", "content_id", "style_id", "content_name", "style_name", "seed")
    identity = {field: getattr(sample, field) for field in fields}
    scored = {"score": name, "value": value, "scorer": "made", "scorer_version": "1", "scored_at": now}
    return {"run_id": plan.run.run_id} | identity | scored


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
