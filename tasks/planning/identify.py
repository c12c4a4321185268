"""What a manifest asks for, named by content: adapters by their pictures, samples by all that shapes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from blora.adapters.blocks import Half
from blora.checks.limits import training_identity
from blora.settings.block_split import own_split
from blora.settings.presets import Settings
from blora.settings.training import recipe_version
from manifests import ids
from manifests.faults import Fault
from manifests.images.normalise import IdentifiedImage
from manifests.notes import Note
from manifests.schema.entries import ImageEntry, Manifest, PairEntry, content_parts, style_parts
from tasks.bases import unheard
from tasks.downloads import base_family
from tasks.planning.clips import PlannedClip, clips_of
from tasks.planning.finished import Finished, is_usable, refused_pair
from tasks.planning.prompts import plain_words, prompt_notes, shared_class, training_notes, word_of
from tasks.planning.repeats import told_apart
from tasks.planning.sweeps import Strip, strips_of
from tasks.run.plan import PlannedAdapter, PlannedSample, SidePart


@dataclass(frozen=True)
class Identified:
    """What a manifest asks for.

    Attributes:
        run_id: of what is drawn, its names and how it is scored; not of how it is batched.
        adapters: every adapter that a good pair uses, in the manifest's order, each once.
        samples: every picture of every good pair, each once: first those that are asked for by pair and seed, then
            their further candidates.
        strips: the sweeps among them, each a row of pictures.
        clips: the clips among them, each in one style with one seed.
        pairs: how many pairs are drawn.
        faults: what of it is asked for twice.
        notes: what there is to know of its prompts.
    """

    run_id: str
    adapters: tuple[PlannedAdapter, ...]
    samples: tuple[PlannedSample, ...]
    strips: tuple[Strip, ...]
    clips: tuple[PlannedClip, ...]
    pairs: int
    faults: tuple[Fault, ...]
    notes: tuple[Note, ...]


Entries = Mapping[str, tuple[ImageEntry, PlannedAdapter]]
"""Contents or styles, and the adapter of each, by the entry's name."""


def identify(
    manifest: Manifest,
    pictures: Mapping[str, IdentifiedImage],
    settings: Settings,
    revision: str,
    finished: Finished = MappingProxyType({}),
) -> Identified:
    """Name everything that a manifest asks for.

    Args:
        manifest: the good rows.
        pictures: normalised picture by address; an entry with a picture that is not there is left out.
        settings: the resolved settings.
        revision: pinned revision of the base model.
        finished: the good ones of the adapters that it names by their files; an entry of another is left out.
    """
    family = base_family(manifest.base) if manifest.base else "sdxl"
    known: dict[str, PlannedAdapter] = {}
    sides: tuple[tuple[Half, tuple[ImageEntry, ...]], ...]
    sides = (("content", manifest.contents), ("style", manifest.styles))
    contents, styles = (
        _named_entries(
            [entry for entry in entries if is_usable(entry, half, finished)],
            pictures,
            settings,
            revision,
            known,
            finished,
        )
        for half, entries in sides
    )
    namer = _SampleNamer(contents, styles, settings, revision, manifest.strength_reading)
    content_entries, style_entries = ({name: entry for name, (entry, _) in side.items()} for side in (contents, styles))
    entries = content_entries, style_entries
    trained = settings.train.split or own_split(flux=family == "flux")
    pairs = [
        (pair, refused_pair(pair, *entries, finished, trained) or unheard(pair, family))
        for pair in manifest.pairs
        if namer.knows(pair)
    ]
    every = [(pair, namer.sample(pair, seed)) for pair, refusal in pairs if refusal is None for seed in pair.seeds]
    requests = told_apart(every, *entries, namer.drawing, revision, family)
    drawn = requests.drawn
    asked: dict[str, PlannedSample] = {}
    for _, sample in drawn:  # of two names for one picture, the first: a clip that comes back has names 1, 2, 3
        asked.setdefault(sample.sample_id, sample)
    further = {candidate.sample_id: candidate for pair, sample in drawn for candidate in namer.candidates(pair, sample)}
    # A seed that is both asked for and made of another one stands for itself.
    samples = (*asked.values(), *(candidate for sample_id, candidate in further.items() if sample_id not in asked))
    used = {adapter_id for sample in samples for adapter_id in sample.adapter_ids}
    adapters = tuple(adapter for adapter_id, adapter in known.items() if adapter_id in used)
    frames = {name: adapter.image_ids[0] for name, (entry, adapter) in contents.items() if entry.frame}
    content: dict[str, Any] = {
        "base": [manifest.base, revision],
        "adapters": [[a.adapter_id, a.name] for a in adapters],
        "samples": [[s.sample_id, s.content_name, s.style_name, s.text] for s in samples],
        "score": settings.score.identity(),
    }
    return Identified(
        ids.run_id(manifest.name, content),
        adapters,
        samples,
        strips_of(drawn),
        clips_of(drawn, content_entries, frames),
        len({id(pair) for pair, _ in drawn}),
        (*dict.fromkeys(refusal for _, refusal in pairs if refusal), *requests.faults),
        (
            *training_notes(adapters, settings.train.prompt, family),
            *prompt_notes(every, settings.sample.prompt, family),
            *requests.notes,
        ),
    )


