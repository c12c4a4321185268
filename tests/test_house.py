"""The house: which rooms there are, who imports whom, and who may know which library, all from one table.

A room is a folder of a package; the package's own files are the room "". Rooms stand lowest first: a file imports from
its own room and from rooms before it. A new file needs no entry; a new room needs a line here and in the README.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import blora

ROOT = Path(__file__).parent.parent
ROOMS = {
    "manifests": ("", "tables", "store", "images", "parsing", "schema", "loading"),
    "blora": (
        "errors",
        "embedded",
        "settings",
        "adapters",
        "bases",
        "models/passes",
        "models/families",
        "models",
        "training",
        "sampling",
        "metrics",
        "probe",
        "benchmark",
        "checks",
        "embedded/drawings",
        "embedded/learning",
        "embedded/words",
        "embedded/training",
        "",
    ),
    "tasks": (
        "",
        "run",
        "planning",
        "operations",
        "review",
        "figures",
        "report",
        "dispatch",
        "closing",
        "measuring",
        "worker",
    ),
    "flows": ("params", "scheduling", "", "cli"),
}
FORBIDDEN = {
    "manifests": {"torch", "diffusers", "transformers", "prefect", "blora", "tasks", "flows"},
    "blora": {"manifests", "tasks", "flows", "prefect", "fsspec", "s3fs"},
    "tasks": {"flows"},
    "flows": {"torch", "diffusers", "transformers"},
}
MAY_KNOW_PREFECT = ("tasks/dispatch", "tasks/operations", "flows")
MOST_FILES, FEWEST_FILES = 10, 4
WITH_CODE_IN_FACE = ("blora", "blora/embedded")  # the library's public names; the weights that the package carries


def modules_of(package: str) -> list[Path]:
    """Every module of a package, without the faces of its rooms."""
    found = sorted(path for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py")
    assert found, f"{package}/ holds no module"
    return found


ALL_MODULES = [path for package in ROOMS for path in modules_of(package)]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported_modules(path: Path) -> set[str]:
    """Dotted names that a module imports anywhere, inside functions too; of ``from a import b`` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported_packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported_modules(path)}


def rank(module: str) -> int:
    """Where a module's room stands in its package; a line of the table may name one file, too."""
    package, _, rest = module.partition(".")
    inside = rest.replace(".", "/")
    rooms = ROOMS[package]
    own = [room for room in rooms if room and (inside == room or inside.startswith(f"{room}/"))]
    if own:
        return rooms.index(max(own, key=len))
    assert "/" not in inside, f"{module} lies in a room that the table does not name"
    return rooms.index("")


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_package_imports_what_it_must_not_know(package: str) -> None:
    broken = {name_of(path): sorted(imported_packages(path) & FORBIDDEN[package]) for path in modules_of(package)}
    assert {module: names for module, names in broken.items() if names} == {}


def test_prefect_is_known_in_three_places_alone() -> None:
    knowing = [path for path in ALL_MODULES if "prefect" in imported_packages(path)]
    where = [path.relative_to(ROOT).as_posix() for path in knowing]
    assert where and [path for path in where if not path.startswith(MAY_KNOW_PREFECT)] == []


def upward_imports(package: str) -> Iterator[str]:
    known = {name_of(path) for path in modules_of(package)}
    for path in modules_of(package):
        module = name_of(path)
        for other in sorted(imported_modules(path) & known):
            if rank(other) > rank(module):
                yield f"{module} -> {other}"


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_only_rooms_below_them(package: str) -> None:
    assert list(upward_imports(package)) == []


