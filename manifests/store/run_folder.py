"""The folder of one run: its tables and files, read and written by name.

    run = RunFolder(store, run_id)
    run.write(FAULTS_FILE, rows)
    run.rows(FAULTS_FILE)                            # [] before the run has ended
    run.read_json("run.json")["state"]
    [run.read(file) for file in run.files(REDO_FILES)]

`manifests.tables.run` says which tables there are; `manifests.layout` where the folder lies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from manifests import layout
from manifests.errors import Damaged, TableError, printable_name
from manifests.ids import Json
from manifests.store.store import Store
from manifests.tables.columns import TableFile, TableFolder
from manifests.tables.parquet import from_parquet_bytes, to_parquet_bytes, to_table

REMEDY = "put it back from a copy, or delete it and run the run's manifest again: what is whole is not made again"
"""What to do about an object without which a run cannot be understood."""


@contextmanager
def damage_told(store: Store, key: str, hint: str = REMEDY) -> Iterator[None]:
    """Take whatever goes wrong while the bytes of an object are understood for damage of that object.

    Reading from the store stands before the block: that a store does not answer is no damage.

    Args:
        store: the store.
        key: the object.
        hint: what to do about it.

    Raises:
        Damaged: the block could not make anything of it.
    """
    try:
        yield
    except (TableError, pa.ArrowException, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        newer = isinstance(error, TableError) and error.hint.startswith("upgrade")
        what = f"{store.root}/{printable_name(key)} is damaged"
        if newer:
            what = f"{store.root}/{printable_name(key)} is of a newer version"
        raise Damaged(what, _reason(error), hint="upgrade this package" if newer else hint) from error


def _reason(error: Exception) -> str:
    """Say in a few words what is wrong with an object."""
    if isinstance(error, TableError):
        text = f"{error.what}: {error.received}"
    elif isinstance(error, KeyError):
        text = f"nothing under {error}"
    elif isinstance(error, RecursionError):
        text = "values nested too deeply"
    else:
        text = str(error)
    text = " ".join(text.split())
    return text if len(text) <= 160 else f"{text[:157]}..."


def json_mapping(data: bytes) -> dict[str, Any]:
    """Return the mapping that a JSON file holds.

    Raises:
        ValueError: It is empty, no JSON or no mapping.
        RecursionError: It is nested too deeply.
    """
    if not data.strip():
        raise ValueError("an empty file")
    body = json.loads(data)
    if not isinstance(body, dict):
        raise ValueError(f"a {type(body).__name__} where a mapping is expected")
    return body


class RunFolder:
    """What the store holds of one run beside its adapters and pictures.

    Attributes:
        store: The store.
        run_id: The run.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        """Name the folder; nothing is asked or created yet."""
        self.store = store
        self.run_id = run_id

    def __repr__(self) -> str:
        return f"RunFolder({self.store!r}, {self.run_id!r})"

    def key(self, name: str) -> str:
        """Return the object key of a file of the run.

        Raises:
            InvalidId: The run's id is no plain word, or the name no relative path of plain names.
        """
        return layout.run_key(self.run_id, name)

    def read(self, file: TableFile) -> pa.Table:
        """Return a table.

        Raises:
            Missing: It has not been written.
            Damaged: What is there is not this table, or of a newer version.
            StoreError: It cannot be read.
        """
        data = self.store.read(self.key(file.name))
        with damage_told(self.store, self.key(file.name)):
            return from_parquet_bytes(data, file.schema)

    def find(self, file: TableFile, hint: str = REMEDY) -> pa.Table | None:
        """Return a table; None where it has not been written. `hint` says what to do about a damaged one.

        Raises:
            Damaged: What is there is not this table, or of a newer version.
            StoreError: It cannot be read.
        """
        if (data := self.store.find(self.key(file.name))) is None:
            return None
        with damage_told(self.store, self.key(file.name), hint):
            return from_parquet_bytes(data, file.schema)

    def rows(self, file: TableFile, hint: str = REMEDY) -> list[dict[str, Any]]:
        """Return the rows of a table; none where it has not been written. `hint` is that of `find`.

        Raises:
            Damaged: What is there is not this table, or of a newer version.
            StoreError: It cannot be read.
        """
        table = self.find(file, hint)
        return [] if table is None else table.to_pylist()

    def files(self, folder: TableFolder) -> list[TableFile]:
        """Return the files that there are of a table in several, in the order of their names.

        Raises:
            StoreError: The store cannot be asked.
        """
        prefix = self.key(folder.name) + "/"
        names = (key.removeprefix(prefix) for key in self.store.list(prefix))
        return [folder.file(name.removesuffix(".parquet")) for name in names if name.endswith(".parquet")]

    def write(self, file: TableFile, rows: Iterable[Mapping[str, object]]) -> None:
        """Write a table from its rows, in place of what was there.

        Raises:
            TableError: A row does not fit.
            StoreError: It cannot be written.
        """
        self.write_table(file, to_table(rows, file.schema))

    def write_table(self, file: TableFile, table: pa.Table) -> None:
        """Write a table that is at hand, in place of what was there.

        Raises:
            StoreError: It cannot be written.
        """
        self.store.replace(self.key(file.name), to_parquet_bytes(table))

    def write_once(self, file: TableFile, rows: Iterable[Mapping[str, object]]) -> bool:
        """Write a table unless there is one; return whether this call wrote it.

        Raises:
            TableError: A row does not fit.
            StoreError: It cannot be written.
        """
        return self.store.write_once(self.key(file.name), to_parquet_bytes(to_table(rows, file.schema)))

    def read_json(self, name: str) -> Any:
        """Return what a JSON file says.

        Raises:
            Missing: It has not been written.
            Damaged: It is no JSON.
            StoreError: It cannot be read.
        """
        data = self.store.read(self.key(name))
        with damage_told(self.store, self.key(name)):
            return json.loads(data)

    def find_json(self, name: str) -> Any:
        """Return what a JSON file says; None where it has not been written.

        Raises:
            Damaged: It is no JSON.
            StoreError: It cannot be read.
        """
        if (data := self.store.find(self.key(name))) is None:
            return None
        with damage_told(self.store, self.key(name)):
            return json.loads(data)

    def write_json(self, name: str, value: Json) -> None:
        """Write a JSON file, in place of what was there.

        Raises:
            StoreError: It cannot be written.
        """
        self.store.replace(self.key(name), _json_bytes(value))

    def write_json_once(self, name: str, value: Json) -> bool:
        """Write a JSON file unless there is one; return whether this call wrote it.

        Raises:
            StoreError: It cannot be written.
        """
        return self.store.write_once(self.key(name), _json_bytes(value))


def _json_bytes(value: Json) -> bytes:
    """JSON that a person can read."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()
