"""Which base a run works with, what is told where it does not fit the settings, and that known runs keep their ids."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from blora.bases.spec import KNOWN
from blora.settings.block_split import BlockSplit, own_split
from blora.settings.resolve import resolve
from manifests.loading.load import Loaded, parse_manifest
from manifests.store.store import Store
from tasks.bases import base_notes, with_base
from tasks.downloads import base_family
from tasks.errors import RunRefused
from tasks.memory import memory_model, parameters_per_rank
from tasks.planning.make import PlanDraft, make_plan
from tests.made_run import png
from tests.tiny_flux import save_tiny_flux

SDXL = KNOWN["sdxl"].text


def loaded(folder: Path, **said: object) -> Loaded:
    """A manifest of one pair."""
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(png(ord(name[0])))
    return parse_manifest({"contents": ["a.png"], "styles": ["b.png"], **said}, "json", "inline", (str(folder),))


@pytest.mark.parametrize(
    ("said", "base", "preset", "expected"),
    [
        ({}, "", None, "embedded"),
        ({"preset": "paper"}, "", None, SDXL),
        ({}, "", "fast", SDXL),
        ({"preset": "paper"}, "", "demo", "embedded"),
        ({"preset": "paper", "base": "embedded"}, "", None, "embedded"),
        ({"base": "sdxl"}, "", None, SDXL),
        ({"base": "embedded"}, "sdxl", None, SDXL),
        ({"base": {"model": "sdxl+fp16vae"}}, "", None, KNOWN["sdxl+fp16vae"].text),
    ],
)
def test_a_base_is_what_is_asked_for_else_the_manifests_else_the_presets(
    tmp_path: Path, said: dict[str, object], base: str, preset: str | None, expected: str
) -> None:
    manifest = with_base(loaded(tmp_path, **said), base, preset).manifest
    assert manifest is not None and manifest.base == expected


def test_paths_of_the_command_line_are_those_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for file in ("here/x.safetensors", "l.safetensors"):
        (tmp_path / file).touch()
    parts = {"model": "x.safetensors", "vae": "s3://bucket/vae", "fuse": [{"lora": "../l.safetensors", "weight": 0.5}]}
    manifest = with_base(loaded(tmp_path), json.dumps(parts)).manifest
    assert manifest is not None
    told = json.loads(manifest.base)
    missing = with_base(loaded(tmp_path), "org/model@main").manifest
    assert missing is not None and missing.base == "org/model@main", "whoever looks for it says what is wrong"
    assert told["model"] == str(tmp_path / "here" / "x.safetensors") and told["vae"] == "s3://bucket/vae"
    assert told["fuse"] == [{"lora": f"{tmp_path}/here/../l.safetensors", "weight": 0.5}]


@pytest.mark.parametrize(
    ("base", "preset", "message"),
    [
        ("embedded", "demo", ""),
        ("embedded", "paper", "made for 128 px and is asked for 1024.*--base sdxl"),
        ("sdxl", "paper", ""),
        ("sdxl", "demo", "SDXL was made for 1024 px and is asked for 128"),
        ("sdxl", "fast", "8 steps without guidance expect a few-step base.*sdxl.lightning8"),
        ("sdxl+lightning8", "fast", ""),
    ],
)
def test_what_does_not_fit_is_told_before_hours_are_spent(tmp_path: Path, base: str, preset: str, message: str) -> None:
    chosen = with_base(loaded(tmp_path, base=base, preset=preset))
    assert chosen.manifest is not None
    notes = [str(note) for note in base_notes(chosen.manifest, resolve(preset))]
    assert len(notes) == bool(message) and all(re.search(message, note) for note in notes)
    draft = make_plan(Store.open(str(tmp_path / "store")), chosen)
    assert [str(note) for note in draft.notes if str(note) in notes] == notes, "the plan tells them, too"


@pytest.fixture(scope="module")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_flux(tmp_path_factory.mktemp("bases") / "flux")


def flux_plan(folder: Path, base: Path, **said: object) -> PlanDraft:
    told = {"base": str(base), "preset": "flux", "settings": {"sample": {"width_px": 32, "height_px": 32}}, **said}
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(png(ord(name[0])))
    content = parse_manifest(
        {"contents": [{"image": "a.png"}], "styles": [{"image": "b.png"}], **told},
        "json",
        "inline",
        (str(folder), str(base)),
    )
    return make_plan(Store.open(str(folder / "store")), content)


def test_a_base_is_of_the_family_that_its_folder_tells(tmp_path: Path, flux_folder: Path) -> None:
    assert [base_family(base) for base in ("sdxl", "embedded", str(flux_folder))] == ["sdxl", "sdxl", "flux"]
    assert parameters_per_rank(str(flux_folder)) == 12 * 3 * (32 + 32)
    double = BlockSplit(content=("transformer_blocks.0",), style=("single_transformer_blocks.3-7",))
    assert parameters_per_rank(str(flux_folder), split=double) == (8 + 5 * 3) * (32 + 32)
    own = parameters_per_rank(str(flux_folder), split=own_split(flux=True))
    assert own == parameters_per_rank(str(flux_folder))
    assert memory_model(str(flux_folder)).guided_rows == 1
    with pytest.raises(RunRefused) as refused:
        make_plan(Store.open(str(tmp_path)), loaded(tmp_path, preset="flux"))
    assert [fault.what for fault in refused.value.faults] == ["preset flux without a base"]


def test_what_flux_does_not_hear_is_refused_before_anything_is_planned(tmp_path: Path, flux_folder: Path) -> None:
    with pytest.raises(RunRefused) as refused:
        flux_plan(tmp_path, flux_folder, preset="demo")
    told = [(fault.field, fault.hint) for fault in refused.value.faults]
    assert told == [("sample.guidance_from", "leave it out"), ("train.layers", "start from preset flux")]
    pairs = [{"content": "a", "style": "b"}, {"content": "a", "style": "b", "content_prompt": "A [c]"}]
    draft = flux_plan(tmp_path, flux_folder, pairs=pairs)
    assert [fault.field for fault in draft.plan.run.faults] == ["content_prompt"] and len(draft.plan.samples) == 1


def test_blocks_that_the_base_does_not_have_are_refused_before_anything_is_planned(
    tmp_path: Path, flux_folder: Path
) -> None:
    """All of them at once, with what there is; and the base's own split, said by name, changes no id."""
    with pytest.raises(RunRefused) as refused:
        flux_plan(tmp_path, flux_folder, settings={"train": {"blocks": "b-lora-flux"}})
    told = [(fault.field, fault.received, fault.accepted) for fault in refused.value.faults]
    there = "transformer_blocks.0, single_transformer_blocks.0-11"
    assert told == [
        ("train.blocks.content", "transformer_blocks.9-18", there),
        ("train.blocks.style", "transformer_blocks.0-8", there),
    ]
    with pytest.raises(RunRefused) as refused:
        made = loaded(tmp_path, settings={"train": {"blocks": "splitflux"}})
        make_plan(Store.open(str(tmp_path)), made)
    (content, style) = refused.value.faults
    assert (content.field, style.field) == ("train.blocks.content", "train.blocks.style")
    assert "up_blocks.0.attentions.0-2" in content.accepted

    front = {"content": ["down_blocks.2.attentions.0"], "style": ["up_blocks.0.attentions.1"]}
    with pytest.raises(RunRefused) as refused:
        train = {"blocks": front, "front_pool": 4, "timestep_shift": "resolution"}
        make_plan(Store.open(str(tmp_path)), loaded(tmp_path, base="embedded", settings={"train": train}))
    told_of_sdxl = [(fault.field, fault.what) for fault in refused.value.faults]
    assert told_of_sdxl == [
        ("train.timestep_shift", "SDXL does not learn by flow matching"),
        ("train.front_pool", "no frozen front"),
    ]

    def adapters(blocks: object) -> list[str]:
        settings = {"sample": {"width_px": 32, "height_px": 32}, "train": {"blocks": blocks} if blocks else {}}
        draft = flux_plan(tmp_path, flux_folder, settings=settings)
        assert any("not for content" in str(note) for note in draft.notes) == isinstance(blocks, dict)
        return [adapter.adapter_id for pack in draft.plan.packs for adapter in pack.adapters]

    other = {"content": ["transformer_blocks.0"], "style": ["single_transformer_blocks.3-7"]}
    assert adapters(None) == adapters("splitflux") != adapters(other)