def _named_entries(
    entries: Iterable[ImageEntry],
    pictures: Mapping[str, IdentifiedImage],
    settings: Settings,
    revision: str,
    known: dict[str, PlannedAdapter],
    finished: Finished,
) -> dict[str, tuple[ImageEntry, PlannedAdapter]]:
    """Entry and adapter by the entry's name; two names of one picture share one adapter, which `known` keeps."""
    named: dict[str, tuple[ImageEntry, PlannedAdapter]] = {}
    for entry in entries:
        if entry.adapter is not None:
            one = finished[entry.adapter]
            adapter = PlannedAdapter(one.adapter_id, entry.name, word_of(entry), (), source_file=one.address)
            named[entry.name] = entry, known.setdefault(one.adapter_id, adapter)
            continue
        if not all(key in pictures for key in entry.keys):
            continue
        image_ids = tuple(sorted({pictures[key].image_id for key in entry.keys}))
        prompt = settings.train.of_class(entry.class_word).prompt if entry.class_word else ""
        train = training_identity(settings, revision, prompt)
        adapter_id = ids.adapter_id(image_ids, train, revision, recipe_version(len(image_ids)))
        adapter = PlannedAdapter(adapter_id, entry.name, word_of(entry), image_ids, prompt)
        named[entry.name] = entry, known.setdefault(adapter_id, adapter)
    return named


