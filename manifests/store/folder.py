"""Objects as files in a local folder: written to a temporary name, flushed to the disk, then linked or renamed.

A hard link fails where the name is taken, which makes "create" atomic; a rename replaces, which makes "replace" atomic.
Temporary names and lock files start with a dot and are never listed. For processes on one machine, and on network file
systems that have hard links and pass on `flock`.

A top folder (`samples`, say) may be a link to another disk. Below it, links are followed to files within the store and
to nothing else: who may drop files into an inbox must not have others read with the rights of whoever works it off.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from manifests.errors import Missing, PermanentStoreError, reason_of
from manifests.store.backend import Entry, Version, is_visible
from manifests.store.retries import retrying

_COPIED_BYTES = 2**20  # at once, of a file
_LOCK_NAME = ".lock"
_LEADS_OUT = "a link that leads out of the store"
_NO_LINK, _COPY = "a file, or a link to one in the store", "put the file itself there"


def read_file(path: Path, max_bytes: int | None) -> bytes:
    """Read a regular file whole.

    Raises:
        OSError: It cannot be read.
        PermanentStoreError: It is longer than `max_bytes`, or no regular file (a pipe would block, a device never end).
    """
    # O_NONBLOCK: opening a pipe that nobody writes to must not wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(f"{path} is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise PermanentStoreError(f"read {path}", "a device or a pipe", "a regular file", "copy it to a file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(-1 if max_bytes is None else max_bytes + 1)
    finally:
        os.close(descriptor)
    if max_bytes is not None and len(data) > max_bytes:
        raise PermanentStoreError(f"read {path}", f"{status.st_size} bytes", f"at most {max_bytes} bytes")
    return data


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a loss of power, where the file system can.

    Never fails: the object is there all the same, and a writer that tried again would be refused because of itself.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _make(folder: Path) -> None:
    """Make a folder, and those that it lies in.

    Raises:
        OSError: It cannot be made.
        PermanentStoreError: A part of its path is a file, or nothing can be made there; no object is missing then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        what, hint = f"make the folder {folder}", "choose another root, or move the file away that is in its place"
        raise PermanentStoreError(what, reason_of(error), "", hint) from error


@contextlib.contextmanager
def _temporary(path: Path, data: bytes | Path) -> Iterator[Path]:
    """Write `data`, or what is in a file, beside `path` under a temporary name, and remove that name at the end."""
    _make(path.parent)
    temporary = path.parent / f".tmp-{secrets.token_hex(8)}"
    try:
        # 0o666 less the umask, as for any file a program writes: colleagues may read the store.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
            if isinstance(data, Path):
                with data.open("rb") as source:
                    shutil.copyfileobj(source, file, _COPIED_BYTES)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # a hidden name that stays behind does no harm
            temporary.unlink(missing_ok=True)


