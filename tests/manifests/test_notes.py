"""What notes say to a person: one line each, one for all rows that it is true of."""

from __future__ import annotations

from manifests.notes import Note, told


def test_a_note_is_one_printable_line_with_its_place() -> None:
    note = Note("is the same\npicture\x1b[2J as " + "x" * 1000, "夜", "night.yaml", 3)
    assert str(note).startswith("night.yaml, row 3, 夜: is the same\\npicture\\x1b[2J as xxx")
    assert str(note).isprintable() and len(str(note)) < 600
    assert (str(Note("cut")), str(Note("cut", "owl"))) == ("cut", "owl: cut")


def test_what_is_true_of_many_rows_is_told_once_with_the_first_of_them() -> None:
    notes = [Note("16 bits reduced to 8", f"walk {number}") for number in range(9)] + [Note("cut", "owl", "m.csv", 2)]
    assert told([*notes, notes[0]]) == [
        "walk 0, walk 1, walk 2 and 6 more: 16 bits reduced to 8",
        "m.csv, row 2, owl: cut",
    ]
    assert told([]) == []
