"""Adapters of a run as files for other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blora.adapters.adapter import Adapter
from blora.adapters.load import load_adapter
from blora.adapters.safetensors_bytes import pack_safetensors, unpack_safetensors
from blora.errors import KeyMismatchError
from manifests import layout
from manifests.store.store import Store
from tasks.closing.adapter_files import asked, export_adapters, weighted, write_one
from tasks.errors import TaskError
from tasks.run.plan import Plan
from tests import tiny
from tests.blora.adapters.test_forms import made
from tests.made_run import plan_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan]:
    """A planned run, all adapters of which but the last are there."""
    store, plan = plan_run(tmp_path_factory.mktemp("run"), ["cat", "fox"], ["wave", "gold"])
    unet = tiny.unet()
    for pack in plan.packs:
        for number, adapter in enumerate(pack.adapters):
            if adapter.name == "gold":
                continue
            for half in ("content", "style"):
                data = made(unet, half, 4, seed=number).save_half()
                store.replace(layout.adapter_key(adapter.adapter_id, half), data)
    return store, plan


def deltas(path: Path | str) -> dict[str, torch.Tensor]:
    return {name: factors.delta for name, factors in load_adapter(path).layers.items()}


def half(run: tuple[Store, Plan], name: str, side: str) -> Adapter:
    store, plan = run
    (adapter_id,) = {a.adapter_id for pack in plan.packs for a in pack.adapters if a.name == name}
    return load_adapter(store.read(layout.adapter_key(adapter_id, side)))  # type: ignore[arg-type]


def test_a_run_gives_a_file_for_each_half_that_is_there(run: tuple[Store, Plan], tmp_path: Path) -> None:
    written = export_adapters(run[0], run[1].run.run_id, str(tmp_path))
    names = {Path(path).relative_to(tmp_path).as_posix() for path in written}
    assert names == {f"adapters/{name}.safetensors" for name in ("content__cat", "content__fox", "style__wave")}
    found = deltas(tmp_path / "adapters" / "style__wave.safetensors")
    for name, factors in half(run, "wave", "style").layers.items():
        torch.testing.assert_close(found[name], factors.delta, rtol=1e-2, atol=1e-2)


def test_strengths_and_mixes_are_in_the_weights(run: tuple[Store, Plan], tmp_path: Path) -> None:
    of = run[0], run[1].run.run_id
    (path,), _ = write_one(asked(["cat=0.5", "fox=0.25"], ["wave=2"]), str(tmp_path / "all.safetensors"), of=of)
    found, cat, fox = deltas(path), half(run, "cat", "content"), half(run, "fox", "content")
    for name in cat.layers:
        expected = 0.5 * cat.layers[name].delta + 0.25 * fox.layers[name].delta
        torch.testing.assert_close(found[name], expected, rtol=1e-2, atol=1e-2)
    for name, factors in half(run, "wave", "style").layers.items():
        torch.testing.assert_close(found[name], 2 * factors.delta, rtol=1e-2, atol=2e-2)


def test_files_are_taken_where_no_run_is_named(run: tuple[Store, Plan], tmp_path: Path) -> None:
    half(run, "wave", "style").save(tmp_path / "a=1.safetensors")
    (path,), whole = write_one(asked([], [str(tmp_path / "a=1.safetensors")]), str(tmp_path / "b.safetensors"))
    assert Path(path).is_file() and whole.layers.keys() == half(run, "wave", "style").layers.keys()


@pytest.mark.parametrize(
    ("content", "style", "said"),
    [
        ([], [], "nothing to write"),
        (["cta"], [], "no content named 'cta'; did you mean 'cat'"),
        (["wave"], [], "no content named 'wave'; it has: cat, fox"),
        ([], ["gold=0.4"], "'gold' is not trained yet: blora rerun"),
    ],
)
def test_what_is_not_there_is_told(
    run: tuple[Store, Plan], tmp_path: Path, content: list[str], style: list[str], said: str
) -> None:
    of = run[0], run[1].run.run_id
    with pytest.raises(TaskError, match=said):
        write_one(asked(content, style), str(tmp_path / "out.safetensors"), of=of)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_or_lacks_the_half_is_told(run: tuple[Store, Plan], tmp_path: Path) -> None:
    half(run, "wave", "style").save(tmp_path / "wave.safetensors")
    for named, said in (("no.safetensors", "there is no file"), ("wave.safetensors", "does not hold the content half")):
        with pytest.raises(TaskError, match=said):
            write_one(asked([str(tmp_path / named)], []), str(tmp_path / "out.safetensors"))


def test_a_name_may_hold_an_equals_sign() -> None:
    assert [weighted(text) for text in ("cat", "cat=0.8", "a=b", "a=b=2")] == [
        ("cat", 1.0),
        ("cat", 0.8),
        ("a=b", 1.0),
        ("a=b", 2.0),
    ]


def test_the_blocks_are_taken_out_of_a_larger_file(run: tuple[Store, Plan], tmp_path: Path) -> None:
    (path,) = half(run, "wave", "style").save(tmp_path / "large.safetensors")
    tensors, metadata = unpack_safetensors(path.read_bytes())
    more = {"lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.ones(())}
    path.write_bytes(pack_safetensors({**tensors, **more}, metadata))
    sides = asked([], [str(path)])
    with pytest.raises(KeyMismatchError, match="--only-blocks"):
        write_one(sides, str(tmp_path / "out.safetensors"))
    _, whole = write_one(sides, str(tmp_path / "out.safetensors"), only="blocks")
    assert whole.metadata["dropped"] == next(iter(more))


@pytest.mark.s3
def test_files_go_to_buckets_and_to_the_home_folder(
    run: tuple[Store, Plan], tmp_path: Path, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    of = run[0], run[1].run.run_id
    assert write_one(asked(["cat"], []), f"{s3_root}/loras/cat.safetensors", of=of)[0] == [
        f"{s3_root}/loras/cat.safetensors"
    ]
    written = export_adapters(*of, f"{s3_root}/out", "peft")
    assert f"{s3_root}/out/adapters/content__cat/adapter_config.json" in written
    bucket = Store.open(s3_root)
    local = write_one(asked(["cat"], []), "~/cat.safetensors", of=of)[0]
    assert bucket.read("loras/cat.safetensors") == (tmp_path / "cat.safetensors").read_bytes()
    assert local == [str(tmp_path / "cat.safetensors")]
