"""Where the time of a training step goes: ``python -m tests.benchmarks.shares``.

torch's profiler over three steps of a pack, after as many to warm up. Seconds are of the device (on a CPU of the
processor), each kernel or operation counted once, by kind: matrix products, convolutions, attention, LoRA's own batched
products, the optimizer, copies, and the rest, which is pointwise work and norms. On a GPU the time in which it computed
nothing is there, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from blora.models.model import Base, load_base
from blora.settings.training import TrainSettings
from blora.training.items import TrainItem
from blora.training.train import train
from tests.benchmarks.common import parser_of, settings_of, write_figures
from tests.benchmarks.full_size import FullSize
from tests.tiny import picture

WARM_UP, STEPS = 3, 3
KINDS: Final = {
    "attention": r"scaled_dot_product|flash|fmha|attention|softmax",
    "convolutions": r"conv|implicit_gemm|winograd|dgrad|wgrad",
    "LoRA (batched products)": r"bmm|baddbmm|batched",
    "optimizer": r"adam|foreach|multi_tensor",
    "matrix products": r"addmm|mm\b|gemm|matmul|cutlass|cublas|nvjet|xmma|linear",
    "copies": r"copy|memcpy|memset|to_copy|\bcat\b|fill_|clone",
}
"""By the name of the kernel, or on a CPU of the operation; the first that fits."""
OTHER = "pointwise, norms and the rest"


def kind_of(name: str) -> str:
    """Return which kind of work a kernel or operation is."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name, re.I)), OTHER)


def seconds_by_kind(events: Any, on_gpu: bool) -> Counter[str]:
    """Sum what the profiler saw, by kind: of kernels on a GPU, of operations themselves on a CPU."""
    spent: Counter[str] = Counter()
    for event in events:
        kernel = event.device_type != torch.autograd.DeviceType.CPU
        if kernel == on_gpu and not event.key.startswith("ProfilerStep"):
            micros = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            spent[kind_of(event.key)] += micros / 1e6
    return spent


def measure(base: Base, settings: TrainSettings, pack: int) -> tuple[Counter[str], float, list[dict[str, Any]]]:
    """Profile some steps of a pack.

    Returns:
        Seconds by kind; seconds by the clock of the same steps; the ten most expensive kernels.
    """
    on_gpu = base.device.type == "cuda"
    side = settings.resolution_px
    items = [TrainItem((picture(number, side, side),), str(number)) for number in range(pack)]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    clock: list[float] = []
    plan = schedule(wait=1, warmup=WARM_UP - 1, active=STEPS)
    with profile(activities=activities, schedule=plan, acc_events=True) as profiler:

        def on_step(report: Any) -> None:
            if on_gpu and report.step in (WARM_UP, WARM_UP + STEPS):
                torch.cuda.synchronize(base.device)
            clock.append(report.seconds)
            profiler.step()

        train(base, items, settings.model_copy(update={"steps": WARM_UP + STEPS + 1}), on_step=on_step)
    events = profiler.key_averages()
    spent = seconds_by_kind(events, on_gpu)
    wall = sum(clock[WARM_UP : WARM_UP + STEPS])
    if on_gpu:
        spent["idle"] = max(0.0, wall - sum(spent.values()))
    by_cost = sorted(events, key=lambda e: -(e.self_device_time_total if on_gpu else e.self_cpu_time_total))
    kernels = [e for e in by_cost if (e.device_type != torch.autograd.DeviceType.CPU) == on_gpu][:10]
    micros = [event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in kernels]
    most = [{"kernel": e.key[:120], "calls": e.count, "seconds": m / 1e6} for e, m in zip(kernels, micros, strict=True)]
    return spent, wall, most


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the shares and the most expensive kernels."""
    parser = parser_of(__doc__)
    parser.add_argument("--pack", type=int, default=8)
    on_gpu = torch.cuda.is_available()
    parser.set_defaults(base="sdxl" if on_gpu else "embedded", preset="paper" if on_gpu else "demo")
    given = parser.parse_args(arguments)
    settings = settings_of(given, {}).train
    load: Any = FullSize if given.base == "sdxl" else partial(load_base, given.base)
    base = load(given.device, settings.precision)
    spent, wall, most = measure(base, settings, given.pack)
    whole = sum(spent.values())
    rows = [{"kind": kind, "s_a_step": one / STEPS, "share": one / whole} for kind, one in spent.most_common()]
    print(f"{base.name} on {given.device}, {settings.precision}, pack of {given.pack}, {settings.resolution_px} px: "
          f"{wall / STEPS:.3f} s a step by the clock, profiled")  # fmt: skip
    print(*(f"{row['share']:7.1%} {row['s_a_step']:9.4f} s  {row['kind']}" for row in rows), sep="\n")
    print(*(f"{one['seconds'] / STEPS:9.4f} s {one['calls']:6d} calls  {one['kernel']}" for one in most), sep="\n")
    write_figures(given, base, {"pack": given.pack, "s_a_step": wall / STEPS, "rows": rows, "kernels": most})


if __name__ == "__main__":
    main()
