"""The plan for a GPU runs dry: its parts at small sizes on a CPU, so that no minute of a card is spent on mending."""

from __future__ import annotations

import json
import re
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from blora.embedded import MODEL_DIR
from blora.models.model import load_base
from blora.settings.sampling import SampleSettings
from tests.benchmarks import budgets, operations, sdxl, versus
from tests.benchmarks.versus_sampling import decode_flop, needed_flop
from tests.tiny import RESOLUTION_PX, save_tiny_base

SMALL = [
    f"train.resolution_px={RESOLUTION_PX}", "train.rank=4", f"sample.width_px={RESOLUTION_PX}",
    f"sample.height_px={RESOLUTION_PX}",
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("bases") / "tiny")


def test_training_sampling_and_budgets_on_a_cpu_in_half_precision(tiny: Path, tmp_path: Path) -> None:
    """The published way is fp32 there, whatever ours is in; what no CPU knows is left out."""
    out, settings = tmp_path / "figures.json", [word for one in SMALL for word in ("--set", one)]
    sdxl.main(
        ["--only", "training", "sampling", "budgets", "--preset", "fast", "--base", str(tiny), "--device", "cpu",
         "--packs", "1", "--batches", "1", "2", "--steps", "1", "--sample-steps", "1", "--budgets-gb", "4", "0.5",
         "--json", str(out), *settings]
    )  # fmt: skip
    found: dict[str, Any] = json.loads(out.read_text())
    assert [row["what"] for row in found["rows"]] == [
        "train, published recipe", "train, pack of 1", "sample, pipeline call a pair", "sample, batch of 1",
        "sample, batch of 2",
    ]  # fmt: skip
    assert found["precision"] == "bf16" and all(row["peak_gb"] is None for row in found["rows"])
    large, small = found["budgets"]
    assert large["pack"] >= 1 and large["batch"] == 4 and large["train_peak_gb"] is None
    assert "does not fit on the device" in small["fault"]


@pytest.mark.parametrize(("guidance", "rows"), [(1.0, 1), (5.0, 2)])
def test_the_floor_of_a_picture_has_a_second_row_only_where_it_is_guided(
    tiny: Path, guidance: float, rows: int
) -> None:
    base = load_base(tiny)
    settings = SampleSettings(width_px=RESOLUTION_PX, height_px=RESOLUTION_PX, steps=3, guidance_scale=guidance)
    drawn = needed_flop(base, settings) - decode_flop(base, RESOLUTION_PX)
    assert drawn == rows * 3 * operations.forward_flop(base, RESOLUTION_PX)


def test_a_budget_is_a_whole_card_of_which_the_context_is_not_the_allocators() -> None:
    assert budgets.allocator_share(8, 80 * 10**9) * 80 == pytest.approx(7.5)
    with pytest.raises(ValueError, match=r"received 24 GB; accepted: up to the card's 16\.0 GB"):
        budgets.allocator_share(24, 16 * 10**9)


def test_a_way_whose_process_dies_costs_no_row_but_its_own(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a process of its own, stood in for here, and its row is written before the next begins."""
    out, written = tmp_path / "figures.json", list[int]()

    class Alone:
        def __init__(self, workers: int, mp_context: Any) -> None:
            assert (workers, mp_context.get_start_method()) == (1, "spawn")

        def __enter__(self) -> Alone:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def submit(self, function: Any, given: Any, settings: Any, count: int, changes: Any, layout: Any) -> Any:
            written.append(len(json.loads(out.read_text())["rows"]) if out.exists() else 0)
            found: Future[Any] = Future()
            if changes:
                found.set_exception(BrokenProcessPool("a process died"))
            else:
                found.set_result(((1.0, 2.0), None))
            return found

    monkeypatch.setattr(versus, "ProcessPoolExecutor", Alone)
    sdxl.main(["--only", "variants", "--base", str(tiny), "--device", "cpu", "--packs", "1", "--json", str(out),
               *(word for one in SMALL for word in ("--set", one))])  # fmt: skip
    found = json.loads(out.read_text())
    assert [row["what"] for row in found["rows"]] == ["pack of 1, eager", "pack of 1, channels last"]
    assert written == [0, 1, 1] and "checkpointing: BrokenProcessPool" in found["notes"][0]


def test_training_on_a_gpu_goes_on_where_the_shipped_model_ended() -> None:
    """By the pictures seen, which set its timesteps."""
    script = Path(__file__).with_name("gpu_hour.sh").read_text("utf-8")
    card = (MODEL_DIR.parent / "card.md").read_text("utf-8")
    (said,), (shipped,) = re.findall(r"--seen (\d+)", script), re.findall(r"UNet \| .* steps, ([\d,]+) pictures", card)
    assert said == shipped.replace(",", "")
