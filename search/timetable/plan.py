"""The plan of a run: the lengths of its schedules and the time at which each stage must end.

With e the seconds of an epoch in one of W workers while all of them work, T the seconds left
for training, and K the most members, schedules of R epochs cost

    a trial of the sweep    E·e, E = Σ_j η^(1−j) Δ_j, Δ_j the steps from rung j−1 to rung j
    the seeds               ⌈K/W⌉·C·e of wall time, C = R
    student and twin        R_s·(two epochs of the student + one pass of the teacher)

Longer schedules train better nets, but fewer of them. R grows with the square root of the
training that the time allows, and so does the number of trials: R·C·e = T·W. Where an epoch is
not one pass but p, the number of trials is that of the passes, and at least FEWEST_TRIALS:
max(R·p, 3)·C·e = T·W. The seeds, which are the equal-compute baseline, take at most a quarter of T.

Where a recipe has stages, e is an epoch of the last one, and C and Δ_j weight every epoch by
its cost (see StageCosts). In the length of schedules, features below a head count once
per worker, not once per trial.

The plan made before the sweep is a forecast; the report compares it with what happened.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace

from common.errors import SpecError
from common.stage_costs import EQUAL, StageCosts
from journal.events import STAGES, PlanMade
from search.space.spec import SweepSpec
from search.timetable.compute import Allotment
from search.timetable.pace import (
    Pace,
    evaluation_seconds,
    fewest_student_epochs,
    mean_trial_seconds,
    overhead_seconds,
    rounds_of_seeds,
    seeds_seconds,
    student_epochs_for,
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
"""Share of a time budget that may go into predicting test before members and seeds are left out."""

FEWEST_MEMBERS = 2
"""Members of an ensemble in the shortest budget."""

FEWEST_TRIALS = 3
"""Trials, in whole schedules, that a sweep has time for even if their schedules take less than as
many passes over the training images."""

LONGEST = 8
"""A schedule is at most this many times as long as the specification's: recipes that suit
27 epochs do not suit 1,000."""


class TooShortError(SpecError):
    """A time budget that leaves no time for even one epoch of everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The planned schedules and stages of a run: the payload of the event `plan`."""

    rungs: tuple[int, ...]
    """Epochs at which trials are scored."""
    trials: int | None
    """Trials of the sweep; None for as many as the time allows."""
    seeds: int
    """Seeds of the best recipe, and the most members of the ensemble."""
    student_epochs: int
    """Epochs of the student's schedule."""
    workers: int
    """Trials at a time."""
    epoch_seconds: float
    """One epoch of the base recipe's last stage in one worker (see Pace)."""
    seconds: Mapping[str, float]
    """Forecast of each stage's wall time, by stage."""
    export_seconds: float
    """The part of the distillation after both trainings."""
    deadline: float | None
    """End of the whole run in unix seconds; None without a time budget."""
    costs: StageCosts = EQUAL
    """Costs of epochs in the base recipe's stages."""
    families: Mapping[str, StageCosts] = field(default_factory=dict)
    """Costs of epochs by family."""
    allotments: Mapping[str, Allotment] = field(default_factory=dict)
    """Images of an epoch by family, where rungs count computation."""

    def end_of(self, stage: str) -> float | None:
        """Return when a stage must end to leave time for later stages, in unix seconds.

        None without a deadline.
        """
        if self.deadline is None:
            return None
        return self.deadline - sum(self.seconds[s] for s in STAGES[STAGES.index(stage) + 1 :])

    def event(self, at: str) -> PlanMade:
        """Return the journal's event for a plan made before the stage `at`."""
        return PlanMade(
            at=at,
            rungs=self.rungs,
            trials=self.trials,
            seeds=self.seeds,
            student_epochs=self.student_epochs,
            workers=self.workers,
            epoch_seconds=self.epoch_seconds,
            stage_costs=self.costs,
            family_costs=self.families,
            seconds=dict(self.seconds),
            deadline=self.deadline,
        )

    def apply_to(self, spec: SweepSpec) -> SweepSpec:
        """Return the specification with the plan's schedules and number of members."""
        families = {
            name: family.with_recipe(**asdict(self.allotments[name]))
            if name in self.allotments
            else family
            for name, family in spec.families.items()
        }
        return spec.with_values(
            rungs=self.rungs,
            members=self.seeds,
            student=spec.student.with_epochs(self.student_epochs),
            families=families,
        )


