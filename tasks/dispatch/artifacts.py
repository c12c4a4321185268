"""What a run and a night leave on their pages in Prefect's UI: a table and a short report, worst rows first.

Thumbnails are data addresses, so that no bucket need be public.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from manifests import layout
from manifests.errors import counted
from manifests.faults import told
from manifests.store.parallel import in_parallel
from manifests.store.store import Store
from tasks import environment
from tasks.operations.night_record import Night
from tasks.pictures import decoded, thumbnail
from tasks.review.score_order import default_sort
from tasks.review.score_table import ScoreRow, score_table
from tasks.run.outcome import Outcome
from tasks.run.plan import Plan

TABLE_ROWS = 500  # the UI's table has no sorting and grows slow; the whole table is in Parquet
PICTURE_ROWS = 6  # of the report, at each end
TABLE_PICTURES = 50
SIDE_PX = 64


def publish_artifacts(store: Store, plan: Plan, outcome: Outcome) -> None:
    """Create the table and the markdown artifact of a run."""
    rows = score_table(store, plan.run)
    inline = _thumbnails(store, [*rows[:TABLE_PICTURES], *rows[-PICTURE_ROWS:]])
    if rows:
        table = [
            _table_row(row, inline[row.key] if n < TABLE_PICTURES else "") for n, row in enumerate(rows[:TABLE_ROWS])
        ]
        create_table_artifact(
            table,
            key="scores",
            description=f"{outcome.run_id}: worst {len(table)} of {counted(len(rows), 'picture')} first",
        )
    create_markdown_artifact(_markdown(store, plan, outcome, rows, inline), key="report", description=outcome.sentence)


def publish_night(store: Store, night: Night) -> None:
    """Create the table and the markdown artifact of a night: what needs a person first."""
    entries = sorted(night.entries, key=lambda entry: entry.state not in ("refused", "faults"))
    if entries:
        rows = [
            {
                "manifest": _plain(entry.manifest),
                "state": entry.state,
                "run": entry.run_id,
                "outcome": _plain(entry.sentence),
                "first fault": _plain(_within(store, entry.faults[0])) if entry.faults else "",
                "seconds": entry.seconds,
            }
            for entry in entries[:TABLE_ROWS]
        ]
        create_table_artifact(rows, key="night", description=night.sentence)
    create_markdown_artifact(_night_text(store, night), key="night-report", description=night.sentence)


def _night_text(store: Store, night: Night) -> str:
    lines = [f"# Night of {night.started_at:%Y-%m-%d %H:%M} UTC", "", f"**{_plain(night.sentence)}**", ""]
    for entry in night.entries:
        if entry.state in ("refused", "faults"):
            lines += [f"## {_plain(entry.manifest)}: {entry.state}", "", _plain(entry.sentence), ""]
            lines += [f"- {_plain(_within(store, fault))}" for fault in entry.faults]
            if entry.run_id:
                lines += [
                    "",
                    f"Everything lies under `{_plain(store.root)}/runs/{entry.run_id}/`. Mend the cause; the next",
                    f"night looks again. Sooner: `blora rerun {entry.run_id}`, which leaves refused rows out.",
                    "",
                ]
            else:
                lines += ["", "Correct the manifest and drop it again.", ""]
    if not night.failed:
        lines.append("Nothing needs a person.")
    return "\n".join(lines)


def _within(store: Store, text: str) -> str:
    """A text about things in the store, without the store's own address, which would fill the cell."""
    return text.replace(f"{store.root}/", "")


def _table_row(row: ScoreRow, picture: str) -> dict[str, Any]:
    cells: dict[str, Any] = {
        "picture": picture,
        "content": _plain(row.content_name),
        "style": _plain(row.style_name),
        "seed": row.seed,
    }
    return cells | {name: f"{value:.3f}" for name, value in row.scores.items()}


def _markdown(store: Store, plan: Plan, outcome: Outcome, rows: Sequence[ScoreRow], inline: Mapping[str, str]) -> str:
    lines = [
        f"# {_plain(plan.run.name)}",
        "",
        f"**{outcome.sentence}** · run `{outcome.run_id}` · base `{_plain(plan.run.base)}`",
        "",
        f"Everything lies under `{_plain(store.root)}/runs/{outcome.run_id}/`.",
        "",
        page_line(store.root, outcome.run_id),
        "",
    ]
    if outcome.faults:
        lines += ["## Faults", ""] + [f"- {_plain(line)}" for line in told(outcome.faults)[:100]]
        again = f"Mend the cause, then: `blora rerun {outcome.run_id}`, or start *rerun* here with that id."
        lines += ["", f"{again} For a row that was refused, run the corrected manifest.", ""]
    by = default_sort({name for row in rows for name in row.scores})
    ends = {f"Worst by {by}": rows[:PICTURE_ROWS], f"Best by {by}": rows[::-1][:PICTURE_ROWS]}
    if len(rows) <= 2 * PICTURE_ROWS:
        ends = {f"All by {by}, worst first": rows}
    for title, some in ends.items():
        if some:
            lines += [
                f"## {title}",
                "",
                f"| picture | content | style | {by} |",
                "|---|---|---|---|",
            ]
            for row in some:
                value = row.scores.get(by, float("nan"))
                names = f"{_plain(row.content_name)} | {_plain(row.style_name)}"
                lines.append(f"| {inline[row.key]} | {names} | {value:.3f} |")
            lines.append("")
    return "\n".join(lines)


def page_line(root: str, run_id: str) -> str:
    """Where the run's page is: a link where the store is served (BLORA_PAGES_URL), else how to open it."""
    key = f"{layout.report_prefix(run_id)}index.html"
    if served := environment.pages_url():
        return f"**[Look at the pictures and decide]({quote(f'{served}/{key}', safe=':/%[]')})**"
    return f"Pictures and decisions: `blora serve {run_id} --open`, or `{_plain(root)}/{key}`."


def _thumbnails(store: Store, rows: Sequence[ScoreRow]) -> dict[str, str]:
    """Small pictures as Markdown that holds them, by key."""
    keys = list(dict.fromkeys(row.key for row in rows))
    return dict(zip(keys, in_parallel(store, lambda key: _inline(store.find(key)), keys), strict=True))


def _inline(picture: bytes | None) -> str:
    if picture is None:
        return "missing"
    try:
        small = thumbnail(decoded(picture), SIDE_PX)
    except OSError:
        return "cannot be read"
    return f"![](data:image/webp;base64,{base64.b64encode(small).decode()})"


def _plain(text: str) -> str:
    """A user's text in a cell: no HTML, no markdown, no cell border."""
    escaped = html.escape(text, quote=False).replace("|", "&#124;").replace("\n", " ")
    return "".join(f"\\{letter}" if letter in "`*_[]<>!#" else letter for letter in escaped)
