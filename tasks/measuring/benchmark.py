"""Files of the paired benchmark: trained adapters kept, tables, report and picture sheet written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from manifests.store.store import Store
from manifests.tables.measuring import BENCH, BENCH_RATES
from manifests.tables.parquet import to_parquet_bytes, to_table
from tasks.measuring.benchmark_report import Measurement, report, sheet

if TYPE_CHECKING:
    from blora.benchmark.drawings import Split

SHEET_PAIRS = 24
"""Pairs on the picture sheet, evenly taken from all."""


class FolderOfAdapters(MutableMapping[str, bytes]):
    """Adapters by key, each a file of ``adapters/`` that is written whole or not at all."""

    def __init__(self, place: Store) -> None:
        """Take the folder that ``adapters/`` lies in, here or in a bucket."""
        self._place = place

    def __getitem__(self, key: str) -> bytes:
        if (data := self._place.find(self._file(key))) is None:
            raise KeyError(key)
        return data

    def __setitem__(self, key: str, value: bytes) -> None:
        self._place.replace(self._file(key), value)

    def __delitem__(self, key: str) -> None:
        self._place.delete(self._file(key))

    def __iter__(self) -> Iterator[str]:
        files = [PurePosixPath(file) for file in self._place.list("adapters/")]
        return (file.stem for file in files if file.suffix == ".safetensors")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return self._place.exists(self._file(str(key)))

    def _file(self, key: str) -> str:
        return f"adapters/{key}.safetensors"


@dataclass(frozen=True)
class BenchRequest:
    """What is to be measured.

    Attributes:
        split: validation, to choose settings by, or test, to report.
        pairs: at least so many; the grid is completed.
        style_pictures: how many pictures show a style, in turn.
        rows: some rows only; empty: all.
        base: embedded, a folder, or org/model@revision.
        preset: the settings to start from.
        overrides: settings laid over the preset's own.
        device: cpu or cuda:0.
    """

    split: Split
    pairs: int
    style_pictures: int
    rows: Sequence[str]
    base: str
    preset: str
    overrides: Mapping[str, Any]
    device: str


def measure(place: Store, request: BenchRequest, tell: Callable[[str, int, int], None]) -> Measurement:
    """Run the benchmark; adapters go to, and come from, the place's ``adapters/``.

    Raises:
        BloraError: What the method refuses: settings, rows, a base that cannot be loaded, a training that diverged.
    """
    from blora.benchmark.drawings import load_paired
    from blora.benchmark.rows import ROWS
    from blora.benchmark.run import run_bench, summarise
    from blora.errors import SettingFault, SettingsError
    from blora.models.model import load_base
    from blora.settings.resolve import resolve

    settings = resolve(request.preset, request.overrides)
    if settings.train.precision != settings.sample.precision:
        fault = SettingFault("sample.precision", "not train.precision", settings.sample.precision, "the same for both")
        raise SettingsError([fault])
    loaded, paired = load_base(request.base, request.device, settings.train.precision), load_paired()
    kept = FolderOfAdapters(place)
    rows = request.rows or ROWS
    result = run_bench(
        loaded,
        paired,
        request.split,
        request.pairs,
        settings,
        style_pictures=request.style_pictures,
        rows=rows,
        kept=kept,
        tell=tell,
    )
    return Measurement(
        result, summarise(result), paired, loaded.name, loaded.revision, settings.model_dump(mode="json")
    )


def write_tables(place: Store, measurement: Measurement) -> None:
    """Write ``bench.parquet`` (a row per pair and method), ``rates.parquet`` and both with the settings as JSON."""
    pictures, rates = list(_picture_rows(measurement)), list(_rate_rows(measurement))
    place.replace("bench.parquet", to_parquet_bytes(to_table(pictures, BENCH)))
    place.replace("rates.parquet", to_parquet_bytes(to_table(rates, BENCH_RATES)))
    about = {
        "base": measurement.base,
        "base_revision": measurement.base_revision,
        "split": measurement.result.split,
        "judge_version": measurement.result.judge,
        "judge_choices": measurement.result.chosen,
        "left_out": measurement.result.left_out,
        "settings": measurement.settings,
    }
    body = json.dumps({**about, "rates": rates, "pictures": pictures}, indent=1)
    place.replace("bench.json", body.encode())


def write_report(place: Store, measurement: Measurement) -> str:
    """Write ``report.md`` and ``sheet.png``; return the report's table with the rows that were left out."""
    result, every = measurement.result, range(len(measurement.result.pairs))
    shown = list(every)[:: max(1, -(-len(every) // SHEET_PAIRS))]
    place.replace("sheet.png", sheet(measurement.paired, result, shown))
    page, table = report(measurement)
    place.replace("report.md", page.encode())
    return f"{table}\nreport: {place.root}/report.md, pictures: {place.root}/sheet.png"


def _picture_rows(measurement: Measurement) -> Iterator[dict[str, object]]:
    things, styles = measurement.paired.things, measurement.paired.styles
    for row, verdicts in measurement.result.verdicts.items():
        for number, (pair, verdict) in enumerate(zip(measurement.result.pairs, verdicts, strict=True)):
            yield {
                "row": row,
                "pair": number,
                "split": measurement.result.split,
                "thing_code": things[pair.thing].code,
                "thing": things[pair.thing].name,
                "content_style": styles[pair.content_style].name,
                "style_thing": things[pair.style_thing].name,
                "style": styles[pair.style].name,
                "style_seen": styles[pair.style].seen,
                "seed": pair.seed,
                "style_named": styles[verdict.style].name,
                "style_right": verdict.style_right,
                "thing_found": things[verdict.thing].name,
                "thing_right": verdict.thing_right,
                "perceptual_distance": verdict.perceptual_distance,
                "colour_distance": verdict.colour_distance,
                "edge_distance": verdict.edge_distance,
                "content_colour_distance": verdict.content_colour_distance,
                "base": measurement.base,
                "base_revision": measurement.base_revision,
                "judge_version": measurement.result.judge,
            }


def _rate_rows(measurement: Measurement) -> Iterator[dict[str, object]]:
    for rate in measurement.rates:
        drawn = measurement.result.drawn[rate.row]
        cost = {name: getattr(drawn, name) for name in ("train_seconds", "draw_seconds", "adapter_bytes")}
        yield {**asdict(rate), "pairs": len(measurement.result.pairs), **cost}
