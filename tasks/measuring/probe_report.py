"""A block probe in words and in bars: a table and a panel a kind, and the proposal with its doubts."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from blora.adapters.blocks import BLOCKS
from blora.probe.proposal import Summary
from blora.probe.summary import Interval, KindSummary
from blora.settings.block_split import Stretch, own_split
from manifests.errors import counted
from tasks.figures.grid import INK, PAPER, RULE
from tasks.pictures import encoded

WIDTH_PX = 900
LABEL_PX = 250
VALUE_PX = 190
ROW_PX = 26
HEAD_PX = 44
GAP_PX = 16
DIM, BAR, CHOSEN, WHOLE = (110, 110, 120), (150, 170, 205), (40, 90, 180), (196, 196, 202)

_DIFFER = {"content": "pairs that differ in the object", "style": "pairs that differ in the colour or look"}


def report(probe_id: str, base: str, scorer: str, summary: Summary) -> str:
    """Return the report as markdown."""
    lines = [
        f"# Block probe {probe_id}",
        "",
        f"Base `{base}`, scorer `{scorer}`. A gain is the CLIP cosine with q of the picture for which one block is "
        "told q and the others p, less that of the picture for which all are told p, from the same noise. In "
        "brackets: 95 % bootstrap intervals over pairs.",
        "",
    ]
    for kind, measured in summary.kinds.items():
        lines += [
            f"## {kind.capitalize()}: {measured.pairs} {_DIFFER[kind]}",
            "",
            "| block | gain | of the whole | best in | score with q |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {block.block} | {block.gain} | {_percent(block.share)} | {block.best_in:.0%} | {_plain(block.score)} |"
            for block in measured.blocks
        ]
        lines.append(f"| *all blocks and pooled* | {measured.gain_q} | 100% | | {_plain(measured.score_q)} |")
        lines += [f"| *none (p everywhere)* | | | | {_plain(measured.score_p)} |", ""]
    return "\n".join([*lines, "## Proposal", "", *(f"- {line}" for line in proposal_lines(summary)), ""])


def proposal_lines(summary: Summary) -> list[str]:
    """Return the proposal in one line a kind, and how it stands to the blocks that are trained."""
    lines = [f"**{kind}**: {choice}" for kind, choice in summary.proposal.items()]
    if any(Stretch.read(choice.block).stem.endswith("attentions") for choice in summary.proposal.values()):
        same = all(choice.block == BLOCKS[kind] for kind, choice in summary.proposal.items())
        trained = ", ".join(f"{block} ({half})" for half, block in BLOCKS.items())
        return [*lines, f"B-LoRA trains {trained}: {'the same' if same else 'not the same'}."]
    own = own_split(flux=True)
    apart = [
        kind
        for kind, choice in summary.proposal.items()
        if not any(Stretch.read(choice.block).lies_in(stretch) for stretch in own.of(kind))
    ]
    told = f"not so the {' and the '.join(apart)} proposed here" if apart else "so are those proposed here"
    lines.append(f"Trained are content {', '.join(own.content)} and style {', '.join(own.style)} (splitflux): {told}.")
    if len(summary.proposal) > 1:
        chosen = ", ".join(f"{kind}: [{choice.block}]" for kind, choice in summary.proposal.items())
        lines.append(f"As a setting: `train.blocks: {{{chosen}}}`")
    return lines


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _plain(interval: Interval) -> str:
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def bar_chart(summary: Summary, title: str) -> bytes:
    """Draw the gains of all blocks; the proposed block's bar is darker, what q in all blocks gains is grey.

    Each panel has its own scale: content and style gains are of different size.

    Returns:
        A PNG.
    """
    rows = [len(measured.blocks) + 1 for measured in summary.kinds.values()]
    height = HEAD_PX + sum(HEAD_PX + ROW_PX * count + GAP_PX for count in rows)
    image = Image.new("RGB", (WIDTH_PX, height), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((GAP_PX, 14), title, fill=INK, font=ImageFont.load_default(size=16))
    top = HEAD_PX
    for kind, measured in summary.kinds.items():
        chosen = summary.proposal[kind]
        word = "certain at 95 %" if chosen.certain else "not certain"
        head = f"{kind}: {counted(measured.pairs, 'pair')}; proposed {chosen.block} ({word})"
        draw.text((GAP_PX, top + 12), head, fill=INK, font=ImageFont.load_default(size=14))
        _panel(draw, top + HEAD_PX, measured, chosen.block)
        top += HEAD_PX + ROW_PX * (len(measured.blocks) + 1) + GAP_PX
    return encoded(image)


def _panel(draw: ImageDraw.ImageDraw, top: int, measured: KindSummary, chosen: str) -> None:
    """One row a block, and a last one for all blocks, cut where it would dwarf the others."""
    gains = [block.gain for block in measured.blocks]
    low = min(0.0, *(gain.low for gain in gains))
    high = max(1e-9, *(gain.high for gain in gains))
    left, right = LABEL_PX, WIDTH_PX - VALUE_PX
    font = ImageFont.load_default(size=12)

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (right - left)

    rows: list[tuple[str, Interval]] = [(block.block, block.gain) for block in measured.blocks]
    for number, (name, gain) in enumerate([*rows, ("all blocks and pooled", measured.gain_q)]):
        y = top + number * ROW_PX
        whole = number == len(rows)
        colour = WHOLE if whole else CHOSEN if name == chosen else BAR
        draw.text((GAP_PX, y + 5), name, fill=DIM if whole else INK, font=font)
        start, end = sorted((x(0), x(gain.mean)))
        draw.rectangle((start, y + 5, end, y + ROW_PX - 7), fill=colour)
        middle = y + ROW_PX // 2 - 1
        draw.line((x(gain.low), middle, x(gain.high), middle), fill=INK)
        for value in (gain.low, gain.high):
            if low <= value <= high:
                draw.line((x(value), middle - 4, x(value), middle + 4), fill=INK)
        draw.text((right + GAP_PX, y + 5), str(gain), fill=DIM if whole else INK, font=font)
    draw.line((x(0), top, x(0), top + ROW_PX * (len(rows) + 1) - 4), fill=RULE if low == 0 else DIM)
