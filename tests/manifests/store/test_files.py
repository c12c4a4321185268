"""What is no address of a store is refused, and no message ever repeats a credential."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path

import pytest

from manifests.errors import ManifestsError, PermanentStoreError
from manifests.store.address import is_bucket
from manifests.store.files import list_address, read_address
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


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://bucket/a//b.png", "two slashes in a row"),
        ("s3://bucket//b.png", "two slashes in a row"),
        ("s3://bucket/a\nb.png", "the control character '\\n'"),
        ("s3://My_Bucket/b.png", "a bucket's name with 'B' 'M' '_' in it"),
        ("s3://ab/b.png", "a bucket's name of 2 characters"),
        ("s3://bucket-/b.png", "a bucket's name that begins or ends with . or -"),
        ("s3:bucket/b.png", "accepted a local path, or s3://bucket/prefix"),
    ],
)
def test_what_is_wrong_with_a_buckets_address_is_said_before_it_is_asked(address: str, said: str) -> None:
    for use in (Store.open, read_address, list_address):
        with pytest.raises(PermanentStoreError) as caught:
            use(address)
        assert said in str(caught.value)


_S3 = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWS_ENDPOINT_URL": "127.0.0.1:9000"}, "AWS_ENDPOINT_URL: received '127.0.0.1:9000', no http:// or https://"),
        ({"AWS_ENDPOINT_URL_S3": "minio"}, "AWS_ENDPOINT_URL_S3: received 'minio', no http:// or https://"),
        (
            {"AWS_ENDPOINT_URL": f"{_S3}\n"},
            "AWS_ENDPOINT_URL: received 'http://127.0.0.1:9\\n', a space or a line break",
        ),
        ({"AWS_ENDPOINT_URL": "https://"}, "AWS_ENDPOINT_URL: received 'https://', no host in it"),
        ({"AWS_ENDPOINT_URL": f"{_S3}x"}, "AWS_ENDPOINT_URL: received 'http://127.0.0.1:9x', Port"),
        ({"AWS_ACCESS_KEY_ID": "hunter2\n"}, "AWS_ACCESS_KEY_ID: received '\\n' at character 8 of 8"),
        ({"AWS_SECRET_ACCESS_KEY": "hunter2\r\n"}, "AWS_SECRET_ACCESS_KEY: received '\\r' at character 8 of 9"),
        ({"AWS_SESSION_TOKEN": "hunter2 x"}, "AWS_SESSION_TOKEN: received ' ' at character 8 of 9"),
        ({"AWS_REGION": "eu-west-1\n"}, "AWS_REGION: received '\\n' at character 10 of 10"),
        (
            {"AWS_ENDPOINT_URL": "https://127.0.0.1:9", "AWS_CA_BUNDLE": "~/no.pem"},
            "AWS_CA_BUNDLE: received HOME/no.pem",
        ),
        ({"AWS_CA_BUNDLE": os.devnull}, "AWS_CA_BUNDLE: received /dev/null"),
    ],
)
def test_what_is_wrong_with_the_environment_is_named_at_once(
    variables: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {"AWS_ENDPOINT_URL": _S3, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "HOME": str(tmp_path)}
    for name, value in {**right, **variables}.items():
        monkeypatch.setenv(name, value)
    store = Store.open(f"s3://bucket-{abs(hash(said))}/x")
    for operation in (lambda: store.read("a"), lambda: store.write_once("a", b""), lambda: store.list("")):
        with pytest.raises(PermanentStoreError) as caught:
            operation()
        assert said.replace("HOME", str(tmp_path)) in str(caught.value).replace("\\\\", "\\")
        assert "hunter2" not in _everything_said(caught.value)


def test_a_wrong_profile_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[default]\nendpoint_url = minio:9000\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(PermanentStoreError, match="the profile's endpoint_url: received 'minio:9000'"):
        Store.open("s3://bucket/x").read("a")
