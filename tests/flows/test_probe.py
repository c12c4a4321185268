"""`blora probe`: real runs on tiny bases of both shapes, resumed by part; what it writes; what it refuses."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from blora.bases.topology import split_faults
from blora.errors import BaseModelError, SettingsError
from blora.settings.block_split import BlockSplit
from blora.settings.resolve import resolve
from blora.settings.training import TrainSettings
from flows.cli.overrides import parse_overrides
from manifests.store.store import Store
from manifests.tables.measuring import PROBES
from manifests.tables.parquet import from_parquet_bytes
from tasks.downloads import read_config
from tasks.errors import RunNotFound, RunRefused, TaskError
from tasks.measuring.block_probe import (
    PART_PAIRS,
    Probe,
    ProbeRequest,
    finish,
    load_probe,
    make_probe,
    missing_parts,
    publish,
)
from tasks.measuring.probe_report import bar_chart
from tasks.messages import Advance, ProbePart
from tasks.worker.probe import probe_part
from tasks.worker.session import Session
from tests.flows.cli.test_main import blora
from tests.tiny import RESOLUTION_PX
from tests.tiny_flux import save_tiny_flux
from tests.tiny_plain import save_plain_base

QUICK = ("sample.steps=1", "sample.precision=fp32", "score.clip_model=embedded")
SETTINGS: dict[str, Any] = {
    "sample": {"steps": 1, "precision": "fp32", "batch_size": 16, "guidance_scale": 1},
    "score": {"clip_model": "embedded"},
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def measured(store: Store, probe: Probe) -> list[Advance]:
    """What a slot does with all parts, in this process; the progress events."""
    events: list[Advance] = []
    session = Session("cpu", store, events.append)
    for part in probe.parts:
        probe_part(session, ProbePart(probe.probe_id, part))
    return events


def test_the_command_probes_an_sdxl_shaped_base(
    tiny_base: Path, tmp_path: Path, prefect_api: str, warm_slots: None
) -> None:
    options = ("--pairs", "1", "--devices", "cpu", *(word for text in QUICK for word in ("--set", text)))
    code, printed, errors = blora("probe", "--base", str(tiny_base), *options, root=tmp_path / "store")
    assert code == 0, errors
    found = re.search(r"^probe +(probe-tiny-\w+)$", printed, re.M)
    assert found and "up_blocks.0.attentions.2" in printed and "not certain" in printed
    store = Store.open(str(tmp_path / "store"))
    prefix = f"probes/{found[1]}/"
    names = {key.removeprefix(prefix) for key in store.list(prefix)}
    assert names == {
        "plan.json", "parts/part-0000.parquet", "probe.parquet", "blocks.png", "report.md", "probe.json",
    }  # fmt: skip
    rows = from_parquet_bytes(store.read(f"{prefix}probe.parquet"), PROBES).to_pylist()
    assert len(rows) == 2 * 6 and {row["block_index"] for row in rows} == set(range(6))
    assert all(row["p"].startswith("A photo of a") and row["scorer"] for row in rows)
    proposal = json.loads(store.read(f"{prefix}probe.json"))["proposal"]
    assert proposal["content"]["block"] != proposal["style"]["block"]
    assert load_probe(store, found[1]).settings.sample.width_px == RESOLUTION_PX


def test_the_command_tells_every_fault_of_a_prompt_file(tiny_base: Path, tmp_path: Path, prefect_api: str) -> None:
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("kind,p,q\ncolour,a,b\nstyle,a,a\n")
    code, _, errors = blora("probe", "--base", str(tiny_base), "--prompts", str(prompts), root=tmp_path / "store")
    assert code == 1 and "row 2, kind" in errors and "row 3, q" in errors
    assert not (tmp_path / "store").exists()


def test_a_pipeline_folder_of_sd15s_shape_is_probed_and_resumed_by_part(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.csv"
    pairs = [f"{'content' if n % 2 else 'style'},a photo of a car,picture {n}" for n in range(PART_PAIRS + 1)]
    prompts.write_text("\n".join(["kind,p,q", *pairs]))
    base, store = save_plain_base(tmp_path / "sd15"), Store.open(str(tmp_path / "store"))
    probe = make_probe(ProbeRequest(str(base), overrides=SETTINGS, prompts=str(prompts)))
    publish(store, probe)
    assert load_probe(store, probe.probe_id) == probe
    with pytest.raises(TaskError, match="2 of 2 parts are missing"):
        finish(store, probe)
    events = measured(store, probe)
    assert events[-1] == Advance("probe", "1", 13, 13)  # eleven blocks, p and q everywhere
    first = finish(store, probe)
    assert len(first.kinds["style"].blocks) == 11 and first.kinds["style"].pairs == 5
    kept = store.read(f"probes/{probe.probe_id}/probe.parquet")
    store.delete(probe.part_key(1))
    assert missing_parts(store, probe) == [1]
    assert {advance.id for advance in measured(store, probe)} == {"1"}
    assert finish(store, probe) == first
    assert store.read(f"probes/{probe.probe_id}/probe.parquet") == kept


def test_the_command_probes_flux_by_stretches(tmp_path: Path, prefect_api: str, warm_slots: None) -> None:
    """From prompts to the report, whose proposal is a setting that trains."""
    base, size = save_tiny_flux(tmp_path / "flux"), ("sample.width_px=32", "sample.height_px=32")
    words = [word for text in (*QUICK, *size) for word in ("--set", text)]
    stretches = ("transformer_blocks.0", "single_transformer_blocks.0-9", "single_transformer_blocks.10-11")
    options = ("--pairs", "1", "--devices", "cpu", "--blocks", ", ".join(stretches), *words)
    code, printed, errors = blora("probe", "--base", str(base), *options, root=tmp_path / "store")
    assert code == 0, errors
    found = re.search(r"^probe +(probe-flux-\w+)$", printed, re.M)
    assert found and "As a setting" in printed
    store = Store.open(str(tmp_path / "store"))
    rows = from_parquet_bytes(store.read(f"probes/{found[1]}/probe.parquet"), PROBES).to_pylist()
    assert [row["block"] for row in rows] == [*stretches, *stretches]
    assert all(abs(row["clip_score"]) <= 1 for row in rows) and len({row["clip_score"] for row in rows}) > 3
    told = store.read(f"probes/{found[1]}/report.md").decode()
    assert (
        "Trained are content single_transformer_blocks.0-9 and style single_transformer_blocks.10- (splitflux)" in told
    )
    setting = re.search(r"`train\.blocks: (\{.+\})`", told)
    assert setting, told
    split = resolve("flux", parse_overrides([f"train.blocks={setting[1]}"])).train.split
    proposal = json.loads(store.read(f"probes/{found[1]}/probe.json"))["proposal"]
    assert split == BlockSplit(content=(proposal["content"]["block"],), style=(proposal["style"]["block"],))
    assert split_faults(TrainSettings(blocks=split), read_config(str(base), "transformer")) == []
    probe = load_probe(store, found[1])
    assert probe.blocks == stretches and probe.settings.sample.guidance_scale == 3.5
    image = Image.open(io.BytesIO(store.read(f"probes/{found[1]}/blocks.png")))
    assert (40, 90, 180) in {colour for _, colour in image.getcolors(1 << 20) or []}


def test_blocks_to_compare_are_held_against_the_base_and_part_of_the_name(tmp_path: Path, tiny_base: Path) -> None:
    base = str(save_tiny_flux(tmp_path / "flux"))
    usual = make_probe(ProbeRequest(base, overrides=SETTINGS))
    assert usual.blocks == () and usual.settings.sample.width_px == 1024
    halves = ["single_transformer_blocks.0-9", "single_transformer_blocks.10-"]
    assert make_probe(ProbeRequest(base, overrides=SETTINGS, blocks=halves)).probe_id != usual.probe_id
    bad = ["W4", "transformer_blocks.3", "single_transformer_blocks.0-3", "single_transformer_blocks.3-5"]
    with pytest.raises(SettingsError) as caught:
        make_probe(ProbeRequest(base, overrides=SETTINGS, blocks=bad))
    whats = [fault.what for fault in caught.value.faults]
    assert whats == ["not the name of a block", "the base has no such blocks", "named twice"]
    assert caught.value.faults[1].accepted == "transformer_blocks.0, single_transformer_blocks.0-11"
    with pytest.raises(SettingsError, match="two or more"):
        make_probe(ProbeRequest(base, overrides=SETTINGS, blocks=halves[:1]))
    inner = make_probe(
        ProbeRequest(
            str(tiny_base), overrides=SETTINGS, blocks=["up_blocks.0.attentions.0-1", "mid_block.attentions.0"]
        )
    )
    assert inner.blocks == ("up_blocks.0.attentions.0-1", "mid_block.attentions.0")


def test_the_chart_is_a_picture_that_shows_the_bars(tmp_path: Path, tiny_base: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    probe = make_probe(ProbeRequest(str(tiny_base), overrides=SETTINGS, pairs=2))
    publish(store, probe)
    measured(store, probe)
    summary = finish(store, probe)
    image = Image.open(io.BytesIO(store.read(f"probes/{probe.probe_id}/blocks.png")))
    assert image.format == "PNG" and image.mode == "RGB"
    assert {(40, 90, 180), (150, 170, 205), (32, 32, 36)} <= {colour for _, colour in image.getcolors(1 << 20) or []}
    assert bar_chart(summary, "again") == bar_chart(summary, "again")


def test_a_probe_is_named_by_what_it_measures(tiny_base: Path) -> None:
    base = str(tiny_base)
    one = make_probe(ProbeRequest(base, overrides=SETTINGS))
    assert one == make_probe(ProbeRequest(base, overrides=SETTINGS))
    others = [
        make_probe(ProbeRequest(base, overrides=SETTINGS, seed=1)),
        make_probe(ProbeRequest(base, overrides=SETTINGS, seeds=2)),
        make_probe(ProbeRequest(base, overrides=SETTINGS, pairs=3)),
        make_probe(ProbeRequest(base, overrides=SETTINGS | {"sample": SETTINGS["sample"] | {"steps": 2}})),
        make_probe(ProbeRequest("embedded")),
    ]
    assert len({probe.probe_id for probe in [one, *others]}) == 6
    assert others[-1].settings.sample.width_px == 128 and "drawing" in others[-1].pairs[0].p
    assert make_probe(ProbeRequest(base)).settings.score.clip_pretrained == "openai"
    larger = {**SETTINGS, "sample": {**SETTINGS["sample"], "batch_size": 2}}
    assert make_probe(ProbeRequest(base, overrides=larger)).probe_id == one.probe_id, "the batch size is layout"


def test_what_cannot_be_probed_is_refused(tmp_path: Path, tiny_base: Path) -> None:
    with pytest.raises(BaseModelError):
        make_probe(ProbeRequest(str(tmp_path / "nowhere")))
    with pytest.raises(SettingsError, match=r"sample\.stesp"):
        make_probe(ProbeRequest(str(tiny_base), overrides={"sample": {"stesp": 2}}))
    with pytest.raises(RunRefused, match="1 fault in"):
        make_probe(ProbeRequest(str(tiny_base), prompts=str(tmp_path / "nowhere.csv")))
    with pytest.raises(RunNotFound):
        load_probe(Store.open(str(tmp_path)), "probe-none")
