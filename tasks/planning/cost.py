"""What a plan will cost, before anything is spent: counts, slot seconds and bytes of what is missing.

Seconds come from this store's own past where a run of the same base and precision has ended on the same kind of
device: from one with the same settings, else from the rate that the newest one reached, by its operations. Without such
a run the rate is a share of what the data sheet of the GPU says, or what two cores reached, and the estimate says so.
Operation counts: SDXL at 1024 px needs 11.0 TFLOP a training step (latent moments cached; 13.9 where activations are
recomputed, and 2.91 less where a pool has its front) and 6.8 TFLOP a pass of a picture through the UNet, of which a
guided step has two, plus 10.5 to decode; they scale with the number of pixels. Where adapters are checked, pictures
are drawn for that, too. Not reckoned, because it is not known beforehand: how much longer than a square a picture is
that is not cropped, and how many further attempts an adapter needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blora.bases.locate import SDXL_FOLDER
from blora.checks.limits import adapter_limits, reconstruction_settings
from blora.errors import SettingsError
from blora.settings.presets import Settings
from blora.settings.sampling import SampleSettings
from manifests.store.store import Store
from tasks.downloads import base_family
from tasks.memory import denoiser_config, parameters_per_rank
from tasks.run.inventory import Holdings
from tasks.run.outcome import RunRecord, read_records
from tasks.run.plan import Plan

TRAIN_TFLOP_PER_STEP, FORWARD_TFLOP, DECODE_TFLOP = 11.0, 6.8, 10.5  # SDXL, 1024 px, one picture
RECOMPUTING_TFLOP_PER_STEP = 13.9
FRONT_TFLOP, EMBEDDED_FRONT_TFLOP = 2.91, 1.88  # less in a step; the embedded model's at 128 px, divided by its share
FLUX_TRAIN_TFLOP, FLUX_FORWARD_TFLOP = (0.021469, 1.6317e-6), (0.012927, 6.977e-7)
"""Of FLUX.1, a token and a squared token: 133.6 a step at 1024 px and 36.8 at 512; 74.4 and 21.5 forward."""
FLUX_TOKEN_PX, FLUX_PROMPT_TOKENS = 16, 512
PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40": 362, "L4": 121, "A10": 125, "RTX 5090": 209,
    "RTX 4090": 165, "RTX 3090": 71, "V100": 125, "T4": 65,
}  # fmt: skip
"""Dense products in half precision a second by the data sheets, by a part of the GPU's name; the first that fits."""
USUAL_GPU = "A100"
SHARE_OF_PEAK = 0.22  # assumed, until a run has measured it
SHARE_OF_FP32 = 1 / 8  # assumed likewise: what fp32 reaches of half precision's rate
EMBEDDED_SHARE = 1 / 4_800  # operations of the embedded model at 128 px, relative to SDXL's at 1024 px
CPU_TFLOPS = 0.07  # two cores of a laptop, at the embedded model
SCORE_SECONDS = 0.25  # assumed of a picture, on two cores
START_SECONDS = {"embedded": 20.0, "": 60.0}  # assumed: the command, its slots, and the base model into memory
CLOSE_SECONDS = 0.1  # assumed of a picture: tables, sheet and page
ONE_VISIT = {
    "euler", "ddim", "dpm++", "EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"
}  # fmt: skip
"""Schedulers that visit one timestep a step; Heun's method and its like visit two."""
BYTES_PER_PARAMETER, BYTES_PER_PIXEL = 2, 1.6  # fp16 halves; a PNG of a drawn picture


@dataclass(frozen=True)
class Estimate:
    """What is there, what is to do, and what that takes.

    Attributes:
        adapters: adapters planned.
        adapters_missing: adapters to train.
        samples: pictures planned.
        samples_missing: pictures to draw.
        train_seconds: slot seconds of training, checks included.
        sample_seconds: slot seconds of drawing.
        score_seconds: slot seconds of scoring.
        other_seconds: until the first item is begun, and from the last one to the end, however many slots there are.
        slots: among which the slot seconds are shared.
        bytes: what will be written to the store, roughly.
        basis: where the seconds come from.
    """

    adapters: int
    adapters_missing: int
    samples: int
    samples_missing: int
    train_seconds: float
    sample_seconds: float
    score_seconds: float
    other_seconds: float
    slots: int
    bytes: int
    basis: str

    @property
    def slot_seconds(self) -> float:
        """Of all items."""
        return self.train_seconds + self.sample_seconds + self.score_seconds

    @property
    def seconds(self) -> float:
        """From the command to its end."""
        return self.slot_seconds / self.slots + self.other_seconds


