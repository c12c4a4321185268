"""What disks and S3 servers can do to us: upstream errors -> our errors in one table, and the one place that retries.

Transient errors are tried again with exponential back-off and full jitter (a random wait between nothing and the
bound, so that many workers that were throttled together do not come back together), at most `ATTEMPTS` times. The
retries of botocore and s3fs are switched off, so that the bounds here are the bounds.
"""

from __future__ import annotations

import errno
import http.client
import logging
import random
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

from manifests.errors import Missing, PermanentStoreError, StoreError, TransientStoreError, reason_of

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

ATTEMPTS: Final = 8
"""How often one operation is tried; all waits together are 11 seconds on average and 23 at most."""
FIRST_WAIT_SECONDS: Final = 0.2
"""Bound of the first wait; each further bound is twice the one before."""
LONGEST_WAIT_SECONDS: Final = 10.0
"""Bound of any wait."""

T = TypeVar("T")
log = logging.getLogger("manifests")


class PreconditionFailed(StoreError):
    """The precondition of a conditional write did not hold. Never leaves this package."""


_LATER = "try again later; if it stays, look at the server's health and its request limits"
_RIGHTS = (
    "give these credentials the rights to list, read, write and delete there; check AWS_PROFILE or AWS_ACCESS_KEY_ID"
)
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_REGION = "set AWS_REGION to the region of the bucket"
_ENDPOINT = "check AWS_ENDPOINT_URL and the network"

S3_CODES: Final[dict[str, tuple[type[StoreError], str]]] = {
    **dict.fromkeys(("NoSuchKey", "NoSuchVersion", "NotFound", "404"), (Missing, "check the address")),
    **dict.fromkeys(("PreconditionFailed", "412"), (PreconditionFailed, "")),
    **dict.fromkeys(
        ("SlowDown", "ServiceUnavailable", "503", "InternalError", "500", "502", "504"), (TransientStoreError, _LATER)
    ),
    **dict.fromkeys(
        ("Throttling", "ThrottlingException", "RequestLimitExceeded", "429"), (TransientStoreError, _LATER)
    ),
    **dict.fromkeys(("RequestTimeout", "408", "IncompleteBody", "BadDigest"), (TransientStoreError, _LATER)),
    # Two conditional writes met; and a multipart upload that a lost answer has already completed.
    **dict.fromkeys(("ConditionalRequestConflict", "OperationAborted", "409"), (TransientStoreError, _LATER)),
    "NoSuchUpload": (TransientStoreError, _LATER),
    "NoSuchBucket": (PermanentStoreError, "create the bucket or correct its name"),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem", "403"), (PermanentStoreError, _RIGHTS)),
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch"), (PermanentStoreError, _CREDENTIALS)),
    **dict.fromkeys(("ExpiredToken", "InvalidToken"), (PermanentStoreError, "sign in again: the session has ended")),
    "RequestTimeTooSkewed": (PermanentStoreError, "set the clock of this machine"),
    **dict.fromkeys(("PermanentRedirect", "301", "AuthorizationHeaderMalformed"), (PermanentStoreError, _REGION)),
    "KeyTooLongError": (PermanentStoreError, "use a shorter root"),
}
"""S3 error code, or HTTP status where the answer has no body -> our error and what to do. Others: by HTTP status."""

_BOTO = "botocore.exceptions."

CLASSES: Final[tuple[tuple[str | type[BaseException], type[StoreError], str], ...]] = (
    (_BOTO + "SSLError", PermanentStoreError, "check AWS_ENDPOINT_URL and AWS_CA_BUNDLE"),
    (_BOTO + "HTTPClientError", TransientStoreError, _ENDPOINT),
    (_BOTO + "ConnectionError", TransientStoreError, _ENDPOINT),
    (_BOTO + "IncompleteReadError", TransientStoreError, _LATER),
    (_BOTO + "ChecksumError", TransientStoreError, _LATER),
    (_BOTO + "CredentialRetrievalError", TransientStoreError, _CREDENTIALS),
    ("botocore.parsers.ResponseParserError", TransientStoreError, _LATER),
    ("aiohttp.client_exceptions.ClientError", TransientStoreError, _ENDPOINT),
    (http.client.HTTPException, TransientStoreError, _ENDPOINT),
    (_BOTO + "NoCredentialsError", PermanentStoreError, _CREDENTIALS),
    (_BOTO + "PartialCredentialsError", PermanentStoreError, _CREDENTIALS),
    (_BOTO + "ProfileNotFound", PermanentStoreError, _CREDENTIALS),
    (_BOTO + "NoRegionError", PermanentStoreError, _REGION),
    (_BOTO + "BotoCoreError", PermanentStoreError, "check the AWS environment and profile"),
    (FileNotFoundError, Missing, "check the address"),
    (IsADirectoryError, Missing, "give the address of a file, not of a folder"),
    (NotADirectoryError, Missing, "check the address: a part of it is a file"),
    (
        PermissionError,
        PermanentStoreError,
        "give this user the rights to that folder, on a file system that has hard links",
    ),
    (TimeoutError, TransientStoreError, _LATER),
    (ConnectionError, TransientStoreError, _LATER),
)
"""Exception class -> our error and what to do; the first that fits.

Those of what talks to buckets by name: whoever has a folder need not wait for a quarter of a second of imports.
"""

