"""Fit the schedules, members and stages of a run to a time budget.

`search.timetable.plan` explains how the time is divided.
"""

import math
from bisect import bisect_left
from collections.abc import Collection
from dataclasses import replace

from search.space.spec import SweepSpec
from search.timetable.pace import (
    Pace,
    evaluation_seconds,
    fewest_student_epochs,
    first_trials_seconds,
    mean_trial_seconds,
    overhead_seconds,
    rounds_of_seeds,
    students_seconds,
    sweep_seconds,
    trial_seconds,
)
from trainables.stages import fewest_epochs

SEEDS_SHARE = 0.25
"""Largest share of the training time that seeds of the best recipe may take."""

DISTILL_SHARES = (0.2, 0.4)
"""Smallest and largest share of the training time for the student and its twin."""

EVALUATION_SHARE = 0.25
"""Largest share of a time budget for predicting the test images; above it, a plan has fewer
members, then no seeds."""

FEWEST_PASSES = 3.0
"""Passes over the training images that a schedule must have before a run spends time on seeds and a
longer distillation. The first passes teach most: lite0 on CIFAR-10 at 96 px, after two epochs of
its head, has 87.8, 92.3 and 93.0% on val after one, two and three passes, and 94.3% after five.
"""

SHORTENED = 2 / 3
"""Smallest share of its length to which a schedule may be shortened so that every family
finishes."""

FEWEST_MEMBERS = 2
"""Number of members of an ensemble in the shortest budget."""

FEWEST_TRIALS = 3
"""Fewest whole schedules that a plan leaves time for. Otherwise there are as many as one of them
has passes over the training images, which may be fewer."""

LONGEST = 8
"""A schedule is at most this many times as long as the specification's: recipes that suit
27 epochs do not suit 1,000."""


def without_short_seeds(
    spec: SweepSpec, pace: Pace, stages: Collection[str], *, seconds: float
) -> Collection[str]:
    """Return `stages` without the seeds if those would be too short in a run of `seconds`.

    Seeds have the trials' schedule, so keeping them would shorten every schedule. With `resource:
    compute`, seeds are left out if FEWEST_PASSES passes of the fewest seeds would take more than
    SEEDS_SHARE of the time. Other sweeps use smaller images or fewer members instead.
    """
    if spec.resource != "compute":
        return stages
    fewest = spec.with_values(members=min(spec.members, max(FEWEST_MEMBERS, pace.workers)))
    shortest = rounds_of_seeds(fewest, pace) * FEWEST_PASSES * pace.pass_seconds
    return _without_seeds(stages) if shortest > SEEDS_SHARE * seconds else stages


def with_less_to_evaluate(
    spec: SweepSpec, pace: Pace, stages: Collection[str], *, seconds: float
) -> tuple[SweepSpec, Collection[str]]:
    """Reduce what is evaluated on test if that would leave too little time for training.

    With a large test set and a short budget, most of the time would go into the predictions of
    members and seeds. First the members are reduced, to two at least; then the seeds are left out.
    The same is done if the budget is too short for an epoch of everything.
    """

    def too_much(stages: Collection[str]) -> bool:
        if evaluation_seconds(spec, pace, stages) > EVALUATION_SHARE * seconds:
            return True
        overhead = sum(overhead_seconds(spec, pace, stages=stages).values())
        return overhead + shortest_training(spec, pace, stages) > seconds

    while spec.members > FEWEST_MEMBERS and too_much(stages):
        spec = spec.with_values(members=spec.members - 1)
    if "seeds" in stages and too_much(stages):
        stages = _without_seeds(stages)
    return spec, stages


def with_fewer_members(
    spec: SweepSpec, pace: Pace, seconds: float, *, min_epochs: int
) -> SweepSpec:
    """Reduce the members until `seconds` of training allow schedules of `min_epochs` epochs.

    There are as many seeds as members, and the seeds limit the length of every schedule: five
    nets that saw each image once are worth less than two that saw it three times. At least two
    members remain, and at least as many as train at the same time, since fewer save nothing.
    """
    while (
        spec.members > max(FEWEST_MEMBERS, pace.workers)
        and longest_schedule(spec, pace, seconds) < min_epochs
    ):
        spec = spec.with_values(members=spec.members - 1)
    return spec


