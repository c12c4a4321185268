"""One row against its model: the row, or every fault that it has, in the words of the model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from manifests.errors import counted
from manifests.parsing.fault_list import shown
from manifests.parsing.records import suggest
from manifests.parsing.row_faults import RowFaults
from manifests.schema.rows import LISTS, BaseRow, DocumentRow, FusedRow, Sweep

_Model = TypeVar("_Model", bound=BaseModel)

MAX_KEYS = 200
"""Keys of one row, or of one mapping of settings; looking for what each unknown one may have meant takes time."""
_DECIMAL_COMMA = re.compile(r"[-+]?\d{1,20},\d{1,20}")

_NESTED = ("base", "content", "style", "sweep")
"""Fields that may hold a mapping; the settings are checked elsewhere."""


def read_row(model: type[_Model], values: Mapping[str, Any], faults: RowFaults, list_name: str = "") -> _Model | None:
    """Return the row, or None after adding every fault it has.

    Args:
        model: What it may say.
        values: What it says.
        faults: Takes what is wrong, and knows the line of each field.
        list_name: The list that the row stands in, for the names of fields; empty for none.
    """
    faults.add_repeated((), list_name)
    for name in _NESTED:
        if faults.node.find((name,)) is not faults.node:
            faults.add_repeated((name,), list_name)
    if len(values) > MAX_KEYS:
        received, accepted = counted(len(values), "key"), ", ".join(model.model_fields)
        faults.add("too many keys", received, accepted, "remove the others", field=list_name)
        return None
    try:
        result = model.model_validate(values)
    except ValidationError as error:
        if not faults.skip(error.error_count()):
            for detail in error.errors(include_url=False):
                _add_fault(detail, model, faults, list_name)
        return None
    return result if faults.are_none else None


def _add_fault(detail: ErrorDetails, model: type[BaseModel], faults: RowFaults, list_name: str) -> None:
    path: Sequence[str | int] = detail["loc"]
    name = str(path[0]) if path else ""
    accepted = model.model_fields[name].description or "" if name in model.model_fields else ""
    what = re.sub(r"^Value error, |^\w+ (?=should )", "", detail["msg"])
    received, hint = shown(detail["input"]), "correct the value"
    if detail["type"] == "extra_forbidden":
        key, names = str(path[-1]), (*model.model_fields, *(LISTS if model is DocumentRow else ()))
        if len(path) > 1:  # sweeps and bases have keys of their own
            names = tuple((Sweep if name == "sweep" else FusedRow if "fuse" in path else BaseRow).model_fields)
        what, received, accepted = "unknown key", shown(key), ", ".join(names)
        hint = suggest(key, names, "remove it")
    elif detail["type"] == "missing":
        what, received, hint = "key missing", "", "add it"
    elif isinstance(detail["input"], float) and not math.isfinite(detail["input"]):
        what = "number is not finite"
    elif not path:
        received, hint = "", "correct the row"
    elif detail["type"] in ("float_parsing", "int_parsing") and _DECIMAL_COMMA.fullmatch(str(detail["input"])):
        what, hint = "decimal comma", f"write {str(detail['input']).replace(',', '.')}"
    elif detail["type"] == "string_type" and not isinstance(detail["input"], list | dict):
        hint = 'put it in "quotes"'
    elif detail["type"] == "literal_error" and isinstance(detail["input"], str):
        hint = suggest(detail["input"], tuple(re.findall(r"'(\w+)'", detail["ctx"]["expected"])), hint)
    faults.add(what, received, accepted, hint, at=path, field=".".join(text for text in (list_name, name) if text))
