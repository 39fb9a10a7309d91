"""What a budget of time buys: how long schedules are, and when every stage has to end.

With e the seconds of an epoch in one of W workers while all work, T the seconds that are
left for training, and K the most members, a schedule of R epochs costs

    a trial of the sweep    E·e, E = Σ_j η^(1−j) Δ_j with Δ_j the steps from rung j−1 to j
    the seeds               ⌈K/W⌉·C·e of wall time, C = R
    student and twin        R_s·(two epochs of the student + one pass of the teacher)

Long schedules make better nets and fewer of them. R grows with the square root of what can
be trained, as the number of trials then does: R·C·e = T·W, and the seeds, which are the
equal-compute baseline and not a saving, may take a quarter of T at most.

Where a recipe has stages, e is of the last one, and C and Δ_j count every epoch as it costs
(common/stage_costs.py).

The plan made before the sweep is a forecast; the report holds it against what happened.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import SpecError
from common.parsing import to_mapping
from common.stage_costs import EQUAL, StageCosts
from journal.states import STAGES
from search.space.spec import SweepSpec
from search.timetable.pace import (
    Pace,
    all_seconds,
    fewest_student_epochs,
    mean_seconds,
    overheads,
    rounds_of_seeds,
    seeds_seconds,
    student_epochs_for,
    student_seconds,
    trial_seconds,
)
from trainables.training.stages import fewest_epochs

SEEDS_SHARE = 0.25
"""Most of the training time that seeds of the best may take."""

DISTILL_SHARES = (0.2, 0.4)
"""Least and most of the training time for the student and its twin."""

LONGEST = 8
"""A schedule is at most this many times as long as the specification's: recipes that suit
27 epochs do not suit 1,000."""


class TooShortError(SpecError):
    """A time budget that has not even room for one epoch of everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Schedules and stages as they are meant to be: the payload of the event `plan`."""

    rungs: tuple[int, ...]
    """In epochs."""
    trials: int | None
    """None: as many as there is time for."""
    seeds: int
    student_epochs: int
    workers: int
    epoch_seconds: float
    """As in `Pace`."""
    seconds: Mapping[str, float]
    """Forecast of every stage."""
    export_seconds: float
    """Of the distillation, after both trainings."""
    deadline: float | None
    """Of the whole run, in unix seconds."""
    costs: StageCosts = EQUAL
    """As in `Pace`."""

    def end_of(self, stage: str) -> float | None:
        """When a stage must be over for the later ones to have their time, in unix seconds."""
        if self.deadline is None:
            return None
        return self.deadline - sum(self.seconds[s] for s in STAGES[STAGES.index(stage) + 1 :])

    def event(self, at: str) -> dict[str, Any]:
        """The journal's event, made before the stage `at`."""
        return {
            "event": "plan",
            "at": at,
            "rungs": list(self.rungs),
            "trials": self.trials,
            "seeds": self.seeds,
            "student_epochs": self.student_epochs,
            "workers": self.workers,
            "epoch_seconds": self.epoch_seconds,
            "stage_costs": to_mapping(self.costs),
            "seconds": dict(self.seconds),
            "deadline": self.deadline,
        }

    def applied(self, spec: SweepSpec) -> SweepSpec:
        """The specification with the plan's schedules."""
        student = spec.student.with_recipe(epochs=self.student_epochs)
        return spec.with_values(rungs=self.rungs, members=self.seeds, student=student)


def plan_run(
    spec: SweepSpec,
    pace: Pace,
    *,
    now: float,
    deadline: float | None,
    stages: Collection[str] = STAGES,
    fixed: bool = False,
    fewest: int = 1,
) -> Plan:
    """Schedules that end by `deadline`, or the specification's own and how long they take.

    `now` and `deadline` are unix seconds. `stages` are those that will run: the others
    take no time. `fixed` keeps the rungs that trials of the run were started with. Where
    schedules would have less than `fewest` epochs, the ensemble has fewer members instead.

    Raises:
        TooShortError: there is not even time for one epoch of everything.
    """
    over = {s: seconds * (s in stages) for s, seconds in overheads(spec, pace).items()}
    if deadline is None:
        return _unbounded(spec, pace, over, stages)
    time = deadline - now - sum(over.values())
    _require_time(spec, pace, time, sum(over.values()), stages)
    if not fixed:
        spec = with_fewer_members(spec, pace, time, fewest=fewest)
    seeds = distill = 0.0
    rungs = spec.rungs if fixed else shortened_rungs(spec, _top_rung(spec, pace, time))
    epochs = student_epochs_for(spec, rungs[-1])
    if "seeds" in stages:
        seeds = min(seeds_seconds(spec, pace, rungs[-1]), SEEDS_SHARE * time)
    if "distill" in stages:
        low, high = (share * time for share in DISTILL_SHARES)
        distill = min(max(student_seconds(spec, pace, epochs), low), high)
        if "sweep" not in stages:  # what was left of a run that was stopped after it
            distill = time
        epochs = max(fewest_student_epochs(spec), int(distill / student_seconds(spec, pace, 1)))
    training = {"sweep": time - seeds - distill, "seeds": seeds, "distill": distill}
    if not fixed:
        rungs = with_enough_finished(spec, pace, rungs, seconds=training["sweep"])
    return Plan(
        rungs=rungs,
        trials=None,
        seeds=spec.members,
        student_epochs=min(epochs, LONGEST * student_epochs_for(spec, spec.rungs[-1])),
        workers=pace.workers,
        epoch_seconds=pace.epoch_seconds,
        seconds={stage: over[stage] + training.get(stage, 0.0) for stage in STAGES},
        export_seconds=over["distill"],
        deadline=deadline,
        costs=pace.costs,
    )


