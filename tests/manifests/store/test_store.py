"""One contract, two places: every test of the contract runs on a local folder and on a real S3 server."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import Pool
from pathlib import Path

import pytest

from manifests.errors import InvalidId, Missing, PermanentStoreError
from manifests.store import bucket
from manifests.store.files import read_address
from manifests.store.store import Store
from tests.manifests.store import racers as racing
from tests.manifests.store.conftest import RACERS
from tests.servers import S3Server

KEY = "adapters/abc/adapter.json"


def aws_environment() -> dict[str, str]:
    """What a child process needs to reach the same store; empty for local folders."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def test_what_is_written_once_is_read_and_never_overwritten(root: str) -> None:
    store = Store.open(root)
    assert store.write_once(KEY, b"first") is True
    assert store.write_once(KEY, b"second") is False
    assert store.read(KEY) == b"first"
    assert Store.open(root).read(KEY) == b"first"


@pytest.mark.parametrize("data", [b"", b"\0", bytes(range(256)) * 400])
def test_bytes_come_back_as_they_went_in(root: str, data: bytes) -> None:
    store = Store.open(root)
    store.write_once("a/once", data)
    store.replace("a/replaced", data)
    assert store.read("a/once") == store.read("a/replaced") == data


def test_replace_overwrites_and_creates(root: str) -> None:
    store = Store.open(root)
    for data in (b"one", b"another, longer", b"3"):
        store.replace(KEY, data)
        assert store.read(KEY) == data


def test_exists_knows_objects_not_folders(root: str) -> None:
    store = Store.open(root)
    assert not store.exists(KEY)
    store.write_once(KEY, b"x")
    assert store.exists(KEY)
    assert not store.exists("adapters/abc")
    assert not store.exists(KEY + "/below")


def test_a_missing_object_is_missing(root: str) -> None:
    store = Store.open(root)
    store.write_once(KEY, b"x")
    for key in ("nothing", "adapters/abc", KEY + "/below"):
        with pytest.raises(Missing, match=f"{key}.*check the address|{key}.*folder|{key}.*file"):
            store.read(key)
        assert store.find(key) is None
    assert store.find(KEY) == b"x"


def test_delete_removes_and_does_not_mind(root: str) -> None:
    store = Store.open(root)
    store.delete(KEY)
    store.write_once(KEY, b"x")
    store.delete(KEY)
    store.delete(KEY)
    assert not store.exists(KEY)
    assert store.write_once(KEY, b"y") is True


def test_list_shows_all_below_a_folder_in_order(root: str) -> None:
    store = Store.open(root)
    assert store.list("") == store.list("samples/") == {}
    keys = ["samples/ab/x/2.png", "samples/ab/x/10.png", "samples/ab/y/1.png", "samples/abc/x/1.png", "run.json"]
    for number, key in enumerate(keys):
        store.write_once(key, bytes(number))
    assert list(store.list("")) == sorted(keys)
    assert list(store.list("samples/ab/")) == list(store.list("samples/ab")) == sorted(keys[:3])
    assert list(store.list("samples/ab/x")) == ["samples/ab/x/10.png", "samples/ab/x/2.png"]
    assert store.list("samples/a") == {}
    assert store.list("run.json") == {}
    entry = store.list("samples/abc")["samples/abc/x/1.png"]
    assert entry.size == 3
    assert entry.modified.utcoffset() == datetime.timedelta(0)
    assert abs(entry.modified.timestamp() - time.time()) < 60


def test_list_sees_a_deletion_at_once(root: str) -> None:
    store = Store.open(root)
    for number in range(3):
        store.write_once(f"a/{number}", b"")
    store.delete("a/1")
    assert list(store.list("a")) == ["a/0", "a/2"]


