"""What is no address of a store is refused, and no message ever repeats a credential."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path

import pytest

from manifests.errors import ManifestsError, PermanentStoreError
from manifests.store.address import is_bucket
from manifests.store.files import read_address
from manifests.store.store import Store
from tests.servers import S3Server

SECRETS = ["hunter2", "AKIASECRET", "abc/def+ghi", "5161AB"]


def _everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a\0b",
        "gs://bucket/x",
        "https://example.org/x.png",
        "file:///etc/passwd",
        "s3a://bucket/x",
        "s3:/bucket/x",
        "s3://",
        "s3://Bucket_With/x",
        "memory://x",
    ],
)
def test_other_addresses_are_refused_with_what_is_accepted(address: str) -> None:
    for use in (Store.open, read_address):
        with pytest.raises(PermanentStoreError, match=r"accepted a local path, or s3://bucket/prefix"):
            use(address)


@pytest.mark.parametrize(
    "address",
    [
        "s3://AKIASECRET:hunter2@bucket/x",
        "s3://AKIASECRET:abc/def+ghi@bucket/x",
        "s3://hunter2@bucket/x",
        "https://user:hunter2@example.org/x",
        "https://bucket.example.org/x?X-Amz-Signature=5161AB",
        "s3://Bucket_/x?secret=hunter2",
    ],
)
def test_addresses_with_credentials_are_refused_without_repeating_them(address: str) -> None:
    for use in (Store.open, read_address):
        with pytest.raises(PermanentStoreError) as caught:
            use(address)
        assert not any(secret in _everything_said(caught.value) for secret in SECRETS)


@pytest.mark.parametrize(
    "root", ["s3://bucket/../x", "s3://bucket/a//b", "s3://bucket/a/./b", "s3://bucket/a?b=hunter2"]
)
def test_a_prefix_must_be_plain(root: str) -> None:
    with pytest.raises(PermanentStoreError, match="open the store") as caught:
        Store.open(root)
    assert "hunter2" not in _everything_said(caught.value)


@pytest.mark.parametrize(("root", "shown"), [("s3://bucket", "s3://bucket"), ("s3://bucket/a/b/", "s3://bucket/a/b")])
def test_a_bucket_root_is_shown_without_its_last_slash(root: str, shown: str) -> None:
    assert Store.open(root).root == shown


def test_a_bucket_alone_is_no_file() -> None:
    with pytest.raises(PermanentStoreError, match="s3://bucket/key"):
        read_address("s3://bucket")


def test_a_file_is_no_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PermanentStoreError, match="received a file"):
        Store.open(str(tmp_path / "file"))


@pytest.mark.s3
@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_say_what_to_set(s3_root: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "hunter2")
    store = Store.open(s3_root)
    for operation in (lambda: store.read("a"), lambda: store.write_once("a", b""), lambda: store.list("")):
        with pytest.raises(PermanentStoreError, match="set AWS_ACCESS_KEY_ID") as caught:
            operation()
        assert "hunter2" not in _everything_said(caught.value)
    with pytest.raises(PermanentStoreError, match="403"):  # a HEAD has no body that could say more
        store.exists("a")


@pytest.mark.s3
def test_no_credentials_say_what_to_set(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name)
    with pytest.raises(PermanentStoreError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"):
        Store.open(s3_root).read("a")


@pytest.mark.s3
def test_a_profile_is_as_good_as_variables(
    s3_server: S3Server, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in s3_server.environment():
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(f"[profile night]\nendpoint_url = {s3_server.endpoint_url}\nregion = eu-west-3\n")
    (tmp_path / "credentials").write_text(
        f"[night]\naws_access_key_id = {s3_server.access_key_id}\n"
        f"aws_secret_access_key = {s3_server.secret_access_key}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "night")
    store = Store.open(s3_root)
    assert store.write_once("a", b"x") is True
    assert store.read("a") == b"x"
    monkeypatch.setenv("AWS_PROFILE", "day")
    with pytest.raises(PermanentStoreError, match="AWS_PROFILE"):
        Store.open(s3_root).read("a")


@pytest.mark.s3
def test_credentials_that_are_put_right_are_taken_up(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = os.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    store = Store.open(s3_root)
    with pytest.raises(PermanentStoreError):
        store.read("a")
    with pytest.raises(PermanentStoreError):
        read_address(f"{s3_root}/a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", right)
    assert store.write_once("a", b"x") is True
    assert read_address(f"{s3_root}/a") == b"x"


@pytest.mark.s3
def test_a_bucket_that_does_not_exist_is_said_to_be_missing(s3_environment: dict[str, str]) -> None:
    with pytest.raises(PermanentStoreError, match="create the bucket or correct its name") as caught:
        Store.open("s3://nobody-made-this/x").read("a")
    assert type(caught.value) is PermanentStoreError
    assert isinstance(caught.value, ManifestsError)


def test_what_an_address_of_a_bucket_looks_like_is_known_to_the_store_alone() -> None:
    """Another kind of store is another file of its room, and no search through the house."""
    root = Path(__file__).parents[3]
    asking = re.compile(r"(?:startswith|removeprefix|match|compile)\(\s*r?[\"']s3:")
    files = [path for package in ("manifests", "tasks", "flows") for path in (root / package).rglob("*.py")]
    assert [path.relative_to(root).as_posix() for path in files if asking.search(path.read_text("utf-8"))] == []
    assert is_bucket("s3://bucket/key") and is_bucket("s3://Bucket_/key")
    assert not any(map(is_bucket, ("a/s3://b", "/a", "https://s3/b", "")))
