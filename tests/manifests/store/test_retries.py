"""The table of upstream errors: complete, and decided line by line what may be tried again."""

from __future__ import annotations

import errno

import botocore.exceptions as boto
import pytest
from s3fs.errors import ERROR_CODE_TO_EXCEPTION, translate_boto_error

from manifests.errors import ManifestsError, Missing, PermanentStoreError, StoreError, TransientStoreError
from manifests.store.retries import PreconditionFailed, translate

TRANSIENT_CODES = {
    *("409", "500", "503", "BadDigest", "IncompleteBody", "InternalError", "NoSuchUpload", "OperationAborted"),
    *("RequestTimeout", "ServiceUnavailable", "SlowDown"),
}
MISSING_CODES = {"404", "NoSuchKey", "NoSuchVersion"}
REFUSED_CODES = {"412", "PreconditionFailed"}


def _as_s3fs_raises(code: str, status: int = 0, message: str = "message") -> BaseException:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error: BaseException = translate_boto_error(boto.ClientError(answer, "PutObject"))
    return error


@pytest.mark.parametrize("code", ERROR_CODE_TO_EXCEPTION)
def test_every_code_that_s3fs_knows_is_decided(code: str) -> None:
    expected: type[StoreError] = PermanentStoreError
    if code in TRANSIENT_CODES:
        expected = TransientStoreError
    elif code in MISSING_CODES:
        expected = Missing
    elif code in REFUSED_CODES:
        expected = PreconditionFailed
    assert type(translate(_as_s3fs_raises(code), "write x")) is expected


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("SomethingNew", 500, TransientStoreError),
        ("SomethingNew", 599, TransientStoreError),
        ("SomethingNew", 429, TransientStoreError),
        ("SomethingNew", 400, PermanentStoreError),
        ("SomethingNew", 412, PreconditionFailed),
        ("ConditionalRequestConflict", 409, TransientStoreError),
        ("Throttling", 400, TransientStoreError),
        ("", 404, Missing),
    ],
)
def test_unknown_codes_go_by_their_status(code: str, status: int, expected: type[StoreError]) -> None:
    assert type(translate(_as_s3fs_raises(code, status), "write x")) is expected


NETWORK_ERRORS = {
    "ChecksumError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "ConnectionError",
    "CredentialRetrievalError",
    "EndpointConnectionError",
    "HTTPClientError",
    "IncompleteReadError",
    "ProxyConnectionError",
    "ReadTimeoutError",
    "ResponseStreamingError",
}
"""The botocore errors that may pass. A release that adds one to the families below must be looked at."""


def _family(root: type[BaseException]) -> set[type[BaseException]]:
    return {root} | {child for kind in root.__subclasses__() for child in _family(kind)}


@pytest.mark.parametrize("kind", sorted(_family(boto.BotoCoreError), key=repr))
def test_every_botocore_error_is_decided(kind: type[BaseException]) -> None:
    ours = translate(kind.__new__(kind), "write x")
    assert ours.transient == (kind.__name__.removeprefix("Aio") in NETWORK_ERRORS)
    assert ours.hint


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError(errno.ENOENT, "no such file"), Missing),
        (IsADirectoryError(errno.EISDIR, "a folder"), Missing),
        (PermissionError(errno.EACCES, "not yours"), PermanentStoreError),
        (OSError(errno.ENOSPC, "disk full"), PermanentStoreError),
        (OSError(errno.EROFS, "read-only"), PermanentStoreError),
        (OSError(errno.EIO, "bad cable"), TransientStoreError),
        (OSError(errno.ESTALE, "server restarted"), TransientStoreError),
        (OSError("no number"), PermanentStoreError),
        (TimeoutError(), TransientStoreError),
        (ConnectionResetError(errno.ECONNRESET, "reset"), TransientStoreError),
    ],
)
def test_local_errors_are_decided(error: BaseException, expected: type[StoreError]) -> None:
    assert type(translate(error, "write x")) is expected


def test_a_message_says_what_and_what_to_do_and_hides_credentials() -> None:
    error = boto.EndpointConnectionError(endpoint_url="http://user:hunter2@host:9000/x")
    ours: ManifestsError = translate(error, "read s3://b/x")
    assert "hunter2" not in str(ours)
    assert str(ours).startswith("read s3://b/x: received Could not connect to the endpoint")
    assert str(ours).endswith("; check AWS_ENDPOINT_URL and the network")
    denied = translate(_as_s3fs_raises("AccessDenied", 403, "Access Denied."), "read s3://b/x")
    assert "received AccessDenied (Access Denied.); give these credentials the rights" in str(denied)
