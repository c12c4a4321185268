"""Errors and faults say what, received, accepted, where and what to do next; they cross processes unharmed."""

from __future__ import annotations

import pickle

import pytest

from manifests import errors
from manifests.faults import KINDS, Fault, told

ERRORS = [
    errors.ManifestsError,
    errors.StoreError,
    errors.TransientStoreError,
    errors.PermanentStoreError,
    errors.Missing,
    errors.TableError,
    errors.InvalidId,
    errors.ImageError,
]


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_survive_pickling(kind: type[errors.ManifestsError]) -> None:
    error = kind("read x", "nothing", "a file", "check the address")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "read x: received nothing; accepted a file; check the address"
    assert (again.what, again.received, again.accepted, again.hint) == error.args


def test_the_tree_tells_what_may_be_tried_again() -> None:
    assert [kind for kind in ERRORS if kind.transient] == [errors.TransientStoreError]


def test_an_error_leaves_out_what_it_does_not_know() -> None:
    assert str(errors.StoreError("read x")) == "read x"
    assert str(errors.StoreError("read x", hint="try again")) == "read x: try again"


def test_a_fault_reads_as_one_line() -> None:
    fault = Fault("manifest", "file not found", "wave.png", "a picture", "correct the path", "pairs.csv", 7, "style")
    line = "pairs.csv, row 7, style: file not found: received wave.png; accepted a picture; correct the path"
    assert str(fault) == line
    assert pickle.loads(pickle.dumps(fault)) == fault


def test_a_fault_without_a_file_names_its_item() -> None:
    fault = Fault("train", "no finite loss", "NaN", "", "lower the learning rate", item="pepper")
    assert str(fault) == "pepper: no finite loss: received NaN; lower the learning rate"


def test_a_hostile_name_cannot_steer_the_terminal() -> None:
    fault = Fault("image", "not a picture", "\x1b[2Jgone", "", "", file="a\nb.csv", row=1)
    assert str(fault).isprintable()
    assert str(errors.ImageError("\x1b]0;title\x07")).isprintable()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=", ".join(KINDS)):
        Fault("weather", "", "", "", "")


def test_a_long_list_names_the_first_few_and_counts_the_rest() -> None:
    assert [errors.listed(list("abcd"[:some]), 2) for some in range(5)] == [
        "",
        "a",
        "a, b",
        "a, b and 1 more",
        "a, b and 2 more",
    ]


def test_items_that_failed_for_one_reason_share_a_line_under_their_names() -> None:
    def failed(what: str, name: str, **place: object) -> Fault:
        return Fault("train", what, "", "", "", item=f"0af{name}", name=name, **place)  # type: ignore[arg-type]

    lone = Fault("manifest", "no content", "", "", "", file="a.csv", row=2)
    faults = [lone, failed("no disk", "owl"), failed("NaN", "cat"), failed("no disk", "apple")]
    assert told([*faults, lone]) == ["a.csv, row 2: no content", "owl, apple: no disk", "cat: NaN"]
    many = [failed("no disk", f"n{number}") for number in range(9)]
    assert told(many) == ["n0, n1, n2, n3, n4, n5 and 3 more: no disk"]