def plan_run(
    spec: SweepSpec,
    pace: Pace,
    *,
    now: float,
    deadline: float | None,
    stages: Collection[str] = STAGES,
    keep_rungs: bool = False,
    min_epochs: int = 1,
) -> Plan:
    """Choose schedules that end by `deadline`; without one, forecast those of the specification.

    `now` and `deadline` are unix seconds. `stages` are the stages that will run; the others
    take no time. `keep_rungs` keeps the rungs that the run's trials were started with. Where
    schedules would be shorter than `min_epochs`, the ensemble has fewer members instead.

    Raises:
        TooShortError: not even one epoch of everything ends by `deadline`.
    """
    if deadline is None:
        return _forecast(spec, pace, overhead_seconds(spec, pace, stages=stages), stages)
    before = stages
    if "sweep" in stages:
        spec, stages = with_less_to_evaluate(spec, pace, stages, seconds=deadline - now)
    seeds = len(stages) == len(before)
    overheads = overhead_seconds(spec, pace, stages=stages)
    training = deadline - now - sum(overheads.values())
    _require_time(spec, pace, training, sum(overheads.values()), stages)
    if not keep_rungs:
        spec = with_fewer_members(spec, pace, training, min_epochs=min_epochs)
    rungs = (
        spec.rungs
        if keep_rungs
        else shorten_rungs(spec, _top_rung(spec, pace, training, seeds=seeds))
    )
    seed_seconds = distill = 0.0
    epochs = student_epochs_for(spec, rungs[-1])
    if "seeds" in stages:
        seed_seconds = min(seeds_seconds(spec, pace, rungs[-1]), SEEDS_SHARE * training)
    if "distill" in stages:
        least, most = (share * training for share in DISTILL_SHARES)
        distill = min(max(students_seconds(spec, pace, epochs), least), most)
        if "sweep" not in stages:  # a run that was interrupted after its sweep
            distill = training
        epochs = max(fewest_student_epochs(spec), int(distill / students_seconds(spec, pace, 1)))
    sweep = training - seed_seconds - distill
    trained = {"sweep": sweep, "seeds": seed_seconds, "distill": distill}
    if not keep_rungs:
        rungs = drop_low_rungs(spec, pace, rungs, seconds=trained["sweep"])
    return Plan(
        rungs=rungs,
        trials=None,
        seeds=spec.members,
        student_epochs=min(epochs, LONGEST * student_epochs_for(spec, spec.rungs[-1])),
        workers=pace.workers,
        epoch_seconds=pace.epoch_seconds,
        seconds={stage: overheads[stage] + trained.get(stage, 0.0) for stage in STAGES},
        export_seconds=overheads["distill"],
        deadline=deadline,
        costs=pace.costs,
        families=pace.families,
        allotments=pace.allotments,
    )


def with_less_to_evaluate(
    spec: SweepSpec, pace: Pace, stages: Collection[str], *, seconds: float
) -> tuple[SweepSpec, Collection[str]]:
    """Reduce what is evaluated on test where that would leave too little time for training.

    With a large test set and a short budget, most of the time would go into the predictions of
    members and seeds. First there are fewer members, at least two; then no seeds. The same is done
    for a budget that is too short for an epoch of everything.
    """

    def too_much(stages: Collection[str]) -> bool:
        if evaluation_seconds(spec, pace, stages) > EVALUATION_SHARE * seconds:
            return True
        overhead = sum(overhead_seconds(spec, pace, stages=stages).values())
        return overhead + _shortest_training(spec, pace, stages) > seconds

    while spec.members > FEWEST_MEMBERS and too_much(stages):
        spec = spec.with_values(members=spec.members - 1)
    if "seeds" in stages and too_much(stages):
        stages = [stage for stage in stages if stage != "seeds"]
    return spec, stages