def test_flux_reads_beyond_the_end_of_clips_context(tmp_path: Path, flux_folder: Path) -> None:
    """Two prompts that CLIP reads as one are two pictures, and nothing of them counts as unread."""
    long = "A [c] " + "very " * 90
    pairs = [{"content": "a", "style": "b", "prompt": f"{long}{end} in [s] style"} for end in ("red", "green")]
    draft = flux_plan(tmp_path, flux_folder, pairs=pairs)
    assert len(draft.plan.samples) == 2 and not any("read" in str(note) for note in draft.notes)


def test_pictures_far_below_the_resolution_and_prompts_without_the_content_are_told(tmp_path: Path) -> None:
    small, plain = {"train": {"resolution_px": 512}}, {"sample": {"prompt": "a drawing"}}
    notes = [
        " ".join(str(note) for note in make_plan(Store.open(str(tmp_path)), loaded(tmp_path, settings=said)).notes)
        for said in (small, plain, {})
    ]
    assert "a: 64 x 64 px, far below the 512 px" in notes[0] and "far below" not in notes[1]
    assert 'sample.prompt "a drawing" without [c]' in notes[1] and "without [c]" not in notes[0] + notes[2]


def test_names_and_commits_are_one_run_and_settings_of_the_scheduler_make_another(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))

    def run_id(**said: object) -> str:
        return make_plan(store, loaded(tmp_path, preset="paper", **said)).plan.run.run_id

    assert run_id() == run_id(base="sdxl") == run_id(base=SDXL) != run_id(base="sdxl+fp16vae")
    assert run_id() == run_id(settings={"sample": {"scheduler_options": {}}})
    assert run_id() != run_id(settings={"sample": {"scheduler_options": {"use_karras_sigmas": True}}})