@dataclass(frozen=True)
class Pace:
    """Seconds of one adapter, of drawing and of scoring a picture, of the start, and of closing a picture's run."""

    adapter: float
    picture: float
    score: float
    start: float
    close: float
    basis: str


def estimate(store: Store, plan: Plan, held: Holdings, devices: Sequence[str] = (), gpu: str = "") -> Estimate:
    """Price a plan against what the store holds of it.

    Args:
        store: with its past runs.
        plan: of the run.
        held: what the store has of it.
        devices: of the slots that are to work; none where that is not known, which counts as one of any kind.
        gpu: the name of the GPU that is to work, if known.
    """
    settings = plan.run.settings
    adapters = [a for a in plan.adapters if a.adapter_id not in held.adapters]
    samples = [s for s in plan.samples if s.sample_id not in held.pictures]
    pace = _measured(store, plan, devices) or _assumed(plan, devices, gpu)
    per_rank = parameters_per_rank(plan.run.base, settings.train.layers, settings.train.split)
    adapter_bytes = per_rank * settings.train.rank * BYTES_PER_PARAMETER
    sample_bytes = settings.sample.width_px * settings.sample.height_px * BYTES_PER_PIXEL
    return Estimate(
        len(plan.adapters),
        len(adapters),
        len(plan.samples),
        len(samples),
        train_seconds=pace.adapter * len(adapters),
        sample_seconds=pace.picture * len(samples),
        score_seconds=pace.score * len(samples),
        other_seconds=pace.start + pace.close * len(plan.samples) if adapters or samples else 0.0,
        slots=max(1, len(devices)),
        bytes=round(adapter_bytes * len(adapters) + sample_bytes * len(samples)),
        basis=pace.basis,
    )


def _operations(base: str, revision: str, settings: Settings) -> tuple[float, float]:
    """TFLOP of training and checking an adapter, and of drawing a picture."""
    train, check = settings.train, settings.check
    if base_family(base) == "flux":
        trained = _flux_tflop(*FLUX_TRAIN_TFLOP, train.resolution_px, train.resolution_px)
        drawn = _flux_drawn
    else:
        embedded = base == "embedded"
        native_px, share, front = (128, EMBEDDED_SHARE, EMBEDDED_FRONT_TFLOP) if embedded else (1024, 1.0, FRONT_TFLOP)
        step = RECOMPUTING_TFLOP_PER_STEP if train.checkpointing == "on" else TRAIN_TFLOP_PER_STEP
        step -= front * (1 - train.front_share)
        trained = share * step * (train.resolution_px / native_px) ** 2

        def drawn(how: SampleSettings) -> float:
            area = share * how.width_px * how.height_px / native_px**2
            return area * (FORWARD_TFLOP * _passes(base, how) + DECODE_TFLOP)

    checked = check.pictures if check.attempts and adapter_limits(check, revision) else 0
    checks = checked * drawn(reconstruction_settings(settings)) if checked else 0.0
    return trained * train.batch_size * train.steps + checks, drawn(settings.sample)


def _flux_drawn(how: SampleSettings) -> float:
    """TFLOP of a picture of FLUX.1, which guidance costs nothing."""
    denoised = how.steps * _flux_tflop(*FLUX_FORWARD_TFLOP, how.width_px, how.height_px)
    return denoised + DECODE_TFLOP * how.width_px * how.height_px / 1024**2


def _flux_tflop(linear: float, squared: float, width_px: int, height_px: int) -> float:
    """What grows with a picture's tokens and, by attention, with their square."""
    tokens = width_px * height_px / FLUX_TOKEN_PX**2 + FLUX_PROMPT_TOKENS
    return linear * tokens + squared * tokens**2


