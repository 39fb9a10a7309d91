"""The pace measured before a run, and how long its parts take at that pace.

All times are wall-clock seconds.
"""

import heapq
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from common.stage_costs import EQUAL, StageCosts, cost_at_rungs
from journal.events import STAGES
from search.space.spec import SweepSpec
from search.timetable.compute import Allotment
from trainables.stages import fewest_epochs

START_SECONDS = 20.0
"""Starting Ray and its workers: two cores, cold page cache."""

EXPORT_SECONDS = 22.0
"""Exporting the students and the best single trial; what they predict is counted separately."""

EXPORT_IMAGES = 20_000
"""Calibrating and timing the student's files takes as long as predicting this many images: lite0 at
96 px on two cores, at 500 images per second, took 45 s for this and the export, without those of
the best single trial."""

REPORT_SECONDS = 15.0
"""Figures, the PDF and the entry in the registry."""

LEDGER_SECONDS = 8.0
"""Timing every member, bootstrap intervals, gates; predictions are counted separately."""

SELECT_SECONDS = 2.0
"""Choosing and weighting the ensemble."""

MEASURE_SECONDS, MEASURE_SHARE = 15.0, 0.02
"""Longest time for measuring, before the selection, what the pool's networks would cost if they
shipped, and its largest share of the remaining time. Exporting a small network takes about a
second, and timing both of its files another."""

HOLDOUT_PASSES, LEDGER_PASSES = 13, 4
"""Passes of the students over holdout (temperatures, quantizer, gates), and over holdout and test
for the ledger."""

FILES = 6
"""Number of files that could be released: fp32 and int8 of three networks."""

CORRUPTION_SECONDS = 0.006
"""Corrupting one image of 224 pixels, the mean of all corruptions, on one core."""

ROBUSTNESS_SECONDS = 3.0
"""Bootstrap intervals of the rows on corrupted images."""

ROBUSTNESS_SHARE = 0.05
"""Share of a time budget for corrupted images; in a short budget there are fewer of them."""

FEWEST_IMAGES = 60
"""Number of corrupted images that cover every corruption at every severity."""

STEP_PER_PREDICTION = 3
"""A training step costs about as much as this many predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The pace of one machine, measured by a rehearsal before planning."""

    workers: int
    """Number of concurrent trials."""
    epoch_seconds: float
    """One epoch of the base recipe's last stage in one worker while all of them work."""
    student_seconds: float
    """One epoch of the student without a teacher, on the whole machine."""
    teacher_seconds: float
    """One member's predictions for one epoch of training images, one view each, on the whole
    machine."""
    predict_seconds: float
    """The same with all views that the recipe's `tta` averages."""
    handover_seconds: float
    """Saving a trial's predictions and checkpoint when a rung is scored, in one worker."""
    holdout_share: float
    """Holdout images per training image."""
    test_share: float
    """Test images per training image."""
    export_seconds: float = EXPORT_SECONDS
    """Exporting, calibrating and timing the students."""
    costs: StageCosts = EQUAL
    """Costs of epochs in the base recipe's stages."""
    passes: float = 1.0
    """Passes over the training images in an epoch of the base recipe."""
    slowness: float = 1.0
    """Time that a worker needs to start and for the ledger, as a multiple of the usual time."""
    driver_slowness: float = 1.0
    """Time that this process needs to select and report, as a multiple of the usual time."""
    measuring_seconds: float = 0.0
    """Time for measuring the costs of the pool's networks."""
    robustness_images: int = 0
    """Images that are corrupted for the release gate, and again for the ledger."""
    robustness_share: float = 0.0
    """The same, per training image."""
    whole_pass_seconds: float | None = None
    """Duration of an epoch of one whole pass, if it was measured."""
    families: Mapping[str, StageCosts] = field(default_factory=dict)
    """Costs of epochs by family, in epochs of the base recipe's last stage."""
    allotments: Mapping[str, Allotment] = field(default_factory=dict)
    """Images of an epoch by family, where rungs count computation."""

    @property
    def pass_seconds(self) -> float:
        """Time of one pass over the training images, with its scoring."""
        return self.whole_pass_seconds or self.epoch_seconds / self.passes


