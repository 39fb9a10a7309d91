"""Costs of a sweep's bookkeeping without Ray, by the number of trials it has.

A synthetic run is journalled: each trial is scored at the first of three rungs, a third of them at
the second and a ninth at the last. A cost is measured for each number of trials: the median of
REPEATS operations in a run of that size (CPU time, except for the append, which waits for the
disk), or the wall time of one operation on the whole run.
"""

import io
import itertools
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console

from analysis.terminal.screen import render
from common.seeds import derive_seed
from journal.events import (
    UNSTAMPED,
    CheckpointSaved,
    EpochEnded,
    Event,
    RungDecided,
    RunStarted,
    StageReported,
    TrialEnded,
    TrialStarted,
    encode,
)
from journal.journal import Journal, read_state
from journal.trial import Trial
from search.samplers.optuna_sampler import OptunaSampler
from search.schedulers.asha import Asha
from search.space.spec import SweepSpec
from search.space.sweep_files import spec_from_mapping
from search.timetable.deadlines import Deadlines
from search.tune.disk import DiskBudget
from trainables.recipe import Recipe
from trainables.records import RunFolder

T = TypeVar("T")

RUNGS, FACTOR = (1, 3, 9), 3
REPEATS = 30
PER_TRIAL = {
    "ask": "a suggestion, TPE over four parameters",
    "fits": "whether a trial fits into the time budget",
    "decide": "a decision at a rung",
    "append": "journal append and fold of one event",
    "tell": "report of an ended trial to the sampler",
    "rank": "disk budget and best trials after a trial's end",
    "screen": "one frame of the terminal's display",
}
WHOLE = {
    "status": "read the journal, fold, render",
    "resume": "open the journal, fold, rebuild sampler and scheduler",
}


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds by operation, for a run of some trials."""

    trials: int
    events: int
    memory_mib: float
    """Peak memory of the process so far."""
    each: dict[str, float]


def print_scale(counts: Sequence[int], *, png: Path | None) -> None:
    """Measure each number of trials, and print one table of costs and one of growth."""
    measured = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            measured.append(costs_at(count, RunFolder(folder)))
        print(f"{count:,} trials, {measured[-1].events:,} events: done", flush=True)
    names = " | ".join(f"{costs.trials:,}" for costs in measured)
    print(f"\n| ms, in a run of so many trials | {names} | last over first |")
    print(f"|---|{'--:|' * (len(measured) + 1)}")
    for name, text in {**PER_TRIAL, **WHOLE}.items():
        values = [costs.each[name] for costs in measured]
        growth = f"{values[-1] / values[0]:.1f}×" if values[0] else "–"
        cells = " | ".join(f"{value:,.3f}" if value < 10 else f"{value:,.0f}" for value in values)
        print(f"| {name}: {text} | {cells} | {growth} |")
    for name in WHOLE:
        cells = " | ".join(f"{costs.each[name] / costs.trials:.3f}" for costs in measured)
        ratio = (measured[-1].each[name] / measured[-1].trials) / (
            measured[0].each[name] / measured[0].trials
        )
        print(f"| {name}, ms a trial | {cells} | {ratio:.1f}× |")
    memory = " | ".join(f"{costs.memory_mib:,.0f}" for costs in measured)
    print(f"| peak memory of all so far, MiB | {memory} | |")
    print(f"\nload after: {os.getloadavg()[0]:.1f}")
    if png is not None:
        draw(measured, png)


def costs_at(count: int, folder: RunFolder) -> Costs:
    """Journal a run of `count` trials without syncs, then measure every operation."""
    spec = spec_of(count)
    events = write_journal(folder, spec, count)
    each: dict[str, float] = {}
    began = time.perf_counter()
    state = read_state(folder.journal)
    Console(file=io.StringIO()).print(render(state, state.last_time, 100))
    each["status"] = 1e3 * (time.perf_counter() - began)
    del state
    began = time.perf_counter()
    journal = Journal(folder.journal)
    sampler = OptunaSampler(
        spec.search_space(), journal.state, trials=2 * count + REPEATS,
        startup_trials=10, seed=0, study="s", path=folder.optuna,
    )  # fmt: skip
    scheduler = Asha(RUNGS, FACTOR).replay(journal.state)
    each["resume"] = 1e3 * (time.perf_counter() - began)
    with journal:
        each |= costs_of_trials(folder, spec, journal, sampler, scheduler)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Costs(count, events, peak, each)


def costs_of_trials(
    folder: RunFolder, spec: SweepSpec, journal: Journal, sampler: OptunaSampler, scheduler: Asha
) -> dict[str, float]:
    """Run REPEATS more trials up to their first rung; return the median cost of each step."""
    state = journal.state
    spent: dict[str, list[float]] = {name: [] for name in PER_TRIAL}
    disk = DiskBudget(folder, limit=1e12, members=5)
    disk.resume(state.trials.ranked())
    deadlines = Deadlines(finish=time.time() + 1e9, stop=time.time() + 1e9)
    rng = np.random.default_rng(1)

    def timed(name: str, action: Callable[..., T], *arguments: object, **options: object) -> T:
        clock = time.perf_counter if name == "append" else time.thread_time
        began = clock()
        result = action(*arguments, **options)
        spent[name].append(1e3 * (clock() - began))
        return result

    def rank(trial: Trial) -> None:
        disk.add(trial)
        disk.make_room()
        state.trials.ranked(most=5)
        _ = disk.full

    for _ in range(REPEATS):
        timed("fits", deadlines.allow_trial, RUNGS, state, spec.base_recipe())
        suggestion = sampler.next()
        if suggestion is None:
            raise RuntimeError("the sampler has no trial left")
        name, score = suggestion.trial, float(rng.random())
        journal.append(
            TrialStarted(
                trial=name, number=suggestion.number, kind="search", seed=0, attempt=1,
                recipe=suggestion.recipe.to_mapping(),
            )
        )  # fmt: skip
        sampler.observe(timed("append", journal.append, epoch_of(name, 1, 1, score)))
        cutoff = timed("decide", scheduler.decide, 1, score).cutoff
        journal.append(
            RungDecided(
                trial=name, rung=1, value=score, decision="stop", cutoff=cutoff,
                reason="above_cutoff",
            )
        )  # fmt: skip
        ended = journal.append(TrialEnded(trial=name, status="pruned", steps=1, rung=1))
        timed("tell", sampler.observe, ended)
        timed("rank", rank, state.trials[name])
        timed("screen", render, state, state.last_time, 100)
    for _ in range(REPEATS):
        timed("ask", sampler.next)
    return {name: statistics.median(values) for name, values in spent.items()}


def spec_of(count: int) -> SweepSpec:
    """Return the sweep whose trials are journalled."""
    return spec_from_mapping(
        {
            "name": "scale", "trials": count, "rungs": list(RUNGS), "reduction_factor": FACTOR,
            "splits": {"counts": [30, 20, 20]},
            "space": {
                "dropout": {"type": "float", "low": 0.0, "high": 0.9},
                "weight_decay": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
                "label_smoothing": {"type": "float", "low": 0.0, "high": 0.2},
                "width": {"type": "int", "low": 8, "high": 64, "step": 8},
            },
        }
    )  # fmt: skip


def write_journal(folder: RunFolder, spec: SweepSpec, count: int) -> int:
    """Write the journal of a run that has ended `count` trials; return its number of events."""
    written = 0
    with folder.journal.open("w") as file:
        for event in events_of(spec, count):
            file.write(json.dumps(encode(event), allow_nan=False) + "\n")
            written += 1
    return written


def events_of(spec: SweepSpec, count: int) -> Iterator[Event]:
    """Yield the events of a run with random scores."""
    rng = np.random.default_rng(0)
    clock = itertools.count(1_800_000_000.0)
    recipe = Recipe(epochs=RUNGS[-1]).to_mapping()
    yield RunStarted(run="scale", spec=spec.to_mapping(), time=next(clock))
    yield StageReported(stage="sweep", status="started", time=next(clock))
    for number in range(count):
        name = f"t{number:04d}"
        drawn = {
            **recipe,
            "dropout": float(rng.uniform(0, 0.9)),
            "weight_decay": float(10 ** rng.uniform(-5, -1)),
            "label_smoothing": float(rng.uniform(0, 0.2)),
            "width": int(8 * rng.integers(1, 9)),
        }
        yield TrialStarted(
            trial=name, number=number, kind="search", recipe=drawn,
            seed=derive_seed(0, "trial", number), attempt=1, time=next(clock),
        )  # fmt: skip
        reached = 3 if number % 9 == 0 else 2 if number % 3 == 0 else 1
        for step, rung in enumerate(RUNGS[:reached], start=1):
            score = float(rng.random()) + 1 / rung
            yield epoch_of(name, step, rung, score, time=next(clock))
            path = f"search-000001/{name}/checkpoint_{step:06d}"
            yield CheckpointSaved(trial=name, step=step, path=path, time=next(clock))
            if rung != RUNGS[-1]:
                yield RungDecided(
                    trial=name, rung=rung, value=score, cutoff=score, time=next(clock),
                    decision="continue" if step < reached else "stop",
                    reason="promoted" if step < reached else "above_cutoff",
                )  # fmt: skip
        yield TrialEnded(
            trial=name, status="completed" if reached == len(RUNGS) else "pruned", steps=reached,
            rung=RUNGS[reached - 1], whole_schedule=reached == len(RUNGS), time=next(clock),
        )  # fmt: skip


def epoch_of(trial: str, step: int, rung: int, score: float, time: float = UNSTAMPED) -> EpochEnded:
    """Return an epoch with all its values."""
    return EpochEnded(
        trial=trial, step=step, epoch=rung, rung=rung, train_loss=0.5, val_nll=score,
        val_accuracy=0.5, temperature=1.0, lr=0.1, seconds=1.0, images_per_second=100.0,
        peak_memory_bytes=10**8, time=time,
    )  # fmt: skip


def draw(measured: Sequence[Costs], path: Path) -> None:
    """Draw the costs over the number of trials, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    trials = [costs.trials for costs in measured]
    for name in PER_TRIAL:
        left.loglog(trials, [costs.each[name] for costs in measured], "o-", label=name)
    for name in WHOLE:
        right.loglog(trials, [costs.each[name] / 1e3 for costs in measured], "o-", label=name)
    linear = [measured[0].each["resume"] / 1e3 * count / trials[0] for count in trials]
    right.loglog(trials, linear, "k:", label="linear")
    left.set(xlabel="trials in the run", ylabel="ms", title="one operation")
    right.set(xlabel="trials in the run", ylabel="s", title="the whole run")
    left.legend(fontsize=7, ncols=2)
    right.legend(fontsize=7)
    figure.savefig(path, dpi=100)
