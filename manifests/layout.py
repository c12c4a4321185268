"""Where each object lies: id -> object key. Pure string functions; the drawing of the store, in code.

    images/<image_id>.png                                    normalised input, written once
    adapters/<adapter_id>/{content,style}.safetensors        the two halves
    adapters/<adapter_id>/adapter.json                       written last: it is the marker
    samples/<content_id>/<style_id>/<sample_id>.png          one atomic put is data and marker
    runs/<run_id>/...                                        plan, tables, report, checkpoints, logs
    runs/<run_id>/scores/<shard_id>.parquet                  scores of one shard, until the run is compacted
    runs/<run_id>/added_scores/<shard_id>-<scorer>.parquet   the same by a scorer that came later
    scores/date=YYYY-MM-DD/run=<run_id>/part-*.parquet       one Parquet data set over all runs that were closed
    runs/<run_id>/report/...                                 the page: index.html, its data, script files, thumbnails
    runs/<run_id>/decisions/*.parquet                        what reviewers said, one file per `blora review`
    runs/<run_id>/sweeps.json, clips.json                    which pictures are steps of a sweep, or frames of a clip
    runs/<run_id>/redo/*.parquet                             what a review added to the plan
    reports/...                                              comparisons of two runs; nights over time
    probes/<probe_id>/...                                    block probes: parts, table, chart, report, probe.json last
    leases/<adapter_id>.json                                 who is training it now
    leases/run-<run_id>.json                                 who is working a run off
    leases/shard-<attempt_id>.json                           that a shard on another machine is alive
    inbox/                                                   manifests dropped for the night
    receipts/<manifest_id>.json                              which run a dropped manifest became, and how it stands
    nights/<night_id>/night.json                             what a night did, manifest by manifest

Every id is checked to be a plain word of [0-9a-z-], that of a run one with letters and digits of any script (as
`ids.slug` leaves them), so that no key can leave its place, whatever a user typed: all functions raise `InvalidId`
where one is not.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from typing import Literal

from manifests import ids
from manifests.errors import InvalidId

ADAPTERS_PREFIX = "adapters/"
IMAGES_PREFIX = "images/"
INBOX_PREFIX = "inbox/"
LEASES_PREFIX = "leases/"
NIGHTS_PREFIX = "nights/"
PROBES_PREFIX = "probes/"
RECEIPTS_PREFIX = "receipts/"
REPORTS_PREFIX = "reports/"
RUNS_PREFIX = "runs/"
SAMPLES_PREFIX = "samples/"
SCORES_PREFIX = "scores/"

_WORD = re.compile(r"[0-9a-z](?:[0-9a-z-]{0,126}[0-9a-z])?")
_LONGEST_RUN_ID = 100  # characters, and so 200 bytes: file systems take 255 with what goes around an id
_NAME = re.compile(r"(?:[0-9A-Za-z_-][0-9A-Za-z._-]{0,127}/){0,3}[0-9A-Za-z_-][0-9A-Za-z._-]{0,127}")


def _file_name(owner: str, name: str) -> str:
    """Return the name of a file that belongs to a run or a probe, if it is a plain relative path."""
    if not _NAME.fullmatch(name):
        raise InvalidId(f"name of a {owner}'s file", repr(name)[:80], "plain names of 0-9 A-Z a-z . _ - joined by /")
    return name


def _word(kind: str, text: str) -> str:
    if not _WORD.fullmatch(text):
        accepted = "1 to 128 of 0-9, a-z and -, neither first nor last a -"
        raise InvalidId(f"{kind} cannot be part of an object key", repr(text)[:80], accepted, "give the id as listed")
    return text


def _run(run_id: str) -> str:
    """Return the id of a run, which has a name of any script in it, in its composed form."""
    composed = unicodedata.normalize("NFC", run_id)
    is_named = not composed.isascii() and ids.slug(composed, _LONGEST_RUN_ID) == composed
    return composed if is_named else _word("run_id", run_id)


def image_key(image_id: str) -> str:
    """Return the key of a normalised picture."""
    return f"{IMAGES_PREFIX}{_word('image_id', image_id)}.png"


def adapter_prefix(adapter_id: str) -> str:
    """Return the folder of one adapter."""
    return f"{ADAPTERS_PREFIX}{_word('adapter_id', adapter_id)}/"


def adapter_key(adapter_id: str, half: Literal["content", "style"]) -> str:
    """Return the key of one half of an adapter.

    Raises:
        InvalidId: `adapter_id` is not a plain word, or `half` is neither content nor style.
    """
    if half not in ("content", "style"):
        raise InvalidId("half of an adapter", repr(half)[:80], "content or style")
    return f"{adapter_prefix(adapter_id)}{half}.safetensors"


def adapter_marker_key(adapter_id: str) -> str:
    """Return the key that exists only when both halves of an adapter are whole."""
    return f"{adapter_prefix(adapter_id)}adapter.json"


def adapter_keys(adapter_id: str) -> tuple[str, str, str]:
    """Return the keys that must all be there for an adapter to be whole: its halves and its marker."""
    return adapter_key(adapter_id, "content"), adapter_key(adapter_id, "style"), adapter_marker_key(adapter_id)


def sample_key(content_id: str, style_id: str, sample_id: str) -> str:
    """Return the key of a picture.

    Args:
        content_id: The adapter_id of the content side, `ids.mix_id` of several, or `ids.text_id` of a prompt.
        style_id: The same of the style side.
        sample_id: The id of the picture.
    """
    return f"{samples_prefix(content_id, style_id)}{_word('sample_id', sample_id)}.png"


def samples_prefix(content_id: str | None = None, style_id: str | None = None) -> str:
    """Return the prefix of all pictures, of one content's row, or of one pair.

    Raises:
        InvalidId: An id is not a plain word, or a style is given without a content (no prefix can say that).
    """
    if content_id is None:
        if style_id is not None:
            raise InvalidId("samples of one style have no common prefix", repr(style_id), "a content_id beside it")
        return SAMPLES_PREFIX
    row = f"{SAMPLES_PREFIX}{_word('content_id', content_id)}/"
    return row if style_id is None else f"{row}{_word('style_id', style_id)}/"


def run_key(run_id: str, name: str) -> str:
    """Return the key of a file of a run, such as "plan.parquet" or "report/index.html".

    Raises:
        InvalidId: `run_id` is not a plain word, or `name` is not a relative path of plain names.
    """
    return f"{RUNS_PREFIX}{_run(run_id)}/{_file_name('run', name)}"


def report_prefix(run_id: str) -> str:
    """Return the folder of a run's page."""
    return run_key(run_id, "report") + "/"


