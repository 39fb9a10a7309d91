"""Train, export and quantize the student and its plain counterpart, and the best single trial.

The plain student has the same net, the same initial weights and the same optimizer steps, but
no teacher: the difference between the two is the gain from distillation. The best single trial is
packaged in the same way, because a student that is no better must not ship in its place.
"""

import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from common.errors import DivergedError
from common.statistics.metrics import accuracy
from ensemble.deployment.card import DIVERGED, Card, TeacherMember, write_card
from ensemble.deployment.export import NoOnnxFormError
from ensemble.deployment.gates import GateMargins, budgets
from ensemble.deployment.metadata import NO_LICENSE
from ensemble.deployment.onnx_model import predict
from ensemble.deployment.packaging import TrainedStudent, add_int8, copy_student, export_student
from ensemble.ledger.predictions import StageCost
from ensemble.selection.selection import Member, read_selection
from ensemble.selection.teacher_file import WORK, teacher_of
from ensemble.student.competition import CandidateTraining, choose, competing_candidates
from ensemble.student.design import (
    Candidate,
)
from ensemble.student.distillation import StudentResult, StudentTrainer, distill, read_reports
from ensemble.student.epoch_budget import EpochBudget
from ensemble.student.kept_trial import KeptTrial, keep_trial
from ensemble.student.quantization_aware import improve_int8
from ensemble.student.teacher import EnsembleTeacher, load_teacher
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder, read_record, read_start, trained_recipe
from trainables.trainer import EpochReport
from trainables.training.losses import Distillation
from trainables.weights import load_trained

log = logging.getLogger(__name__)

TRAINING_SHARE = 0.45
"""Share of the stage's progress bar for each of the two trainings."""

NO_MARGINS = GateMargins()
"""The margins of a release without budgets."""


def train_students(
    folder: RunFolder,
    candidates: Sequence[Candidate],
    *,
    distillation: Distillation,
    images: ImageSet,
    splits: Splits,
    seed: int,
    train_with: Numerics,
    deadline: float | None,
    progress: Callable[[float, str], None],
    train: StudentTrainer = distill,
    margins: GateMargins = NO_MARGINS,
    most: int = 1,
    license: str = "",
) -> None:
    """Train, export and quantize both students and the best single trial into `folder`.student.

    The student is one of the first `most` of `candidates` within the budgets that `margins` sets;
    see `ensemble.student.design`. All trainings save every epoch and resume from the last one
    saved. With a `deadline` for all of them (unix seconds), they get as many epochs as fit; see
    `ensemble.student.epoch_budget`. `train` trains each, with the numerics `train_with`. If the
    student starts from a trial, that trial replaces student or twin whose training diverges or ends
    worse on val, or for which there was no time for an epoch. The teacher is the
    ensemble of `teacher_of`. `license` is written into the exported files.

    Raises:
        SpecError: no candidate is within the budgets.
        RunError: no selection, or a member whose files are missing or damaged.
    """
    selection = teacher_of(folder)
    work = folder.student / WORK
    work.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"images": images, "splits": splits, "numerics": train_with}
    competing = competing_candidates(folder.student, candidates, margins, most, images, splits)
    teacher = load_teacher(
        folder,
        selection.members,
        selection.temperature,
        train_with,
        images=images,
        splits=splits,
        saved=work / "teacher.json",
    )
    lesson: dict[str, Any] = {"teacher": teacher, "distillation": distillation}
    trainings = {
        each.name: CandidateTraining(
            folder, each, number, train=train, data=data, lesson=lesson, seed=seed,
            deadline=deadline,
        )
        for number, each in enumerate(competing)
    }  # fmt: skip
    chosen = trainings[choose(folder.student, trainings, progress)]
    single = read_selection(folder.selection).best_single.name
    student, plain, kept = _train_both(
        folder,
        chosen,
        otherwise=single,
        train=train,
        seed=seed,
        budgeted=bool(budgets(StageCost(), margins)),
        data=data,
        progress=progress,
    )
    if student.untaught_because:
        log.info("the student is a trial without further training: %s", student.untaught_because)
    else:
        student = replace(
            student,
            distillation=distillation,
            teacher=teacher_members(selection.members, teacher),
            teacher_temperature=teacher.temperature,
        )
    progress(2 * TRAINING_SHARE, "export and quantization")
    _package(
        folder,
        student,
        plain,
        improve=partial(
            improve_int8,
            numerics=train_with,
            seconds=math.inf if deadline is None else deadline - time.time(),
            **lesson,
        ),
        single=single,
        same=kept is not None and kept.name == single and kept.as_trained,
        images=images,
        splits=splits,
        license=license or NO_LICENSE,
    )
    shutil.rmtree(work)


