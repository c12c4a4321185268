"""Where output goes: folders, buckets and the home folder; what is named as nothing, or is a file, is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from manifests.store.store import Store
from tests.made_run import finish, plan_run

NAMES = {"apple__wave__0.png", "apple__night__0.png"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """A run of two pictures."""
    store, plan = plan_run(tmp_path_factory.mktemp("run"), ["apple"], ["wave", "night"])
    finish(store, plan)
    return store, plan.run.run_id


def blora(*arguments: str) -> tuple[int, str]:
    """Exit code and all that was printed, less how it was broken into lines."""
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300"})
    return done.exit_code, done.stdout + done.stderr


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder, with the time of its last change."""
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}


def test_pictures_and_pages_go_where_they_were_asked_to_go(
    finished: tuple[Store, str], root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`root` is a folder or a real bucket, and here the target, not the store."""
    store, run_id = finished
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    code, said = blora("export", run_id, f"{root}/out", "--root", store.root)
    assert code == 0, said
    there = Store.open(f"{root}/out").list("")
    assert there.keys() >= NAMES and "contact_sheet.png" in there
    assert Store.open(root).read("out/apple__wave__0.png").startswith(b"\x89PNG")
    code, said = blora("report", run_id, "--out", f"{root}/page", "--root", store.root)
    assert code == 0 and said.split()[-1] == f"{root}/page/index.html"
    assert "index.html" in Store.open(f"{root}/page").list("")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_tilde_is_the_home_folder_for_output_too(
    finished: tuple[Store, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run_id = finished
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    assert blora("export", run_id, "~/out", "--root", store.root)[0] == 0
    assert blora("report", run_id, "--out", "~/page", "--root", store.root)[0] == 0
    assert {path.name for path in (home / "out").iterdir()} >= NAMES
    assert (home / "page" / "index.html").is_file() and list(work.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "RUN", ""),
        ("export", "RUN", "FILE"),
        ("export", "RUN", "FILE/below"),
        ("export", "RUN", "s3://My_Bucket/out"),
        ("report", "RUN", "--out", ""),
        ("report", "RUN", "--out", "FILE"),
        ("bench", ""),
        ("bench", "FILE"),
        ("bench", "s3://x/y"),
        ("status", "--root", ""),
        ("validate", ""),
        ("validate", "m.yaml", "--allow-root", ""),
        ("probe", "--prompts", ""),
        ("review", "RUN", ""),
    ],
)
def test_no_place_and_a_file_in_its_place_are_refused_in_a_line(
    finished: tuple[Store, str], arguments: tuple[str, ...], tmp_path: Path
) -> None:
    store, run_id = finished
    (tmp_path / "file").write_text("mine")
    given = [one.replace("RUN", run_id).replace("FILE", str(tmp_path / "file")) for one in arguments]
    if arguments[0] in ("export", "report", "review"):
        given += ["--root", store.root]
    code, said = blora(*given)
    assert code == 2 and len(said.splitlines()) == 1 and "received" in said, said
    assert (tmp_path / "file").read_text() == "mine"


def test_a_copy_of_the_page_only_reads_the_store(finished: tuple[Store, str], tmp_path: Path) -> None:
    store, run_id = finished
    before = state_of(Path(store.root))
    assert blora("report", run_id, "--out", str(tmp_path / "copy"), "--root", store.root)[0] == 0
    assert (tmp_path / "copy" / "index.html").is_file()
    assert blora("export", run_id, str(tmp_path / "out"), "--root", store.root)[0] == 0
    assert state_of(Path(store.root)) == before
