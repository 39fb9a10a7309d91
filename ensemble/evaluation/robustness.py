"""Measure a run's stages on corrupted images, on other data sets, and by their prediction sets.

Axes: N images, K classes. Of the stages made of members, only the best single trial and the
ensemble are measured; the others would need predictions from more members.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from common.sampling import evenly_spaced
from common.statistics.conformal import ConformalSet, fit_conformal, prediction_set
from common.statistics.intervals import proportion_interval
from ensemble.deployment.student_folder import conformal_sets
from ensemble.evaluation.members import predict_members
from ensemble.evaluation.stages import (
    holdout_of_pooled,
    networks_to_run,
    predict_stages,
)
from ensemble.ledger.predictions import STAGES, Labels, LogProbs, Predictions
from ensemble.ledger.robustness import ClassCoverage, CoverageRow, Robustness
from ensemble.robustness.other_data import built_in_images, other_data_rows
from ensemble.robustness.sample import CELLS, Sample, draw_sample
from ensemble.robustness.table import corrupted_differences, corrupted_rows
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics
from trainables.records import RunFolder

POOLED = ("best_single", "ensemble")
"""The stages made of members that are measured."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RobustnessOptions:
    """Limits and settings of the measurements."""

    enabled: bool = True
    images: int = 500
    """Largest number of images to corrupt."""
    seconds: float | None = None
    """Time that the measurements may take; None for no limit."""
    seed: int = 0
    """Seed that all random draws are derived from."""
    level: float = 0.95
    """Coverage of the prediction sets."""
    other_data: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    """Images uint8 [N, S, S, 3] of further data sets, by name."""


def on_holdout(
    folder: RunFolder,
    *,
    images: ImageSet,
    splits: Splits,
    predict_with: Numerics,
    options: RobustnessOptions,
    progress: Progress,
) -> Predictions | None:
    """Return the stages' predictions for corrupted holdout images.

    None if robustness is not measured, holdout has fewer than CELLS images, or time is short.
    `corruption_loss`, a release gate, is decided on them.
    """
    labels = images.labels[splits.holdout]
    if len(labels) < CELLS:
        return None
    count = affordable(folder, images, splits, predict_with, options)
    if count < CELLS:
        return None
    sample = draw_sample(splits.holdout, labels, count)
    predicted = _predict(
        folder, sample.pixels(images.images, seed=options.seed), labels, predict_with, progress
    )
    return Predictions(labels=labels[sample.rows], stages=predicted)


def on_test(
    folder: RunFolder,
    test: Predictions,
    *,
    images: ImageSet,
    splits: Splits,
    predict_with: Numerics,
    options: RobustnessOptions,
    holdout_images: int,
    progress: Progress,
) -> Robustness:
    """Measure the stages on corrupted test images and on other data sets.

    `test` has the predictions for the clean images.

    This is part of the same read of test as `test_predictions`. If there is no time, nothing is
    measured, and the result says so.
    """
    if not options.enabled:
        return Robustness(left_out="robustness.enabled is false")
    if len(test.labels) < CELLS:
        return Robustness(
            left_out=f"test has {len(test.labels)} images, but each of the {CELLS} pairs of a "
            "corruption and a severity needs one",
            holdout_images=holdout_images,
        )
    labels = images.labels[splits.holdout]
    count = affordable(
        folder, images, splits, predict_with, options, sets=2 + len(options.other_data)
    )
    if count < CELLS:
        return Robustness(
            left_out=f"the time budget leaves time for {count} images, but each of the {CELLS} "
            "pairs of a corruption and a severity needs one",
            holdout_images=holdout_images,
        )
    sample = draw_sample(splits.test, test.labels, count)
    other = {**built_in_images(images, count, seed=options.seed), **options.other_data}
    parts = [
        sample.pixels(images.images, seed=options.seed),
        *(x[evenly_spaced(len(x), count)] for x in other.values()),
    ]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    predicted = _predict(folder, np.concatenate(parts), labels, predict_with, progress)
    split = {stage: np.split(log_probs, ends) for stage, log_probs in predicted.items()}
    corrupted = Predictions(
        labels=test.labels[sample.rows], stages={stage: part[0] for stage, part in split.items()}
    )
    return Robustness(
        images=len(sample),
        holdout_images=holdout_images,
        rows=corrupted_rows(corrupted, _of(test, sample), sample.families, seed=options.seed),
        differences=corrupted_differences(corrupted, seed=options.seed),
        other_data=tuple(
            row
            for place, name in enumerate(other, start=1)
            for row in other_data_rows(
                name, test.stages, {stage: part[place] for stage, part in split.items()}
            )
        ),
    )


