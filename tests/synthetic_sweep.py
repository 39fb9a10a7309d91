"""Events of a simulated sweep: no training, simulated time.

Each trial has a hidden quality and pace; the scheduler is the stopping variant of ASHA on
`concurrent` slots. Events have all fields of the journal.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from common.rungs import steps_at_rungs
from journal.events import (
    EpochEnded,
    Event,
    ModelRegistered,
    ResultReported,
    RungDecided,
    RunResumed,
    RunStarted,
    StageReported,
    Status,
    SweepEnded,
    TrialEnded,
    TrialRetried,
    TrialStarted,
)
from journal.state import RunState
from trainables.recipe import Recipe

SPEC: dict[str, Any] = {
    "name": "digits",
    "description": "The whole chain on 1,797 bundled digits.",
    "dataset": {"name": "digits", "path": None, "image_size": None},
    "trials": 20,
    "rungs": [3, 9, 27],
    "reduction_factor": 3,
    "concurrent": None,
    "recipe": {"batch_size": 64, "flip": False},
    "space": {
        "width": {"type": "int", "low": 16, "high": 48, "step": 16},
        "optimizer": {"type": "categorical", "choices": ["sgd", "adamw"]},
        "lr_per_1024": {
            "type": "float",
            "low": 1.0,
            "high": 16.0,
            "log": True,
            "when": {"optimizer": "sgd"},
        },
        "adamw_lr": {
            "type": "float",
            "low": 5e-4,
            "high": 1e-2,
            "log": True,
            "when": {"optimizer": "adamw"},
        },
        "label_smoothing": {"type": "float", "low": 0.0, "high": 0.2},
    },
    "members": 5,
}


def synthetic_sweep(
    *,
    seed: int = 0,
    spec: dict[str, Any] = SPEC,
    concurrent: int = 2,
    seconds_per_step: float = 1.0,
    spread: float = 0.2,
    start: float = 1_800_000_000.0,
    fail: tuple[int, ...] = (),
    retry: tuple[int, ...] = (),
) -> Iterator[Event]:
    """Yield all events of a sweep in order of time, from run_started to the end of its stage.

    `spread` is the standard deviation of the logarithm of a trial's pace. Trials
    numbered in `fail` fail at their second epoch; those in `retry` restart at their fourth.
    """
    rng = np.random.default_rng(seed)
    rungs, factor = spec["rungs"], spec["reduction_factor"]
    yield _run_started(spec, start)
    yield _stage("sweep", "started", start, None)
    arrived: dict[int, list[float]] = {rung: [] for rung in rungs}
    waiting: list[tuple[float, int, Iterator[Event]]] = []
    clock, begun, ended = start, 0, 0
    while True:
        while begun < spec["trials"] and len(waiting) < concurrent:
            life = _trial(begun, rng, spec, clock, arrived, factor,
                          seconds_per_step * math.exp(spread * rng.normal()),
                          begun in fail, begun in retry)  # fmt: skip
            heapq.heappush(waiting, (clock, begun, life))
            begun += 1
        if not waiting:
            break
        clock, number, life = heapq.heappop(waiting)
        event = next(life, None)
        while event is not None and event.time <= clock:
            yield event
            if isinstance(event, TrialEnded):
                ended += 1
                yield _stage("sweep", "progress", clock, ended / spec["trials"])
            event = next(life, None)
        if event is not None:
            heapq.heappush(waiting, (event.time, number, _chain(event, life)))
    yield SweepEnded(time=clock, kind="search", reason="finished", trials=ended)
    yield _stage("sweep", "finished", clock, 1.0)


def synthetic_chain(*, start: float, seconds: float = 4.0) -> Iterator[Event]:
    """Yield the events of the stages after a sweep, with their results."""
    clock = start
    for stage in ("seeds", "select", "distill", "ledger", "report"):
        yield _stage(stage, "started", clock, None)
        for i in range(1, 5):
            clock += seconds / 4
            yield _stage(stage, "progress", clock, i / 4, detail=f"part {i} of 4")
        if stage == "select":
            yield _result("ensemble", clock, {"members": 5, "weighting": "learned"},
                          {"holdout_accuracy": 0.957, "holdout_nll": 0.151})  # fmt: skip
        if stage == "distill":
            for kind, accuracy in (("student_plain", 0.93), ("student_fp32", 0.948),
                                   ("student_int8", 0.946)):  # fmt: skip
                yield _result(kind, clock, {"width": 16, "alpha": 0.9, "tau": 4.0},
                              {"holdout_accuracy": accuracy, "holdout_nll": 0.2})  # fmt: skip
        if stage == "ledger":
            yield _result("ledger", clock, {"released": True},
                          {"student_int8_accuracy": 0.944, "ensemble_accuracy": 0.955})  # fmt: skip
            yield ModelRegistered(time=clock, name="quorum-digits", version=1, alias="champion",
                                  reason="the first that its gates released")  # fmt: skip
        yield _stage(stage, "finished", clock, 1.0)


def _trial(
    number: int, rng: np.random.Generator, spec: dict[str, Any], clock: float,
    arrived: dict[int, list[float]], factor: int, pace: float, fails: bool, retries: bool,
) -> Iterator[Event]:  # fmt: skip
    name, rungs, quality = f"t{number:04d}", spec["rungs"], rng.normal()
    recipe = _recipe(rng, spec)
    steps = steps_at_rungs(rungs, recipe["cooldown_fraction"])
    began = clock
    start = TrialStarted(time=clock, trial=name, number=number, kind="search", recipe=recipe,
                         seed=1000 + number, attempt=1)  # fmt: skip
    yield start
    for step in range(1, steps[-1] + 1):
        clock += pace * float(rng.uniform(0.9, 1.1))
        if fails and step == 2:
            yield _ended(name, clock, "failed", "DivergedError: the loss is not finite", began, 1,
                         None, "Traceback (most recent call last):\n  …\nDivergedError: the loss "
                         "is not finite")  # fmt: skip
            return
        if retries and step == 4:
            yield TrialRetried(time=clock, trial=name, attempt=2,
                               reason="the worker died (SIGKILL)")  # fmt: skip
            yield replace(start, time=clock, attempt=2)
        rung = rungs[steps.index(step)] if step in steps else None
        nll = 0.15 + 1.6 * math.exp(-step / 6) + 0.08 * math.exp(0.6 * quality)
        nll += 0.01 * float(rng.normal())
        yield _epoch(name, clock, step, rungs, steps, rung, nll, pace)
        if rung is None or rung == rungs[-1]:
            continue
        arrived[rung].append(nll)
        ordered = sorted(arrived[rung])
        cutoff = ordered[max(1, len(ordered) // factor) - 1]
        promoted = nll <= cutoff
        yield RungDecided(time=clock, trial=name, rung=rung, value=nll, cutoff=cutoff,
                          decision="continue" if promoted else "stop",
                          reason="promoted" if promoted else "above_cutoff")  # fmt: skip
        if not promoted:
            reason = f"val_nll {nll:.3f} at rung {rung} is above {cutoff:.3f}"
            yield _ended(name, clock, "pruned", reason, began, step, rung, None)
            return
    yield _ended(name, clock, "completed", "", began, steps[-1], rungs[-1], None)


def _epoch(
    name: str, clock: float, step: int, rungs: list[int], steps: tuple[int, ...],
    rung: int | None, nll: float, pace: float,
) -> Event:  # fmt: skip
    lowest = next(i for i, count in enumerate(steps) if step <= count)
    epoch = rungs[lowest] - (steps[lowest] - step)
    return EpochEnded(
        time=clock, trial=name, step=step, epoch=epoch,
        phase="cooldown" if epoch > 0.66 * rungs[lowest] else "trunk", rung=rung,
        train_loss=nll * 0.9, val_nll=nll, val_accuracy=math.exp(-nll / 2), temperature=1.1,
        lr=0.1, seconds=pace * 0.95, images_per_second=400 / pace, peak_memory_bytes=300_000_000,
    )  # fmt: skip


def _recipe(rng: np.random.Generator, spec: dict[str, Any]) -> dict[str, Any]:
    drawn = Recipe(
        epochs=spec["rungs"][-1],
        batch_size=64,
        width=int(rng.choice([16, 32, 48])),
        optimizer=str(rng.choice(["sgd", "adamw"])),
        lr_per_1024=float(np.exp(rng.uniform(0, 2.7))),
        label_smoothing=float(rng.uniform(0, 0.2)),
    )
    return drawn.to_mapping()


def _run_started(spec: dict[str, Any], clock: float) -> Event:
    return RunStarted(
        time=clock, run="digits-1", spec=spec,
        split_id="5f3b6c9d", fingerprint="digits-16-0a1b2c3d",
        sizes={"train": 400, "val": 400, "holdout": 400, "test": 597},
        machine={"processor": "a processor", "cores": 2}, code_version="0.1.0",
    )  # fmt: skip


def _ended(
    name: str, clock: float, status: Status, reason: str, began: float, steps: int,
    rung: int | None, traceback: str | None,
) -> Event:  # fmt: skip
    return TrialEnded(time=clock, trial=name, kind="search", status=status, reason=reason,
                      traceback=traceback, seconds=clock - began, steps=steps, rung=rung,
                      whole_schedule=status == "completed")  # fmt: skip


def _stage(
    stage: str,
    status: Literal["started", "progress", "finished"],
    clock: float,
    fraction: float | None,
    detail: str = "",
) -> Event:
    return StageReported(time=clock, stage=stage, status=status, fraction=fraction, detail=detail)


def _result(kind: str, clock: float, params: dict[str, Any], metrics: dict[str, float]) -> Event:
    return ResultReported(time=clock, kind=kind, params=params, metrics=metrics)


def _chain(first: Event, rest: Iterator[Event]) -> Iterator[Event]:
    yield first
    yield from rest


def resumed(before: Sequence[Event], after: Iterable[Event], *, time: float) -> Iterator[Event]:
    """Yield the events `after` a kill, as another process journals them.

    Open stages and running trials start again first.
    """
    state = RunState.from_events(before)
    yield RunResumed(run=state.run, time=time)
    for name, stage in state.stages.items():
        if stage.open:
            yield _stage(name, "started", time, None)
    again = {trial.name for trial in state.trials.with_status("running")}
    for name in sorted(again):
        trial = state.trials[name]
        yield TrialStarted(
            trial=name, number=trial.number, kind=trial.kind, recipe=trial.recipe,
            seed=trial.seed, attempt=trial.attempts + 1, time=time,
        )  # fmt: skip
    for event in after:
        if isinstance(event, TrialStarted | TrialRetried) and event.trial in again:
            event = replace(event, attempt=event.attempt + 1)
        yield event