def test_no_circle_of_files() -> None:
    known = {name_of(path) for path in ALL_MODULES}
    graph = {name_of(path): imported_modules(path) & known - {name_of(path)} for path in ALL_MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_every_room_is_in_the_table_and_holds_a_handful_of_files() -> None:
    sizes = Counter(path.parent.relative_to(ROOT).as_posix() for path in ALL_MODULES)
    tabled = {f"{package}/{room}" for package, rooms in ROOMS.items() for room in rooms if room}
    rooms = {room: size for room, size in sizes.items() if "/" in room and room not in WITH_CODE_IN_FACE}
    assert rooms.keys() <= tabled
    assert {room: size for room, size in rooms.items() if not FEWEST_FILES <= size <= MOST_FILES} == {}


def test_every_room_says_what_it_is_and_nothing_else() -> None:
    faces = {path.parent / "__init__.py" for path in ALL_MODULES}
    faces -= {ROOT / package / "__init__.py" for package in WITH_CODE_IN_FACE}
    for face in sorted(faces):
        body = ast.parse(face.read_text()).body
        assert len(body) == 1 and ast.get_docstring(ast.Module(body, [])), face


def test_a_class_name_means_one_thing() -> None:
    classes = Counter(
        node.name
        for path in ALL_MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert classes and [name for name, times in classes.items() if times > 1] == []


def test_no_file_is_an_attic() -> None:
    attics = {"utils", "util", "common", "helpers", "helper", "core", "misc"}
    assert [name_of(path) for path in ALL_MODULES if attics & set(name_of(path).split("."))] == []


def test_the_rules_catch_what_they_are_for(tmp_path: Path) -> None:
    module = tmp_path / "bad.py"
    module.write_text("def late():\n    from prefect.client import x\n    import tasks.closing.collect\n")
    assert imported_modules(module) == {"prefect.client", "prefect.client.x", "tasks.closing.collect"}
    assert rank("tasks.closing.collect") > rank("tasks.run.plan") > rank("tasks.errors")
    assert rank("flows.cli.main") > rank("flows.stylize") > rank("flows.scheduling.board") > rank("flows.params")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("flows.stylize", ("torch", "diffusers")),
        ("flows.probe", ("torch", "diffusers")),
        ("flows.rescore", ("torch", "diffusers")),
        ("flows.compare_methods", ("torch", "diffusers")),
        ("flows.nightly", ("torch", "diffusers")),
        ("flows.shard", ("torch", "diffusers")),
        ("flows.cli.main", ("torch", "diffusers", "prefect", "pyarrow", "aiohttp", "botocore", "numpy")),
        ("flows.prepare", ("torch", "diffusers", "prefect")),  # the first line of a run comes before them
        ("tasks.closing.status", ("torch", "diffusers", "prefect", "pandas", "aiohttp", "botocore")),
        ("tasks.worker.main", ("prefect",)),  # a slot's child starts in the time that torch takes
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
    rooms = {path.name for path in (ROOT / "blora").iterdir() if path.is_dir()}
    modules = {path.stem for path in (ROOT / "blora").glob("*.py")}
    assert (rooms | modules).isdisjoint(blora.__all__)


def test_only_one_module_of_ours_reads_the_environment() -> None:
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in ALL_MODULES
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    }
    # slots hands its own environment on to its children
    assert readers == {"tasks/environment.py", "tasks/dispatch/slot.py"}


def test_only_families_and_what_locates_them_name_their_classes() -> None:
    """Whoever trains, draws or plans asks the family: see blora/models/families."""
    families = {"UNet2DConditionModel", "FluxTransformer2DModel", "StableDiffusionXLPipeline", "FluxPipeline"}
    may = ("blora/models/", "blora/bases/", "blora/embedded/training/", "blora/probe/plain_unets.py")
    named = {
        path.relative_to(ROOT).as_posix(): sorted(used)
        for path in ALL_MODULES
        if not path.relative_to(ROOT).as_posix().startswith(may)
        and (used := families & {name.rpartition(".")[2] for name in imported_modules(path)})
    }
    assert named == {}


def test_a_face_that_lists_its_files_lists_what_is_there() -> None:
    """Where the docstring of a room names files, it names each of the room's and no other."""
    untrue: dict[str, list[str]] = {}
    for face in (path for package in ROOMS for path in (ROOT / package).rglob("__init__.py")):
        listed = set(re.findall(r"\b(\w+\.py)\b", ast.get_docstring(ast.parse(face.read_text())) or ""))
        there = {path.name for path in face.parent.glob("*.py")} - {"__init__.py", "__main__.py"}
        if listed and listed != there:
            untrue[str(face.relative_to(ROOT))] = sorted(listed ^ there)
    assert untrue == {}