def affordable(
    folder: RunFolder,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    options: RobustnessOptions,
    *,
    sets: int = 1,
) -> int:
    """Return how many images of each of `sets` sets all stages can predict in the time allowed.

    With a time limit, one member predicts CELLS images first; every other network is assumed to
    take as long to load and to predict.
    """
    if not options.enabled:
        return 0
    if options.seconds is None:
        return options.images
    if options.seconds <= 0:
        return 0
    names, files = networks_to_run(folder, POOLED)
    began = time.monotonic()
    predict_members(
        folder, names[:1], images.images, splits.holdout[:CELLS], numerics, on_member=lambda _: None
    )
    measured = time.monotonic() - began
    each = measured / min(CELLS, len(splits.holdout)) * (len(names) + files) * sets
    return max(0, min(options.images, int((options.seconds - measured) / each)))


def coverage_rows(
    folder: RunFolder, test: Predictions, *, images: ImageSet, splits: Splits, level: float
) -> tuple[CoverageRow, ...]:
    """Return the coverage of each stage's prediction sets on test.

    The thresholds are fitted to holdout: for files by the release, which wrote them into the cards;
    for the other stages here. Holdout has also chosen the members, their weights and one
    temperature per stage, so the guarantee is not exact; the coverage is therefore measured.
    """
    labels = images.labels[splits.holdout]
    sets = {
        stage: fit_conformal(np.exp(log_probs), labels, level=level)
        for stage, log_probs in holdout_of_pooled(folder, labels).items()
    }
    sets = {**conformal_sets(folder.student), **sets}
    classes = len(images.class_names)
    return tuple(
        coverage_row(stage, sets[stage], test.stages[stage], test.labels, classes=classes)
        for stage in STAGES
        if stage in test.stages and stage in sets
    )


def coverage_row(
    stage: str, fitted: ConformalSet, log_probs: LogProbs, labels: Labels, *, classes: int
) -> CoverageRow:
    """Measure one stage's prediction sets: coverage, also by class, and size."""
    sets = prediction_set(np.exp(log_probs), fitted.threshold)
    covered = sets[np.arange(len(labels)), labels]
    sizes = sets.sum(axis=1)
    interval = proportion_interval(int(covered.sum()), len(covered))
    return CoverageRow(
        stage=stage,
        level=fitted.level,
        threshold=fitted.threshold,
        calibration_images=fitted.images,
        images=len(labels),
        coverage=float(covered.mean()),
        interval=(interval.low, interval.high),
        mean_size=float(sizes.mean()),
        single=float((sizes == 1).mean()),
        by_class=tuple(_class_coverage(covered[labels == label]) for label in range(classes)),
    )


def _class_coverage(covered: npt.NDArray[np.bool_]) -> ClassCoverage:
    if not len(covered):
        return ClassCoverage(images=0, coverage=0.0, interval=(0.0, 1.0))
    interval = proportion_interval(int(covered.sum()), len(covered))
    return ClassCoverage(
        images=len(covered),
        coverage=float(covered.mean()),
        interval=(interval.low, interval.high),
    )


def _predict(
    folder: RunFolder,
    pixels: npt.NDArray[np.uint8],
    holdout_labels: Labels,
    numerics: Numerics,
    progress: Progress,
) -> dict[str, LogProbs]:
    return predict_stages(
        folder,
        pixels,
        np.arange(len(pixels)),
        numerics,
        holdout_labels=holdout_labels,
        progress=lambda done, detail: progress(done, f"corrupted images, {detail}"),
        pooled_stages=POOLED,
    )


def _of(test: Predictions, sample: Sample) -> Predictions:
    """Return the predictions for the sample's images before they were corrupted."""
    stages = {stage: log_probs[sample.rows] for stage, log_probs in test.stages.items()}
    return Predictions(labels=test.labels[sample.rows], stages=stages)
