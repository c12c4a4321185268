"""Addresses that strangers write into manifests: made absolute, and kept below the folders that the operator allows.

| what is written | outcome |
|---|---|
| a relative path | taken from the manifest's own folder (the first root), be it local or in a bucket |
| an absolute path, an s3:// address | taken as it is |
| `~` at the beginning | the home folder of whoever runs this; in a bucket's manifest a name like any other |
| anything whose real place, after `..` and symbolic links, is below no root | refused, the roots named |
| a name with accents in the other of Unicode's two spellings | the file that there is (`manifests.store.files`) |
| another scheme (https://, file://, data:, ...) | refused |
| credentials in an address | refused, and never repeated in a message |
| two slashes in a row, in a bucket | refused: there they are another object than one slash |
| backslashes, control characters, more than `MAX_ADDRESS_CHARS` characters | refused |

A relative path in a bucket's manifest stays in the bucket. A local manifest reaches a bucket only if the operator
allows it: the bucket is read with the operator's rights.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence

from manifests.errors import ManifestsError
from manifests.parsing.fault_list import shown
from manifests.store.address import bucket_and_key, bucket_fault, is_bucket, key_fault, local_path
from manifests.store.files import as_spelled

MAX_ADDRESS_CHARS = 1024
"""Characters of one path or address; object keys may have 1024 bytes."""

_NOT_PRINTABLE = re.compile("[\x00-\x1f\ud800-\udfff]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/|data:")


class AddressError(ManifestsError):
    """An address that a manifest may not use."""


def shown_address(address: str) -> str:
    """Return an address as people may see it: without credentials and without a signed query."""
    if not _SCHEME.match(address) or bucket_and_key(address):
        return address
    scheme, _, rest = address.partition(":")
    visible = rest.partition("?")[0].lstrip("/")
    if "@" in visible:  # a secret may have a slash in it: only what follows the last @ is sure to be none
        visible = f"(credentials hidden)@{visible.rpartition('@')[2]}"
    return f"{scheme}://{visible}"


def folder_of(address: str) -> str:
    """Return the folder that a manifest lies in, by its address as given, absolute."""
    if is_bucket(address):
        return posixpath.dirname(address)
    return os.path.dirname(os.path.abspath(local_path(address)))


class Roots:
    """The folders and prefixes that a manifest may reach."""

    def __init__(self, roots: Sequence[str]) -> None:
        """Take the roots; relative addresses are taken from the first.

        Raises:
            AddressError: A root is neither a local path nor an s3:// address.
        """
        self._known: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._roots = [self._absolute(root, os.getcwd()) for root in roots]

    def resolve(self, text: str) -> str:
        """Return the absolute local path, without symbolic links, or s3:// address that `text` means.

        Raises:
            AddressError: It is none, or leads out of the roots.
        """
        if text not in self._known:
            self._known[text] = self._resolve(text)
        return self._known[text]

    def _resolve(self, text: str) -> str:
        if not self._roots:
            hint = "give the folder of the pictures with --allow-root"
            raise AddressError("no folder to look in", shown(text), "a path below an allowed folder", hint)
        address = self._absolute(text, self._roots[0])
        if not any(address == root or address.startswith(root.rstrip("/") + "/") for root in self._roots):
            received = f"{shown(text)}, which leads to {shown(address)}"
            hint = "move the file there, or allow its folder with --allow-root"
            raise AddressError("path outside the allowed folders", received, f"below {', '.join(self._roots)}", hint)
        return address

    def _absolute(self, text: str, base: str) -> str:
        """Return `text` as an absolute address, links and `..` resolved; relative to `base`."""
        _check_characters(text)
        if not _SCHEME.match(text):
            if text.startswith("/") or not is_bucket(base):
                return self._real(as_spelled(os.path.join(base, os.path.expanduser(text))))
            text = f"{base}/{text}"
        split = bucket_and_key(text)
        if split is None:
            received = repr(shown_address(text))
            accepted, hint = "a local path, or s3://bucket/key", "copy the file to a folder or a bucket"
            if is_bucket(text) and "@" not in text:
                received, hint = (
                    f"{received}, {bucket_fault(text)}",
                    "correct the bucket's name: 3 to 63 of a-z 0-9 . -",
                )
            raise AddressError("no address that can be read", received, accepted, hint)
        bucket, key = split
        if fault := key_fault(key):  # a local folder has no name between two slashes, a bucket has
            accepted, hint = "names joined by single slashes", "correct the path, or rename the object"
            raise AddressError("no address that can be read", f"{shown(text)}, {fault}", accepted, hint)
        return f"{bucket}{posixpath.normpath('/' + key)}".rstrip("/")

    def _real(self, path: str) -> str:
        """What `os.path.realpath` says; a folder that many paths lie in is asked for once."""
        folder, name = os.path.split(path)
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        path = os.path.join(self._folders[folder], name)
        return os.path.realpath(path) if os.path.islink(path) else path


def _check_characters(text: str) -> None:
    if not text or len(text) > MAX_ADDRESS_CHARS:
        received, accepted = f"{len(text)} characters", f"1 to {MAX_ADDRESS_CHARS} characters"
        raise AddressError("path of a wrong length", received, accepted, "shorten the path")
    if "\\" in text:
        raise AddressError("backslash in a path", shown(text), "names joined by /", "write / instead")
    if _NOT_PRINTABLE.search(text):
        raise AddressError("control character in a path", shown(text), "printable characters", "rename the file")
