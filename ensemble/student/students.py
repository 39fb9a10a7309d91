"""Train, export and quantize the student and its plain counterpart.

The plain student has the same net, the same initial weights and the same optimizer steps, but
no teacher: the difference between the two is the gain from distillation.
"""

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

from ensemble.deployment.card import TeacherMember
from ensemble.deployment.packaging import TrainedStudent, export_student
from ensemble.selection.selection import read_selection
from ensemble.student.distillation import StudentResult, StudentTrainer, distill
from ensemble.student.epoch_budget import EpochBudget, EpochSeconds
from ensemble.student.teacher import load_teacher
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.device.rehearsal import rehearse
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder
from trainables.trainer import EpochReport
from trainables.training.losses import Distillation

REHEARSAL_SECONDS = 3.0
"""Time for measuring each of the two trainings before their epochs are planned."""

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
    numerics: Numerics,
    deadline: float | None,
    progress: Callable[[float, str], None],
    train: StudentTrainer = distill,
) -> None:
    """Train, export and quantize both students into `folder`.student.

    Both trainings save every epoch and resume from the last one saved. With a `deadline` for
    both (unix seconds) they get the epochs that fit; see `ensemble.student.epoch_budget`.
    `train` trains each of the two.

    Raises:
        RunError: no selection, or a member whose files are missing or damaged.
        DivergedError: a loss is not finite.
    """
    selection = read_selection(folder.selection)
    teacher = load_teacher(folder, selection.members, selection.temperature, numerics)
    work = folder.student / "work"
    work.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"images": images, "splits": splits, "numerics": numerics}
    lesson: dict[str, Any] = {"teacher": teacher, "distillation": distillation}
    timed = partial(rehearse, recipe, seconds=REHEARSAL_SECONDS, **data)
    budget = EpochBudget(
        recipe,
        work / "plan.json",
        deadline=deadline,
        rehearse=lambda: EpochSeconds(
            taught=timed(**lesson).train_seconds, plain=timed().train_seconds
        ),
    )
    student = budget.train(
        lambda shortened, on_report: train(
            shortened, folder=work / "taught", on_report=on_report, seed=seed, **lesson, **data
        ),
        _reporter(budget, 0.0, "student", progress),
    )
    plain = train(
        budget.recipe,
        folder=work / "plain",
        on_report=_reporter(budget, TRAINING_SHARE, "student without a teacher", progress),
        seed=seed,
        **data,
    )
    progress(2 * TRAINING_SHARE, "export and quantization")
    export = partial(export_student, images=images, splits=splits)
    export(_trained(plain, budget.recipe, seed), folder.student / "plain", int8=False)
    taught = _trained(
        student,
        budget.recipe,
        seed,
        distillation=distillation,
        teacher=tuple(
            TeacherMember(name=member.name, weight=member.weight) for member in selection.members
        ),
        teacher_temperature=selection.temperature,
    )
    export(taught, folder.student, int8=True)
    shutil.rmtree(work)


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
