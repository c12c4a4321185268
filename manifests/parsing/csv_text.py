"""CSV text to records, as spreadsheets, pandas and databases write it, and back, as spreadsheets may safely open it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from manifests.errors import counted
from manifests.parsing.fault_list import DocumentRefused, FaultList, shown
from manifests.parsing.nodes import decode_text
from manifests.parsing.records import MAX_ROWS, Record, check_columns, is_index, too_many_rows

_SAID_SEPARATOR = re.compile(r'\s*"?sep=([,;\t])"?[ \t]*\r?(?:\n|$)', re.IGNORECASE)  # the line that Excel heeds
_ROW_NUMBER = re.compile(r"\d{1,15}(\.0+)?")
_DECIMAL_COMMA = re.compile(r"\d+,0+")

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""How a cell begins that a spreadsheet runs (OWASP's list, with the wide forms), or that was made safe before."""


def written_csv(rows: Iterable[Sequence[str | int | float | None]]) -> str:
    """Write rows as CSV. Texts that a spreadsheet would run get an apostrophe, which `read_csv` takes off again."""
    return "".join(map(_written_row, rows))


def _written_row(row: Sequence[str | int | float | None]) -> str:
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\r\n")  # what ends a line is quoted inside a cell: both kinds are
    writer.writerow([f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell for cell in row])
    return line.getvalue().removesuffix("\r\n") + "\n"


def read_csv(data: bytes, columns: Collection[str], faults: FaultList) -> Iterator[Record]:
    """Read CSV text row by row; cells are stripped texts. Rows that cannot be read are faults.

    Args:
        data: The whole file.
        columns: Column names; a mapping says of a column that it holds "integers".
        faults: Takes what is wrong.

    Raises:
        DocumentRefused: The header is not one, or there are too many rows.
    """
    text = decode_text(data, faults, errors="surrogateescape")
    said = _SAID_SEPARATOR.match(text)
    skipped = text.count("\n", 0, said.end()) if said else 0
    text = text[said.end() :] if said else text
    separator = said[1] if said else _separator(text, columns)
    rows = _csv_rows(text, separator, skipped, faults)
    header_row, cells = next(rows, (1, []))
    header = [name.strip() for name in cells]
    while header and not header[-1]:
        header.pop()
    if not _is_utf8(cells, faults, header_row):
        raise DocumentRefused("header")
    numbers = 0  # how many columns number the rows; pandas writes them first
    while numbers < len(header) and is_index(header[numbers]):
        numbers += 1
    names = header[numbers:]
    check_columns(names, columns, faults, header_row)
    integers = {name for name in names if isinstance(columns, Mapping) and columns[name] == "integers"}
    for count, (row, cells) in enumerate(rows):
        if count == MAX_ROWS:
            raise too_many_rows(f"more than {MAX_ROWS:,}", faults)
        if len(cells) < len(header) or any(cells[len(header) :]):
            received, accepted = counted(len(cells), "cell"), f"{len(header)} cells, as in the header"
            faults.add("row of another length", received, accepted, 'put texts with separators in "quotes"', row=row)
        elif _is_utf8(cells, faults, row) and _are_numbers(cells[:numbers], faults, row):
            record = {name: _as_meant(cell) for name, cell in zip(names, cells[numbers:], strict=False) if cell}
            if separator != ";" or _has_no_comma(record, integers, faults, row):
                yield Record(row, record)


def _as_meant(cell: str) -> str:
    """Undo what `written_csv` did to a cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _are_numbers(cells: Sequence[str], faults: FaultList, row: int) -> bool:
    """Tell whether columns without a name hold nothing but the numbers of rows; anything else may be meant."""
    for cell in cells:
        if cell and not _ROW_NUMBER.fullmatch(cell):
            hint = "name the column, or remove it (in pandas: index=False)"
            faults.add("cell in a column without a name", shown(cell), "row numbers, or nothing", hint, row=row)
            return False
    return True


def _has_no_comma(record: Mapping[str, str], integers: set[str], faults: FaultList, row: int) -> bool:
    """Tell whether no list of integers may as well be one number with a decimal comma, which semicolons go with."""
    for name in integers & record.keys():
        if _DECIMAL_COMMA.fullmatch(record[name]):
            whole, _, zeros = record[name].partition(",")
            hint = f"write {whole}, or {whole}|{zeros} for two"
            accepted = "whole numbers separated by |"
            faults.add("decimal comma, or two numbers", shown(record[name]), accepted, hint, row=row, field=name)
            return False
    return True


def _separator(text: str, columns: Collection[str]) -> str:
    header = text.lstrip().partition("\n")[0]
    return max(",;\t", key=lambda mark: sum(cell.strip(' "\r') in columns for cell in header.split(mark)))


def _csv_rows(text: str, separator: str, skipped: int, faults: FaultList) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where each row starts, after so many skipped, and its stripped cells; leave out empty rows."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        row = reader.line_num + 1 + skipped
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            hint = 'close the quote; write a quote inside a text twice: ""'
            faults.add("not well-formed CSV", str(error), "CSV", hint, row=row)
            continue
        if any(cells):
            yield row, cells


def _is_utf8(cells: Sequence[str], faults: FaultList, row: int) -> bool:
    """Tell whether all cells came from UTF-8; what did not was kept as lone surrogates."""
    for cell in cells:
        if not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell):
            bad = next(place for place, character in enumerate(cell) if "\udc80" <= character <= "\udcff")
            latin = cell[max(0, bad - 4) : bad + 8].encode("utf-8", "surrogateescape").decode("latin-1")
            hint = "save the file as UTF-8 (in Excel: CSV UTF-8)"
            faults.add("not UTF-8", f"{shown(latin)}, read as Latin-1", "UTF-8", hint, row=row)
            return False
    return True
