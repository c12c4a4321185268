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
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from manifests import layout
from manifests.ids import Json
from manifests.store.store import Store
from manifests.tables.columns import TableFile, TableFolder
from manifests.tables.parquet import from_parquet_bytes, to_parquet_bytes, to_table


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
            TableError: What is there is not this table, or of a newer version.
            StoreError: It cannot be read.
        """
        return from_parquet_bytes(self.store.read(self.key(file.name)), file.schema)

    def find(self, file: TableFile) -> pa.Table | None:
        """Return a table; None where it has not been written.

        Raises:
            TableError: What is there is not this table, or of a newer version.
            StoreError: It cannot be read.
        """
        data = self.store.find(self.key(file.name))
        return None if data is None else from_parquet_bytes(data, file.schema)

    def rows(self, file: TableFile) -> list[dict[str, Any]]:
        """Return the rows of a table; none where it has not been written.

        Raises:
            TableError: What is there is not this table, or of a newer version.
            StoreError: It cannot be read.
        """
        table = self.find(file)
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
            StoreError: It cannot be read.
        """
        return json.loads(self.store.read(self.key(name)))

    def find_json(self, name: str) -> Any:
        """Return what a JSON file says; None where it has not been written.

        Raises:
            StoreError: It cannot be read.
        """
        data = self.store.find(self.key(name))
        return None if data is None else json.loads(data)

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