ERRNOS: Final[dict[int, tuple[type[StoreError], str]]] = {
    **dict.fromkeys((errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ESTALE), (TransientStoreError, _LATER)),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), (PermanentStoreError, "make room on that disk")),
    **dict.fromkeys((errno.ENOTSUP, errno.EXDEV), (PermanentStoreError, "use a file system that has hard links")),
    errno.EROFS: (PermanentStoreError, "choose a root that can be written"),
    errno.EFBIG: (PermanentStoreError, "raise the limit on the size of files (ulimit -f), or use another file system"),
    errno.ENAMETOOLONG: (PermanentStoreError, "use a shorter root"),
}
"""errno of a local file operation -> our error and what to do."""

UPSTREAM: Final = (
    OSError,
    _BOTO + "BotoCoreError",
    _BOTO + "ClientError",
    "botocore.parsers.ResponseParserError",
    "aiohttp.client_exceptions.ClientError",
    http.client.HTTPException,
)
"""What an operation on a store may raise; anything else is a defect in this code and passes through."""


def _is_one(error: BaseException, kind: str | type[BaseException]) -> bool:
    """Whether an error is of a class, or of one that is called so."""
    if isinstance(kind, str):
        return any(f"{one.__module__}.{one.__qualname__}" == kind for one in type(error).__mro__)
    return isinstance(error, kind)


def _answer(error: BaseException) -> ClientError | None:
    """Return the S3 answer that s3fs has turned into an OSError, if there is one."""
    for candidate in (error, error.__cause__):
        if candidate is not None and _is_one(candidate, _BOTO + "ClientError"):
            return cast("ClientError", candidate)
    return None


def _verdict(error: BaseException) -> tuple[type[StoreError], str, str]:
    """Return (our class, what was received, what to do)."""
    answer = _answer(error)
    if answer is not None:
        code = str(answer.response.get("Error", {}).get("Code", ""))
        status = int(answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        fallback = (TransientStoreError, _LATER) if status >= 500 or status in (408, 429) else (PermanentStoreError, "")
        ours, hint = S3_CODES.get(code) or S3_CODES.get(str(status)) or fallback
        message = answer.response.get("Error", {}).get("Message", "")
        return ours, f"{code or status} ({message})" if message and message != code else code or str(status), hint
    for upstream, ours, hint in CLASSES:
        if _is_one(error, upstream):
            return ours, reason_of(error), hint
    ours, hint = ERRNOS.get(getattr(error, "errno", None) or 0, (PermanentStoreError, ""))
    return ours, reason_of(error), hint


def translate(error: BaseException, what: str) -> StoreError:
    """Turn an upstream error into ours.

    Args:
        error: One of the classes of `UPSTREAM`.
        what: The operation and its address.

    Returns:
        The error to raise; user names and passwords that an address may hold are cut out of its text.
    """
    ours, received, hint = _verdict(error)
    return ours(what, re.sub(r"//[^/@\s]*@", "//***@", received), "", hint)


def retrying(what: str, operation: Callable[[], T]) -> T:
    """Run an operation, again after transient errors.

    Args:
        what: The operation and its address, for messages.
        operation: Something that may be done twice.

    Raises:
        TransientStoreError: It failed `ATTEMPTS` times in ways that may pass.
        PermanentStoreError: It failed in a way that will not pass; `Missing` if there is no such object.
        PreconditionFailed: A precondition did not hold.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return operation()
        except Exception as error:
            if not any(_is_one(error, kind) for kind in UPSTREAM):
                raise
            ours = translate(error, what)
            if not ours.transient or attempt == ATTEMPTS:
                raise ours from error
            wait_seconds = random.uniform(0, min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1)))
            log.warning("%s; attempt %d of %d, again in %.1f s", ours, attempt, ATTEMPTS, wait_seconds)
            time.sleep(wait_seconds)
