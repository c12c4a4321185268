"""Adapters that come as files: checked, not trained, and in a run like the others."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blora.adapters.adapter import Adapter, Factors
from blora.adapters.blocks import BLOCKS, SPLIT_KEY, target_layers
from blora.adapters.load import load_adapter
from blora.adapters.safetensors_bytes import pack_safetensors, unpack_safetensors
from manifests import layout
from manifests.loading.load import Loaded, load_manifest, parse_manifest
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import ADAPTERS_FILE, SCORES_FILE
from tasks.closing.collect import close_run
from tasks.errors import RunRefused
from tasks.messages import GenerateShard, ScoreShard, TrainPack
from tasks.operations.gc import find_waste
from tasks.planning.cost import estimate
from tasks.planning.make import make_plan, publish
from tasks.run.inventory import take_inventory
from tasks.run.plan import load_plan
from tasks.worker.generate import generate_shard
from tasks.worker.score import score_shard
from tasks.worker.session import Session
from tasks.worker.train import train_pack
from tests.flows.conftest import Project
from tests.tasks.conftest import DAY
from tests.tiny import save_tiny_base, unet


def tensors(seed: int = 0, rank: int = 4, halves: tuple[str, ...] = ("content", "style")) -> dict[str, Tensor]:
    """A B-LoRA for the tiny base as diffusers writes it."""
    model, written = unet(), {}
    torch.manual_seed(seed)
    for half in ("content", "style"):
        layers = {}
        for name in target_layers(model, half):  # type: ignore[arg-type]
            linear: Any = model.get_submodule(name)
            down, up = torch.randn(rank, linear.in_features), torch.randn(linear.out_features, rank)
            layers[name] = Factors(0.05 * down, 0.05 * up)
        if half in halves:
            written |= unpack_safetensors(Adapter(layers).save_half())[0]
    return written


def write(path: Path, content: Mapping[str, Tensor]) -> None:
    path.write_bytes(pack_safetensors(content, {"format": "pt"}))


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def files(tmp_path: Path, tiny_base: Path) -> Project:
    """A project with whole.safetensors and style.safetensors, a half, beside its pictures."""
    project = Project(tmp_path / "project", tiny_base)
    write(project.folder / "whole.safetensors", tensors())
    write(project.folder / "style.safetensors", tensors(1, halves=("style",)))
    return project


def loaded(project: Project, **changes: Any) -> Loaded:
    project.write(**changes)
    return load_manifest(str(project.path), allowed_roots=[str(project.base)])


@pytest.mark.usefixtures("tomorrow")
def test_a_finished_adapter_is_drawn_with_scored_and_told_of_and_never_trained(files: Project, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    contents = [{"image": "c0.png", "name": "c0", "word": "thing"}, {"adapter": "whole.safetensors"}]
    styles = [{"adapter": "style.safetensors", "name": "wave"}]
    pairs = [
        {"content": "c0", "style": "wave"},
        {"content": {"c0": 0.25, "whole": 0.75}, "style": "wave"},
        {"content": "whole", "style": "wave", "own_style": 0.5},
    ]
    draft = make_plan(store, loaded(files, contents=contents, styles=styles, pairs=pairs, grid=None))
    assert draft.plan.run.faults == () and draft.notes == () and store.list("") == {}
    cost = estimate(store, draft.plan, draft.held)
    assert (cost.adapters, cost.adapters_missing, cost.samples) == (3, 1, 3)
    plan = publish(store, draft)
    assert load_plan(store, plan.run.run_id).packs == draft.plan.packs
    assert [[a.name for a in pack.adapters] for pack in plan.packs] == [["c0"], ["whole", "wave"]]

    for name in ("whole", "style"):
        (files.folder / f"{name}.safetensors").unlink()  # the store has what a rerun needs
    session = Session("cpu", store, lambda event: None)
    trained = [train_pack(session, TrainPack(plan.run.run_id, pack.pack_id)) for pack in plan.packs]
    assert [(len(answer.trained), answer.faults) for answer in trained] == [(1, ()), (0, ())]
    for shard in plan.shards:
        made = generate_shard(session, GenerateShard(plan.run.run_id, shard.shard_id))
        assert made.faults == () and made.without_adapter == ()
        assert score_shard(session, ScoreShard(plan.run.run_id, shard.shard_id)).faults == ()

    assert close_run(store, plan, take_inventory(store, plan)).complete
    run = RunFolder(store, plan.run.run_id)
    told = {
        row["name"]: (row["source_file"], row["steps"] > 0, row["image_ids"] != []) for row in run.rows(ADAPTERS_FILE)
    }
    assert told == {
        "c0": (None, True, True),
        "whole": (str(files.folder / "whole.safetensors"), False, False),
        "wave": (str(files.folder / "style.safetensors"), False, False),
    }
    scores = {(row["content_name"], row["score"]) for row in run.rows(SCORES_FILE)}
    assert ("c0", "content_lite0") in scores and not any(name == "style_lite0" for _, name in scores)
    page = store.read(f"{layout.report_prefix(plan.run.run_id)}index.html").decode()
    assert ">from whole.safetensors<" in page and ">from style.safetensors<" in page

    assert "adapters" not in {waste.kind for waste in find_waste(store, DAY).waste}
    store.replace(layout.adapter_marker_key("0" * 24), b"{}")
    assert "adapters" in {waste.kind for waste in find_waste(store, DAY).waste}, "one that no run refers to would go"
    store.delete(layout.adapter_marker_key(plan.packs[1].adapters[0].adapter_id))
    (fault,) = train_pack(session, TrainPack(plan.run.run_id, plan.packs[1].pack_id)).faults
    assert "whole is missing" in fault.what and "run the manifest again" in fault.hint


def spoilt(kind: str) -> bytes:
    """A file that is no adapter for the tiny base."""
    good = tensors()
    some = next(name for name in good if name.endswith("lora.down.weight"))
    changes: dict[str, dict[str, Tensor]] = {
        "another base": {name: value[:, :-1].contiguous() if "down" in name else value for name, value in good.items()},
        "a layer too few": {name: value for name, value in good.items() if some.rpartition(".lora")[0] not in name},
        "another layer": good
        | {some.replace("attentions.0", "attentions.2").replace("attentions.1", "attentions.2"): good[some].clone()},
        "no number": good | {some: good[some] * float("nan")},
        "too large for half precision": {name: value.float() * 1e6 for name, value in good.items()},
    }
    if kind in changes:
        return pack_safetensors(changes[kind], {})
    return {"nothing": b"", "a picture": b"\x89PNG\r\n\x1a\n" + b"0" * 99, "cut": pack_safetensors(good, {})[:500]}[
        kind
    ]


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("another base", "shape does not fit the UNet"),
        ("a layer too few", "layers missing from the file"),
        ("another layer", "layers outside"),
        ("no number", "not finite"),
        ("too large for half precision", "not finite in fp16"),
        ("nothing", "not a readable adapter file"),
        ("a picture", "not a readable adapter file"),
        ("cut", "not a readable adapter file"),
    ],
)
def test_a_wrong_file_is_one_fault_of_its_row(files: Project, tmp_path: Path, kind: str, what: str) -> None:
    (files.folder / "bad.safetensors").write_bytes(spoilt(kind))
    styles = ["s0.png", {"adapter": "bad.safetensors", "name": "bad"}]
    draft = make_plan(Store.open(str(tmp_path / "store")), loaded(files, styles=styles))
    (fault,) = draft.plan.run.faults
    assert what in fault.what and "bad.safetensors" in fault.what and fault.item == "bad"
    assert fault.file == str(files.path) and fault.row is not None and fault.field == "adapter" and fault.hint
    assert {sample.style_name for sample in draft.plan.samples} == {"s0"}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"contents": [{"adapter": "style.safetensors"}, "c0.png"]}, "an adapter without a content half"),
        ({"styles": ["s0.png", {"adapter": "gone.safetensors"}]}, "gone.safetensors"),
        ({"contents": ["c0.png"], "styles": ["s0.png", {"adapter": "whole.safetensors"}], "colour_of": "style"},
         "colours of an adapter"),
        ({"contents": ["c0.png", {"adapter": "content.safetensors"}], "styles": ["s0.png"], "own_style": 0.4},
         "own_style of half an adapter"),
        ({"contents": ["c0.png"], "styles": [{"adapter": f"{name}.safetensors"} for name in ("whole", "copy")]},
         "one picture under two names"),
    ],
)  # fmt: skip
def test_what_an_adapter_cannot_give_is_one_fault(
    files: Project, tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    write(files.folder / "content.safetensors", tensors(2, halves=("content",)))
    (files.folder / "copy.safetensors").write_bytes((files.folder / "whole.safetensors").read_bytes())
    draft = make_plan(Store.open(str(tmp_path / "store")), loaded(files, **changes))
    (fault,) = draft.plan.run.faults
    assert what in fault.what and fault.hint
    assert draft.plan.samples


def test_a_file_that_changes_while_a_run_is_planned_refuses_the_run(files: Project, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    draft = make_plan(store, loaded(files, styles=[{"adapter": "whole.safetensors"}]))
    write(files.folder / "whole.safetensors", tensors(5))
    with pytest.raises(RunRefused, match="changed while the run was being planned"):
        publish(store, draft)
    assert store.list(layout.RUNS_PREFIX) == {}


def test_the_same_bytes_are_the_same_adapter_wherever_they_lie(files: Project, tmp_path: Path) -> None:
    store, found = Store.open(str(tmp_path / "store")), []
    (files.folder / "moved.safetensors").write_bytes((files.folder / "whole.safetensors").read_bytes())
    for name in ("whole", "moved", "style"):
        draft = make_plan(store, loaded(files, contents=["c0.png"], styles=[{"adapter": f"{name}.safetensors"}]))
        found.append(draft.plan.samples[0].style_id)
    assert found[0] == found[1] != found[2]


def test_the_configuration_that_peft_keeps_beside_a_file_counts(files: Project, tmp_path: Path) -> None:
    store, found = Store.open(str(tmp_path / "store")), {}
    for alpha in (None, 4, 16):  # of rank 4
        if alpha is not None:
            (files.folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": alpha}))
        draft = make_plan(store, loaded(files, contents=["c0.png"], styles=[{"adapter": "style.safetensors"}]))
        publish(store, draft)
        found[alpha] = load_adapter(store.read(layout.adapter_key(draft.plan.samples[0].style_id, "style")))
    for layer, factors in found[None].layers.items():
        assert torch.equal(found[4].layers[layer].delta, factors.delta)
        assert torch.allclose(found[16].layers[layer].delta, 4 * factors.delta, rtol=1e-3, atol=1e-5)


def test_tables_name_adapters_in_columns_of_their_own(tmp_path: Path) -> None:
    rows = [["c.png", "", "a.safetensors", "wave"], ["c.png", "s.png", "", ""], ["c.png", "s.png", "b.safetensors", ""],
            ["c.png", "", "a.safetensors|b.safetensors", ""]]  # fmt: skip
    path = tmp_path / "m.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["content", "style", "style_adapter", "style_name"], *rows])
    read = load_manifest(str(path))
    assert read.manifest is not None
    assert [(entry.name, entry.adapter is not None) for entry in read.manifest.styles] == [("wave", True), ("s", False)]
    assert [(fault.row, fault.what) for fault in read.faults] == [
        (4, "style and style_adapter together: keep one of them"),
        (5, "several adapters in a row"),
    ]


def test_a_row_has_one_kind_of_source_and_stays_below_the_allowed_folders(tmp_path: Path) -> None:
    contents = [{"image": "a.png", "adapter": "a.safetensors"}, {"adapter": "../../etc/b.safetensors"}, "c.png"]
    document = {"contents": contents, "styles": ["s.png"]}
    read = parse_manifest(json.dumps(document).encode(), "json", "m.json", (str(tmp_path),))
    assert [(fault.field, fault.what) for fault in read.faults] == [
        ("contents", "a row needs one of image, images (several of one object), frames (of a clip) and adapter"),
        ("contents.adapter", "path outside the allowed folders"),
    ]


def test_an_adapter_of_another_split_goes_with_what_it_does_not_overlap(files: Project) -> None:
    """Its file says which blocks are its content and which its style."""
    whole = load_adapter(files.folder / "whole.safetensors")
    turned = {"content": [BLOCKS["style"]], "style": [BLOCKS["content"]]}
    Adapter(whole.layers, {SPLIT_KEY: json.dumps(turned)}).save(files.folder / "turned.safetensors")
    contents = [{"name": "turned", "adapter": "turned.safetensors"}, {"name": "whole", "adapter": "whole.safetensors"}]
    sides = {"contents": contents, "styles": [*contents, {"name": "wave", "image": "s0.png"}]}
    pairs = [{"content": "turned", "style": style} for style in ("turned", "whole", "wave")]
    mixed = [{"content": {"turned": 0.5, "whole": 0.5}, "style": "turned"}]
    draft = make_plan(
        Store.open(str(files.folder / "store")), loaded(files, grid=False, **sides, pairs=[*pairs, *mixed])
    )
    assert [sample.style_name for shard in draft.plan.shards for sample in shard.samples] == ["turned"]
    told = [(fault.what, fault.row is not None) for fault in draft.plan.run.faults]
    overlap = ("content and style of splits that overlap", True)
    assert told == [overlap, overlap, ("a mix of different content blocks", True)]
    assert "content up_blocks.0.attentions.1 beside style up_blocks.0.attentions.1" in draft.plan.run.faults[0].received