def thumbnails_prefix(run_id: str) -> str:
    """Return the folder of the thumbnails of a run's page."""
    return f"{report_prefix(run_id)}thumbnails/"


def redo_prefix(run_id: str) -> str:
    """Return the folder of what reviews added to a run's plan."""
    return run_key(run_id, "redo") + "/"


def comparison_prefix(run_a: str, run_b: str) -> str:
    """Return the folder of the comparison of two runs."""
    return f"{REPORTS_PREFIX}compare/{_run(run_a)}/{_run(run_b)}/"


def nights_report_prefix() -> str:
    """Return the folder of the report about nights over time."""
    return f"{REPORTS_PREFIX}nights/"


def probe_key(probe_id: str, name: str) -> str:
    """Return the key of a file of a block probe, such as "probe.parquet".

    Raises:
        InvalidId: `probe_id` is not a plain word, or `name` is not a relative path of plain names.
    """
    return f"{PROBES_PREFIX}{_word('probe_id', probe_id)}/{_file_name('probe', name)}"


def checkpoint_key(run_id: str, pack_id: str) -> str:
    """Return the key of a pack's training checkpoint."""
    return run_key(run_id, f"checkpoints/{_word('pack_id', pack_id)}.safetensors")


def training_log_key(run_id: str, pack_id: str) -> str:
    """Return the key of a pack's training log, one JSON object a line."""
    return run_key(run_id, f"logs/{_word('pack_id', pack_id)}.jsonl")


def shard_scores_prefix(run_id: str) -> str:
    """Return the folder of the scores of a run's shards."""
    return f"{RUNS_PREFIX}{_run(run_id)}/scores/"


def shard_scores_key(run_id: str, shard_id: str) -> str:
    """Return the key of the scores of one shard, outside the data set: `tasks.run.scores` says why."""
    return f"{shard_scores_prefix(run_id)}{_word('shard_id', shard_id)}.parquet"


def added_scores_prefix(run_id: str) -> str:
    """Return the folder of the scores of a run by scorers that were added to it later."""
    return f"{RUNS_PREFIX}{_run(run_id)}/added_scores/"


def scores_part_key(date: datetime.date, run_id: str, part: str) -> str:
    """Return the key of one part of the score data set.

    Args:
        date: The day (UTC) on which the run started.
        run_id: The run.
        part: A plain word, unique within the run.
    """
    run = _run(run_id)
    return f"{SCORES_PREFIX}date={date:%Y-%m-%d}/run={run}/part-{_word('part', part)}.parquet"


def lease_key(adapter_id: str) -> str:
    """Return the key of the lease that says who is training an adapter."""
    return f"{LEASES_PREFIX}{_word('adapter_id', adapter_id)}.json"


def run_lease_key(run_id: str) -> str:
    """Return the key of the lease by which a run's parent shows that it is at work."""
    return f"{LEASES_PREFIX}run-{_run(run_id)}.json"


def shard_lease_key(attempt_id: str) -> str:
    """Return the key of the lease by which a shard on another machine shows that it is alive."""
    return f"{LEASES_PREFIX}shard-{_word('attempt_id', attempt_id)}.json"


def attempt_key(run_id: str, attempt_id: str) -> str:
    """Return the key of what an attempt at some packs or shards on another machine came to."""
    return run_key(run_id, f"attempts/{_word('attempt_id', attempt_id)}.json")


def receipt_key(manifest_id: str) -> str:
    """Return the key of the receipt of a manifest that was dropped for the night."""
    return f"{RECEIPTS_PREFIX}{_word('manifest_id', manifest_id)}.json"


def night_key(night_id: str) -> str:
    """Return the key of the record of a night."""
    return f"{NIGHTS_PREFIX}{_word('night_id', night_id)}/night.json"
