"""Predictions and costs of every stage of the ledger: members pooled, students run.

Axes: N examples, K classes. Temperatures are always fitted on holdout.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from common.statistics.metrics import apply_temperature, fit_temperature
from ensemble.deployment.onnx_model import Images, LogProbs
from ensemble.deployment.student_folder import has_student, student_costs, student_log_probs
from ensemble.evaluation.members import (
    holdout_log_probs,
    member_costs,
    pool_members,
    pooled_cost,
    predict_members,
)
from ensemble.evaluation.votes import VOTES, Votes
from ensemble.ledger.predictions import STAGES, Labels, Predictions, StageCost
from ensemble.selection.selection import Member, read_selection
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics
from trainables.records import RunFolder

TIMED_IMAGES = 256


def holdout_predictions(folder: RunFolder, images: ImageSet, splits: Splits) -> Predictions:
    """Return every stage's predictions on holdout.

    Those of trials are in the arrays that these wrote; exported files are run.
    """
    labels = images.labels[splits.holdout]
    stages = holdout_of_pooled(folder, labels)
    log_probs = holdout_log_probs(folder, _names(_pooled_stages(folder)))
    for stage, vote in _votes(folder, log_probs, labels).log_probs(log_probs).items():
        stages[stage] = _calibrated(vote, vote, labels)
    if has_student(folder.student):
        stages |= student_log_probs(folder.student, images.images, splits.holdout)
    return Predictions(labels=labels, stages=stages)


def holdout_of_pooled(folder: RunFolder, labels: Labels) -> dict[str, LogProbs]:
    """Return the predictions on holdout of the stages made of members; `labels` are holdout's."""
    pooled = _pooled_stages(folder)
    log_probs = holdout_log_probs(folder, _names(pooled))
    mixtures = {stage: pool_members(members, log_probs) for stage, members in pooled.items()}
    return {stage: _calibrated(mixture, mixture, labels) for stage, mixture in mixtures.items()}


def networks_to_run(folder: RunFolder, stages: Collection[str]) -> tuple[tuple[str, ...], int]:
    """Return the trials that `stages` consist of, and the number of exported files."""
    pooled = _pooled_stages(folder)
    names = _names({stage: members for stage, members in pooled.items() if stage in stages})
    return names, len(student_costs(folder.student)) if has_student(folder.student) else 0


def test_predictions(
    folder: RunFolder,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    *,
    progress: Callable[[float, str], None],
) -> Predictions:
    """Return every stage's predictions on test.

    No other function reads test images, except `ensemble.evaluation.robustness.on_test`, which
    corrupts some of them in the same stage of the run.

    Raises:
        RunError: no frozen selection.
    """
    stages = predict_stages(
        folder,
        images.images,
        splits.test,
        numerics,
        holdout_labels=images.labels[splits.holdout],
        progress=lambda done, detail: progress(0.6 * done, detail),
    )
    return Predictions(labels=images.labels[splits.test], stages=stages)


def predict_stages(
    folder: RunFolder,
    pixels: Images,
    indices: npt.NDArray[np.int64],
    numerics: Numerics,
    *,
    holdout_labels: Labels,
    progress: Callable[[float, str], None],
    pooled_stages: Collection[str] = STAGES,
) -> dict[str, LogProbs]:
    """Return log-probabilities [N, K] by stage for the images at `indices` of `pixels`.

    Of the stages made of members, only `pooled_stages` are predicted; exported files always are.

    Raises:
        RunError: no frozen selection.
    """
    every = _pooled_stages(folder)
    pooled = {stage: members for stage, members in every.items() if stage in pooled_stages}
    names = _names(pooled)
    on_holdout = holdout_log_probs(folder, names)
    predicted = predict_members(
        folder,
        names,
        pixels,
        indices,
        numerics,
        on_member=lambda done: progress(done / len(names), f"member {done}/{len(names)}"),
    )
    stages = {
        stage: _calibrated(
            pool_members(members, predicted), pool_members(members, on_holdout), holdout_labels
        )
        for stage, members in pooled.items()
    }
    if set(VOTES) <= set(pooled_stages):
        votes = _votes(folder, on_holdout, holdout_labels)
        held_out = votes.log_probs(on_holdout)
        for stage, vote in votes.log_probs(predicted).items():
            stages[stage] = _calibrated(vote, held_out[stage], holdout_labels)
    if has_student(folder.student):
        stages |= student_log_probs(folder.student, pixels, indices)
    return stages


def stage_costs(folder: RunFolder, images: ImageSet, splits: Splits) -> dict[str, StageCost]:
    """Measure size, speed and training time of every stage, timed on images of holdout."""
    pooled = _pooled_stages(folder)
    timed = images.images[splits.holdout[:TIMED_IMAGES]]
    members = member_costs(folder, _names(pooled), timed, classes=len(images.class_names))
    votes = _votes(folder, holdout_log_probs(folder, _names(pooled)), images.labels[splits.holdout])
    costs = {
        stage: pooled_cost(chosen, members)
        for stage, chosen in {**pooled, **votes.stages()}.items()
    }
    return costs | (student_costs(folder.student) if has_student(folder.student) else {})


def pooled_trials(folder: RunFolder) -> tuple[str, ...]:
    """Return the trials whose networks are pooled or compared in the ledger."""
    return _names(_pooled_stages(folder))


def _pooled_stages(folder: RunFolder) -> dict[str, tuple[Member, ...]]:
    """Return the stages made of members.

    Only `best_single` in a run that allows one member and has no student.
    """
    selection = read_selection(folder.selection)
    stages = selection.pooled_stages()
    if selection.most_members == 1 and not has_student(folder.student):
        return {"best_single": stages["best_single"]}
    return stages


def _votes(folder: RunFolder, holdout: Mapping[str, LogProbs], labels: Labels) -> Votes:
    """Fit the votes of the ensemble's members; none for a run that has no ensemble."""
    selection = read_selection(folder.selection)
    if "ensemble" not in _pooled_stages(folder):
        selection = replace(selection, members=())
    return Votes.fit(selection, holdout, labels)


def _names(stages: dict[str, tuple[Member, ...]]) -> tuple[str, ...]:
    return tuple(sorted({member.name for members in stages.values() for member in members}))


def _calibrated(log_probs: LogProbs, holdout: LogProbs, labels: Labels) -> LogProbs:
    """Apply to `log_probs` the temperature fitted to the same stage's predictions on holdout."""
    return apply_temperature(log_probs, fit_temperature(holdout, labels))
