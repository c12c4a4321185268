"""Adapters of a run, or files, as files for other programs: one half or both, strengths and mixes in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, get_args

from blora.adapters.blocks import Half
from manifests import ids, layout
from manifests.store.address import local_path
from manifests.store.store import Store
from tasks.errors import TaskError
from tasks.run.plan import load_plan

if TYPE_CHECKING:
    from blora.adapters.adapter import Adapter
    from blora.adapters.forms import Form

__all__ = ["asked", "export_adapters", "weighted", "write_one"]

Weighted = tuple[str, float]
"""Something named, and how strongly it counts."""

Stems = dict[str, tuple[Half, str, str]]
"""Half, adapter_id and name by the stem of a file."""


def weighted(text: str) -> Weighted:
    """Read ``NAME`` or ``NAME=0.8``; a name may itself hold an equals sign."""
    name, mark, number = text.rpartition("=")
    try:
        return (name, float(number)) if mark and name else (text, 1.0)
    except ValueError:
        return text, 1.0


def asked(content: Sequence[str], style: Sequence[str]) -> dict[Half, list[Weighted]]:
    """Which halves go into one file, each by name and weight as `weighted` reads them; several of a half are mixed.

    Raises:
        TaskError: Neither half is asked for.
    """
    sides: dict[Half, list[Weighted]] = {"content": list(map(weighted, content)), "style": list(map(weighted, style))}
    if not any(sides.values()):
        raise TaskError("nothing to write: name a content, a style or both (--content cat --style wave=0.8)")
    return sides


def export_adapters(store: Store, run_id: str, folder: str, form: Form = "kohya") -> list[str]:
    """Write each content half and each style half that a run's pictures use, ``content__name.safetensors``.

    Args:
        store: The store.
        run_id: The run.
        folder: Where to, here or in a bucket; ``adapters/`` is made in it.
        form: Whose names the files' keys have (`blora.adapters.forms`).

    Returns:
        The files that were written; what is not trained yet has none.

    Raises:
        RunNotFound: No such run.
        KeyMismatchError: An adapter in the store cannot be read.
    """
    from blora.adapters.load import load_adapter

    target = Store.open(folder)
    written: list[str] = []
    for stem, (half, adapter_id, name) in _stems(store, run_id).items():
        data = store.find(layout.adapter_key(adapter_id, half))
        if data is not None:
            suffix = "" if form == "peft" else ".safetensors"
            written += _write(load_adapter(data, name=name), target, f"adapters/{stem}{suffix}", form, name)
    return written


def _write(adapter: Adapter, target: Store, key: str, form: Form, name: str) -> list[str]:
    """Write an adapter's files to a folder, here or in a bucket; return their addresses."""
    from blora.adapters.forms import files_of

    folder, _, file = key.rpartition("/")
    within = key if form == "peft" else folder
    written = []
    for own, data in files_of(adapter.layers, adapter.metadata, file, form, name).items():
        place = f"{within}/{own}" if within else own
        target.replace(place, data)
        written.append(f"{target.root}/{place}")
    return written


def write_one(
    sides: Mapping[Half, Sequence[Weighted]],
    target: str,
    form: Form = "kohya",
    name: str = "",
    *,
    of: tuple[Store, str] | None = None,
    only: Literal["blocks"] | None = None,
) -> tuple[list[str], Adapter]:
    """Write one file of the halves that were asked for.

    Args:
        sides: Names of a run's contents and styles, or paths of adapter files; see `asked`.
        target: The file, here or in a bucket; for PEFT a folder.
        form: Whose names its keys have.
        name: What programs show; the target's own name by default.
        of: The store and the run whose names are meant; None for files.
        only: "blocks" takes the two blocks' attention out of files that hold more.

    Returns:
        What was written, and the adapter in it.

    Raises:
        TaskError: A name that the run does not have, an adapter that is not trained yet, or a file that is not there.
        KeyMismatchError: A file that is no adapter, or does not hold the half.
    """
    from blora.adapters.adapter import blend_adapters, mix

    known = _stems(*of) if of else {}
    made: dict[Half, Adapter] = {}
    for half, parts in sides.items():
        halves = [(_half(half, part, of, known, only), weight) for part, weight in parts]
        if halves:
            made[half] = halves[0][0].scaled(halves[0][1]) if len(halves) == 1 else blend_adapters(halves)
    whole = mix(made["content"], made["style"]) if len(made) == 2 else next(iter(made.values()))
    folder, slash, file = target.rstrip("/").rpartition("/")
    return _write(whole, Store.open(folder or slash or "."), file, form, name), whole


def _half(half: Half, name: str, of: tuple[Store, str] | None, stems: Stems, only: Literal["blocks"] | None) -> Adapter:
    """One half by its name in a run, or from a file."""
    from blora.adapters.load import load_adapter

    if of is None:
        path = local_path(name)
        if not path.is_file():
            raise TaskError(f"{half}: there is no file {name}; name an adapter's file, or give --run and a name in it")
        found = load_adapter(path, name=name, only=only).half(half)
        if not found.layers:
            raise TaskError(f"{half}: {name} does not hold the {half} half")
        return found
    store, run_id = of
    known = {said: adapter_id for side, adapter_id, said in stems.values() if side == half}
    if name not in known:
        near = get_close_matches(name, known, 1)
        shown = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(sorted(known)[:10]) or 'none'}"
        raise TaskError(f"{half}: {run_id} has no {half} named {name!r}; {shown}")
    data = store.find(layout.adapter_key(known[name], half))
    if data is None:
        raise TaskError(f"{half}: {name!r} is not trained yet: blora rerun {run_id}")
    return load_adapter(data, name=name)


def _stems(store: Store, run_id: str) -> Stems:
    """Half, adapter and name by a file's stem, for all that pictures use; a second of a name gets its id."""
    found: Stems = {}
    seen: set[tuple[Half, str]] = set()
    for sample in load_plan(store, run_id).samples:
        for half in get_args(Half):
            for part in sample.parts(half):
                if (half, part.adapter_id) in seen:
                    continue
                seen.add((half, part.adapter_id))
                stem = f"{half}__{ids.slug(part.name)}"
                stem += f"__{part.adapter_id[:8]}" if stem in found else ""
                found[stem] = half, part.adapter_id, part.name
    return found
