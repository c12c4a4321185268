"""A block probe as it lies in the store: ``probes/<probe_id>/``, its plan, its parts and what is made of them.

    plan.json              base, settings, prompts and seeds, written once
    parts/part-*.parquet   readings of a few pairs each; what is there is not measured again
    probe.parquet          all readings (`manifests.tables.measuring.PROBES`)
    blocks.png report.md   gains with their intervals, and the proposal in words
    probe.json             the summary; written last: it is the marker

Imports no torch: planning and reporting need no model.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from blora.bases.topology import blocks_lacking, blocks_there
from blora.errors import BaseModelError, SettingFault, SettingsError
from blora.probe.prompts import default_prompts, noise_seeds
from blora.probe.proposal import Summary, summarize
from blora.probe.readings import BlockReading, Kind, ProbePair
from blora.settings.block_split import Stretch
from blora.settings.presets import Settings
from blora.settings.resolve import resolve
from manifests import ids, layout
from manifests.errors import Missing, counted
from manifests.loading.prompt_pairs import load_prompts
from manifests.store.parallel import in_parallel
from manifests.store.store import Store
from manifests.tables.measuring import PROBES
from manifests.tables.parquet import from_parquet_bytes, to_parquet_bytes, to_table
from tasks.downloads import base_config, base_family, read_config, revision_of
from tasks.errors import RunNotFound, RunRefused, TaskError
from tasks.measuring.probe_report import bar_chart, report

PART_PAIRS = 8
"""Pairs measured by one task run."""

_CLIP_FOR_WORDS = {"score.clip_model": "ViT-L-14-quickgelu", "score.clip_pretrained": "openai"}


@dataclass(frozen=True)
class Probe:
    """What is measured.

    Attributes:
        probe_id: its id, from all the rest.
        base: the base model as it was asked for.
        base_revision: its pinned revision.
        settings: of drawing and scoring.
        seed: of prompts drawn by lot, of noise and of the bootstrap.
        pairs: prompts with the seeds of their noise.
        blocks: blocks and stretches that are compared; none for those of the base's kind.
    """

    probe_id: str
    base: str
    base_revision: str
    settings: Settings
    seed: int
    pairs: tuple[ProbePair, ...]
    blocks: tuple[str, ...] = ()

    @property
    def parts(self) -> range:
        """Numbers of the parts."""
        return range(-(-len(self.pairs) // PART_PAIRS))

    def part_key(self, part: int) -> str:
        """Where the readings of a part lie."""
        return layout.probe_key(self.probe_id, f"parts/part-{part:04d}.parquet")


@dataclass(frozen=True)
class ProbeRequest:
    """What a probe is asked for.

    Attributes:
        base: ``embedded``, ``org/model@<revision>``, a folder (also of SD 1.5's shape), or ``s3://bucket/folder``.
        preset: without one, the demo's for the embedded model, FLUX's for FLUX, else the paper's at the size that the
            model was made for.
        overrides: nested settings laid over the preset's.
        pairs: pairs of each kind, if there is no file of prompts.
        seeds: pictures a pair and block.
        seed: of everything that is drawn by lot.
        prompts: address of a file of prompts.
        blocks: blocks and stretches to compare, such as ``single_transformer_blocks.0-9``; none for the paper's inner
            blocks of a UNet, and of FLUX all blocks, five at once.
    """

    base: str
    preset: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    pairs: int = 20
    seeds: int = 1
    seed: int = 0
    prompts: str = ""
    blocks: Sequence[str] = ()


def make_probe(request: ProbeRequest) -> Probe:
    """Work out what a probe measures. Writes nothing.

    Raises:
        RunRefused: the file of prompts has faults.
        BaseModelError: no such base, or it cannot be used.
        SettingsError: settings that cannot be accepted.
    """
    base, given = os.path.expanduser(request.base), dict(request.overrides)
    revision = revision_of(base)
    usual = {"sdxl": "demo" if base == "embedded" else "paper", "flux": "flux"}[base_family(base)]
    own: dict[str, Any] = {} if request.preset or usual == "flux" else _own_size(base)
    if base != "embedded" and not _names_clip(given):
        own |= _CLIP_FOR_WORDS  # the embedded CLIP knows the embedded model's words alone
    settings = resolve(request.preset or usual, own | given)
    chosen = tuple(
        ProbePair(kind, p, q, noise_seeds(request.seed, number, request.seeds))
        for number, (kind, p, q) in enumerate(_prompts(base, request.pairs, request.seed, request.prompts))
    )
    measured = {"sample": settings.sample.identity(), "score": settings.score.identity()}
    content: list[ids.Json] = [revision, measured, request.seed, [asdict(pair) for pair in chosen]]
    if blocks := _blocks_of(base, request.blocks):
        content.append(list(blocks))
    name = f"probe {base if base == 'embedded' else Path(base.partition('@')[0]).name}"
    return Probe(ids.run_id(name, content), base, revision, settings, request.seed, chosen, blocks)


def _blocks_of(base: str, asked: Sequence[str]) -> tuple[str, ...]:
    """The blocks that are asked for, each held against the base.

    Raises:
        SettingsError: with all that is wrong with them.
    """
    if not asked:
        return ()
    there = blocks_there(base_config(base) or {})
    faults: list[SettingFault] = []
    read: list[Stretch] = []
    for name in asked:
        try:
            stretch = Stretch.read(name)
        except ValueError as error:
            faults.append(SettingFault("blocks", "not the name of a block", name, str(error)))
            continue
        if blocks_lacking([name], there):
            faults.append(SettingFault("blocks", "the base has no such blocks", name, ", ".join(there)))
        elif met := [str(one) for one in read if one.meets(stretch)]:
            faults.append(SettingFault("blocks", "named twice", f"{name} beside {met[0]}", "stretches apart"))
        read.append(stretch)
    if not faults and len(read) < 2:
        faults.append(SettingFault("blocks", "nothing to compare", ", ".join(asked), "two or more"))
    if faults:
        raise SettingsError(faults)
    return tuple(map(str, read))


def _prompts(base: str, pairs: int, seed: int, address: str) -> list[tuple[Kind, str, str]]:
    if not address:
        return default_prompts(base, pairs, seed)
    rows, faults = load_prompts(address)
    if faults:
        raise RunRefused(f"{counted(len(faults), 'fault')} in the prompts", faults)
    return [(cast("Kind", row.kind), row.p, row.q) for row in rows]


def _names_clip(overrides: dict[str, Any]) -> bool:
    """Whether the user has a CLIP in mind, so that no default may be mixed with it."""
    group = overrides.get("score")
    names = [*overrides, *(f"score.{name}" for name in group or {} if isinstance(group, dict))]
    return any(name in _CLIP_FOR_WORDS for name in names)


def _own_size(base: str) -> dict[str, Any]:
    """Settings for pictures of the size that a model was made for, from its configuration: no weights are fetched."""
    unet, vae = read_config(base, "unet"), read_config(base, "vae")
    try:
        pixels = int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    except (TypeError, ValueError, KeyError) as error:
        accepted = "sample_size of its UNet and block_out_channels of its autoencoder"
        hint = "name a preset, whose size is used"
        raise BaseModelError("no size in the configuration", repr(error), accepted, base, hint) from error
    return {"sample.width_px": pixels, "sample.height_px": pixels}


def publish(store: Store, probe: Probe) -> None:
    """Keep a probe's plan, from which slots work."""
    body = asdict(probe) | {"settings": probe.settings.model_dump(mode="json")}
    key = layout.probe_key(probe.probe_id, "plan.json")
    store.write_once(key, json.dumps(body, indent=1, ensure_ascii=False).encode())


def load_probe(store: Store, probe_id: str) -> Probe:
    """Read a probe's plan.

    Raises:
        RunNotFound: no such probe.
    """
    try:
        body = json.loads(store.read(layout.probe_key(probe_id, "plan.json")))
    except Missing as error:
        raise RunNotFound(f"no probe {probe_id} in {store.root}") from error
    body["settings"] = Settings.model_validate(body["settings"])
    body["blocks"] = tuple(body.get("blocks") or ())
    body["pairs"] = tuple(ProbePair(**pair | {"seeds": tuple(pair["seeds"])}) for pair in body["pairs"])
    return Probe(**body)


def missing_parts(store: Store, probe: Probe) -> list[int]:
    """Parts that the store lacks."""
    there = store.list(probe.part_key(0).rpartition("/")[0])
    return [part for part in probe.parts if probe.part_key(part) not in there]


def rows_of(probe: Probe, readings: Sequence[BlockReading], scorer: tuple[str, str]) -> list[dict[str, object]]:
    """Readings as rows of the PROBES table; `scorer` is its name and version."""
    order = {block: index for index, block in enumerate(dict.fromkeys(reading.block for reading in readings))}
    return [
        {
            "probe_id": probe.probe_id,
            "base": probe.base,
            "base_revision": probe.base_revision,
            "pair_index": reading.pair,
            "kind": probe.pairs[reading.pair].kind,
            "p": probe.pairs[reading.pair].p,
            "q": probe.pairs[reading.pair].q,
            "seed": reading.seed,
            "block": reading.block,
            "block_index": order[reading.block],
            "clip_score": reading.score,
            "clip_score_p": reading.score_p,
            "clip_score_q": reading.score_q,
            "scorer": scorer[0],
            "scorer_version": scorer[1],
        }
        for reading in readings
    ]


def gather(store: Store, probe: Probe) -> list[dict[str, Any]]:
    """All readings of a probe, as rows of the PROBES table.

    Raises:
        TaskError: parts are missing.
    """
    missing = missing_parts(store, probe)
    if missing:
        raise TaskError(f"{probe.probe_id}: {len(missing)} of {len(probe.parts)} parts are missing; run it again")
    parts = in_parallel(store, store.read, [probe.part_key(part) for part in probe.parts])
    return [row for data in parts for row in from_parquet_bytes(data, PROBES).to_pylist()]


def summary_of(probe: Probe, rows: Sequence[dict[str, Any]]) -> Summary:
    """What a probe's rows say."""
    readings = [
        BlockReading(
            row["pair_index"], row["seed"], row["block"], row["clip_score"], row["clip_score_p"], row["clip_score_q"]
        )
        for row in rows
    ]
    return summarize(probe.pairs, readings, probe.seed)


def finish(store: Store, probe: Probe) -> Summary:
    """Gather the parts, and write table, chart, report and, last, the summary; returns the latter.

    Raises:
        TaskError: parts are missing.
    """
    rows = gather(store, probe)
    summary = summary_of(probe, rows)
    scorer = f"{rows[0]['scorer']} ({rows[0]['scorer_version']})"
    body: dict[str, Any] = {
        "probe_id": probe.probe_id,
        "base": probe.base,
        "base_revision": probe.base_revision,
        "scorer": scorer,
    }
    body |= {"seed": probe.seed, **summary.to_json()}
    files = {
        "probe.parquet": to_parquet_bytes(to_table(rows, PROBES)),
        "blocks.png": bar_chart(summary, f"{probe.probe_id}: CLIP gain of telling q to one block"),
        "report.md": report(probe.probe_id, probe.base, scorer, summary).encode(),
        "probe.json": json.dumps(body, indent=2, ensure_ascii=False).encode(),
    }
    for name, data in files.items():
        store.replace(layout.probe_key(probe.probe_id, name), data)
    return summary
