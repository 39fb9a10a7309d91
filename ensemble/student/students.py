"""Train, export and quantize the student and its plain counterpart, and the best single trial.

The plain student has the same net, the same initial weights and the same optimizer steps, but
no teacher: the difference between the two is the gain from distillation. The best single trial is
packaged in the same way, since a student that is no better must not ship instead of it.
"""

import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from common.statistics.metrics import accuracy, apply_temperature, fit_temperature, nll
from ensemble.deployment.card import TeacherMember, write_card
from ensemble.deployment.metadata import NO_LICENSE
from ensemble.deployment.onnx_model import predict
from ensemble.deployment.packaging import TrainedStudent, add_int8, copy_student, export_student
from ensemble.selection.selection import read_selection
from ensemble.selection.teacher_file import teacher_of
from ensemble.student.distillation import StudentResult, StudentTrainer, distill
from ensemble.student.epoch_budget import EpochBudget, EpochSeconds
from ensemble.student.teacher import load_teacher
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.device.rehearsal import rehearse
from trainables.prediction import place_model, predict_log_probs
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder, read_record, read_start
from trainables.trainer import EpochReport
from trainables.training.losses import Distillation
from trainables.weights import load_trained

log = logging.getLogger(__name__)

REHEARSAL_SECONDS = 3.0
"""Longest measurement of each of the two trainings before their epochs are planned."""

REHEARSAL_SHARE = 0.01
"""Share of the time left that such a measurement may take."""

TRAINING_SHARE = 0.45
"""Share of the stage's progress bar for each of the two trainings."""


def train_students(
    folder: RunFolder,
    recipe: Recipe,
    *,
    distillation: Distillation,
    images: ImageSet,
    splits: Splits,
    seed: int,
    train_with: Numerics,
    deadline: float | None,
    progress: Callable[[float, str], None],
    train: StudentTrainer = distill,
    start: str | None = None,
    license: str = "",
) -> None:
    """Train, export and quantize both students and the best single trial into `folder`.student.

    Both trainings save every epoch and resume from the last one saved. With a `deadline` for
    both (unix seconds) they get the epochs that fit; see `ensemble.student.epoch_budget`.
    `train` trains each of the two, with the numerics `train_with`. `start` is the trial whose
    network both train further. Then the student is never worse than that network on val, and where
    there is no time for an epoch it is that network. The teacher is the ensemble of `teacher_of`.
    `license` is written into the exported files.

    Raises:
        RunError: no selection, or a member whose files are missing or damaged.
        DivergedError: a loss is not finite.
    """
    origin = None if start is None else folder.trial(start)
    numerics = train_with
    selection = teacher_of(folder)
    work = folder.student / "work"
    work.mkdir(parents=True, exist_ok=True)
    teacher = load_teacher(
        folder,
        selection.members,
        selection.temperature,
        numerics,
        images=images,
        splits=splits,
        saved=work / "teacher.json",
    )
    data: dict[str, Any] = {"images": images, "splits": splits, "numerics": numerics}
    untrained = None if origin is None else _untrained(origin, images, splits, numerics)
    lesson: dict[str, Any] = {"teacher": teacher, "distillation": distillation}
    left = math.inf if deadline is None else deadline - time.time()
    seconds = min(REHEARSAL_SECONDS, max(0.0, REHEARSAL_SHARE * left))
    timed = partial(rehearse, recipe, seconds=seconds, **data)
    budget = EpochBudget(
        recipe,
        work / "plan.json",
        deadline=deadline,
        fewest=1 if origin is None else 0,
        rehearse=lambda: EpochSeconds(
            taught=timed(**lesson).train_seconds, plain=timed().train_seconds
        ),
    )
    if untrained is not None and budget.epochs == 0:
        log.info("no time is left for an epoch: the student is the best single trial itself")
        student = plain = untrained.result
    else:
        student = budget.train(
            lambda shortened, on_report: train(
                shortened,
                folder=work / "taught",
                on_report=on_report,
                seed=seed,
                start=origin,
                **lesson,
                **data,
            ),
            _reporter(budget, 0.0, "student", progress),
        )
        plain = train(
            budget.recipe,
            folder=work / "plain",
            on_report=_reporter(budget, TRAINING_SHARE, "student without a teacher", progress),
            seed=seed,
            start=origin,
            **data,
        )
        if untrained is not None and student.reports[-1].val_nll > untrained.val_nll:
            log.info("further training made the best single trial worse on val: it is kept")
            student = replace(untrained.result, seconds=student.seconds)
    progress(2 * TRAINING_SHARE, "export and quantization")
    single = read_selection(folder.selection).best_single.name
    taught = _trained(
        student,
        budget.recipe,
        seed,
        distillation=distillation,
        teacher=tuple(
            TeacherMember(name=member.name, weight=member.weight) for member in selection.members
        ),
        teacher_temperature=teacher.temperature,
    )
    _package(
        folder,
        taught,
        _trained(plain, budget.recipe, seed),
        single=single,
        untrained=start == single and student.steps == 0,
        images=images,
        splits=splits,
        license=license or NO_LICENSE,
    )
    shutil.rmtree(work)


