"""Addresses that users give: a local path, a bucket's, a server's. What each kind looks like is said here alone."""

from __future__ import annotations

import os.path
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from manifests.errors import PermanentStoreError

_BUCKET_SCHEME = "s3://"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+([^/]*)")
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")
_ENDPOINTS = {"AWS_ENDPOINT_URL_S3": None, "AWS_ENDPOINT_URL": None, "the profile's endpoint_url": "endpoint_url"}
_BUNDLES = {"AWS_CA_BUNDLE": None, "the profile's ca_bundle": "ca_bundle"}
SOURCES = {
    source: (setting, None if setting else source, None, None)
    for source, setting in {**dict.fromkeys(_KEYS), **_ENDPOINTS, **_BUNDLES}.items()
}
"""Where what is checked comes from, each source by itself, in botocore's form: so a message can name it."""

ACCEPTED = "a local path, or s3://bucket/prefix"
"""What an address may be, for messages."""


def is_bucket(address: str) -> bool:
    """Tell whether an address leads to a bucket and not to this machine's disk; its bucket may be misspelt."""
    return address.startswith(_BUCKET_SCHEME)


def bucket_and_key(address: str) -> tuple[str, str] | None:
    """Return (bucket, key) of a bucket's address, None for anything else; the bucket has its scheme with it."""
    name, _, key = address.removeprefix(_BUCKET_SCHEME).partition("/")
    return (_BUCKET_SCHEME + name, key) if is_bucket(address) and _BUCKET_NAME.fullmatch(name) else None


def local_path(address: str) -> Path:
    """Return the path that a local address means: `~` is the home folder, as in a shell."""
    return Path(os.path.expanduser(address))  # Path.expanduser raises where it knows no such user


def bucket_fault(address: str) -> str:
    """Say what is wrong with the bucket's name in an s3:// address that is none."""
    name = address.partition("?")[0].removeprefix(_BUCKET_SCHEME).partition("/")[0]
    if strange := sorted(set(re.sub(r"[a-z0-9.-]", "", name))):
        return f"a bucket's name with {' '.join(map(repr, strange))} in it"
    if not 3 <= len(name) <= 63:
        return f"a bucket's name of {len(name)} characters"
    return "a bucket's name that begins or ends with . or -"


def key_fault(key: str) -> str:
    """Say what is wrong with the key of an object that a user names; empty where nothing is.

    A server keeps every slash and every control character: `a//b` is another object than `a/b`.
    """
    if "//" in f"/{key.rstrip('/')}":
        return "two slashes in a row"
    if stray := re.search(r"[\x00-\x1f\x7f]", key):
        return f"the control character {stray[0]!r}"
    return ""


def endpoint_fault(url: str) -> str:
    """Say what is wrong with the address of a server; empty where nothing is."""
    if re.search(r"\s", url):
        return "a space or a line break in it"
    if "://" not in url:
        return "no http:// or https:// before it"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https"):
        return f"the scheme {parts.scheme}"
    return "" if host and port != 0 else "no host in it"


def split_address(address: str, what: str) -> tuple[str, str] | None:
    """Return (bucket, key) of an s3:// address, None for a local path.

    Raises:
        PermanentStoreError: It is neither, or has credentials in it. A message never repeats what may be one.
    """
    if not address or "\0" in address:
        raise PermanentStoreError(what, repr(address), ACCEPTED)
    url = _URL.match(address)
    if url is None and not address.startswith(_BUCKET_SCHEME.rstrip("/")):
        return None
    if url is not None and (
        "@" in url[2] or ":" in url[2]
    ):  # a secret may have a slash in it, and so hide the @ that ends it
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and AWS_ENDPOINT_URL instead"
        raise PermanentStoreError(what, f"a {url[1]} address with credentials or a port in it", ACCEPTED, hint)
    split = bucket_and_key(address)
    if split is None and is_bucket(address):
        accepted = f"{ACCEPTED}; bucket names have 3 to 63 of a-z 0-9 . -"
        raise PermanentStoreError(what, f"{address.partition('?')[0]}, {bucket_fault(address)}", accepted)
    if split is None:
        shown = address.partition("?")[0] + ("?..." if "?" in address else "")  # signed addresses end with a signature
        raise PermanentStoreError(what, shown, ACCEPTED)
    if fault := key_fault(split[1]):
        accepted = f"{ACCEPTED}, names joined by single slashes"
        raise PermanentStoreError(what, f"{address.partition('?')[0]}, {fault}", accepted, "correct the address")
    return split[0].removeprefix(_BUCKET_SCHEME), split[1]


def parts_are_plain(path: str) -> bool:
    """Tell whether a path is names joined by /, none of which leads elsewhere."""
    return all(part not in ("", ".", "..") and part.isprintable() and "\\" not in part for part in path.split("/"))


def check_environment(ask: Callable[[str], str | None]) -> str | None:
    """Check what botocore would only stumble over, some of it again and again; return the CA bundle.

    Args:
        ask: Gives what one of `SOURCES` says.

    Raises:
        PermanentStoreError: A variable, or a setting of the profile, cannot be used; it is named, and no secret is.
    """
    said = {source: value for source in SOURCES if (value := ask(source))}
    for source in said.keys() & set(_KEYS):
        if stray := re.search(r"[\s\x00-\x1f\x7f]", said[source]):
            received = f"{stray[0]!r} at character {stray.start() + 1} of {len(said[source])}"
            raise PermanentStoreError(source, received, "no spaces and line breaks", "set it again without")
    endpoint = next((source for source in _ENDPOINTS if source in said), None)
    if endpoint and (fault := endpoint_fault(said[endpoint])):
        received = f"{said[endpoint].rpartition('@')[2]!r}, {fault}"
        raise PermanentStoreError(endpoint, received, "such as http://127.0.0.1:9000 or https://s3.example.org")
    bundle = next((source for source in _BUNDLES if source in said), None)
    if bundle is None:
        return None
    file = str(local_path(said[bundle]))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:
        received = f"{file}: {error.strerror or error}"
        raise PermanentStoreError(bundle, received, "a file of certificates (PEM)", "correct or unset it") from error
    return file