def affordable_passes(spec: SweepSpec, pace: Pace, *, now: float, deadline: float) -> float:
    """Return the passes over the training images that a whole schedule has time for.

    `pace` is that of epochs of one pass. One round of seeds is assumed, unless there is no time for
    seeds.
    """
    # Epochs will be parts of a pass, so that none is too long for the budget.
    short = replace(pace, epoch_seconds=0.0, student_seconds=0.0, teacher_seconds=0.0)
    spec, stages = with_less_to_evaluate(spec, short, spec.stages, seconds=deadline - now)
    seconds = deadline - now - sum(overhead_seconds(spec, pace, stages=stages).values())
    total = max(0.0, seconds) * pace.workers / pace.epoch_seconds
    passes = math.sqrt(total) if total > FEWEST_TRIALS**2 else total / FEWEST_TRIALS
    if "seeds" in stages:
        passes = min(passes, SEEDS_SHARE * total / pace.workers)
    return passes


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
    """Drop the lowest rungs until enough trials finish in `seconds` to choose an ensemble from.

    An ensemble is chosen from finished trials, and every rung stops all but one trial in
    `reduction_factor`. In a short budget, three rungs may let a single trial finish: fewer than
    the ensemble has members.
    """
    while len(rungs) > 1:
        trials = seconds * pace.workers / mean_trial_seconds(spec, pace, rungs)
        if trials >= spec.most_members * spec.reduction_factor ** (len(rungs) - 1):
            break
        rungs = rungs[1:]
    return rungs


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
        and _top_rung(spec, pace, seconds) < min_epochs
    ):
        spec = spec.with_values(members=spec.members - 1)
    return spec


def _require_time(
    spec: SweepSpec, pace: Pace, training: float, overhead: float, stages: Collection[str]
) -> None:
    """Refuse a time budget that is too short for one epoch of everything."""
    least = _shortest_training(spec, pace, stages)
    if training < least:
        raise TooShortError(
            f"the time left, {training + overhead:.0f} s, is too short: one epoch of everything "
            f"takes {least:.0f} s here, start and report {overhead:.0f} s; give "
            f"{math.ceil((least + overhead) / 30) / 2:g}m or more, a smaller net or fewer images"
        )


def _shortest_training(spec: SweepSpec, pace: Pace, stages: Collection[str]) -> float:
    """Return the training time of one epoch of everything in `stages`."""
    shortest = trial_seconds(spec, pace, fewest_epochs(spec.base_recipe().schedule.stages))
    each = {
        "sweep": shortest,
        "seeds": shortest * rounds_of_seeds(spec, pace),
        "distill": students_seconds(spec, pace, fewest_student_epochs(spec)),
    }
    return sum(seconds for stage, seconds in each.items() if stage in stages)


def _forecast(
    spec: SweepSpec, pace: Pace, overheads: Mapping[str, float], stages: Collection[str]
) -> Plan:
    """Forecast the specification's own schedules."""
    epochs = student_epochs_for(spec, spec.rungs[-1])
    trials = spec.trials * mean_trial_seconds(spec, pace, spec.rungs) / pace.workers
    training = {
        # The last trial runs alone.
        "sweep": trials + trial_seconds(spec, pace, spec.rungs[-1]) / 2,
        "seeds": seeds_seconds(spec, pace, spec.rungs[-1]),
        "distill": students_seconds(spec, pace, epochs),
    }
    return Plan(
        rungs=spec.rungs,
        trials=spec.trials,
        seeds=spec.members,
        student_epochs=epochs,
        workers=pace.workers,
        epoch_seconds=pace.epoch_seconds,
        seconds={s: overheads[s] + training.get(s, 0.0) * (s in stages) for s in STAGES},
        export_seconds=overheads["distill"],
        deadline=None,
        costs=pace.costs,
        families=pace.families,
        allotments=pace.allotments,
    )


def _top_rung(spec: SweepSpec, pace: Pace, seconds: float, *, seeds: bool = True) -> int:
    """Return the epochs of the longest schedule that `seconds` of training allow.

    Features below a head are computed by the first trial of each worker, and kept for the others.

    `seeds` is false if the plan leaves the seeds out for lack of time.
    """
    entries = pace.epoch_seconds * sum(pace.costs.entries)

    def too_long(epochs: int) -> bool:
        each = trial_seconds(spec, pace, epochs)
        trials = max(epochs * pace.passes, min(epochs, FEWEST_TRIALS))
        balanced = trials * (each - entries) <= (seconds - entries) * pace.workers
        if not seeds:
            return not balanced or each > (1 - DISTILL_SHARES[1]) * seconds
        if "seeds" in spec.stages:
            return not balanced or rounds_of_seeds(spec, pace) * each > SEEDS_SHARE * seconds
        return not balanced and sweep_seconds(spec, pace, epochs) > seconds

    fewest = fewest_epochs(spec.base_recipe().schedule.stages)
    lengths = range(fewest + 1, LONGEST * spec.rungs[-1] + 1)
    return fewest + bisect_left(lengths, True, key=too_long)
