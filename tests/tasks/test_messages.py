"""Every message that a slot's parent and child have comes out of the wire as it went in."""

from __future__ import annotations

from dataclasses import fields

import pytest
from pydantic import ValidationError

from manifests.faults import Fault
from tasks import messages
from tasks.messages import Advance, GenerateAnswer, TrainAnswer, TrainMethod, TrainPack, from_line, to_line

FAULT = Fault("train", "it did not converge", "NaN", "a finite loss", "lower the rate", item="a1", transient=True)
EXAMPLES = {
    "str": "späť\n",
    "int": 7,
    "float": 0.25,
    "bool": True,
    "float | None": None,
    "tuple[str, ...]": ("a", "b"),
    "tuple[str, ...] | None": ("a",),
    "tuple[Fault, ...]": (FAULT,),
}


@pytest.mark.parametrize("name", messages._TYPES)
def test_a_message_is_a_line_and_comes_out_as_it_went_in(name: str) -> None:
    message_type = getattr(messages, name)
    message = message_type(**{field.name: EXAMPLES[str(field.type)] for field in fields(message_type)})
    line = to_line(3, message)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert from_line(line) == (3, message)


def test_what_was_not_said_is_told_from_what_is_empty() -> None:
    for job in (TrainPack("r", "p"), TrainPack("r", "p", only=())):
        assert from_line(to_line(1, job)) == (1, job)


def test_messages_that_look_alike_are_told_apart() -> None:
    assert type(from_line(to_line(1, TrainAnswer()))[1]) is TrainAnswer
    assert type(from_line(to_line(1, GenerateAnswer()))[1]) is GenerateAnswer


def test_a_message_that_lacks_something_is_refused() -> None:
    line = to_line(1, TrainMethod("r", "prompt", "p")).replace(b'"method"', b'"way"')
    with pytest.raises(ValidationError, match="method"):
        from_line(line)


def test_bars_are_told_of_a_loss_only_where_there_is_one() -> None:
    event = {"kind": "train", "id": "p", "done": 1, "total": 2}
    assert Advance("train", "p", 1, 2).as_event() == event
    assert Advance("train", "p", 1, 2, 0.5).as_event() == event | {"loss": 0.5}
