"""What a budget of time buys: how long schedules are, and when every stage has to end.

With e the seconds of an epoch in one of W workers while all work, T the seconds that are
left for training, and K the most members, a schedule of R epochs costs

    a trial of the sweep    E·e, E = Σ_j η^(1−j) Δ_j with Δ_j the steps from rung j−1 to j
    the seeds               ⌈K/W⌉·R·e of wall time
    student and twin        R_s·(two epochs of the student + one pass of the teacher)

Long schedules make better nets and fewer of them. R grows with the square root of what can
be trained, as the number of trials then does: R = √(T·W/e), and the seeds, which are the
equal-compute baseline and not a saving, may take a quarter of T at most.

The plan made before the sweep is a forecast; the report holds it against what happened.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from search.remaining import steps_at_rungs
from search.spec import SweepSpec
from trainables.errors import SpecError

SEEDS_SHARE = 0.25
"""Most of the training time that seeds of the best may take."""

DISTILL_SHARES = (0.2, 0.4)
"""Least and most of the training time for the student and its twin."""

LONGEST = 8
"""A schedule is at most this many times as long as the specification's: recipes that suit
27 epochs do not suit 1,000."""

START_SECONDS = 20.0
"""Ray and its workers, on two cores, with nothing in the page cache."""

EXPORT_SECONDS = 15.0
"""Export, calibration and timing of the students; predictions come on top."""

REPORT_SECONDS = 15.0
"""Figures, the PDF and the entry in the registry."""

LEDGER_SECONDS = 8.0
"""Timing every member, bootstrap intervals, gates; predictions come on top."""

PASSES = (8, 3)
"""How often students predict holdout for their temperatures, the choice of a quantizer and
the gates, and how often holdout and test for the ledger."""

BACKWARD = 3
"""A training step costs about this many predictions."""

STAGES = ("sweep", "seeds", "select", "distill", "ledger", "report")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What was measured before anything was planned. Seconds of wall time."""

    workers: int
    """Trials at a time."""
    epoch_seconds: float
    """One epoch of the base recipe in one of the workers while all work."""
    student_seconds: float
    """One epoch of the student, without a teacher, on the whole machine."""
    teacher_seconds: float
    """One member's answers to a whole epoch at one look each, on the whole machine."""
    predict_seconds: float
    """The same with all views that its `tta` averages."""
    handover_seconds: float
    """A trial's predictions and its checkpoint where a rung is scored, in one of the workers."""
    holdout_share: float
    """Images of holdout per training image."""
    test_share: float
    """Images of test per training image."""


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
        SpecError: there is not even time for one epoch of everything.
    """
    over = {s: seconds * (s in stages) for s, seconds in _overheads(spec, pace).items()}
    if deadline is None:
        return _unbounded(spec, pace, over, stages)
    time = deadline - now - sum(over.values())
    _require_time(spec, pace, time, sum(over.values()), stages)
    if not fixed:
        spec = with_fewer_members(spec, pace, time, fewest=fewest)
    seeds = distill = 0.0
    rungs = spec.rungs if fixed else shortened_rungs(spec, _top_rung(spec, pace, time))
    epochs = _student_epochs(spec, rungs[-1])
    if "seeds" in stages:
        seeds = min(_seeds_seconds(spec, pace, rungs[-1]), SEEDS_SHARE * time)
    if "distill" in stages:
        low, high = (share * time for share in DISTILL_SHARES)
        distill = min(max(_student_seconds(spec, pace, epochs), low), high)
        if "sweep" not in stages:  # what was left of a run that was stopped after it
            distill = time
        epochs = max(1, int(distill / _student_seconds(spec, pace, 1)))
    training = {"sweep": time - seeds - distill, "seeds": seeds, "distill": distill}
    if not fixed:
        rungs = with_enough_finished(spec, pace, rungs, seconds=training["sweep"])
    return Plan(
        rungs=rungs,
        trials=None,
        seeds=spec.members,
        student_epochs=min(epochs, LONGEST * _student_epochs(spec, spec.rungs[-1])),
        workers=pace.workers,
        epoch_seconds=pace.epoch_seconds,
        seconds={stage: over[stage] + training.get(stage, 0.0) for stage in STAGES},
        export_seconds=over["distill"],
        deadline=deadline,
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
    factor, cooldown = spec.reduction_factor, spec.base_recipe().cooldown_fraction
    while len(rungs) > 1:
        steps = mean_steps(rungs, factor=factor, cooldown=cooldown)
        trials = seconds * pace.workers / (pace.epoch_seconds * steps)
        if trials >= spec.members * factor ** (len(rungs) - 1):
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


def mean_steps(rungs: tuple[int, ...], *, factor: int, cooldown: float) -> float:
    """Epochs that a trial of the sweep trains in the mean if one in `factor` goes on."""
    steps, total, before = steps_at_rungs(rungs, cooldown), 0.0, 0
    for index, count in enumerate(steps):
        total += (count - before) / factor**index
        before = count
    return total


def _require_time(
    spec: SweepSpec, pace: Pace, time: float, over: float, stages: Collection[str]
) -> None:
    each = {
        "sweep": pace.epoch_seconds,
        "seeds": pace.epoch_seconds * _rounds(spec, pace),
        "distill": _student_seconds(spec, pace, 1),
    }
    least = sum(seconds for stage, seconds in each.items() if stage in stages)
    if time < least:
        raise SpecError(
            f"the time left, {time + over:.0f} s, is too short: one epoch of everything takes "
            f"{least:.0f} s here, start and report {over:.0f} s; give "
            f"{math.ceil((least + over) / 30) / 2:g}m or more, a smaller net or fewer images"
        )


def _unbounded(
    spec: SweepSpec, pace: Pace, over: Mapping[str, float], stages: Collection[str]
) -> Plan:
    """The specification's own schedules."""
    epochs = _student_epochs(spec, spec.rungs[-1])
    steps = mean_steps(
        spec.rungs, factor=spec.reduction_factor, cooldown=spec.base_recipe().cooldown_fraction
    )
    training = {
        # The last trial of all runs alone.
        "sweep": pace.epoch_seconds * (spec.trials * steps / pace.workers + spec.rungs[-1] / 2),
        "seeds": _seeds_seconds(spec, pace, spec.rungs[-1]),
        "distill": _student_seconds(spec, pace, epochs),
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
    )


