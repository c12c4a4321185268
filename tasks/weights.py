"""Weights of scorers that lie in a bucket: the method reads files and the hub; a bucket's are copied here first."""

from __future__ import annotations

from pathlib import Path

from blora.errors import ScorerError
from blora.settings.judging import ScoreSettings
from blora.settings.scorer_spec import parse_scorer
from manifests import ids
from manifests.store.store import Store
from tasks.bases import copy_objects

CACHE = Path("~/.cache/blora/scorers").expanduser()


def with_local_weights(settings: ScoreSettings) -> ScoreSettings:
    """The same settings with every scorer's weights on this machine or on the hub.

    Raises:
        ScorerError: a bucket's file or folder has no weights.
        StoreError: the bucket does not answer.
    """
    return settings.model_copy(update={"scorers": tuple(local_scorer(line) for line in settings.scorers)})


def local_scorer(asked: str) -> str:
    """The line of a scorer with its weights copied here, if they lie in a bucket.

    The copy is named by the objects' names and ETags: other weights are copied again. What they must hash to, if the
    line says so, is checked as they are loaded, like any other file.

    Raises:
        ScorerError: the address has no weights.
        StoreError: the bucket does not answer.
    """
    spec = parse_scorer(asked)
    if not spec.source.startswith("s3://"):
        return asked
    folder, _, name = spec.source.rstrip("/").rpartition("/")
    if not name.endswith(".safetensors"):
        folder, name = spec.source, ""
    store = Store.open(folder)
    there = {key: entry for key, entry in store.list("").items() if "/" not in key and key.endswith(".safetensors")}
    wanted = {key: entry for key, entry in there.items() if not name or key == name}
    if not wanted:
        accepted = "a .safetensors object, or a folder that holds one"
        received = f"{spec.source}, beside {', '.join(there)}" if there else spec.source
        raise ScorerError("no weights there", received, accepted, f"scorer {spec.kind}", "correct the address")
    copy = CACHE / ids.digest("scorer weights", [[key, entry.version] for key, entry in wanted.items()])
    copy_objects(store, wanted, copy)
    return f"{spec.kind}={copy / name}" + (f"#sha256:{spec.sha256}" if spec.sha256 else "")