def _train_both(
    folder: RunFolder,
    chosen: "CandidateTraining",
    *,
    otherwise: str,
    train: StudentTrainer,
    seed: int,
    budgeted: bool,
    data: dict[str, Any],
    progress: Callable[[float, str], None],
) -> tuple[TrainedStudent, TrainedStudent, KeptTrial | None]:
    """Return the student and its twin, and the trial that is the student if one is kept.

    The kept trial is the one that they start from or, if a training from random weights diverges,
    `otherwise`, so that the run still has files to choose from.
    """
    budget, start, plain_folder = chosen.budget, chosen.candidate.start, chosen.plain_folder
    tta = budget.recipe.architecture.tta if budgeted else None
    name = otherwise if start is None else start
    keep = cache(partial(keep_trial, folder, name, tta=tta, **data))
    if start is not None and budget.epochs == 0:
        student = keep().as_student("there was no time to distill")
        return student, student, keep()
    taught = _unless_diverged(
        lambda: budget.train(chosen.train, _reporter(budget, 0.0, "student", progress))
    )
    alone = _unless_diverged(
        lambda: train(
            budget.recipe,
            folder=plain_folder,
            on_report=_reporter(budget, TRAINING_SHARE, "student without a teacher", progress),
            seed=seed,
            start=None if start is None else folder.trial(start),
            **data,
        )
    )

    def judged(result: StudentResult | None, folder: Path, worse: str) -> TrainedStudent:
        """Return the trained network, or the trial if training diverged or made it worse on val."""
        if result is None:
            return keep().as_student(DIVERGED, seconds=_spent(folder))
        # The same rule for both, so that neither is favoured when they are compared.
        if start is not None and result.reports[-1].val_nll > keep().val_nll:
            return keep().as_student(worse, seconds=result.seconds)
        return _trained(result, budget.recipe, seed)

    student = judged(taught, chosen.folder, "distilling it further made it worse on val")
    plain = judged(alone, plain_folder, "training it further made it worse on val")
    return student, plain, keep() if student.untaught_because else None


def _package(
    folder: RunFolder,
    student: TrainedStudent,
    plain: TrainedStudent,
    *,
    improve: Callable[..., Card],
    single: str,
    same: bool,
    images: ImageSet,
    splits: Splits,
    license: str,
) -> None:
    """Write the files of all networks that could ship, and the student's card last.

    `improve` trains the student further for its int8 file if that pays; see `improve_int8`.
    `single` is the best single trial, and `same` says that the student is that trial.
    """
    export = partial(export_student, images=images, splits=splits, license=license)
    place = folder.student
    # A folder with a card counts as exported, so everything else is written first.
    card = export(student, place / WORK / "student", int8=True)
    if not student.untaught_because:
        card = improve(student, place / WORK / "student", images=images, splits=splits)
    twin = _exported(
        plain,
        place / "plain",
        "the student without a teacher",
        partial(export, int8=False, like=card),
    )
    if twin is not None:
        labels = images.labels[splits.holdout]
        accuracies = [
            accuracy(predict(file, images.images[splits.holdout]), labels)
            for file in (
                place / "plain" / twin.fp32.file,
                place / WORK / "student" / card.fp32.file,
            )
        ]
        if accuracies[0] > accuracies[1]:
            log.info("the student without a teacher is the more accurate: it is quantized, too")
            add_int8(place / "plain", images=images, splits=splits, like=card)
    if same:
        seconds = read_record(folder.trial(single) / "record.json").seconds
        copy_student(place / WORK / "student", place / "single", train_seconds=seconds)
    else:
        _exported(
            _trial(folder, single),
            place / "single",
            f"the best single trial, {single},",
            partial(export, int8=True, like=card),
        )
    for artifact in filter(None, (card.fp32, card.int8)):
        (place / WORK / "student" / artifact.file).replace(place / artifact.file)
    write_card(place, card)


def _exported(
    network: TrainedStudent, place: Path, what: str, export: Callable[..., Card]
) -> Card | None:
    """Export a network that could ship beside the student; None if it has no ONNX form."""
    try:
        return export(network, place)
    except NoOnnxFormError as error:
        shutil.rmtree(place, ignore_errors=True)
        log.warning("%s cannot ship: %s", what, error)
        return None


def teacher_members(
    members: Sequence[Member], teacher: EnsembleTeacher
) -> tuple[TeacherMember, ...]:
    """Describe the members of a teacher, with the temperatures that it really used."""
    positive = [member for member in members if member.weight > 0]
    return tuple(
        TeacherMember(
            name=member.name,
            weight=member.weight,
            temperature=None if member.temperature is None else used,
        )
        for member, used in zip(positive, teacher.member_temperatures, strict=True)
    )


def _trial(folder: RunFolder, name: str) -> TrainedStudent:
    """Load a trial as a network that could ship."""
    start = read_start(folder.trial(name) / "start.json")
    record = read_record(folder.trial(name) / "record.json")
    return TrainedStudent(
        model=load_trained(folder.trial(name)).eval(),
        recipe=trained_recipe(start, record),
        seed=start.seed,
        params=record.params,
        steps=None,
        train_seconds=record.seconds,
    )


def _trained(result: StudentResult, recipe: Recipe, seed: int) -> TrainedStudent:
    return TrainedStudent(
        model=result.model,
        recipe=recipe,
        seed=seed,
        params=result.params,
        steps=result.steps,
        train_seconds=result.seconds,
    )


def _unless_diverged(train: Callable[[], StudentResult]) -> StudentResult | None:
    """Train; log that the loss is not finite, and return None then."""
    try:
        return train()
    except DivergedError as error:
        log.warning("a student's training diverged: %s", error)
        return None


def _spent(folder: Path) -> float:
    """Return the seconds of a training so far."""
    return sum(report.seconds for report in read_reports(folder))


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