def _top_rung(spec: SweepSpec, pace: Pace, time: float) -> int:
    balanced = math.sqrt(max(0.0, time) * pace.workers / pace.epoch_seconds)
    affordable = SEEDS_SHARE * time / (_rounds(spec, pace) * pace.epoch_seconds)
    return max(1, min(int(min(balanced, affordable)), LONGEST * spec.rungs[-1]))


def _seeds_seconds(spec: SweepSpec, pace: Pace, epochs: int) -> float:
    return _rounds(spec, pace) * (epochs * pace.epoch_seconds + pace.handover_seconds)


def _rounds(spec: SweepSpec, pace: Pace) -> int:
    return -(-spec.members // pace.workers)


def _student_epochs(spec: SweepSpec, top: int) -> int:
    """The student's epochs, in proportion to the trials'."""
    return max(1, round(spec.student_recipe().epochs * top / spec.rungs[-1]))


def _student_seconds(spec: SweepSpec, pace: Pace, epochs: int) -> float:
    """Student and twin."""
    return epochs * (2 * pace.student_seconds + spec.members * pace.teacher_seconds)


def _overheads(spec: SweepSpec, pace: Pace) -> dict[str, float]:
    """What each stage takes besides training."""
    student = pace.student_seconds / BACKWARD
    # Members, the best single and seeds: about twice as many nets as there are members.
    members = 2 * spec.members * pace.predict_seconds
    return {
        "sweep": START_SECONDS,
        "seeds": START_SECONDS / 2,
        "select": 2.0,
        "distill": EXPORT_SECONDS + PASSES[0] * student * pace.holdout_share,
        "ledger": LEDGER_SECONDS
        + PASSES[1] * student * (pace.holdout_share + pace.test_share)
        + members * pace.test_share,
        "report": REPORT_SECONDS,
    }
