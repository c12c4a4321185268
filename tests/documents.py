"""The documents of this repository, and whether what they name is there: links, commands, paths, dotted names."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer.main
import yaml

import blora

ROOT = Path(__file__).parent.parent
PACKAGES = ("manifests", "blora", "tasks", "flows")
FOLDERS = (*PACKAGES, "tests", "infra")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
PRESENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # which also tells of what is gone

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
COMMENT = re.compile(r"\s+#\s.*$")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of some languages."""
    return [body for language, body in FENCED.findall(text) if language in languages]


def inline_code(text: str) -> list[str]:
    """What stands between backticks, outside of fenced blocks; line breaks are spaces."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCED.sub("", text))]


def console_lines(text: str) -> list[str]:
    """Commands of console blocks without prompt and comment; lines without a prompt are what a command says."""
    lines = [line for body in blocks(text, "console") for line in body.splitlines() if line.startswith("$ ")]
    lines += [line for body in blocks(text, "sh", "bash") for line in body.splitlines()]
    return [COMMENT.sub("", line).removeprefix("$ ").strip() for line in lines]


def anchors(text: str) -> set[str]:
    """The headings as GitHub turns them into anchors."""
    heads = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_links(path: Path, text: str) -> list[str]:
    """Relative links and pictures of a document that lead nowhere."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = path.parent / file if file else path
        if not place.exists() or (anchor and anchor not in anchors(text if place == path else place.read_text())):
            broken.append(target)
    return broken


@functools.cache
def command() -> Any:
    """The `blora` command as it is installed, with its commands and options as objects."""
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["blora"]
    return typer.main.get_command(importlib.import_module(script.partition(":")[0]).app)


def commands() -> dict[str, Any]:
    """Every command by what is typed after `blora`, those of groups by group and name."""
    found = {}
    for name, one in command().commands.items():
        below = getattr(one, "commands", None)
        found.update({f"{name} {part}": inner for part, inner in below.items()} if below else {name: one})
    return found


def why_refused(line: str, *, whole: bool = True) -> str:
    """Why the command would not take a line; empty if it would.

    Args:
        line: Such as ``blora run pairs.csv``.
        whole: Whether arguments that must be given may not be left out; a mention in a sentence leaves them out.
    """
    name, *arguments = shlex.split(line)[1:] or [""]
    known = commands()
    if arguments and f"{name} {arguments[0]}" in known:
        name = f"{name} {arguments.pop(0)}"
    if name not in known:
        return f"no command {name}"
    if "--help" in arguments:
        return ""
    try:
        given = known[name].make_context(name, arguments).params
        settings = dict(pair.split("=", 1) for pair in given.get("set_") or ())
        blora.resolve("paper", {path: yaml.safe_load(value) for path, value in settings.items()})
    except Exception as error:  # of the parser that typer carries in itself, whose classes are not public
        incomplete = type(error).__name__ == "MissingParameter" and not whole
        return "" if incomplete else f"{type(error).__name__}: {error}"
    return ""


def is_there(code: str) -> bool:
    """Whether a path or a dotted name of ours exists; everything else passes."""
    bare = re.sub(r"[:(].*", "", code)
    if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*", bare):
        return (ROOT / bare).exists()
    if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})(?:\.\w+)+", bare) and not bare.endswith((".py", ".yaml", ".json")):
        return resolves(bare)
    return True


def resolves(dotted: str) -> bool:
    """Whether a dotted name of ours is a module, or something in one; read from the source, as torch takes its time."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if file.is_file():
            return _holds(ast.parse(file.read_text()).body, parts[length:])
    return False


def _holds(body: Sequence[ast.stmt], names: Sequence[str]) -> bool:
    """Whether a module or class has something of a name, and that something of the next name, and so on."""
    if not names:
        return True
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == names[0]:
            return _holds(node.body, names[1:])
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == names[0] for target in targets):
            return len(names) == 1
        if isinstance(node, ast.If) and _holds(node.body, names):  # what is imported for types alone, and is public
            return True
        if isinstance(node, ast.ImportFrom) and any((one.asname or one.name) == names[0] for one in node.names):
            return len(names) == 1
    return False


def rooms_drawn() -> dict[str, set[str]]:
    """Packages and rooms of the tree in README.md."""
    (tree,) = [body for body in blocks((ROOT / "README.md").read_text(), "text") if "\nflows/" in body]
    rooms: dict[str, set[str]] = {}
    package = ""
    for line in tree.splitlines():
        for indent, name in re.findall(r"(^|\s)([a-z_]+)/(?=\s|$)", line):
            if not indent:
                rooms[package := name] = set()
            else:
                rooms[package].add(name)
    return rooms
