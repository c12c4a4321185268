"""Prompt files: good rows survive, and every fault is told at once."""

from __future__ import annotations

from pathlib import Path

from manifests.loading.prompt_pairs import PromptPair, load_prompts


def written(folder: Path, text: str) -> str:
    path = folder / "prompts.csv"
    path.write_text(text)
    return str(path)


def test_good_rows_come_back_in_order(tmp_path: Path) -> None:
    text = 'p;q;kind\n"A red car, wet";A dog;content\n\nA red car;A blue car;style\n'
    pairs, faults = load_prompts(written(tmp_path, text))
    assert faults == ()
    assert pairs == (PromptPair("content", "A red car, wet", "A dog"), PromptPair("style", "A red car", "A blue car"))


def test_every_fault_is_told_with_its_row(tmp_path: Path) -> None:
    rows = ["kind,p,q", "colour,a,b", "content,a,a", "style,,b", "content,a,b", "content,a,b", "style,a", "style,b,c"]
    pairs, faults = load_prompts(written(tmp_path, "\n".join(rows)))
    assert [(fault.row, fault.field) for fault in faults] == [(2, "kind"), (3, "q"), (4, "p"), (6, ""), (7, "")]
    assert len(pairs) == 2


def test_a_file_that_is_none_is_a_fault(tmp_path: Path) -> None:
    picture = tmp_path / "picture.csv"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    for address in (str(picture), str(tmp_path / "nowhere.csv"), written(tmp_path, "kind,p,q\n")):
        pairs, faults = load_prompts(address)
        assert pairs == () and len(faults) == 1, address
    pairs, faults = load_prompts(written(tmp_path, "kind,from,q\nstyle,a,b\n"))
    assert pairs == () and faults[0].field == "from" and "p" in faults[0].accepted


def test_a_missing_column_is_told_in_every_row(tmp_path: Path) -> None:
    pairs, faults = load_prompts(written(tmp_path, "kind,p\nstyle,a\n"))
    assert pairs == () and faults[0].field == "q"
