"""What the parts of a run take at the pace that was measured here, in seconds of wall time."""

import math
from dataclasses import dataclass

from common.stage_costs import EQUAL, StageCosts, cost_at_rungs
from search.space.spec import SweepSpec
from trainables.training.stages import fewest_epochs

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What was measured before anything was planned. Seconds of wall time."""

    workers: int
    """Trials at a time."""
    epoch_seconds: float
    """One epoch of the base recipe's last stage in one of the workers while all work."""
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
    costs: StageCosts = EQUAL
    """Of the base recipe's stages."""


def mean_cost(
    rungs: tuple[int, ...],
    *,
    factor: int,
    cooldown: float,
    costs: StageCosts = EQUAL,
) -> float:
    """Epochs that a trial of the sweep trains in the mean if one in `factor` goes on."""
    total, before = 0.0, 0.0
    for index, cost in enumerate(cost_at_rungs(rungs, cooldown, costs)):
        total += (cost - before) / factor**index
        before = cost
    return total


def all_seconds(spec: SweepSpec, pace: Pace, epochs: int) -> float:
    """Of all of `spec.trials`, with schedules of so many epochs."""
    whole, mean = trial_seconds(spec, pace, epochs), mean_seconds(spec, pace, spec.rungs)
    each = mean * whole / trial_seconds(spec, pace, spec.rungs[-1])
    # The first trials all run the whole way.
    training = max(whole, spec.trials * each / pace.workers)
    return training + pace.handover_seconds * math.ceil(spec.trials / pace.workers)


def mean_seconds(spec: SweepSpec, pace: Pace, rungs: tuple[int, ...]) -> float:
    """Of a trial of the sweep, in the mean."""
    factor, cooldown = spec.reduction_factor, spec.base_recipe().cooldown_fraction
    return pace.epoch_seconds * mean_cost(rungs, factor=factor, cooldown=cooldown, costs=pace.costs)


def trial_seconds(spec: SweepSpec, pace: Pace, epochs: int) -> float:
    """Of a trial that runs the whole way, with no rung below."""
    cooldown = spec.base_recipe().cooldown_fraction
    return pace.epoch_seconds * cost_at_rungs((epochs,), cooldown, pace.costs)[-1]


def seeds_seconds(spec: SweepSpec, pace: Pace, epochs: int) -> float:
    """Of all seeds, with schedules of so many epochs."""
    each = trial_seconds(spec, pace, epochs) + pace.handover_seconds
    return rounds_of_seeds(spec, pace) * each


def rounds_of_seeds(spec: SweepSpec, pace: Pace) -> int:
    """How many of them a worker trains, one after the other."""
    return -(-spec.members // pace.workers)


def student_epochs_for(spec: SweepSpec, top: int) -> int:
    """The student's epochs where trials have `top`, in proportion."""
    epochs = round(spec.student_recipe().epochs * top / spec.rungs[-1])
    return max(fewest_student_epochs(spec), epochs)


def fewest_student_epochs(spec: SweepSpec) -> int:
    """With fewer its last stage would have none."""
    return fewest_epochs(spec.student_recipe().stages)


def student_seconds(spec: SweepSpec, pace: Pace, epochs: int) -> float:
    """Student and twin."""
    return epochs * (2 * pace.student_seconds + spec.members * pace.teacher_seconds)


def overheads(spec: SweepSpec, pace: Pace) -> dict[str, float]:
    """What each stage takes besides training."""
    student = pace.student_seconds / BACKWARD
    # Members, the best single and seeds: about twice as many nets as there are members.
    nets = 1 if spec.deliver == "single" else 2 * spec.members
    members = nets * pace.predict_seconds
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