def _package(
    folder: RunFolder,
    student: TrainedStudent,
    plain: TrainedStudent,
    *,
    single: str,
    untrained: bool,
    images: ImageSet,
    splits: Splits,
    license: str,
) -> None:
    """Write the files of all networks that could ship; the student's card last.

    `single` is the best single trial, and `untrained` says that the student is that trial.
    """
    export = partial(export_student, images=images, splits=splits, license=license)
    place = folder.student
    # A folder with a card counts as exported, so everything else is written first.
    card = export(student, place / "work" / "student", int8=True)
    twin = export(plain, place / "plain", int8=False, like=card)
    labels = images.labels[splits.holdout]
    accuracies = [
        accuracy(predict(file, images.images[splits.holdout]), labels)
        for file in (place / "plain" / twin.fp32.file, place / "work" / "student" / card.fp32.file)
    ]
    if accuracies[0] > accuracies[1]:
        log.info("the student without a teacher is the more accurate: it is quantized, too")
        add_int8(place / "plain", images=images, splits=splits, like=card)
    if untrained:
        copy_student(place / "work" / "student", place / "single")
    else:
        export(_trial(folder, single), place / "single", int8=True, like=card)
    for artifact in filter(None, (card.fp32, card.int8)):
        (place / "work" / "student" / artifact.file).replace(place / artifact.file)
    write_card(place, card)


def _trial(folder: RunFolder, name: str) -> TrainedStudent:
    """Load a trial as a network that could ship."""
    start = read_start(folder.trial(name) / "start.json")
    record = read_record(folder.trial(name) / "record.json")
    return TrainedStudent(
        model=load_trained(folder.trial(name)).eval(),
        recipe=start.recipe,
        seed=start.seed,
        params=record.params,
        steps=None,
        train_seconds=record.seconds,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Untrained:
    """A student before its first epoch."""

    result: StudentResult
    val_nll: float
    """In nats, after one temperature fitted on val."""


def _untrained(start: Path, images: ImageSet, splits: Splits, numerics: Numerics) -> _Untrained:
    model = load_trained(start)
    place_model(model, numerics)
    labels = images.labels[splits.val]
    logp = predict_log_probs(model, images.images, numerics, indices=splits.val)
    return _Untrained(
        result=StudentResult(
            model=model,
            seconds=0.0,
            steps=0,
            params=sum(parameter.numel() for parameter in model.parameters()),
            reports=(),
        ),
        val_nll=nll(apply_temperature(logp, fit_temperature(logp, labels)), labels),
    )


def _trained(result: StudentResult, recipe: Recipe, seed: int, **lesson: Any) -> TrainedStudent:
    return TrainedStudent(
        model=result.model,
        recipe=recipe,
        seed=seed,
        params=result.params,
        steps=result.steps,
        train_seconds=result.seconds,
        **lesson,
    )


def _reporter(
    budget: EpochBudget, start: float, who: str, progress: Callable[[float, str], None]
) -> Callable[[EpochReport], None]:
    def on_report(report: EpochReport) -> None:
        epochs = budget.recipe.schedule.epochs
        progress(
            start + TRAINING_SHARE * report.step / epochs,
            f"{who}, epoch {report.step}/{epochs}, val accuracy {report.val_accuracy:.1%}",
        )

    return on_report