def _replace(path: Path, data: bytes | Path) -> None:
    with _temporary(path, data) as temporary:
        os.replace(temporary, path)
    _sync_folder(path.parent)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the kernel drops it when the holder dies, however it dies."""
    _make(folder)
    with open(folder / _LOCK_NAME, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Folder:
    """A local folder as a `Backend`; it is made at the first write."""

    requests_at_once = 4  # some wait for the disk while one works; more would wait for each other

    def __init__(self, path: Path) -> None:
        """Take the folder.

        Raises:
            PermanentStoreError: There is a file in its place.
        """
        self._path = path.absolute()
        if retrying(f"open {self._path}", lambda: self._path.exists() and not self._path.is_dir()):
            raise PermanentStoreError(f"open {self._path}", "a file", "a folder, or a name that is still free")
        self._real = os.path.realpath(self._path)

    @property
    def root(self) -> str:
        """The absolute path."""
        return str(self._path)

    def _file(self, key: str) -> Path:
        """Return the path of an object that is to be looked at.

        Raises:
            PermanentStoreError: It, or a folder above it, is a link that leads out of the store.
        """
        path = self._path / key
        if self._leads_out(key):
            raise PermanentStoreError(f"read {path}", _LEADS_OUT, _NO_LINK, _COPY)
        return path

    def _new_file(self, key: str) -> Path:
        """Return the path of an object that is to be written or removed; raises as `_file` does, for its folder."""
        folder = key.rpartition("/")[0]
        if folder and self._leads_out(folder):
            raise PermanentStoreError(f"write {self._path / key}", f"a folder that is {_LEADS_OUT}", _NO_LINK, _COPY)
        return self._path / key

    def _leads_out(self, key: str) -> bool:
        real = os.path.realpath(self._path / key)
        if real == f"{self._real}/{key}":  # no link on the way, as nearly always
            return False
        top = self._path / key.partition("/")[0]
        bases = [os.path.realpath(self._path), *([os.path.realpath(top)] if "/" in key or top.is_dir() else [])]
        return not any(real == base or real.startswith(base.rstrip("/") + "/") for base in bases)

    def read(self, key: str, max_bytes: int | None) -> bytes:
        """See `Backend.read`."""
        path = self._file(key)
        return retrying(f"read {path}", lambda: read_file(path, max_bytes))

    def read_into(self, key: str, path: Path) -> None:
        """See `Backend.read_into`."""
        source = self._file(key)
        retrying(f"read {source}", lambda: shutil.copyfile(source, path))

    def replace_from(self, key: str, path: Path) -> None:
        """See `Backend.replace_from`."""
        target = self._new_file(key)
        retrying(f"write {target}", lambda: _replace(target, path))

    def exists(self, key: str) -> bool:
        """See `Backend.exists`."""
        path = self._file(key)
        try:
            return retrying(f"look for {path}", lambda: stat.S_ISREG(path.stat().st_mode))
        except Missing:
            return False

    def create(self, key: str, data: bytes) -> bool:
        """See `Backend.create`."""
        path = self._new_file(key)

        def link() -> bool:
            with _temporary(path, data) as temporary:
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    return False
            _sync_folder(path.parent)
            return True

        return not self.exists(key) and retrying(f"write {path}", link)

    def replace(self, key: str, data: bytes) -> None:
        """See `Backend.replace`."""
        path = self._new_file(key)
        retrying(f"write {path}", lambda: _replace(path, data))

    def delete(self, key: str) -> None:
        """See `Backend.delete`."""
        path = self._new_file(key)
        with contextlib.suppress(Missing):
            retrying(f"delete {path}", path.unlink)

    def list(self, prefix: str) -> dict[str, Entry]:
        """See `Backend.list`."""
        start = self._path / prefix
        if prefix and self._leads_out(prefix.rstrip("/")):
            raise PermanentStoreError(f"list {start}", _LEADS_OUT, _NO_LINK, _COPY)
        return retrying(f"list {start}", lambda: dict(sorted(self._walk(str(start), prefix))))

    def read_version(self, key: str) -> Version | None:
        """See `Backend.read_version`; the token is a hash of the content, which leases never repeat."""
        try:
            data = self.read(key, None)
            age_seconds = time.time() - retrying(f"look for {self._path / key}", (self._path / key).stat).st_mtime
        except Missing:
            return None
        return Version(data, hashlib.sha256(data).hexdigest(), age_seconds if age_seconds >= 0 else None)

    def swap(self, key: str, data: bytes, version: str | None) -> str | None:
        """See `Backend.swap`; all swaps in one folder go through its lock."""
        path = self._new_file(key)

        def compare_and_write() -> str | None:
            with _locked(path.parent):
                current = self.read_version(key)
                if (None if current is None else current.token) != version:
                    return None
                _replace(path, data)
            return hashlib.sha256(data).hexdigest()

        return retrying(f"write {path}", compare_and_write)

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, Entry]]:
        """Yield what is below a folder, its keys beginning with `prefix`; fail rather than be silently short."""
        try:
            listing = os.scandir(folder)
        except (FileNotFoundError, NotADirectoryError):  # there is none, or none any more
            return
        with listing:
            for entry in listing:
                key = f"{prefix}{entry.name}"
                if not is_visible(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and not prefix and _is_folder(entry)):
                    yield from self._walk(entry.path, f"{key}/")
                    continue
                with contextlib.suppress(FileNotFoundError):
                    problem = self._problem(key, entry) if entry.is_symlink() else ""
                    about = entry.stat(follow_symlinks=not problem)
                    if problem or stat.S_ISREG(about.st_mode):
                        modified = datetime.datetime.fromtimestamp(about.st_mtime, datetime.UTC)
                        yield key, Entry(about.st_size, modified, f"{about.st_mtime_ns}-{about.st_ino}", problem)

    def _problem(self, key: str, link: os.DirEntry[str]) -> str:
        """Return why a link is not followed; empty if it is."""
        try:
            about = link.stat()
        except OSError:
            return "a link that leads nowhere"
        if self._leads_out(key):
            return _LEADS_OUT
        return "a link to a folder" if stat.S_ISDIR(about.st_mode) else ""


def _is_folder(link: os.DirEntry[str]) -> bool:
    """Return whether a link leads to a folder; one in a circle leads nowhere."""
    try:
        return link.is_dir()
    except OSError:
        return False
