"""What a manifest asks for, named by content: adapters by their pictures, samples by all that shapes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blora.config import RECIPE_VERSION, Settings
from manifests import ids
from manifests.images import NormalisedImage
from manifests.schema import ImageEntry, Manifest, PairEntry
from tasks.runs import PlannedAdapter, PlannedSample


class Naming:
    """The adapters and samples of a manifest.

    Attributes:
        adapters: every adapter that a good pair uses, in the manifest's order, each once.
        samples: every picture of every good pair, each once.
    """

    def __init__(
        self, manifest: Manifest, pictures: Mapping[str, NormalisedImage], settings: Settings, revision: str
    ) -> None:
        """Name everything.

        Args:
            manifest: the good rows.
            pictures: normalised picture by address; an entry with a picture that is not there is left out.
            settings: the resolved settings.
            revision: pinned revision of the base model.
        """
        self._manifest, self._settings, self._revision = manifest, settings, revision
        known: dict[str, PlannedAdapter] = {}
        self._contents = self._name_entries(manifest.contents, pictures, known)
        self._styles = self._name_entries(manifest.styles, pictures, known)
        samples = (self._sample(pair, seed) for pair in manifest.pairs if self._is_there(pair) for seed in pair.seeds)
        self.samples = tuple({sample.sample_id: sample for sample in samples}.values())
        used = {adapter_id for sample in self.samples for adapter_id in sample.adapter_ids}
        self.adapters = tuple(adapter for adapter_id, adapter in known.items() if adapter_id in used)

    def run_id(self) -> str:
        """The run's id: what is drawn, its names and how it is scored; not how it is batched."""
        content: dict[str, Any] = {
            "base": [self._manifest.base, self._revision],
            "adapters": [[a.adapter_id, a.name] for a in self.adapters],
            "samples": [[s.sample_id, s.content_name, s.style_name, s.text] for s in self.samples],
            "score": self._settings.score.identity(),
        }
        return ids.run_id(self._manifest.name, content)

    def _name_entries(
        self,
        entries: tuple[ImageEntry, ...],
        pictures: Mapping[str, NormalisedImage],
        known: dict[str, PlannedAdapter],
    ) -> dict[str, tuple[ImageEntry, PlannedAdapter]]:
        """Entry and adapter by the entry's name; two names of one picture share one adapter."""
        named: dict[str, tuple[ImageEntry, PlannedAdapter]] = {}
        for entry in entries:
            if not all(address in pictures for address in entry.images):
                continue
            image_ids = tuple(sorted({pictures[address].image_id for address in entry.images}))
            train = self._settings.train.identity()
            adapter_id = ids.adapter_id(image_ids, train, self._revision, RECIPE_VERSION)
            adapter = known.setdefault(adapter_id, PlannedAdapter(adapter_id, entry.name, entry.word or "", image_ids))
            named[entry.name] = entry, adapter
        return named

    def _is_there(self, pair: PairEntry) -> bool:
        """Whether every picture that the pair names could be read."""
        return (not pair.content or pair.content in self._contents) and (not pair.style or pair.style in self._styles)

    def _sample(self, pair: PairEntry, seed: int) -> PlannedSample:
        content, content_adapter = self._contents[pair.content] if pair.content else (None, None)
        style, style_adapter = self._styles[pair.style] if pair.style else (None, None)
        train, sample = self._settings.train, self._settings.sample
        prompts = {
            "prompt": train.with_tokens(pair.prompt or sample.prompt),
            "content_prompt": train.with_tokens(pair.content_prompt or "") if content else "",
            "negative_prompt": sample.negative_prompt if pair.negative_prompt is None else pair.negative_prompt,
        }
        strengths = (
            self._strength(pair.content_strength, sample.content_strength) if content else None,
            self._strength(pair.style_strength, sample.style_strength) if style else None,
        )
        sample_id = ids.sample_id(
            content_id=content_adapter.adapter_id if content_adapter else None,
            style_id=style_adapter.adapter_id if style_adapter else None,
            content_strength=strengths[0],
            style_strength=strengths[1],
            prompts=prompts,
            seed=seed,
            sample_settings=sample.identity(),
            base_revision=self._revision,
        )
        told = ids.text_id(prompts["prompt"])
        return PlannedSample(
            sample_id=sample_id,
            content_id=content_adapter.adapter_id if content_adapter else told,
            style_id=style_adapter.adapter_id if style_adapter else told,
            content_name=content.name if content else pair.prompt or "",
            style_name=style.name if style else pair.prompt or "",
            text=_plain_words(pair, content, style),
            prompt=prompts["prompt"],
            content_prompt=prompts["content_prompt"] or None,
            negative_prompt=prompts["negative_prompt"],
            content_strength=strengths[0],
            style_strength=strengths[1],
            seed=seed,
        )

    def _strength(self, said: float | None, otherwise: float) -> float:
        """The strength of a side, linear: the reference multiplies both LoRA factors, so its 1.1 acts as 1.21."""
        if said is None:
            return otherwise
        return said**2 if self._manifest.strength_reading == "reference" else said


def _plain_words(pair: PairEntry, content: ImageEntry | None, style: ImageEntry | None) -> str:
    """What a picture should show, for the text score; empty where a word for that is missing."""
    if content and style:
        return f"a {content.word} in {style.word} style" if content.word and style.word else ""
    text = pair.prompt or ""
    for token, side in (("[c]", content), ("[s]", style)):
        if token in text:
            if side is None or not side.word:
                return ""
            text = text.replace(token, side.word)
    return text
