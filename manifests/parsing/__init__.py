"""Bytes of a manifest from strangers to values that know their rows, before anybody asks what they mean.

| what arrives | outcome |
|---|---|
| UTF-8, with or without a byte order mark | read |
| UTF-16 | refused |
| bytes that are not UTF-8 | refused, with their line; in a row of CSV: a fault of that row |
| Parquet, Excel, gzip, ... under the name of a text format, or the reverse | refused, the kind named where known |
| YAML | scalars as YAML 1.2 reads them: `no` and `12:30` are texts, `010` is ten, `1e-1` a number |
| YAML anchors, aliases, merge keys `<<` | followed, up to `MAX_ALIASED_VALUES` values, never into themselves |
| YAML tags beyond plain values (`!!python/object`, `!include`, ...); several documents | refused |
| keys given twice in one mapping | a fault of that row alone |
| nesting deeper than `MAX_DEPTH`, more than `MAX_VALUES` values | refused |
| JSON `NaN` and `Infinity`, YAML `.nan` and `.inf` | read as numbers, which the fields then refuse by name |
| CSV separators | comma, semicolon or tab, whichever the header uses |
| CSV rows with too few or too many cells, stray quotes | a fault of that row (empty cells at the end are ignored) |
| a CSV quote that never closes | a fault of the row that opens it; what it swallows is lost |
| CSV lines without any text | ignored |
| columns that are unknown or given twice; Parquet columns of a wrong type | refused: every row would be misread |
| Parquet nulls and columns of nulls only | as if not given |
| more than `MAX_ROWS` rows; Parquet that unpacks to more than `MAX_UNPACKED_BYTES` (by its footer) | refused |

"Refused" means the whole document: where it stops being well formed, nothing after it can be trusted. Rows are 1-based
lines of text, or 1-based records of Parquet.
"""
