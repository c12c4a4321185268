"""Bytes of a manifest from strangers to values that know their rows, before anybody asks what they mean.

| what arrives | outcome |
|---|---|
| UTF-8, with or without a byte order mark; UTF-16 with one, as Excel's "Unicode text" | read |
| UTF-16 without a byte order mark, UTF-32 | refused, by name |
| bytes that are not UTF-8 | refused, with their line; in a row of CSV: a fault of that row |
| Parquet, Excel, gzip, ... under the name of a text format, or the reverse | refused, the kind named where known |
| YAML | scalars as YAML 1.2 reads them: `no` and `12:30` are texts, `010` is ten, `1e-1` a number |
| YAML anchors, aliases, merge keys `<<` | followed, up to `MAX_ALIASED_VALUES` values, never into themselves |
| YAML tags beyond plain values (`!!python/object`, `!include`, ...); several documents | refused |
| keys given twice in one mapping | a fault of that row alone |
| nesting deeper than `MAX_DEPTH`, more than `MAX_VALUES` values | refused |
| JSON `NaN` and `Infinity`, YAML `.nan` and `.inf` | read as numbers, which the fields then refuse by name |
| CSV separators | comma, semicolon or tab, whichever the header uses, or a line `sep=;` before it says |
| a CSV cell that begins with an apostrophe before `= + - @` | read without it: so `blora` writes formulas |
| first columns without a name, `Unnamed: 0`, `__index_level_0__` | left out as row numbers; text there is a fault |
| numbers with a decimal comma; `256,0` among seeds in a table with semicolons | a fault of that row, which names it |
| more than `MAX_COLUMNS` columns | refused |
| CSV rows with too few or too many cells, stray quotes | a fault of that row (empty cells at the end are ignored) |
| a CSV quote that never closes | a fault of the row that opens it; what it swallows is lost |
| CSV lines and lines of JSON without any text | ignored |
| a line of JSON Lines that is no object, a key given twice in it | a fault of that row; refused if it is the first |
| columns that are unknown or given twice; Parquet columns of a wrong type | refused: every row would be misread |
| unknown keys in JSON Lines | a fault of that row; refused if the first row has no known one |
| nulls, empty texts and lists, Parquet columns of nulls only | as if not given |
| Parquet doubles and decimals that are whole numbers; lists of them | read as integers where such are meant |
| more than `MAX_ROWS` rows; Parquet that unpacks to more than `MAX_UNPACKED_BYTES` (by its page headers) | refused |
| a cell of more than `MAX_CELL_CHARS` | a fault of that row |

"Refused" means the whole document: where it stops being well formed, nothing after it can be trusted. Rows are 1-based
lines of text, or 1-based records of Parquet.
"""