def sweep_seconds(spec: SweepSpec, pace: Pace, epochs: int) -> float:
    """Return the time that all trials take with schedules of `epochs` epochs."""
    whole, mean = trial_seconds(spec, pace, epochs), mean_trial_seconds(spec, pace, spec.rungs)
    each = mean * whole / trial_seconds(spec, pace, spec.rungs[-1])
    # The first trials all run their whole schedule.
    training = max(whole, spec.trial_count * each / pace.workers)
    return training + pace.handover_seconds * math.ceil(spec.trial_count / pace.workers)


def first_trials_seconds(spec: SweepSpec, pace: Pace, epochs: int) -> float:
    """Return when the first trial of every family has ended a schedule of `epochs` epochs.

    They start in the order of the families, each in the first worker that is free.
    """
    cooldown = spec.base_recipe().schedule.cooldown_fraction
    free = [0.0] * pace.workers
    for costs in pace.families.values() or [pace.costs]:
        cost = cost_at_rungs((epochs,), cooldown, costs)[-1]
        heapq.heapreplace(free, free[0] + pace.epoch_seconds * cost + pace.handover_seconds)
    return max(free)


def mean_trial_seconds(spec: SweepSpec, pace: Pace, rungs: tuple[int, ...]) -> float:
    """Return the mean training time of a trial that ASHA may stop at any of `rungs`."""
    factor, cooldown = spec.reduction_factor, spec.base_recipe().schedule.cooldown_fraction
    return pace.epoch_seconds * mean_cost(rungs, factor=factor, cooldown=cooldown, costs=pace.costs)


def trial_seconds(spec: SweepSpec, pace: Pace, epochs: int) -> float:
    """Return the training time of a trial of `epochs` epochs that has no lower rungs."""
    cooldown = spec.base_recipe().schedule.cooldown_fraction
    return pace.epoch_seconds * cost_at_rungs((epochs,), cooldown, pace.costs)[-1]


def mean_cost(
    rungs: tuple[int, ...],
    *,
    factor: int,
    cooldown: float,
    costs: StageCosts = EQUAL,
) -> float:
    """Return the mean number of epochs that a trial trains if one in `factor` passes each rung."""
    total, before = 0.0, 0.0
    for index, cost in enumerate(cost_at_rungs(rungs, cooldown, costs)):
        total += (cost - before) / factor**index
        before = cost
    return total


def seeds_seconds(spec: SweepSpec, pace: Pace, epochs: int) -> float:
    """Return the time that all seeds of the best recipe take with schedules of `epochs` epochs."""
    each = trial_seconds(spec, pace, epochs) + pace.handover_seconds
    return rounds_of_seeds(spec, pace) * each


