"""CSV as other programs write it, and what is written for them: no cell runs as a formula, and each reads back."""

from __future__ import annotations

import csv as plain_csv
import io

import pandas as pd
import pytest

from manifests.parsing.csv_text import read_csv, written_csv
from tests.manifests.parsing.reads import COLUMNS, csv, refused

NASTY = ['=HYPERLINK("x")', "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x", "\uff1d1+1"]


@pytest.mark.parametrize("text", NASTY)
def test_no_text_runs_as_a_formula_and_it_reads_back(text: str) -> None:
    sheet = written_csv([["content", "style", "content_strength"], [text, "plain 'quoted' = text", -0.5]])
    (cells,) = list(plain_csv.reader(io.StringIO(sheet, newline="")))[1:]
    assert cells[0] == ("" if text[0] == "a" else "'") + text and cells[1:] == ["plain 'quoted' = text", "-0.5"]
    (row,), faults = csv(sheet.encode())
    assert (row.cells["content"].strip(), faults) == (text.strip(), ())


@pytest.mark.parametrize("line", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "\ufeffsep=;\r\n"])
def test_the_line_with_which_excel_is_told_the_separator(line: str) -> None:
    rows, faults = csv(f'{line}content;style\n"a,b.png";c.png\n'.encode())
    assert [(row.row, dict(row.cells)) for row in rows] == [(3, {"content": "a,b.png", "style": "c.png"})]
    assert faults == ()
    assert refused(lambda faults: list(read_csv(f"{line}contnt\na\n".encode(), COLUMNS, faults))).row == 2


def test_excel_s_unicode_text() -> None:
    rows, _ = csv("content\tstyle\r\né.png\tb.png\r\n".encode("utf-16"))
    assert [dict(row.cells) for row in rows] == [{"content": "é.png", "style": "b.png"}]


@pytest.mark.parametrize("reread", [False, True])
def test_the_row_numbers_of_pandas_are_left_out(reread: bool) -> None:
    frame = pd.DataFrame({"content": ["a", "b"], "seeds": [256, None]})
    sheet = frame.to_csv()
    if reread:
        sheet = pd.read_csv(io.StringIO(sheet)).to_csv()
    rows, faults = csv(sheet.encode())
    assert [dict(row.cells) for row in rows] == [{"content": "a", "seeds": "256.0"}, {"content": "b"}]
    assert faults == ()


def test_a_text_without_a_column_is_no_row_number() -> None:
    rows, faults = csv(b",content\nowl,a\n1,b\n")
    assert [row.cells["content"] for row in rows] == ["b"]
    assert [(fault.row, fault.received) for fault in faults] == [(2, "'owl'")] and "index=False" in faults[0].hint


def test_a_decimal_comma_is_not_taken_for_two_seeds() -> None:
    sheet = pd.DataFrame({"content": ["a", "b"], "seeds": [256, None]}).to_csv(sep=";", decimal=",", index=False)
    rows, faults = csv(sheet.encode() + b"c;3,4\n")
    assert [dict(row.cells) for row in rows] == [{"content": "b"}, {"content": "c", "seeds": "3,4"}]
    assert [(fault.row, fault.field, fault.hint) for fault in faults] == [(2, "seeds", "write 256, or 256|0 for two")]


def test_a_million_columns_are_refused_at_once() -> None:
    names = ",".join(f"contents{number}" for number in range(1_000_000))
    fault = refused(lambda faults: list(read_csv(f"{names}\n".encode(), COLUMNS, faults)))
    assert (fault.what, fault.row) == ("too many columns", 1) and "1000000 columns" in fault.received
