"""What the flow costs over the bare library for the same work: ``python -m tests.benchmarks.overhead``.

Baseline: one process that loads the base once and calls the library's train, sample and score for the same pictures
in the same packs and batches, and writes nothing. Ours: the flow on a local Prefect server, from the manifest to tables
and contact sheet in a fresh store. Both include loading the base; neither includes the start of the Prefect server,
which is shown apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

MANIFEST = Path(__file__).parents[2] / "manifests" / "examples" / "demo.yaml"


def bare_seconds(manifest: Path, overrides: dict[str, Any]) -> float:
    """Wall seconds of the library alone, in a fresh interpreter so that both sides pay for their imports."""
    code = (
        "import sys, json; from tests.benchmarks.overhead import bare; "
        "print(bare(sys.argv[1], json.loads(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(manifest), json.dumps(overrides)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def bare(manifest: str, overrides: dict[str, Any]) -> int:
    """Do a manifest's work with the library alone; returns the number of scored pictures."""
    from blora.metrics.feature_scorer import ScoreItem
    from blora.metrics.score import load_scorers, score_samples
    from blora.models.model import load_base
    from blora.sampling.draw import Draw
    from blora.sampling.sample import sample
    from blora.training.items import TrainItem
    from blora.training.train import train
    from manifests.images.normalise import NormalisedImage
    from manifests.loading.load import load_manifest
    from manifests.loading.pictures import NORMALISED, read_images
    from manifests.store.store import Store
    from tasks.planning.make import make_plan, survey

    loaded = load_manifest(manifest)
    assert loaded.manifest is not None
    entries = (*loaded.manifest.contents, *loaded.manifest.styles)
    read = dict(read_images((key for entry in entries for key in entry.keys), NORMALISED)).values()
    pictures = {picture.image_id: picture for picture in read if isinstance(picture, NormalisedImage)}
    with tempfile.TemporaryDirectory() as empty:
        plan = make_plan(Store.open(empty), survey(loaded, overrides=overrides)).plan
    settings = plan.run.settings
    base = load_base(plan.run.base, "cpu", settings.train.precision)
    pixels = {image_id: _pixels(picture.png) for image_id, picture in pictures.items()}
    adapters: dict[str, Any] = {}
    for pack in plan.packs:
        items = [TrainItem(tuple(pixels[i] for i in a.image_ids), a.adapter_id) for a in pack.adapters]
        for planned, result in zip(pack.adapters, train(base, items, settings.train), strict=True):
            adapters[planned.adapter_id] = result.adapter
    scorers = load_scorers(settings.score)
    references = {adapter.adapter_id: pixels[adapter.image_ids[0]] for adapter in plan.adapters}
    scored = 0
    for shard in plan.shards:
        for batch in shard.batches:
            draws = [Draw(adapters[s.content_id], adapters[s.style_id], s.prompt, s.seed) for s in batch]
            drawn = sample(base, draws, settings.sample)
            items_ = [
                ScoreItem(picture, references[s.content_id], references[s.style_id], s.text)
                for s, picture in zip(batch, drawn, strict=True)
            ]
            scored += len(score_samples(scorers, items_))
    return scored


def flow_seconds(manifest: Path, overrides: dict[str, Any], prefect_api: str) -> float:
    """Wall seconds of the whole flow in a fresh interpreter and a fresh store."""
    code = (
        "import sys, json; from flows.params import RunOptions; from flows.stylize import stylize; "
        "options = RunOptions(root=sys.argv[2], overrides=json.loads(sys.argv[3]), devices='cpu'); "
        "sys.exit(not stylize(sys.argv[1], options, return_state=True).is_completed())"
    )
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-c", code, str(manifest), root, json.dumps(overrides)]
        environment = dict(os.environ, PREFECT_API_URL=prefect_api, PREFECT_LOGGING_LEVEL="ERROR")
        started = time.perf_counter()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


def main() -> None:
    """Alternate both sides and print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--train-steps", type=int, default=60, help="training steps of both sides")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    overrides = {"train": {"steps": arguments.train_steps}}

    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")  # before Prefect reads its settings
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    started = time.perf_counter()
    with prefect_test_harness(server_startup_timeout=180):
        server_start = time.perf_counter() - started
        address = str(PREFECT_API_URL.value())
        times: dict[str, list[float]] = {"bare": [], "flow": []}
        for _ in range(arguments.repetitions):
            times["bare"].append(bare_seconds(arguments.manifest, overrides))
            times["flow"].append(flow_seconds(arguments.manifest, overrides, address))
    bare_, flow = median(times["bare"]), median(times["flow"])
    ratios = [ours / baseline for ours, baseline in zip(times["flow"], times["bare"], strict=True)]
    print(f"bare library   {bare_:8.1f} s  (baseline)")
    print(f"flow           {flow:8.1f} s")
    print(f"ratio          {median(ratios):8.3f}    overhead {median(ratios) - 1:+.1%}, {flow - bare_:.1f} s")
    print(f"server start   {server_start:8.1f} s  (apart; once, and only where no server runs)")
    if arguments.json:
        figures = {"times_seconds": times, "ratios": ratios, "server_start_seconds": server_start}
        arguments.json.write_text(json.dumps(figures, indent=2))


def _pixels(png: bytes) -> Any:
    import io

    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


if __name__ == "__main__":
    main()
