"""Who imports whom: the rules of the house, held against the source and against a real import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import blora

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "blora": {"manifests", "tasks", "flows", "prefect", "fsspec", "s3fs"},
    "manifests": {"torch", "diffusers", "transformers", "prefect", "blora", "tasks", "flows"},
    "tasks": {"flows"},
    "flows": {"torch", "diffusers", "transformers"},
}
# What runs inside a slot's child stays free of Prefect, so that a child starts in the time torch takes.
IN_SLOT = (
    "slot_main",
    "resident",
    "train",
    "generate",
    "score",
    "rescore",
    "methods",
    "weights",
    "runs",
    "planned",
    "strips",
    "figures/contact_sheet",
    "stock",
    "bases",
    "cost",
    "faults",
    "environment",
    "presence",
    "probe",
    "measuring/block_probe",
    "measuring/probe_report",
    "pictures",
)


def imported_packages(path: Path) -> set[str]:
    """Top-level packages that a module imports anywhere, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_room_imports_what_it_must_not_know(room: str) -> None:
    modules = sorted((ROOT / room).rglob("*.py"))
    assert modules, f"{room}/ holds no module"
    broken = {str(path.relative_to(ROOT)): sorted(imported_packages(path) & FORBIDDEN[room]) for path in modules}
    assert {path: names for path, names in broken.items() if names} == {}


def test_the_rule_catches_an_import_inside_a_function(tmp_path: Path) -> None:
    module = tmp_path / "bad.py"
    module.write_text("def late():\n    from prefect.client import x\n")
    assert imported_packages(module) == {"prefect"}


def test_what_runs_in_a_slot_knows_no_prefect() -> None:
    for name in IN_SLOT:
        assert "prefect" not in imported_packages(ROOT / "tasks" / f"{name}.py"), name


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("flows.stylize", ("torch", "diffusers")),
        ("flows.analyze", ("torch", "diffusers")),
        ("flows.rescore", ("torch", "diffusers")),
        ("flows.methods", ("torch", "diffusers")),
        ("flows.nightly", ("torch", "diffusers")),
        ("flows.shard", ("torch", "diffusers")),
        ("flows.cli.main", ("torch", "diffusers", "prefect")),
        ("manifests.loading.load", ("torch", "prefect")),
        ("blora", ("torch", "diffusers", "prefect")),
    ],
)
def test_importing_stays_light(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*[name for name in {absent!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == ""


def test_no_public_name_of_the_library_is_hidden_by_a_module() -> None:
    """Importing ``blora.x`` binds ``x`` on the package: a function of that name would be there only until then."""
    modules = {path.stem for path in (ROOT / "blora").glob("*.py")}
    assert modules.isdisjoint(blora.__all__)


def test_only_one_module_of_ours_reads_the_environment() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for room in FORBIDDEN
        for path in (ROOT / room).rglob("*.py")
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    }
    assert readers == {"tasks/environment.py", "tasks/slots.py"}  # slots hands its own environment on to its children
