"""A block probe in words: a table a kind, and the proposal with its doubts."""

from __future__ import annotations

from blora.adapters.blocks import BLOCKS
from blora.probe.proposal import Summary
from blora.probe.summary import Interval

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
    for kind, found in summary.kinds.items():
        lines += [
            f"## {kind.capitalize()}: {found.pairs} {_DIFFER[kind]}",
            "",
            "| block | gain | of the whole | best in | score with q |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {one.block} | {one.gain} | {_percent(one.share)} | {one.best_in:.0%} | {_plain(one.score)} |"
            for one in found.blocks
        ]
        lines.append(f"| *all blocks and pooled* | {found.gain_q} | 100% | | {_plain(found.score_q)} |")
        lines += [f"| *none (p everywhere)* | | | | {_plain(found.score_p)} |", ""]
    return "\n".join([*lines, "## Proposal", "", *(f"- {line}" for line in proposal_lines(summary)), ""])


def proposal_lines(summary: Summary) -> list[str]:
    """Return the proposal in one line a kind, and how it stands to the blocks that are trained."""
    lines = [f"**{kind}**: {choice}" for kind, choice in summary.proposal.items()]
    same = all(choice.block == BLOCKS[kind] for kind, choice in summary.proposal.items())
    trained = ", ".join(f"{block} ({half})" for half, block in BLOCKS.items())
    return [*lines, f"B-LoRA trains {trained}: {'the same' if same else 'not the same'}."]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _plain(interval: Interval) -> str:
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