def longest_schedule(
    spec: SweepSpec, pace: Pace, seconds: float, *, seeds: bool = True, distill: bool = True
) -> int:
    """Return the epochs of the longest schedule that `seconds` of training allow.

    Features below a head are computed by the first trial of each worker, and kept for the others.
    `seeds` is false if the plan leaves the seeds out for lack of time. Then schedules are up to a
    third shorter if that lets the first trial of every family finish in time. `distill` is false if
    the student is not trained.
    """
    entries = pace.epoch_seconds * sum(pace.costs.entries)

    def too_long(epochs: int) -> bool:
        each = trial_seconds(spec, pace, epochs)
        trials = max(epochs * pace.passes, min(epochs, FEWEST_TRIALS))
        balanced = trials * (each - entries) <= (seconds - entries) * pace.workers
        if not seeds:
            return not balanced or each + pace.handover_seconds > sweep_time(epochs)
        if "seeds" in spec.stages:
            return not balanced or rounds_of_seeds(spec, pace) * each > SEEDS_SHARE * seconds
        return each > seconds or (not balanced and sweep_seconds(spec, pace, epochs) > seconds)

    def sweep_time(epochs: int) -> float:
        return seconds - distill_seconds(spec, pace, epochs, seconds)[1] * distill

    fewest = fewest_epochs(spec.base_recipe().schedule.stages)
    lengths = range(fewest + 1, LONGEST * spec.rungs[-1] + 1)
    longest = fewest + bisect_left(lengths, True, key=too_long)
    if seeds:
        return longest
    shortest = max(fewest, math.ceil(SHORTENED * longest))
    fitting = (
        epochs
        for epochs in range(longest, shortest - 1, -1)
        if first_trials_seconds(spec, pace, epochs) <= sweep_time(epochs)
    )
    return next(fitting, longest)


def distill_seconds(
    spec: SweepSpec, pace: Pace, epochs: int, seconds: float
) -> tuple[float, float]:
    """Return the least and most time for the student and its twin in `seconds` of training.

    If schedules of `epochs` epochs have fewer than FEWEST_PASSES passes, the most is the least,
    because longer schedules of the trials are worth more than a longer distillation. There is
    always time for the student's shortest schedule.
    """
    least, most = (share * seconds for share in DISTILL_SHARES)
    if spec.resource == "compute" and epochs * pace.passes < FEWEST_PASSES:
        most = least
    return least, max(most, students_seconds(spec, pace, fewest_student_epochs(spec)))


def affordable_passes(spec: SweepSpec, pace: Pace, *, now: float, deadline: float) -> float:
    """Return the passes over the training images that a whole schedule has time for.

    `pace` is that of epochs of one pass. One round of seeds is assumed, unless there is no time for
    seeds.
    """
    # Epochs will be parts of a pass, so that none is too long for the budget.
    short = replace(pace, epoch_seconds=0.0, student_seconds=0.0, teacher_seconds=0.0)
    stages = without_short_seeds(spec, pace, spec.stages, seconds=deadline - now)
    spec, stages = with_less_to_evaluate(spec, short, stages, seconds=deadline - now)
    seconds = deadline - now - sum(overhead_seconds(spec, pace, stages=stages).values())
    total = max(0.0, seconds) * pace.workers / pace.epoch_seconds
    passes = math.sqrt(total) if total > FEWEST_TRIALS**2 else total / FEWEST_TRIALS
    share = SEEDS_SHARE if "seeds" in stages else 1 - DISTILL_SHARES[0]
    return min(passes, share * total / pace.workers)


def shorten_rungs(spec: SweepSpec, top: int) -> tuple[int, ...]:
    """Scale the specification's rungs so that the highest one is `top` epochs.

    A rung of a single epoch predicts the final score poorly: it is left out where there is a
    higher one below `top`.
    """
    scaled = [max(1, round(rung * top / spec.rungs[-1])) for rung in spec.rungs[:-1]]
    lower = sorted({rung for rung in scaled if rung < top})
    if len(lower) > 1 and lower[0] == 1:
        lower = lower[1:]
    return (*lower, top)


def drop_low_rungs(
    spec: SweepSpec, pace: Pace, rungs: tuple[int, ...], *, seconds: float
) -> tuple[int, ...]:
    """Drop the lowest rungs until there are enough trials in `seconds` to choose an ensemble from.

    Every rung stops all but one trial in `reduction_factor`. In a short budget, three rungs may let
    a single trial finish: fewer than the ensemble has members.
    """
    while len(rungs) > 1:
        trials = seconds * pace.workers / mean_trial_seconds(spec, pace, rungs)
        if trials >= spec.with_values(rungs=rungs).enough_trials:
            break
        rungs = rungs[1:]
    return rungs


def shortest_training(spec: SweepSpec, pace: Pace, stages: Collection[str]) -> float:
    """Return the training time of one epoch of everything in `stages`."""
    shortest = trial_seconds(spec, pace, fewest_epochs(spec.base_recipe().schedule.stages))
    each = {
        "sweep": shortest,
        "seeds": shortest * rounds_of_seeds(spec, pace),
        "distill": students_seconds(spec, pace, fewest_student_epochs(spec)),
    }
    return sum(seconds for stage, seconds in each.items() if stage in stages)


def _without_seeds(stages: Collection[str]) -> Collection[str]:
    return [stage for stage in stages if stage != "seeds"]
