"""What a person reads of the paired benchmark: a page with its table, and a sheet of pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from manifests.errors import counted
from tasks.figures.grid import Grid, Spacing
from tasks.pictures import encoded

if TYPE_CHECKING:
    from blora.benchmark.drawings import PairedSet
    from blora.benchmark.run import BenchResult, Rate

SPACING = Spacing(cell=96, gap=4, under=8, left=190, top=18, font=11)
"""Of the picture sheet: names stand to the left of it, titles above, a judge's dots under each picture."""

WORDS = {
    "blora": "B-LoRA",
    "swapped": "halves swapped",
    "w2": "W2 for W4",
    "all_attention": "all attention",
    "prompt": "words alone",
    "magenta": "Magenta",
    "own_style": "own style half",
    "transfer": "colour transfer",
    "subject": "transfer, subject",
    "guidance": "palette guidance",
    "content": "unchanged content",
    "style": "unchanged style",
    "real": "the real drawing",
}


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured, on what, and with which settings."""

    result: BenchResult
    rates: list[Rate]
    paired: PairedSet
    base: str
    base_revision: str
    settings: dict[str, Any]


def title_of(row: str) -> str:
    """What people call a row, with the amount that it names."""
    name, _, amount = row.partition(":")
    return " ".join((WORDS[name], amount)).strip()


def report(measurement: Measurement) -> tuple[str, str]:
    """Return the page and its table, both Markdown."""
    result = measurement.result
    by_row: dict[str, dict[str, Rate]] = {}
    for rate in measurement.rates:
        by_row.setdefault(rate.row, {})[rate.measure] = rate
    head = "| row | style named | thing found | harmonic mean | of real | perceptual | colour | kept | edges "
    head += "| train, s | MB |"
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for row, of in by_row.items():
        shares = of["harmonic_mean"].of_real
        drawn = result.drawn[row]
        cells = [title_of(row), *(_with_interval(of[name]) for name in ("style_right", "thing_right", "harmonic_mean"))]
        cells += [f"{100 * (shares or 0):.0f} %", f"{of['perceptual_distance'].value:.3f}"]
        cells += [f"{of['colour_distance'].value:.1f}", f"{of['content_colour_distance'].value:.1f}"]
        cells += [f"{of['edge_distance'].value:.2f}"]
        cells += [f"{drawn.train_seconds:.1f}", f"{drawn.adapter_bytes / 1e6:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\nLeft out: {row}: {reason}" for row, reason in result.left_out.items()]
    table = "\n".join(lines)
    contents, styles, shown = (len({getattr(p, of) for p in result.pairs}) for of in ("content", "style", "reference"))
    page = [
        "# The same thing, drawn by another hand",
        f"{counted(len(result.pairs), 'pair')} of {result.split} things: "
        f"{contents} content pictures x {styles} styles, which {counted(shown, 'picture')} show.",
        f"Base `{measurement.base}` @ `{measurement.base_revision[:12]}`; judges `{result.judge}`.",
        table,
        "Rates are shares of right answers; brackets are 95 % bootstrap intervals over content pictures and over "
        "the pictures of each style, where it has several. Distances are "
        "to the real drawing, 0 is best; *kept* is the distance to the content picture's palette. "
        "*Of real* is the harmonic mean's share of the real drawings' own. Seconds are "
        "one adapter's training in its pack, MB its weights in fp16.",
        "## By style",
        "Style named / thing found, of each style's pairs; *unseen*: kept out of the embedded model's training.",
        _by_style(measurement.paired, result),
        "![pictures](sheet.png)",
        f"```json\n{json.dumps(measurement.settings, indent=1)}\n```",
    ]
    return "\n\n".join(page) + "\n", table


def _by_style(paired: PairedSet, result: BenchResult) -> str:
    """Both rates of every row in every style, as a Markdown table."""
    rows = [row for row in result.verdicts if row not in ("content", "style")]
    lines = [f"| style | pairs | {' | '.join(title_of(row) for row in rows)} |", "|" + "---|" * (len(rows) + 2)]
    for style in sorted({pair.style for pair in result.pairs}):
        own = [number for number, pair in enumerate(result.pairs) if pair.style == style]
        cells = [paired.styles[style].name + ("" if paired.styles[style].seen else " (unseen)"), str(len(own))]
        for row in rows:
            verdicts = [result.verdicts[row][number] for number in own]
            rates = (sum(getattr(v, of) for v in verdicts) / len(own) for of in ("style_right", "thing_right"))
            cells.append(" / ".join(f"{rate:.2f}" for rate in rates))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sheet(paired: PairedSet, result: BenchResult, shown: Sequence[int]) -> bytes:
    """Lay out pairs as rows: content picture, style picture, the real drawing, then what each method drew.

    A dot under a picture is filled for the style judge (left) and the thing judge (right) where they are right.

    Returns:
        A PNG.
    """
    rivals = [row for row in result.drawn if row not in ("content", "style", "real")]
    titles = ["content", "style", "real drawing", *(title_of(row) for row in rivals)]
    grid = Grid(len(titles), len(shown), SPACING)
    for column, title in enumerate(titles):
        grid.write((grid.corner(column, 0)[0], 2), title)
    for line, number in enumerate(shown):
        pair = result.pairs[number]
        label = f"{paired.things[pair.thing].name[:28]}\n{paired.styles[pair.content_style].name} to "
        label += paired.styles[pair.style].name
        grid.write((4, grid.corner(0, line)[1] + 30), label)
        cells = [paired.pictures[place] for place in (pair.content, pair.reference, pair.truth)]
        cells += [result.drawn[row].pictures[number] for row in rivals]
        for column, picture in enumerate(cells):
            scaled = Image.fromarray(picture).resize((SPACING.cell, SPACING.cell), Image.Resampling.NEAREST)
            grid.image.paste(scaled, grid.corner(column, line))
        for column, row in enumerate(["real", *rivals], start=2):
            verdict = result.verdicts[row][number]
            left, top = grid.corner(column, line)
            for offset, right in ((38, verdict.style_right), (52, verdict.thing_right)):
                box = (left + offset, top + SPACING.cell + 1, left + offset + 6, top + SPACING.cell + 7)
                grid.draw.ellipse(box, fill="black" if right else None, outline="black")
    return encoded(grid.image)


def _with_interval(rate: Rate) -> str:
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
