"""Tables in the documents that are made from the code; ``python -m tests.made_tables`` writes them anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydantic import BaseModel

import blora
from blora.settings.catalogue import catalogue, setting_shown, setting_value
from blora.settings.score_meanings import meaning_table
from tests.documents import ROOT, commands


def command_table() -> str:
    """What `blora --help` and the help of each command say, as two tables."""
    lines = ["| command | what it does |", "|---|---|"]
    options: dict[tuple[str, str], list[str]] = {}
    for name, one in commands().items():
        usage = f"blora {name}"
        for param in one.params:
            if param.hidden:
                continue
            if param.param_type_name == "argument":
                usage += f" {param.metavar}" if param.required else f" [{param.metavar}]"
                continue
            default = "" if param.default in (None, "") or isinstance(param.default, bool) else str(param.default)
            told = f" Default: `{default}`." if default else " Must be given." if param.required else ""
            value = f" {param.metavar}".replace("|", "\\|") if param.metavar else ""
            shown = " ".join(f"`{option}{value}`" for option in (*param.opts, *param.secondary_opts))
            options.setdefault((shown, param.help.replace("<", "\\<") + told), []).append(name)
        summary = " ".join(one.help.split("\n\n")[0].split())
        lines.append(f"| `{usage}` | {summary} |")
    lines += ["", "| option | meaning | of |", "|---|---|---|"]
    lines += [f"| {shown} | {meaning} | {', '.join(of)} |" for (shown, meaning), of in sorted(options.items())]
    return "\n".join(lines)


def field_table() -> str:
    """What each field of a manifest means and may say."""
    from manifests.schema.forms import MEANINGS
    from manifests.schema.rows import DocumentRow, ImageRow, PairFields, PairRow, Sweep, TableRow

    shared = set(PairFields.model_fields)
    groups: list[tuple[str, type[BaseModel], set[str]]] = [
        ("head", DocumentRow, shared),
        ("content, style", ImageRow, set()),
        ("pair", PairRow, shared),
        ("pair, head, column", PairFields, set()),
        ("sweep", Sweep, set()),
        ("column", TableRow, shared),
    ]
    lines = ["| in | field | meaning | accepted |", "|---|---|---|---|"]
    for where, row, without in groups:
        for name, field in row.model_fields.items():
            if name not in without:
                told = (field.description or "").replace("|", "\\|").replace("<", "\\<")
                default = f"; `{field.default}` where it is left out" if isinstance(field.default, str | int) else ""
                lines.append(f"| {where} | `{name}` | {MEANINGS[name]} | {told}{default} |")
    return "\n".join(lines)


def setting_table() -> str:
    """What each setting accepts and means, and what the presets say."""
    lines = [
        f"| setting | accepted | meaning | {' | '.join(blora.PRESETS)} |",
        "|---|---|---|" + "---|" * len(blora.PRESETS),
    ]
    for entry in catalogue():
        told = entry.meaning.replace("|", "\\|").replace("*", "\\*")
        shown = [setting_shown(setting_value(preset, entry.path)) for preset in blora.PRESETS.values()]
        lines.append(f"| `{entry.path}` | {entry.accepted} | {told} | {' | '.join(shown)} |")
    return "\n".join(lines)


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "commands": ("flows/README.md", command_table),
    "fields": ("manifests/README.md", field_table),
    "scores": ("blora/README.md", meaning_table),
    "settings": ("blora/README.md", setting_table),
}


def with_table(text: str, name: str, table: str) -> str:
    """A document with the table between its two marks replaced."""
    start, end = f"<!-- {name}: made by python -m tests.made_tables -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(start)
    assert found and end in rest, f"no marks for the table {name}"
    return f"{before}{start}\n\n{table}\n\n{end}{rest.partition(end)[2]}"


def rewritten() -> Iterator[str]:
    """Write the tables anew; gives the documents that changed."""
    for name, (file, make) in TABLES.items():
        text = (ROOT / file).read_text()
        new = with_table(text, name, make())
        if new != text:
            (ROOT / file).write_text(new)
            yield file


if __name__ == "__main__":
    print(*rewritten(), sep="\n")