def shortened_rungs(spec: SweepSpec, top: int) -> tuple[int, ...]:
    """As many rungs as the specification has, at its ratios, up to `top` epochs.

    A rung of a single epoch tells little: it is left out where there is a higher one below
    `top`.
    """
    scaled = [max(1, round(rung * top / spec.rungs[-1])) for rung in spec.rungs[:-1]]
    lower = sorted({rung for rung in scaled if rung < top})
    if len(lower) > 1 and lower[0] == 1:
        lower = lower[1:]
    return (*lower, top)


def with_enough_finished(
    spec: SweepSpec, pace: Pace, rungs: tuple[int, ...], *, seconds: float
) -> tuple[int, ...]:
    """`rungs` without the lowest ones while they would leave too few trials to the end.

    An ensemble is chosen from trials that finished. Every rung stops all but one in
    `reduction_factor`, so of the few trials that a short budget has room for in `seconds`,
    three rungs may leave one: less to choose from than the ensemble has members.
    """
    while len(rungs) > 1:
        trials = seconds * pace.workers / mean_seconds(spec, pace, rungs)
        if trials >= spec.most_members * spec.reduction_factor ** (len(rungs) - 1):
            break
        rungs = rungs[1:]
    return rungs


def with_fewer_members(spec: SweepSpec, pace: Pace, time: float, *, fewest: int) -> SweepSpec:
    """`spec` with as many members as leave schedules of `fewest` epochs in `time` seconds.

    Seeds, of which there are as many as members, bound the schedules of all: five nets that
    saw every image once are worth less than two that saw it three times. There are two at
    least, and no fewer than train side by side, which would save nothing.
    """
    while spec.members > max(2, pace.workers) and _top_rung(spec, pace, time) < fewest:
        spec = spec.with_values(members=spec.members - 1)
    return spec


def _require_time(
    spec: SweepSpec, pace: Pace, time: float, over: float, stages: Collection[str]
) -> None:
    shortest = trial_seconds(spec, pace, fewest_epochs(spec.base_recipe().stages))
    each = {
        "sweep": shortest,
        "seeds": shortest * rounds_of_seeds(spec, pace),
        "distill": student_seconds(spec, pace, fewest_student_epochs(spec)),
    }
    least = sum(seconds for stage, seconds in each.items() if stage in stages)
    if time < least:
        raise TooShortError(
            f"the time left, {time + over:.0f} s, is too short: one epoch of everything takes "
            f"{least:.0f} s here, start and report {over:.0f} s; give "
            f"{math.ceil((least + over) / 30) / 2:g}m or more, a smaller net or fewer images"
        )


def _unbounded(
    spec: SweepSpec, pace: Pace, over: Mapping[str, float], stages: Collection[str]
) -> Plan:
    """The specification's own schedules."""
    epochs = student_epochs_for(spec, spec.rungs[-1])
    trials = spec.trials * mean_seconds(spec, pace, spec.rungs) / pace.workers
    training = {
        # The last trial of all runs alone.
        "sweep": trials + trial_seconds(spec, pace, spec.rungs[-1]) / 2,
        "seeds": seeds_seconds(spec, pace, spec.rungs[-1]),
        "distill": student_seconds(spec, pace, epochs),
    }
    return Plan(
        rungs=spec.rungs,
        trials=spec.trials,
        seeds=spec.members,
        student_epochs=epochs,
        workers=pace.workers,
        epoch_seconds=pace.epoch_seconds,
        seconds={s: over[s] + training.get(s, 0.0) * (s in stages) for s in STAGES},
        export_seconds=over["distill"],
        deadline=None,
        costs=pace.costs,
    )


def _top_rung(spec: SweepSpec, pace: Pace, time: float) -> int:
    """Epochs of the longest schedule that `time` seconds of training allow."""

    def too_long(epochs: int) -> bool:
        each = trial_seconds(spec, pace, epochs)
        balanced = epochs * each <= time * pace.workers
        if "seeds" in spec.stages:
            return not balanced or rounds_of_seeds(spec, pace) * each > SEEDS_SHARE * time
        return not balanced and all_seconds(spec, pace, epochs) > time

    fewest = fewest_epochs(spec.base_recipe().stages)
    lengths = range(fewest + 1, LONGEST * spec.rungs[-1] + 1)
    return fewest + bisect_left(lengths, True, key=too_long)