def _passes(base: str, how: SampleSettings) -> int:
    """How often a picture goes through the UNet: once at each timestep that is visited, twice where it is guided.

    Where their names do not say it, the scheduler itself is asked; torch is loaded for that alone. A base that does not
    lie on this machine, or has no scheduler, counts as having SDXL's: whoever loads it says what it lacks.
    """
    config_file, place = denoiser_config(base), Path("scheduler", "scheduler_config.json")
    folder = config_file.parents[1] if config_file and (config_file.parents[1] / place).is_file() else SDXL_FOLDER
    config = {"_class_name": "EulerDiscreteScheduler"} | json.loads((folder / place).read_text())
    rows = 2 if how.guidance_scale > 1 else 1
    name = config["_class_name"] if how.scheduler == "base" else how.scheduler
    if name in ONE_VISIT and (rows == 1 or how.guidance_interval is None):
        return rows * how.steps
    from blora.sampling.denoise import count_passes

    try:
        return count_passes(config, how)
    except SettingsError:  # the training refuses this scheduler, and says why
        return rows * how.steps


def _measured(store: Store, plan: Plan, devices: Sequence[str]) -> Pace | None:
    """The pace of the best of past runs: one with the same settings, else the newest."""
    now, kinds = plan.run.settings, {device.partition(":")[0] for device in devices}
    found: list[tuple[bool, str, RunRecord, Settings]] = []
    for record in read_records(store):
        timings = record.timings
        if record.base_revision != plan.run.base_revision or not (timings.get("trained") and timings.get("drawn")):
            continue
        if kinds and not kinds & _kinds(timings):
            continue
        try:
            past = Settings.model_validate(record.settings)
        except ValueError:  # of another version of this package
            continue
        if (past.train.precision, past.sample.precision) != (now.train.precision, now.sample.precision):
            continue
        same = all(a.identity() == b.identity() for a, b in ((past.train, now.train), (past.sample, now.sample)))
        found.append((same, record.created_at, record, past))
    if not found:
        return None
    same, _, record, past = max(found, key=lambda one: one[:2])
    timings, assumed = record.timings, _assumed(plan, devices, "")
    ours, theirs = (_operations(plan.run.base, plan.run.base_revision, one) for one in (now, past))
    scored = timings.get("scored")
    return Pace(
        adapter=timings["train_seconds"] / timings["trained"] * ours[0] / theirs[0],
        picture=timings["sample_seconds"] / timings["drawn"] * ours[1] / theirs[1],
        score=timings["score_seconds"] / scored if scored else assumed.score,
        start=timings.get("start_seconds", assumed.start),
        close=timings.get("close_seconds_per_picture", assumed.close),
        basis=f"measured in run {record.run_id} on {' and '.join(sorted(_kinds(timings)))}"
        + ("" if same else ", by operation counts"),
    )


def _kinds(timings: Mapping[str, Any]) -> set[str]:
    """On which kinds of devices a run drew, ``cpu`` or ``cuda``; none where it does not say."""
    slots = [str(row.get("slot", "")).rpartition(" ")[2] for row in timings.get("slots", ()) if row.get("pictures")]
    return {slot.partition(":")[0] for slot in slots} or {"cpu", "cuda"}


def _assumed(plan: Plan, devices: Sequence[str], gpu: str) -> Pace:
    """The pace by operation counts and what the GPU may reach of its data sheet, or what two cores reached."""
    trained, drawn = _operations(plan.run.base, plan.run.base_revision, plan.run.settings)
    if plan.run.base == "embedded" or set(devices) == {"cpu"}:
        speed, where = CPU_TFLOPS, " of two cores"
    else:
        name = next((part for part in PEAK_TFLOPS if part in gpu), USUAL_GPU)
        speed, where = PEAK_TFLOPS[name] * SHARE_OF_PEAK, f" of an {name}" if name[0] in "AHLR" else f" of a {name}"
        speed *= SHARE_OF_FP32 if plan.run.settings.train.precision == "fp32" else 1
    basis = f"operation counts at an assumed {speed:.3g} TFLOP/s{where}; the first run measures"
    start = START_SECONDS.get(plan.run.base, START_SECONDS[""])
    return Pace(trained / speed, drawn / speed, SCORE_SECONDS, start, CLOSE_SECONDS, basis)
