"""Where the rows of the benchmark are trained and drawn; what several rows or runs need is trained once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import cast

from blora.adapters.adapter import Adapter, blend_adapters
from blora.adapters.blocks import BLOCKS, attention_layers
from blora.adapters.factors import Factors
from blora.benchmark.drawings import Pair, PairedSet
from blora.benchmark.other_methods import Magenta, added, pack_whole, unpack_whole
from blora.benchmark.rows import COLOUR_ROWS, CONTENT_PROBE, TRAINS, Drawn, Picture, Tell, amount_of
from blora.models.model import Base
from blora.sampling.colour_transfer import Method, Palette
from blora.sampling.draw import Draw
from blora.sampling.sample import sample
from blora.settings.presets import Settings
from blora.settings.training import RECIPE_VERSION
from blora.training.items import TrainItem
from blora.training.photos import pixel_digest
from blora.training.train import train

__all__ = ["Workshop"]


class Workshop:
    """Trains and draws for all rows; adapters that several rows or runs need are trained once."""

    def __init__(
        self, base: Base, paired: PairedSet, settings: Settings, kept: MutableMapping[str, bytes], tell: Tell
    ) -> None:
        """Take what all rows share.

        Args:
            base: Loaded with the settings' precision.
            paired: The drawings.
            settings: Recipe of training and drawing.
            kept: Adapters by key, as safetensors; what is in it is not trained again.
            tell: Told about progress.
        """
        self.base, self.paired, self.settings, self.kept, self.tell = base, paired, settings, kept, tell

    def draw(self, row: str, pairs: Sequence[Pair]) -> Drawn:
        """Draw every pair in the way of a row."""
        if row in ("content", "style", "real"):
            places = {"content": "content", "style": "reference", "real": "truth"}
            return Drawn([self.paired.pictures[getattr(pair, places[row])] for pair in pairs], 0.0, 0.0, 0)
        began = time.perf_counter()
        if row == "magenta":
            pictures = self._magenta(pairs)
            return Drawn(pictures, 0.0, (time.perf_counter() - began) / len(pairs), 0)
        kind = TRAINS.get(row.partition(":")[0])
        adapters = self._adapters(kind, pairs) if kind else {}
        began = time.perf_counter()
        draws = [self._compose(row, pair, adapters) for pair in pairs]

        def show(report: object) -> None:
            self.tell(f"{row}: drawing", getattr(report, "finished", 0), len(pairs))

        pictures = sample(self.base, draws, self.settings.sample, on_step=show)
        seconds = [float(adapter.metadata["train_seconds"]) for adapter in adapters.values()]
        sizes = [
            2 * sum(f.down.numel() + f.up.numel() for f in adapter.layers.values()) for adapter in adapters.values()
        ]
        mean = sum(seconds) / max(len(seconds), 1)
        return Drawn(pictures, mean, (time.perf_counter() - began) / len(pairs), max(sizes, default=0))

    def again(self, pairs: Sequence[Pair], seeds: Sequence[Sequence[int]]) -> list[list[Picture]]:
        """Draw B-LoRA's picture of every pair from each of its seeds: candidates.

        Args:
            pairs: The questions.
            seeds: Of each pair, as many as of the others.
        """
        adapters = self._adapters("halves", pairs)
        draws = [
            replace(self._compose("blora", pair, adapters), seed=seed)
            for pair, some in zip(pairs, seeds, strict=True)
            for seed in some
        ]

        def show(report: object) -> None:
            self.tell("candidates: drawing", getattr(report, "finished", 0), len(draws))

        pictures = sample(self.base, draws, self.settings.sample, on_step=show)
        count = len(seeds[0])
        return [pictures[start : start + count] for start in range(0, len(pictures), count)]

    def _compose(self, row: str, pair: Pair, adapters: Mapping[tuple[int, int], Adapter]) -> Draw:
        """What is drawn for one pair."""
        if row == "prompt":
            thing, style = self.paired.things[pair.thing], self.paired.styles[pair.style]
            return Draw(None, None, f"A {thing.name} in {style.words} style", pair.seed)
        told = self.settings.train.with_tokens(self.settings.sample.prompt)
        content, style_adapter = adapters[pair.content], adapters[pair.reference]
        strengths = self.settings.sample.content_strength, self.settings.sample.style_strength
        if row == "blora":
            return Draw(content, style_adapter, told, pair.seed, *strengths)
        if (way := row.partition(":")[0]) in COLOUR_ROWS:
            return self._coloured(way, amount_of(row), pair, Draw(content, style_adapter, told, pair.seed, *strengths))
        if row == "swapped":
            return Draw(style_adapter, content, told, pair.seed, *strengths)
        if row == "w2":
            content, style_adapter = content.scaled(strengths[0]), style_adapter.scaled(strengths[1])
            layers = {**_under(content, CONTENT_PROBE), **_under(style_adapter, BLOCKS["style"])}
            return Draw(None, None, told, pair.seed, whole=Adapter(layers))
        return Draw(None, None, told, pair.seed, whole=added(content, style_adapter, *strengths))

    def _coloured(self, way: str, amount: float, pair: Pair, draw: Draw) -> Draw:
        """The same draw with the content's colours kept in one of the ways."""
        if way == "own_style":
            assert draw.content is not None and draw.style is not None  # `_compose` gives both
            return replace(draw, style=blend_adapters([(draw.style.style, 1.0), (draw.content.style, amount)]))
        palette = Palette(self.paired.pictures[pair.content], cast("Method", way), amount)
        return replace(draw, palette=palette)

    def _magenta(self, pairs: Sequence[Pair]) -> list[Picture]:
        """Stylise the content pictures, at their own size."""
        stylist, pictures = Magenta(), []
        for done, pair in enumerate(pairs, start=1):
            content, style = self.paired.pictures[pair.content], self.paired.pictures[pair.reference]
            pictures.append(stylist.stylise(content, style, (content.shape[1], content.shape[0])))
            self.tell("magenta: drawing", done, len(pairs))
        return pictures

    def _adapters(self, kind: str, pairs: Iterable[Pair]) -> dict[tuple[int, int], Adapter]:
        """Adapters by picture (thing, style); trains in packs what is not kept."""
        places = sorted({place for pair in pairs for place in (pair.content, pair.reference)})
        keys = {place: self._key(kind, place) for place in places}
        missing = [place for place in places if keys[place] not in self.kept]
        size = 4 if self.settings.pack_size == "auto" else self.settings.pack_size
        for start in range(0, len(missing), size):
            self._train(kind, {keys[place]: place for place in missing[start : start + size]}, start)
        return {place: unpack_whole(self.kept[key]) for place, key in keys.items()}

    def _train(self, kind: str, pack: Mapping[str, tuple[int, int]], begun: int) -> None:
        """Train one pack and keep it."""
        items = [TrainItem((self.paired.pictures[place],), key) for key, place in pack.items()]
        label = f"{kind}: training {begun + 1} to {begun + len(items)}"
        began = time.perf_counter()
        results = train(
            self.base,
            items,
            self.settings.train,
            layers=self._layers(kind),
            on_step=lambda report: self.tell(label, report.step, report.steps),
        )
        seconds = (time.perf_counter() - began) / len(items)
        for key, result in zip(pack, results, strict=True):
            if result.adapter is None:
                raise result.error or RuntimeError("no adapter and no error")
            self.kept[key] = pack_whole(result.adapter, {"train_seconds": repr(seconds)})

    def _layers(self, kind: str) -> tuple[str, ...] | None:
        """What is trained; None for the two halves."""
        if kind == "w2":
            both = attention_layers(self.base.unet, CONTENT_PROBE), attention_layers(self.base.unet, BLOCKS["style"])
            return (*both[0], *both[1])
        return attention_layers(self.base.unet) if kind == "all" else None

    def _key(self, kind: str, place: tuple[int, int]) -> str:
        """What an adapter is known by: the picture, the recipe, the base, and what is trained."""
        picture, recipe = pixel_digest(self.paired.pictures[place]), self.settings.train.identity()
        parts = [RECIPE_VERSION, kind, picture, self.base.revision, recipe]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _under(adapter: Adapter, block: str) -> dict[str, Factors]:
    return {name: factors for name, factors in adapter.layers.items() if name.startswith(f"{block}.")}
