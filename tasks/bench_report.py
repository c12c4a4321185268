"""What a person reads of the paired benchmark: a page with its table, and a sheet of pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from blora.benchmark.drawings import PairedSet
    from blora.benchmark.run import BenchResult, Rate

CELL_PX, GAP_PX, HEAD_PX, SIDE_PX = 96, 4, 18, 190
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


def title_of(row: str) -> str:
    """What people call a row, with the amount that it names."""
    name, _, amount = row.partition(":")
    return " ".join((WORDS[name], amount)).strip()


def report(
    rates: Sequence[Rate], result: BenchResult, base: str, revision: str, settings: Mapping[str, Any]
) -> tuple[str, str]:
    """Return the page and its table, both Markdown."""
    by_row: dict[str, dict[str, Rate]] = {}
    for rate in rates:
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
    contents, styles = len({p.content for p in result.pairs}), len({p.reference for p in result.pairs})
    page = [
        "# The same thing, drawn by another hand",
        f"{len(result.pairs)} pairs of {result.split} things: {contents} content pictures x {styles} style pictures.",
        f"Base `{base}` @ `{revision[:12]}`; judges `{result.judge}`.",
        table,
        "Rates are shares of right answers; brackets are 95 % bootstrap intervals over content pictures. Distances are "
        "to the real drawing, 0 is best; *kept* is the distance to the content picture's palette. "
        "*Of real* is the harmonic mean's share of the real drawings' own. Seconds are "
        "one adapter's training in its pack, MB its weights in fp16.",
        "![pictures](sheet.png)",
        f"```json\n{json.dumps(settings, indent=1)}\n```",
    ]
    return "\n\n".join(page) + "\n", table


def sheet(paired: PairedSet, result: BenchResult, shown: Sequence[int]) -> bytes:
    """Lay out pairs as rows: content picture, style picture, the real drawing, then what each method drew.

    A dot under a picture is filled for the style judge (left) and the thing judge (right) where they are right.

    Returns:
        A PNG.
    """
    rivals = [row for row in result.drawn if row not in ("content", "style", "real")]
    titles = ["content", "style", "real drawing", *(title_of(row) for row in rivals)]
    pitch, font = CELL_PX + GAP_PX, ImageFont.load_default(size=11)
    page = Image.new("RGB", (SIDE_PX + len(titles) * pitch, HEAD_PX + len(shown) * (pitch + 8)), "white")
    draw = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        draw.text((SIDE_PX + column * pitch, 2), title, fill="black", font=font)
    for line, number in enumerate(shown):
        pair, top = result.pairs[number], HEAD_PX + line * (pitch + 8)
        label = f"{paired.things[pair.thing].name[:28]}\n{paired.styles[pair.content_style].name} to "
        label += paired.styles[pair.style].name
        draw.text((4, top + 30), label, fill="black", font=font)
        cells = [paired.pictures[place] for place in (pair.content, pair.reference, pair.truth)]
        cells += [result.drawn[row].pictures[number] for row in rivals]
        for column, picture in enumerate(cells):
            scaled = Image.fromarray(picture).resize((CELL_PX, CELL_PX), Image.Resampling.NEAREST)
            page.paste(scaled, (SIDE_PX + column * pitch, top))
        for column, row in enumerate(["real", *rivals], start=2):
            verdict, left = result.verdicts[row][number], SIDE_PX + column * pitch
            for offset, right in ((38, verdict.style_right), (52, verdict.thing_right)):
                box = (left + offset, top + CELL_PX + 1, left + offset + 6, top + CELL_PX + 7)
                draw.ellipse(box, fill="black" if right else None, outline="black")
    buffer = io.BytesIO()
    page.save(buffer, format="PNG")
    return buffer.getvalue()


def _with_interval(rate: Rate) -> str:
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