def test_list_hides_temporary_names(root: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = Store.open(root)
    store.write_once("a/b", b"")
    if root.startswith("s3://"):
        server: S3Server = request.getfixturevalue("s3_server")
        prefix = root.split("/", 3)[3]
        for hidden in ("a/.tmp-1", ".hidden/c", "a/folder/"):
            server.client().put_object(Bucket=server.bucket, Key=f"{prefix}/{hidden}", Body=b"")
    else:
        (Path(root) / "a/.tmp-1").write_bytes(b"")
        (Path(root) / ".hidden").mkdir()
        (Path(root) / ".hidden/c").write_bytes(b"")
        (Path(root) / "a/folder").mkdir()
    assert list(store.list("")) == ["a/b"]


@pytest.mark.parametrize("size", [0, 5, 11 * 2**20], ids=["nothing", "a little", "in parts"])
def test_objects_go_from_and_to_files(root: str, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is too large for memory; parts as small as S3 takes them."""
    monkeypatch.setattr("manifests.store.bucket.PART_BYTES", 5 * 2**20)
    store, path, back = Store.open(root), tmp_path / "given", tmp_path / "back"
    path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    assert not store.find_into(KEY, back)
    store.replace(KEY, b"older")
    store.replace_from(KEY, path)
    assert store.find_into(KEY, back) and back.read_bytes() == path.read_bytes() == store.read(KEY)
    assert list(store.list("")) == [KEY]


def test_one_of_many_threads_writes(root: str) -> None:
    store = Store.open(root)
    store.write_once("warm", b"")
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda number: store.write_once(KEY, b"%d" % number), range(16)))
    assert won.count(True) == 1
    assert store.read(KEY) == b"%d" % won.index(True)


def test_one_of_many_processes_writes(root: str, racers: Pool) -> None:
    for attempt in range(3):
        start = time.time() + 0.3
        jobs = [(aws_environment(), start, root, f"race/{attempt}", b"%d" % number) for number in range(RACERS)]
        won = racers.starmap(racing.write_once, jobs, chunksize=1)
        assert won.count(True) == 1
        assert Store.open(root).read(f"race/{attempt}") == b"%d" % won.index(True)


def test_a_reader_never_sees_half_an_object(root: str) -> None:
    store = Store.open(root)
    versions = [bytes([number]) * 400_000 for number in range(6)]
    store.replace(KEY, versions[0])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: list(map(store.replace, [KEY] * 30, versions * 5)))
        reads = 0
        while not writing.done() or not reads:
            assert store.read(KEY) in versions
            reads += 1
        writing.result()
    assert list(store.list("")) == [KEY]


def test_a_killed_writer_leaves_whole_objects(root: str) -> None:
    store = Store.open(root)
    size_bytes = 3_000_000
    arguments = (aws_environment(), root, size_bytes)
    writer = multiprocessing.get_context("spawn").Process(target=racing.write_for_ever, args=arguments)
    writer.start()
    deadline = time.monotonic() + 60
    while len(store.list("big")) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    writer.kill()
    writer.join()
    found = store.list("big")
    assert len(found) >= 4
    for key, entry in found.items():
        assert entry.size == size_bytes
        assert store.read(key) == bytes([int(key.removeprefix("big/")) % 251]) * size_bytes
    # A put that had reached the server whole when its writer died may still appear after the listing: whole, then.
    following = f"big/{len(found)}"
    assert store.write_once(following, b"next") or len(store.read(following)) == size_bytes


FORK = """
import os, sys
from manifests.store.store import Store

store, key = Store.open(sys.argv[1]), sys.argv[2]
store.write_once(key, b"parent")
child = os.fork()
if not child:
    print("child", store.read(key), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent", store.read(key), flush=True)
"""
"""Opens and uses a store, forks, and uses it on both sides."""


def test_a_store_works_in_a_forked_child(root: str) -> None:
    # In an interpreter of its own: what else this test process has imported by now does not concern the store.
    command = [sys.executable, "-c", FORK, root, KEY]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.splitlines() == ["child b'parent'", "parent b'parent'"]


def test_a_store_survives_pickling_without_its_credentials(root: str) -> None:
    store = Store.open(root)
    store.write_once(KEY, b"x")
    pickled = pickle.dumps(store)
    assert pickle.loads(pickled).read(KEY) == b"x"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        assert os.environ.get(name, "no credentials here").encode() not in pickled
    assert repr(store) == f"Store({store.root!r})"


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\\b", "a\nb", ".hidden", "a/.b", "x" * 1000]
)
def test_no_key_leaves_the_root(root: str, key: str) -> None:
    store = Store.open(root)
    for operation in (store.read, store.exists, store.delete, lambda key: store.write_once(key, b"")):
        with pytest.raises(InvalidId, match="object key"):
            operation(key)


@pytest.mark.s3
def test_large_objects_go_up_in_parts(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PART_BYTES", 5 * 2**20)
    store = Store.open(s3_root)
    data = os.urandom(11 * 2**20)
    assert store.write_once(KEY, data) is True
    assert store.write_once(KEY, data[::-1]) is False
    assert store.read(KEY) == data
    store.replace(KEY, data[::-1])
    assert store.read(KEY) == data[::-1]
    assert list(store.list("")) == [KEY]


@pytest.mark.s3
def test_list_goes_past_one_page(s3_root: str, s3_server: S3Server) -> None:
    prefix, client = s3_root.split("/", 3)[3], s3_server.client(max_pool_connections=16)
    names = [f"many/{number:04d}" for number in range(1203)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: client.put_object(Bucket=s3_server.bucket, Key=f"{prefix}/{name}", Body=b""), names))
    assert list(Store.open(s3_root).list("many")) == names


@pytest.mark.s3
def test_a_root_may_be_a_whole_bucket(s3_server: S3Server, s3_environment: dict[str, str]) -> None:
    s3_server.client().create_bucket(Bucket="whole")
    store = Store.open("s3://whole")
    store.write_once(KEY, b"x")
    assert store.root == "s3://whole"
    assert list(store.list("")) == [KEY]


def test_a_local_root_is_shown_as_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store.open("results").root == str(tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_local_store_may_have_a_part_on_another_disk(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store/samples").symlink_to(tmp_path / "elsewhere")
    store = Store.open(str(tmp_path / "store"))
    store.write_once("samples/a", b"x")
    assert list(store.list("")) == ["samples/a"]


def test_a_link_that_leads_out_of_a_local_store_is_followed_for_nothing(tmp_path: Path) -> None:
    outside, store = tmp_path / "outside", Store.open(str(tmp_path / "store"))
    outside.mkdir()
    (outside / "a").write_bytes(b"not yours")
    store.write_once("runs/x/a", b"x")
    (tmp_path / "store/runs/file").symlink_to(outside / "a")
    (tmp_path / "store/runs/y").symlink_to(outside)
    (tmp_path / "store/top").symlink_to(outside / "a")
    (tmp_path / "store/runs/within").symlink_to("x/a")
    assert list(store.list("")) == ["runs/within", "runs/x/a"]
    assert set(store.strays("")) == {"runs/file", "runs/y", "top"}
    assert store.read("runs/within") == b"x"
    for key in ("runs/file", "runs/y/a", "top"):
        for ask in (store.read, store.find, store.exists, store.look_at_lease):
            with pytest.raises(PermanentStoreError, match="a link that leads out of the store"):
                ask(key)
    for change in (store.write_once, store.replace):
        with pytest.raises(PermanentStoreError, match="a folder that is a link that leads out"):
            change("runs/y/b", b"x")
    with pytest.raises(PermanentStoreError, match="leads out"):
        store.acquire_lease("runs/y/lease", "me", 60)
    with pytest.raises(PermanentStoreError, match="leads out"):
        store.delete("runs/y/a")
    assert [path.name for path in outside.iterdir()] == ["a"]


def test_links_in_a_circle_end_no_listing(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write_once("inbox/a/x", b"x")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "inbox/self").symlink_to(".")
    (tmp_path / "inbox/a/up").symlink_to("..")
    (tmp_path / "inbox/one").symlink_to("two")
    (tmp_path / "inbox/two").symlink_to("one")
    assert list(store.list("")) == ["inbox/a/x"]
    assert set(store.strays("")) == {"circle", "inbox/self", "inbox/a/up", "inbox/one", "inbox/two"}


@pytest.mark.parametrize("name", ["line\nbreak", "\x1b[31m", "no\xa0break", "\u202eltr", "back\\slash"])
def test_what_a_listing_names_can_be_read(root: str, s3_server: S3Server, name: str) -> None:
    store = Store.open(root)
    store.write_once("inbox/good", b"x")
    if root.startswith("s3://"):
        prefix = root.split("/", 3)[3]
        s3_server.client().put_object(Bucket=s3_server.bucket, Key=f"{prefix}/inbox/{name}", Body=b"")
    else:
        (Path(root) / "inbox" / name).write_bytes(b"")
    listed, strays = store.list("inbox"), store.strays("inbox")
    assert all(store.exists(key) for key in listed)
    if "\\" not in name or not root.startswith("s3://"):  # which the server takes for a slash
        assert list(listed) == ["inbox/good"] and list(strays) == [f"inbox/{name}"]


def test_files_of_a_local_store_can_be_read_by_colleagues(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    before = os.umask(0o027)
    try:
        store.write_once("a", b"")
        store.replace("b", b"")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o640]


def test_read_address_reads_whatever_a_user_names(root: str) -> None:
    store = Store.open(root)
    store.write_once("inbox/my file ü #1.csv", b"content,style\n")
    address = f"{store.root}/inbox/my file ü #1.csv"
    assert read_address(address) == read_address(address, max_bytes=14) == b"content,style\n"
    with pytest.raises(PermanentStoreError, match="14 bytes; accepted at most 13 bytes"):
        read_address(address, max_bytes=13)
    with pytest.raises(Missing):
        read_address(f"{store.root}/inbox/other.csv")
    with pytest.raises(Missing):
        read_address(f"{store.root}/inbox")


def test_read_address_refuses_what_would_block_or_never_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for address in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(PermanentStoreError, match="a regular file"):
            read_address(address, max_bytes=100)


def test_a_disk_that_fails_once_all_is_written_hides_no_writer(tmp_path: Path, failing_folder_sync: list[str]) -> None:
    assert Store.open(str(tmp_path)).write_once("a/b", b"mine") is True
    assert len(failing_folder_sync) == 1
