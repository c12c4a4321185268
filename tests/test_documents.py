"""The documents say what is there: links, pictures, commands, modules, manifests, variables, and the tree of rooms."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import blora
from tests.documents import (
    DOCUMENTS,
    FENCED,
    FOLDERS,
    PACKAGES,
    PRESENT,
    ROOT,
    blocks,
    broken_links,
    commands,
    console_lines,
    inline_code,
    is_there,
    named,
    resolves,
    rooms_drawn,
    why_refused,
)
from tests.made_tables import TABLES, with_table


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_link_and_picture_is_there(path: Path) -> None:
    assert broken_links(path, path.read_text()) == []


@pytest.mark.parametrize("path", PRESENT, ids=named)
def test_every_command_is_one(path: Path) -> None:
    text = path.read_text()
    lines = [line for line in console_lines(text) if line.startswith("blora ")]
    refused = {line: why for line in lines if (why := why_refused(line))}
    mentioned = [code for code in inline_code(text) if code.startswith("blora ")]
    refused |= {line: why for line in mentioned if (why := why_refused(line, whole=False))}
    assert refused == {}


def test_every_example_of_the_help_is_a_command() -> None:
    lines = [code for one in commands().values() for code in inline_code(one.help) if code.startswith("blora ")]
    assert len(lines) > 30
    assert {line: why for line in lines if (why := why_refused(line, whole=" " in line[6:]))} == {}


@pytest.mark.parametrize("path", PRESENT, ids=named)
def test_every_module_and_target_that_is_run_is_there(path: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    told = [*console_lines(path.read_text()), *inline_code(path.read_text())]
    modules = [match[1] for line in told if (match := re.match(r"(?:\.venv/bin/)?python -m ([\w.]+)", line))]
    ours = [module for module in modules if module.partition(".")[0] in FOLDERS]
    assert [module for module in ours if not resolves(module)] == []
    assert {line for line in told if re.fullmatch(r"make \w+", line) and line[5:] not in targets} == set()


@pytest.mark.parametrize("path", PRESENT, ids=named)
def test_every_path_and_name_of_ours_is_there(path: Path) -> None:
    assert [code for code in inline_code(path.read_text()) if not is_there(code)] == []


@pytest.mark.parametrize("path", PRESENT, ids=named)
def test_python_that_is_shown_imports_what_is_there(path: Path) -> None:
    bodies = [body for _, body in FENCED.findall(path.read_text())]
    imports = [pair for body in bodies for pair in re.findall(r"^from ([\w.]+) import ([\w, ]+)$", body, re.M)]
    ours = [(module, names) for module, names in imports if module.partition(".")[0] in FOLDERS]
    asked = [f"{module}.{name}" for module, names in ours for name in names.split(", ")]
    assert [name for name in asked if not resolves(name)] == []
    for body in blocks(path.read_text(), "python"):
        ast.parse(body)
        assert {name for name in re.findall(r"\bblora\.(\w+)\(", body) if name not in blora.__all__} == set()


def test_every_manifest_shown_can_be_read(tmp_path: Path) -> None:
    from manifests.loading.load import load_manifest

    shutil.copytree(ROOT / "manifests" / "examples" / "pictures" / "object", tmp_path / "walk")
    shutil.copy(ROOT / "manifests" / "examples" / "pictures" / "balloon.gif", tmp_path)
    for name in ("juggernaut", "lcm"):
        (tmp_path / f"{name}.safetensors").touch()
    known: dict[str, Any] = {
        "contents": [{"image": f"{name}.png"} for name in ("pepper", "teapot")],
        "styles": [{"image": f"{name}.png"} for name in ("wave", "gold")],
    }
    shown = [body for path in PRESENT for body in blocks(path.read_text(), "yaml")]
    assert len(shown) > 5
    for number, body in enumerate(shown):
        file = tmp_path / f"shown-{number}.yaml"
        file.write_text(yaml.safe_dump(known | yaml.safe_load(body)))
        loaded = load_manifest(str(file))
        assert loaded.faults == (), body
        assert loaded.manifest is not None
        blora.resolve(loaded.manifest.preset, loaded.manifest.settings)


def test_a_change_of_a_kind_touches_two_rooms_at_most_and_what_is_named_is_in_them() -> None:
    rows = re.findall(r"^\| (an? .+?|another .+?) \| (.+?) \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert len(rows) >= 10
    for what, where, how in rows:
        rooms = inline_code(where)
        assert 1 <= len(rooms) <= 2, what
        files = [file for room in rooms for file in (ROOT / room).glob("*.py")]
        words = {word for file in files for word in re.findall(r"\w+", file.read_text())}
        names = [code for code in inline_code(how) if re.fullmatch(r"\w+(\.py)?", code)]
        known = words | {file.name for file in files}
        assert [name for name in names if name not in known] == [], what


@pytest.mark.parametrize("name", TABLES)
def test_a_table_made_from_the_code_is_as_the_code(name: str) -> None:
    file, make = TABLES[name]
    text = (ROOT / file).read_text()
    assert with_table(text, name, make()) == text, "python -m tests.made_tables writes it anew"


def test_the_variables_told_are_those_that_are_read() -> None:
    told = set(re.findall(r"`(BLORA_\w+)`", (ROOT / "infra" / "README.md").read_text()))
    read = set(re.findall(r'"(BLORA_[A-Z_]+)"', (ROOT / "tasks" / "environment.py").read_text()))
    assert told == read


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_the_tree_shows_every_room_and_no_other() -> None:
    drawn = rooms_drawn()
    assert set(drawn) == set(FOLDERS)
    for folder, rooms in drawn.items():
        assert {room for room in rooms if not (ROOT / folder / room).is_dir()} == set(), folder
    for package in PACKAGES:
        there = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert there - drawn[package] == set(), package


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (lambda text: broken_links(ROOT / "README.md", text), "[here](nowhere.md)"),
        (lambda text: broken_links(ROOT / "README.md", text), "![here](manifests/examples/nothing.png)"),
        (lambda text: broken_links(ROOT / "README.md", text), "# One\n[here](#two)"),
        (lambda text: why_refused(text), "blora paint pairs.csv"),
        (lambda text: why_refused(text), "blora run pairs.csv --colour red"),
        (lambda text: why_refused(text), "blora run"),
        (lambda text: why_refused(text), "blora run pairs.csv --set train.stepps=2"),
        (lambda text: not is_there(text), "tasks/nothing.py"),
        (lambda text: not is_there(text), "tasks.environment.nothing"),
        (lambda text: not is_there(text), "blora/nothing/"),
    ],
)
def test_the_checks_notice(check: Callable[[str], object], text: str) -> None:
    assert check(text)


@pytest.mark.parametrize("code", ["tasks/environment.py", "tasks.environment.store_root", "runs/<run>/", "a/b.py"])
def test_the_checks_let_pass_what_is_there_or_not_ours(code: str) -> None:
    assert is_there(code)
