"""The plan of a run: the lengths of its schedules and the time at which each stage must end.

With e the seconds of an epoch in one of W workers while all of them work, T the seconds left
for training, and K the largest number of members, schedules of R epochs cost

    a trial of the sweep    E·e, E = Σ_j η^(1−j) Δ_j, Δ_j the steps from rung j−1 to rung j
    the seeds               ⌈K/W⌉·C·e of wall time, C = R
    student and twin        R_s·(two epochs of the student + one pass of the teacher)

Longer schedules train better nets, but fewer of them. R is chosen so that the time allows as many
whole schedules as each has epochs, R·C·e = T·W; both grow with the square root of T·W. If an epoch
is not one pass but p, the number of schedules is that of the passes in one, and at least
FEWEST_TRIALS: max(R·p, 3)·C·e = T·W. The seeds, which are the equal-compute baseline, take at most
a quarter of T. With `resource: compute`, there are no seeds if three passes of the fewest seeds
(FEWEST_PASSES) would take more. Then schedules are up to a third shorter than the time allows, if
that lets the first trial of every family finish; and below three passes, student and twin get no
more than the smallest of their shares.

Where a recipe has stages, e is an epoch of the last one, and C and Δ_j weight every epoch by
its cost (see StageCosts). In the length of schedules, features below a head count once
per worker, not once per trial.

The plan made before the sweep is a forecast; the report compares it with what happened.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from common.errors import SpecError
from common.stage_costs import EQUAL, StageCosts
from journal.events import STAGES, PlanMade
from search.space.spec import SweepSpec
from search.timetable.compute import Allotment
from search.timetable.fitting import (
    LONGEST,
    SEEDS_SHARE,
    distill_seconds,
    drop_low_rungs,
    longest_schedule,
    shorten_rungs,
    shortest_training,
    with_fewer_members,
    with_less_to_evaluate,
    without_short_seeds,
)
from search.timetable.pace import (
    Pace,
    fewest_student_epochs,
    mean_trial_seconds,
    member_seconds,
    overhead_seconds,
    seeds_seconds,
    student_epochs_for,
    students_seconds,
    trial_seconds,
)

TRAINING_STAGES = ("sweep", "seeds", "distill")

GRACE = 0.3
"""Time that a stage may run past its planned end, as a share of the next training's planned time.

