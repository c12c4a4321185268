"""What candidates are worth: ``python -m tests.benchmarks.candidates FOLDER [--pairs 36] [--most 8]``.

B-LoRA draws several candidates of each pair of the paired benchmark's validation split; one of n is kept by a score
that sees only the two given pictures; judges that know the truth then say whether the kept one has the style asked for
and shows the thing asked for. Baseline of the ratio: one candidate, from the same drawings.

    keep    by what
    lite0   the product's rule (`tasks.review.best`): `transfer`, then `harmonic_mean`, of EfficientNet-Lite0
    clip    the same two scores of the base's own CLIP
    any     whether any of the n is right: the most that a rule could reach

    judges  what they look at                                           independent of
    usual   those of the paired benchmark: EfficientNet-Lite0's         clip; not of lite0: the same network, at other
            features among others, at drawings by other hands           drawings of the thing and of the style
    pixels  the style by its colours, the thing by its edges            both: no network at all

Each n is measured on all disjoint groups of n among the candidates. Intervals are percentiles of a bootstrap over
content pictures. Adapters and pictures are kept in FOLDER and not made again.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blora.benchmark.drawings import Pair, load_paired, make_pairs
from blora.benchmark.judges import Judge
from blora.benchmark.workshop import Workshop
from blora.metrics.bootstrap import percentile_interval, resampled_counts
from blora.metrics.clip import load_clip
from blora.metrics.feature_scorer import FeatureScorer, ScoreItem
from blora.metrics.lite0 import load_lite0
from blora.models.model import load_base
from blora.settings.resolve import resolve
from manifests import ids
from manifests.store.store import Store
from tasks.measuring.benchmark import FolderOfAdapters

RESAMPLES = 2000
Truths = NDArray[np.bool_]
"""(measures, pairs, candidates): style right, thing right, both."""
MEASURES = ("style named", "thing found", "both")


def kept_share(right: Truths, scores: NDArray[np.float64] | None, n: int) -> NDArray[np.float64]:
    """Share of groups of n candidates whose kept one is right, (measures, pairs).

    Args:
        right: What is right.
        scores: (pairs, candidates), the highest is kept, the first of equals; None: any right one counts.
        n: Candidates to choose from; divides their number.
    """
    measures, pairs, most = right.shape
    grouped = right.reshape(measures, pairs, most // n, n)
    if scores is None:
        return np.asarray(grouped.any(axis=-1).mean(axis=-1))
    best = scores.reshape(pairs, most // n, n).argmax(axis=-1)
    return np.asarray(np.take_along_axis(grouped, best[None, :, :, None], axis=-1)[..., 0].mean(axis=-1))


def interval(shares: NDArray[np.float64], pairs: Sequence[Pair]) -> tuple[float, float]:
    """The 95 % interval of the mean over pairs, content pictures resampled."""
    contents = sorted({pair.content for pair in pairs})
    member = np.array([contents.index(pair.content) for pair in pairs])
    weights = resampled_counts(len(contents), RESAMPLES, np.random.default_rng(0))[:, member]
    return percentile_interval(weights @ shares / weights.sum(axis=1))


def curve(right: Truths, scores: NDArray[np.float64] | None, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """A row for each n: every share with its interval, and the ratio of both right to that of one candidate."""
    rows: list[dict[str, Any]] = []
    alone = kept_share(right, scores, 1)[2].mean()
    for n in (n for n in (1, 2, 4, 8, 16) if n <= right.shape[2]):
        shares = kept_share(right, scores, n)
        row: dict[str, Any] = {"n": n, "ratio": shares[2].mean() / max(alone, 1e-9)}
        for measure, share in zip(MEASURES, shares, strict=True):
            low, high = interval(share, pairs)
            row |= {measure: share.mean(), f"{measure} low": low, f"{measure} high": high}
        rows.append(row)
    return rows


def merits(scorer: FeatureScorer, given: Sequence[ScoreItem]) -> NDArray[np.float64]:
    """Ranks of pictures by `transfer`, then by `harmonic_mean`, of equals the first ahead."""
    rows = scorer.score(given)
    keys = [-np.arange(len(rows)), [row["harmonic_mean"] for row in rows], [row["transfer"] for row in rows]]
    ranks = np.empty(len(rows))
    ranks[np.lexsort(keys)] = np.arange(len(rows))
    return ranks


def drawn_pictures(folder: Path, pairs: Sequence[Pair], most: int) -> tuple[list[NDArray[np.uint8]], str]:
    """All candidates of all pairs in turn, and the revision of the base; from the folder if they are there."""
    settings, paired, base = resolve("demo"), load_paired(), load_base("embedded")
    seeds = [[ids.candidate_seed(pair.seed, number) for number in range(1, most + 1)] for pair in pairs]
    file = folder / f"pictures-{ids.digest(base.revision, seeds)}.npz"
    if not file.exists():
        kept: MutableMapping[str, bytes] = FolderOfAdapters(Store.open(str(folder)))
        groups = Workshop(base, paired, settings, kept, tell).again(pairs, seeds)
        np.savez_compressed(file, pictures=np.stack([picture for group in groups for picture in group]))
    with np.load(file, allow_pickle=False) as held:
        return list(held["pictures"]), base.revision


def tell(what: str, done: int, total: int) -> None:
    """Say now and then how far the work is."""
    if done % 50 == 0 or done == total:
        print(f"{what}: {done} of {total}", flush=True)


def main() -> None:
    """Draw, choose, judge, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.candidates")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=36)
    parser.add_argument("--most", type=int, default=8, help="candidates of each pair: a power of two")
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    paired = load_paired()
    pairs = make_pairs(paired, "validation", told.pairs)
    drawn, revision = drawn_pictures(told.folder, pairs, told.most)
    asked = [pair for pair in pairs for _ in range(told.most)]
    extractor, clip = load_lite0(), load_clip("embedded", "")
    items = [
        ScoreItem(picture, paired.pictures[pair.content], paired.pictures[pair.reference])
        for picture, pair in zip(drawn, asked, strict=True)
    ]
    shape = (len(pairs), told.most)
    scores = {
        "lite0": merits(FeatureScorer(extractor), items).reshape(shape),
        "clip": merits(FeatureScorer(clip), items).reshape(shape),
        "any": None,
    }
    usual = Judge(paired, "validation", extractor)
    judges = {"usual": usual, "pixels": usual.judging_by(("colours",), ("edges",))}
    print(f"{len(pairs)} validation pairs, {told.most} candidates, base {revision[:12]}")
    print("| judges | keep | n | " + " | ".join(MEASURES) + " | both, against one |\n|" + "---|" * 7)
    rows = []
    for name, judge in judges.items():
        verdicts = judge.judge(drawn, asked)
        style = np.array([verdict.style_right for verdict in verdicts]).reshape(shape)
        thing = np.array([verdict.thing_right for verdict in verdicts]).reshape(shape)
        right = np.stack([style, thing, style & thing])
        for keep, values in scores.items():
            rows += [{"judges": name, "keep": keep} | row for row in curve(right, values, pairs)]
        real = judge.judge([paired.pictures[pair.truth] for pair in pairs], pairs)
        rates = [np.mean([getattr(verdict, right) for verdict in real]) for right in ("style_right", "thing_right")]
        print(f"{name}: of the real drawings {rates[0]:.2f} style named, {rates[1]:.2f} thing found", flush=True)
    for row in rows:
        cells = [
            f"{row[f'{measure}']:.2f} [{row[f'{measure} low']:.2f}, {row[f'{measure} high']:.2f}]"
            for measure in MEASURES
        ]
        print(f"| {row['judges']} | {row['keep']} | {row['n']} | {' | '.join(cells)} | x {row['ratio']:.1f} |")
    with (told.folder / "candidates.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