class _SampleNamer:
    """Samples of pairs, named by all that shapes them."""

    def __init__(self, contents: Entries, styles: Entries, settings: Settings, revision: str, reading: str) -> None:
        self._contents, self._styles, self._settings, self._revision = contents, styles, settings, revision
        self._reading = reading
        self.drawing = ids.canonical(settings.sample.identity())
        self._with_tokens = lru_cache(maxsize=1024)(settings.train.with_tokens)  # most pairs have the same prompt

    def knows(self, pair: PairEntry) -> bool:
        """Whether every picture that the pair names could be read."""
        return {part.name for part in content_parts(pair)} <= self._contents.keys() and {
            part.name for part in style_parts(pair)
        } <= self._styles.keys()

    def sample(self, pair: PairEntry, seed: int) -> PlannedSample:
        """The picture of a pair with a seed."""
        contents = [(*self._contents[part.name], part.weight) for part in content_parts(pair)]
        styles = [(*self._styles[part.name], part.weight) for part in style_parts(pair)]
        sample = self._settings.sample
        classes = [shared_class([entry for entry, *_ in side]) for side in (contents, styles)]
        prompts = {
            "prompt": self._with_tokens(pair.prompt or sample.prompt, *classes),
            "content_prompt": self._with_tokens(pair.content_prompt or "", *classes) if contents else "",
            "negative_prompt": sample.negative_prompt if pair.negative_prompt is None else pair.negative_prompt,
        }
        if pair.own_style:
            own = [(entry, adapter, weight * pair.own_style) for entry, adapter, weight in contents]
        else:
            own = []
        content = self._side(contents, pair.content_strength, sample.content_strength)
        style = self._side([*styles, *own], pair.style_strength, sample.style_strength)
        drawn = PlannedSample(
            sample_id="",
            content_id=content.side_id or ids.text_id(prompts["prompt"]),
            style_id=style.side_id or ids.text_id(prompts["prompt"]),
            content_name=pair.content or pair.prompt or "",
            style_name=(pair.style or pair.prompt or "") + (f" + own {pair.own_style:.3g}" if own else ""),
            text=plain_words(pair, [entry for entry, *_ in contents], [entry for entry, *_ in styles]),
            prompt=prompts["prompt"],
            content_prompt=prompts["content_prompt"] or None,
            negative_prompt=prompts["negative_prompt"],
            content_strength=content.strength,
            style_strength=style.strength,
            seed=seed,
            content_mix=content.mix,
            style_mix=style.mix,
            **_colour(pair),
        )
        return drawn.named(self.drawing, self._revision)

    def candidates(self, pair: PairEntry, asked: PlannedSample) -> list[PlannedSample]:
        """The candidates of a picture after the first: the same with other seeds."""
        seeds = [ids.candidate_seed(asked.seed, number) for number in range(2, pair.candidates + 1)]
        others = [replace(asked, seed=seed, candidate_of=asked.sample_id) for seed in seeds]
        return [other.named(self.drawing, self._revision) for other in others]

    def _side(
        self, parts: list[tuple[ImageEntry, PlannedAdapter, float]], said: float | None, otherwise: float
    ) -> _Side:
        """One side of a sample; names of one picture are one adapter, and one adapter is no mix."""
        if not parts:
            return _Side(None, None)
        strength = self._strength(said, otherwise)
        if len(parts) == 1:
            ((_, adapter, weight),) = parts
            return _Side(adapter.adapter_id, strength * weight)
        merged: dict[str, SidePart] = {}
        for entry, adapter, weight in parts:
            before = merged.get(adapter.adapter_id, SidePart(adapter.adapter_id, entry.name, 0.0))
            merged[adapter.adapter_id] = replace(before, weight=before.weight + weight)
        if len(merged) == 1:
            (part,) = merged.values()
            return _Side(part.adapter_id, strength * part.weight)
        mix = tuple(merged[adapter_id] for adapter_id in sorted(merged))
        return _Side(ids.mix_id([(part.adapter_id, part.weight) for part in mix]), strength, mix)

    def _strength(self, said: float | None, otherwise: float) -> float:
        """The strength of a side, linear: the reference multiplies both LoRA factors, so its 1.1 acts as 1.21."""
        if said is None:
            return otherwise
        return said**2 if self._reading == "reference" else said


@dataclass(frozen=True)
class _Side:
    """The id and strength of a side, None where the prompt says it, and what it is mixed of."""

    side_id: str | None
    strength: float | None
    mix: tuple[SidePart, ...] = ()


def _colour(pair: PairEntry) -> dict[str, Any]:
    """What is done to the colours of a picture, if any field asks for it and the amount is not 0."""
    told = (pair.colour_of, pair.colour_by, pair.colour_amount)
    if told == (None, None, None) or pair.colour_amount == 0:
        return {}
    amount = 1.0 if pair.colour_amount is None else pair.colour_amount
    return {
        "colour_of": pair.colour_of or "content",
        "colour_by": pair.colour_by or "transfer",
        "colour_amount": amount,
    }
