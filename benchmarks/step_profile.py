"""Show where the time of a training step goes, by kind of operation.

Command:  python benchmarks/step_profile.py                      (a minute on a CPU)
          python benchmarks/step_profile.py --nets small --threads 2 --dtype bfloat16

Real steps of our loop run under torch's profiler: augmentation, forward and backward pass,
optimizer and weight average. Each operator's own time on the CPU is counted in one of the kinds
below, per step; Python between operators is the rest of the wall-clock time. The profiler itself
slows a step down by the factor that the last column gives, so compare shares, not sums.
"""

import argparse
import time
from collections import defaultdict
from typing import Any

from origin import origin_line
from torch.profiler import ProfilerActivity, profile
from training_turns import LITE0, everything, noise

from common.cpu_runtime import share_arena
from trainables.recipe import Numerics, Recipe
from trainables.training.loop import Training

NETS = {"small": Recipe(), "wide": Recipe(width=64, middle=4), "lite0": LITE0}
STEPS = 6

KINDS: dict[str, tuple[str, ...]] = {
    "convolution": ("convolution", "conv2d", "mkldnn_convolution", "slow_conv"),
    "batch norm": ("batch_norm",),
    "matrix products": ("addmm", "::mm", "bmm", "aten::linear"),
    "activation, pooling": ("gelu", "relu", "silu", "hardtanh", "clamp", "pool", "sigmoid"),
    "optimizer": ("_fused_", "_foreach_", "addcdiv", "lerp"),
    "copies, layout": ("copy_", "contiguous", "clone", "to_", "cat", "index", "stack", "gather"),
}
"""Parts of operators' names, by kind; the first kind that matches counts."""

OTHER, PYTHON = "other operators", "between operators"


def main() -> None:
    """Print one table with a row for every net."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    share_arena()
    print(f"{origin_line(options.dtype, f'{options.threads} threads')}\n")
    kinds = [*KINDS, OTHER, PYTHON]
    print(f"| net | ms a step | {' | '.join(kinds)} | profiled over plain |")
    print("|---|--:|" + "--:|" * (len(kinds) + 1))
    for name in options.nets.split(","):
        numerics = Numerics(dtype=options.dtype, threads=options.threads)
        plain, profiled, times = measure_step(NETS[name], numerics)
        cells = " | ".join(f"{times[kind]:.2f} ({times[kind] / profiled:.0%})" for kind in kinds)
        print(f"| {name} | {plain:.2f} | {cells} | {profiled / plain:.2f} |", flush=True)
    print(f"\nMilliseconds a step, mean of {STEPS}; in brackets the share of the profiled step.")


def measure_step(recipe: Recipe, numerics: Numerics) -> tuple[float, float, dict[str, float]]:
    """Return the milliseconds of a step, plain and profiled, and those of every kind."""
    training = Training(
        recipe,
        rungs=(recipe.schedule.epochs,),
        seed=0,
        numerics=numerics,
        images=noise(),
        splits=everything(),
    )
    training.rehearse(3)
    started = time.perf_counter()
    training.rehearse(STEPS)
    plain = 1e3 * (time.perf_counter() - started) / STEPS
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        started = time.perf_counter()
        training.rehearse(STEPS)
        profiled = 1e3 * (time.perf_counter() - started) / STEPS
    times: dict[str, float] = defaultdict(float)
    events: Any = profiler.key_averages()
    for event in events:
        if event.key.startswith("Optimizer."):  # not an operator: Python around the optimizer's
            continue
        times[kind_of(event.key)] += event.self_cpu_time_total / 1e3 / STEPS
    times[PYTHON] = max(0.0, profiled - sum(times.values()))
    return plain, profiled, times


def kind_of(operator: str) -> str:
    """Return the kind of an operator by its name, such as `aten::convolution`."""
    lower = operator.lower()
    for kind, parts in KINDS.items():
        if any(part in lower for part in parts):
            return kind
    return OTHER


if __name__ == "__main__":
    main()
