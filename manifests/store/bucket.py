"""Objects in an S3 bucket, through fsspec (s3fs). The only module that talks to a bucket.

Endpoint, region and credentials come from the usual AWS environment and profile, and from nowhere else. Objects are
created with `If-None-Match: *` and leases changed with `If-Match`, so the server decides who was first. A server that
ignores these headers would break both without a word, so the first conditional write of each process proves that it
does not.

The answer to a write may get lost after the server has done it, and then the write is tried again (by `retrying`, or
unseen by aiohttp, which repeats a PUT whose connection was cut). The second try is refused because of the first. So
whoever is refused looks whether what is in the way is its own.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from aiobotocore.session import AioSession
from fsspec.asyn import sync
from s3fs import S3FileSystem

from manifests.errors import Missing, PermanentStoreError, StoreError
from manifests.store.address import SOURCES, check_environment
from manifests.store.backend import CONTENT_TYPES, Entry, Version, is_visible
from manifests.store.retries import PreconditionFailed, retrying

T = TypeVar("T")

PART_BYTES: Final = 32 * 2**20
"""Objects of twice this size and more go up in parts of this size."""

_PARTS_AT_ONCE = 4
_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "max_pool_connections": 32,
    "retries": {"total_max_attempts": 1},  # `retrying` retries
}
_REGION = {"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}  # botocore knows the second alone


def _connect() -> S3FileSystem:
    """Make a file system of the AWS environment and profile as they are now; it connects at its first use."""
    session = AioSession(session_vars=_REGION | SOURCES)
    bundle = check_environment(session.get_config_variable)
    filesystem = S3FileSystem(
        session=session,
        client_kwargs={"verify": bundle} if bundle else {},
        anon=False,
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs=dict(_CONFIG),
    )
    filesystem.retries = 1  # see _CONFIG
    return filesystem


async def _read_body(answer: Any, max_bytes: int | None) -> bytes | None:
    """Read the body of an answer; None, and nothing read, if it is longer than `max_bytes`."""
    async with answer["Body"] as body:
        if max_bytes is not None and answer["ContentLength"] > max_bytes:
            return None
        return bytes(await body.read())


class Bucket:
    """A prefix of a bucket as a `Backend`; opening it does not yet ask the server anything."""

    requests_at_once = 16  # a server answers each in milliseconds, but many at once; below the connections kept

    def __init__(self, bucket: str, prefix: str) -> None:
        """Take the bucket and a prefix in it ("" or "name/name/")."""
        self._bucket = bucket
        self._prefix = prefix
        self._conditions_proven_by = 0  # process id
        self._connections: dict[int, S3FileSystem] = {}  # by process id: after a fork, the parent's is useless

    @property
    def root(self) -> str:
        """The address, "s3://bucket/prefix"."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def _filesystem(self) -> S3FileSystem:
        connection = self._connections.get(os.getpid())
        # Of several threads one wins, before it connects.
        return self._connections.setdefault(os.getpid(), _connect()) if connection is None else connection

    def _run(self, what: str, operation: Callable[[S3FileSystem], T]) -> T:
        """Run an operation with retries; after a permanent failure the next one looks at the environment anew."""
        try:
            return retrying(what, lambda: operation(self._filesystem()))
        except PermanentStoreError as error:
            if not isinstance(error, Missing):
                self._connections.pop(os.getpid(), None)
            raise

    def _address(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def _call(self, what: str, method: str, key: str, **parameters: Any) -> Any:
        def call(filesystem: S3FileSystem) -> Any:
            return filesystem.call_s3(method, Bucket=self._bucket, Key=self._prefix + key, **parameters)

        return self._run(f"{what} {self._address(key)}", call)

    def _get(self, key: str, max_bytes: int | None) -> tuple[bytes, Any]:
        def get(filesystem: S3FileSystem) -> tuple[bytes | None, Any]:
            answer = filesystem.call_s3("get_object", Bucket=self._bucket, Key=self._prefix + key)
            return sync(filesystem.loop, _read_body, answer, max_bytes), answer

        data, answer = self._run(f"read {self._address(key)}", get)
        if data is None:
            received = f"{answer['ContentLength']} bytes"
            raise PermanentStoreError(f"read {self._address(key)}", received, f"at most {max_bytes} bytes")
        return data, answer

    def read(self, key: str, max_bytes: int | None) -> bytes:
        """See `Backend.read`."""
        return self._get(key, max_bytes)[0]

    def read_into(self, key: str, path: Path) -> None:
        """See `Backend.read_into`."""
        source = f"{self._bucket}/{self._prefix}{key}"
        self._run(f"read {self._address(key)}", lambda filesystem: filesystem.get_file(source, str(path)))

    def replace_from(self, key: str, path: Path) -> None:
        """See `Backend.replace_from`."""
        target = f"{self._bucket}/{self._prefix}{key}"

        def put(filesystem: S3FileSystem) -> None:
            filesystem.put_file(str(path), target, chunksize=PART_BYTES, max_concurrency=_PARTS_AT_ONCE)

        self._run(f"write {self._address(key)}", put)

    def exists(self, key: str) -> bool:
        """See `Backend.exists`."""
        try:
            self._call("look for", "head_object", key)
        except Missing:
            return False
        return True

    def create(self, key: str, data: bytes) -> bool:
        """See `Backend.create`; each object carries a token of its writer."""
        self._prove_conditions(key)
        writer = secrets.token_hex(12)
        try:
            self._put(key, data, mode="create", Metadata={"writer": writer})
        except PreconditionFailed:
            return self._writer(key) == writer
        return True

    def replace(self, key: str, data: bytes) -> None:
        """See `Backend.replace`."""
        self._put(key, data)

    def _put(self, key: str, data: bytes, **parameters: Any) -> None:
        path = f"{self._bucket}/{self._prefix}{key}"
        if kind := CONTENT_TYPES.get(key.rpartition(".")[2]):
            parameters["ContentType"] = kind

        def put(filesystem: S3FileSystem) -> None:
            filesystem.pipe_file(path, data, chunksize=PART_BYTES, max_concurrency=_PARTS_AT_ONCE, **parameters)

        self._run(f"write {self._address(key)}", put)

    def _writer(self, key: str) -> str | None:
        try:
            metadata: dict[str, str] = self._call("look for", "head_object", key).get("Metadata", {})
        except Missing:
            return None
        return metadata.get("writer")

    def delete(self, key: str) -> None:
        """See `Backend.delete`."""
        self._call("delete", "delete_object", key)

    def list(self, prefix: str) -> dict[str, Entry]:
        """See `Backend.list`; one request a thousand objects."""
        entries: dict[str, Entry] = {}
        start: dict[str, str] = {}
        while True:
            page = self._page(prefix, start)
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self._prefix)
                if is_visible(key):
                    modified = item["LastModified"].astimezone(datetime.UTC)
                    entries[key] = Entry(item["Size"], modified, item["ETag"].strip('"'))
            if not page.get("NextContinuationToken"):
                return dict(sorted(entries.items()))
            start = {"ContinuationToken": page["NextContinuationToken"]}

    def _page(self, prefix: str, start: dict[str, str]) -> Any:
        def ask(filesystem: S3FileSystem) -> Any:
            below = self._prefix + prefix
            return filesystem.call_s3("list_objects_v2", Bucket=self._bucket, Prefix=below, **start)

        return self._run(f"list {self._address(prefix)}", ask)

    def read_version(self, key: str) -> Version | None:
        """See `Backend.read_version`; the token is the ETag, and both times are the server's.

        Both are whole seconds, cut down: between 0.9 and 2.1 lie two of them. The age is the least that it can be.
        """
        try:
            data, answer = self._get(key, None)
        except Missing:
            return None
        said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        age = (parsedate_to_datetime(said) - answer["LastModified"]).total_seconds() if said else None
        return Version(data, answer["ETag"], None if age is None else max(age - 1.0, 0.0))

    def swap(self, key: str, data: bytes, version: str | None) -> str | None:
        """See `Backend.swap`."""
        self._prove_conditions(key)
        try:
            return self._put_if(key, data, version)
        except Missing:  # how AWS says that there is nothing that could match
            return None
        except PreconditionFailed:
            current = self.read_version(key)
            return current.token if current is not None and current.data == data else None

    def _put_if(self, key: str, data: bytes, version: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        return str(self._call("write", "put_object", key, Body=data, **condition)["ETag"])

    def _prove_conditions(self, key: str) -> None:
        """Check once a process that the server refuses what it must refuse.

        Raises:
            PermanentStoreError: The server ignores If-None-Match or If-Match.
        """
        if self._conditions_proven_by == os.getpid():
            return
        probe = f"{key.rpartition('/')[0]}/.probe-{secrets.token_hex(8)}".lstrip("/")
        try:
            self._call("write", "put_object", probe, Body=b"first")
            for header, version in (("If-None-Match", None), ("If-Match", '"00000000000000000000000000000000"')):
                try:
                    self._put_if(probe, b"second", version)
                except PreconditionFailed:
                    continue
                what = f"{self.root}: the server ignores {header}, so two runs could tear each other's work"
                hint = "use a server with conditional writes, such as AWS S3 or SeaweedFS, or a local folder"
                raise PermanentStoreError(what, "a write that should have been refused", "412", hint)
        finally:
            with contextlib.suppress(StoreError):  # a hidden name that stays behind does no harm
                self.delete(probe)
        self._conditions_proven_by = os.getpid()
