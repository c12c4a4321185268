"""Several photos of one object: one adapter whatever their order, trained with the object's class in its prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blora.settings.resolve import resolve
from manifests import ids
from manifests.loading.load import load_manifest, parse_manifest
from manifests.loading.pictures import check_images
from manifests.store.store import Store
from tasks.planning.identify import Identified, identify
from tasks.planning.make import make_plan, publish
from tasks.run.items import PlannedAdapter

EXAMPLES = Path(__file__).parents[2] / "manifests" / "examples"
PHOTOS = [str(EXAMPLES / "pictures" / "object" / f"owl-{number}.png") for number in range(1, 5)]
STYLE = {"image": str(EXAMPLES / "pictures" / "coral.png"), "name": "coral"}


def named(folder: Path, **document: Any) -> Identified:
    path = folder / "m.json"
    path.write_text(json.dumps({"styles": [STYLE]} | document))
    loaded = load_manifest(str(path), allowed_roots=[str(EXAMPLES)])
    assert loaded.manifest is not None and loaded.faults == ()
    return identify(loaded.manifest, check_images(loaded.manifest)[0], resolve("demo"), "revision")


def owl(folder: Path, photos: list[str] = PHOTOS, **said: Any) -> PlannedAdapter:
    asked = named(folder, contents=[{"images": photos, "name": "owl", **said}])
    return next(adapter for adapter in asked.adapters if adapter.name == "owl")


def test_the_order_of_photos_is_not_part_of_an_object(tmp_path: Path) -> None:
    """Whoever lists the same photos otherwise means the same object, and gets the adapter that is there."""
    first = owl(tmp_path)
    assert owl(tmp_path, PHOTOS[::-1]) == first
    assert owl(tmp_path, [*PHOTOS, PHOTOS[0]]) == first, "a photo given twice is one photo"
    assert len(first.image_ids) == 4
    assert owl(tmp_path, PHOTOS[:3]).adapter_id != first.adapter_id


def test_the_class_word_is_part_of_the_training_and_so_of_the_id(tmp_path: Path) -> None:
    silent, bird, thing = owl(tmp_path), owl(tmp_path, class_word="owl"), owl(tmp_path, class_word="bird")
    assert [one.prompt for one in (silent, bird, thing)] == ["", "A [v] owl", "A [v] bird"]
    assert len({one.adapter_id for one in (silent, bird, thing)}) == 3
    assert (silent.word, bird.word, owl(tmp_path, class_word="owl", word="brown owl").word) == ("", "owl", "brown owl")
    assert owl(tmp_path, word="brown owl").adapter_id == silent.adapter_id, "a word is for people and scores alone"


def test_one_photo_of_a_class_has_the_id_that_a_training_with_that_prompt_has(tmp_path: Path) -> None:
    one = owl(tmp_path, PHOTOS[:1], class_word="owl")
    train = resolve("demo", {"train.prompt": "A [v] owl"}).train.identity()
    assert one.adapter_id == ids.adapter_id(one.image_ids, train, "revision", 1)


def test_prompts_name_the_object_as_it_was_trained(tmp_path: Path) -> None:
    prompts = ["A [c]", "A [c] on a beach in [s] style"]
    content = {"images": PHOTOS, "name": "owl", "class_word": "owl"}
    style = STYLE | {"word": "coral", "class_word": "print"}
    asked = named(tmp_path, contents=[content], styles=[style], prompts=prompts)
    assert [sample.prompt for sample in asked.samples] == ["A [v] owl", "A [v] owl on a beach in [v] print style"]
    assert {sample.text for sample in asked.samples} == {"a owl in coral style"}
    pair = {"content": "owl", "prompt": "A [c] of ice", "content_prompt": "A [c]"}
    (alone,) = named(tmp_path, contents=[content], styles=[style], pairs=[pair]).samples
    assert (alone.prompt, alone.content_prompt, alone.text) == ("A [v] owl of ice", "A [v] owl", "A owl of ice")


def test_a_mix_of_two_classes_is_told_neither(tmp_path: Path) -> None:
    contents = [
        {"images": PHOTOS, "name": "owl", "class_word": "owl"},
        {"image": PHOTOS[0], "name": "bird", "class_word": "bird"},
    ]
    pairs = [{"content": ["owl", "bird"], "style": "coral", "prompt": "A [c]"}]
    assert [sample.prompt for sample in named(tmp_path, contents=contents, pairs=pairs).samples] == ["A [v]"]


def test_a_table_says_the_same(tmp_path: Path) -> None:
    lines = ["content,style,content_name,content_class_word", f"{'|'.join(PHOTOS)},{STYLE['image']},owl,owl"]
    path = tmp_path / "m.csv"
    path.write_text("\n".join(lines) + "\n")
    loaded = load_manifest(str(path), allowed_roots=[str(EXAMPLES)])
    assert loaded.faults == () and loaded.manifest is not None
    (content,) = loaded.manifest.contents
    assert (content.class_word, len(content.images)) == ("owl", 4)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["a.png|b.png,s.png,x,dog", "a.png|b.png,t.png,x,cat"], "two contents of one name"),
        (["a.png,s.png,x,", ",s.png,,dog"], "content_class_word without content"),
    ],
)
def test_what_a_table_may_not_say_of_a_class(tmp_path: Path, rows: list[str], told: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text("\n".join(["content,style,content_name,content_class_word", *rows]) + "\n")
    assert told in " ".join(str(fault) for fault in load_manifest(str(path)).faults)


def test_a_plan_keeps_what_an_adapter_is_trained_with(tmp_path: Path) -> None:
    content = {"images": PHOTOS, "name": "owl", "class_word": "owl"}
    loaded = parse_manifest({"contents": [content], "styles": [STYLE]}, "json", "inline", [str(EXAMPLES)])
    store = Store.open(str(tmp_path))
    plan = publish(store, make_plan(store, loaded))
    read = {adapter.name: (adapter.prompt, len(adapter.image_ids)) for adapter in plan.adapters}
    assert read == {"owl": ("A [v] owl", 4), "coral": ("", 1)}