def rounds_of_seeds(spec: SweepSpec, pace: Pace) -> int:
    """Return how many seeds one worker trains, one after the other."""
    return -(-spec.members // pace.workers)


def student_epochs_for(spec: SweepSpec, top: int) -> int:
    """Return the student's epochs, scaled by `top` over the specification's highest rung."""
    epochs = round(spec.expected_student_recipe().schedule.epochs * top / spec.rungs[-1])
    return max(fewest_student_epochs(spec), epochs)


def fewest_student_epochs(spec: SweepSpec) -> int:
    """Return the shortest schedule in which every stage of the student has an epoch.

    A student that starts from a trained network may also ship as it is, without any epoch.
    """
    if spec.student.start == "best_single":
        return 0
    return fewest_epochs(spec.student_recipe().schedule.stages)


def students_seconds(spec: SweepSpec, pace: Pace, epochs: int) -> float:
    """Return the training time of the student and of its twin without a teacher."""
    return epochs * (2 * pace.student_seconds + spec.members * pace.teacher_seconds)


def evaluation_seconds(spec: SweepSpec, pace: Pace, stages: Collection[str]) -> float:
    """Return the time in which members and seeds predict test, if `stages` run.

    The best single trial is one of the members. A run without a sweep has its seeds already.
    """
    seeds = "seeds" in spec.stages and ("seeds" in stages or "sweep" not in stages)
    nets = spec.most_members * (2 if seeds else 1)
    return nets * pace.predict_seconds * pace.test_share


def member_seconds(
    spec: SweepSpec, pace: Pace, *, stages: Collection[str] = STAGES
) -> dict[str, float]:
    """Return the time that each member of the ensemble adds to each stage, if `stages` run.

    The members predict corrupted images for the release gate, and test and its corruptions for the
    ledger.
    """
    shares = {
        "distill": pace.robustness_share,
        "ledger": pace.test_share + _ledger_sets(spec) * pace.robustness_share,
    }
    return {name: pace.predict_seconds * share for name, share in shares.items() if name in stages}


def robustness_seconds(spec: SweepSpec, pace: Pace, *, sets: int = 1) -> float:
    """Return the time to measure the ensemble, the best single trial and all files on `sets` sets.

    Each set has the pace's number of images.
    """
    if not pace.robustness_images:
        return 0.0
    members = (spec.most_members + 1) * pace.predict_seconds
    files = FILES * pace.student_seconds / STEP_PER_PREDICTION
    predicting = sets * pace.robustness_share * (members + files * ("distill" in spec.stages))
    corrupting = CORRUPTION_SECONDS * pace.robustness_images
    return predicting + (corrupting + ROBUSTNESS_SECONDS) * pace.slowness


def with_robustness(
    spec: SweepSpec, pace: Pace, *, images: int, train: int, seconds: float | None
) -> Pace:
    """Return the pace with as many of `images` corrupted images as a run of `seconds` has time for.

    `train` is the number of training images. If the run is too short for 60 images, none are
    planned.
    """

    def measuring(count: int) -> Pace:
        return replace(pace, robustness_images=count, robustness_share=count / train)

    def total(count: int) -> float:
        planned = measuring(count)
        gate = robustness_seconds(spec, planned) if "distill" in spec.stages else 0.0
        return gate + robustness_seconds(spec, planned, sets=_ledger_sets(spec))

    if not spec.robustness.enabled:
        return measuring(0)
    images = min(images, spec.robustness.images)
    if seconds is not None and total(images) > ROBUSTNESS_SHARE * seconds:
        fixed = total(1)
        each = total(2) - fixed
        images = max(0, min(images, int((ROBUSTNESS_SHARE * seconds - fixed) / each) + 1))
    return measuring(images if images >= FEWEST_IMAGES else 0)


def measuring_seconds(spec: SweepSpec, left: float | None) -> float:
    """Return the time for measuring the costs of the pool's networks with `left` seconds to go.

    `left` is None without a time budget.
    """
    if spec.deliver == "single":
        return 0.0
    return MEASURE_SECONDS if left is None else min(MEASURE_SECONDS, MEASURE_SHARE * max(0.0, left))


def overhead_seconds(
    spec: SweepSpec, pace: Pace, *, stages: Collection[str] = STAGES
) -> dict[str, float]:
    """Return the time that each stage takes besides training, if `stages` run."""
    student = pace.student_seconds / STEP_PER_PREDICTION if "distill" in spec.stages else 0.0
    slowest = max(pace.slowness, pace.driver_slowness)
    seconds = {
        "sweep": START_SECONDS * slowest,
        "seeds": START_SECONDS / 2 * slowest,
        "select": SELECT_SECONDS * pace.driver_slowness + pace.measuring_seconds,
        "distill": pace.export_seconds
        + HOLDOUT_PASSES * student * pace.holdout_share
        + robustness_seconds(spec, pace),
        "ledger": LEDGER_SECONDS * pace.slowness
        + LEDGER_PASSES * student * (pace.holdout_share + pace.test_share)
        + evaluation_seconds(spec, pace, stages)
        + robustness_seconds(spec, pace, sets=_ledger_sets(spec)),
        "report": REPORT_SECONDS * pace.driver_slowness,
    }
    return {stage: each * (stage in stages) for stage, each in seconds.items()}


def _ledger_sets(spec: SweepSpec) -> int:
    """Return the sets that the ledger predicts: corrupted test, the built-in set, the user's."""
    return 2 + (spec.robustness.ood is not None)