Forecasts are a little wrong; without this margin a trial that needs a few more seconds would
be cut off."""


class TooShortError(SpecError):
    """A time budget that leaves no time for even one epoch of everything."""

    def __init__(self, reason: str, *, seconds: float, otherwise: str, spent: float = 0.0) -> None:
        """The run needs `seconds` more, besides those `spent`; `otherwise` names other remedies."""
        minutes = math.ceil((spent + seconds) / 30) / 2
        super().__init__(f"{reason}; give {minutes:g}m or more, or use {otherwise}")
        self._values: dict[str, Any] = {
            "reason": reason,
            "seconds": seconds,
            "otherwise": otherwise,
        }

    def after(self, spent: float) -> "TooShortError":
        """Return this error for a run whose budget began `spent` seconds ago."""
        return TooShortError(**self._values, spent=spent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The planned schedules and stages of a run: the payload of the event `plan`."""

    rungs: tuple[int, ...]
    """Epochs at which trials are scored."""
    trials: int | None
    """Trials of the sweep; None for as many as the time allows."""
    seeds: int
    """Number of seeds of the best recipe, and largest number of members of the ensemble."""
    student_epochs: int
    """Epochs of the student's schedule."""
    workers: int
    """Number of concurrent trials."""
    epoch_seconds: float
    """One epoch of the base recipe's last stage in one worker (see Pace)."""
    seconds: Mapping[str, float]
    """Forecast of each stage's wall time, by stage."""
    export_seconds: float
    """Time for the part of the distillation after both trainings."""
    deadline: float | None
    """End of the whole run in unix seconds; None without a time budget."""
    costs: StageCosts = EQUAL
    """Costs of epochs in the base recipe's stages."""
    families: Mapping[str, StageCosts] = field(default_factory=dict)
    """Costs of epochs by family."""
    allotments: Mapping[str, Allotment] = field(default_factory=dict)
    """Images of an epoch by family, where rungs count computation."""
    members: int = 0
    """Members assumed in the forecast: the most possible until the ensemble is chosen."""
    member_seconds: Mapping[str, float] = field(default_factory=dict)
    """Part of a stage's forecast that is for one member, by stage."""

    def with_members(self, count: int) -> "Plan":
        """Return the plan for an ensemble that was found to have `count` members."""
        fewer = self.members - count
        saved = {stage: fewer * each for stage, each in self.member_seconds.items()}
        return replace(
            self,
            members=count,
            seconds={s: max(0.0, each - saved.get(s, 0.0)) for s, each in self.seconds.items()},
            export_seconds=max(0.0, self.export_seconds - saved.get("distill", 0.0)),
        )

    def end_of(self, stage: str) -> float | None:
        """Return when a stage must end to leave time for later stages, in unix seconds.

        None without a deadline.
        """
        if self.deadline is None:
            return None
        return self.deadline - sum(self.seconds[s] for s in STAGES[STAGES.index(stage) + 1 :])

    def cutoff(self, stage: str) -> float | None:
        """Return when a stage that trains is cut off, in unix seconds; None without a deadline.

        It may use part of the time of the next stage that trains, because that stage can be
        shortened.
        """
        end = self.end_of(stage)
        if end is None:
            return None
        later = [name for name in STAGES[STAGES.index(stage) + 1 :] if self.seconds[name]]
        following = [name for name in later if name in TRAINING_STAGES] or later
        return end + GRACE * sum(self.seconds[name] for name in following[:1])

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
        if not keep_rungs:  # a resumed run keeps its decision
            stages = without_short_seeds(spec, pace, stages, seconds=deadline - now)
        spec, stages = with_less_to_evaluate(spec, pace, stages, seconds=deadline - now)
    seeds = len(stages) == len(before)
    overheads = overhead_seconds(spec, pace, stages=stages)
    training = deadline - now - sum(overheads.values())
    _require_time(spec, pace, training, sum(overheads.values()), stages)
    rungs = spec.rungs
    if not keep_rungs:
        if seeds:
            spec = with_fewer_members(spec, pace, training, min_epochs=min_epochs)
        distilled = "distill" in stages
        top = longest_schedule(spec, pace, training, seeds=seeds, distill=distilled)
        rungs = shorten_rungs(spec, top)
    seed_seconds = distill = 0.0
    epochs = student_epochs_for(spec, rungs[-1])
    if "seeds" in stages:
        seed_seconds = min(seeds_seconds(spec, pace, rungs[-1]), SEEDS_SHARE * training)
    if "distill" in stages:
        least, most = distill_seconds(spec, pace, rungs[-1], training)
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
        members=spec.most_members,
        member_seconds=member_seconds(spec, pace, stages=stages),
    )


def _require_time(
    spec: SweepSpec, pace: Pace, training: float, overhead: float, stages: Collection[str]
) -> None:
    """Refuse a time budget that is too short for one epoch of everything."""
    least = shortest_training(spec, pace, stages)
    if training < least:
        raise TooShortError(
            f"the time left, {training + overhead:.0f} s, is too short: one epoch of every "
            f"training takes {least:.0f} s here, starting and reporting {overhead:.0f} s",
            seconds=least + overhead,
            otherwise="a smaller net or fewer images",
        )


def _forecast(
    spec: SweepSpec, pace: Pace, overheads: Mapping[str, float], stages: Collection[str]
) -> Plan:
    """Forecast the specification's own schedules."""
    epochs = student_epochs_for(spec, spec.rungs[-1])
    trials = spec.trial_count * mean_trial_seconds(spec, pace, spec.rungs) / pace.workers
    training = {
        # The last trial runs alone.
        "sweep": trials + trial_seconds(spec, pace, spec.rungs[-1]) / 2,
        "seeds": seeds_seconds(spec, pace, spec.rungs[-1]),
        "distill": students_seconds(spec, pace, epochs),
    }
    return Plan(
        rungs=spec.rungs,
        trials=spec.trial_count,
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
        members=spec.most_members,
        member_seconds=member_seconds(spec, pace, stages=stages),
    )
