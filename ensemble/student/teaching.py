"""Train the student twice, with the ensemble as its teacher and without one.

The twin without a teacher has the same net, the same start and the same optimizer steps:
what the teacher is worth is the difference between the two.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from common.files import read_json
from ensemble.deployment.card import Teacher
from ensemble.deployment.release import Lesson, export_student
from ensemble.ledger.evaluation import pooled_rows
from ensemble.student.schedule import EpochSeconds, Timetable
from ensemble.student.student import PooledTeacher, StudentResult, distil
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.device.rehearsal import rehearse
from trainables.nets.build import Classifier
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder
from trainables.training.loop import EpochReport, load_trained
from trainables.training.losses import Distillation

REHEARSAL_SECONDS = 3.0
"""Of one way to train, before a schedule is laid."""

SHARE = 0.45
"""Of the stage's progress, for each of the two trainings."""


def make_students(
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
    train: Callable[..., StudentResult] = distil,
) -> None:
    """Train, export and quantize the student and its twin into `folder`.student.

    Both trainings are saved every epoch and go on where they stood. With a `deadline` for
    both (unix seconds) they get the schedule that fits: see ensemble/student/schedule.py. `train`
    is `distil`, or something with its arguments that trains elsewhere.

    Raises:
        RunError: no selection, or a member whose files are missing or damaged.
        DivergedError: a loss that is not finite.
    """
    selection = read_json(folder.selection)
    mixture = pooled_rows(selection)["ensemble"]
    teacher = PooledTeacher(
        [_at_one_look(folder.trial(name)) for name in mixture.names],
        mixture.weights,
        selection["temperature"],
        numerics,
    )
    work = folder.student / "work"
    work.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"images": images, "splits": splits, "numerics": numerics}
    lesson: dict[str, Any] = {"teacher": teacher, "distillation": distillation}
    timed = partial(rehearse, recipe, seconds=REHEARSAL_SECONDS, **data)
    timetable = Timetable(
        recipe,
        work / "plan.json",
        deadline=deadline,
        rehearsed=lambda: EpochSeconds(
            taught=timed(**lesson).train_seconds, plain=timed().train_seconds
        ),
    )
    student = timetable.teach(
        lambda shortened, on_report: train(
            shortened, folder=work / "taught", on_report=on_report, seed=seed, **lesson, **data
        ),
        _reporter(timetable, 0.0, "student", progress),
    )
    plain = train(
        timetable.recipe,
        folder=work / "plain",
        on_report=_reporter(timetable, SHARE, "student without a teacher", progress),
        seed=seed,
        **data,
    )
    progress(2 * SHARE, "export and quantization")
    export = partial(export_student, images=images, splits=splits)
    alone = Lesson(recipe=timetable.recipe, seed=seed)
    export(plain, alone, folder.student / "plain", int8=False)
    taught = replace(
        alone,
        distillation=distillation,
        teacher=tuple(
            Teacher(name=name, weight=weight)
            for name, weight in zip(mixture.names, mixture.weights, strict=True)
        ),
        teacher_temperature=selection["temperature"],
    )
    export(student, taught, folder.student, int8=True)
    shutil.rmtree(work)


def _at_one_look(trial: Path) -> Classifier:
    """A member without its `tta`: its answers to each view would cost twice as much or more.

    The student sees both mirror images anyway, and learns what they have in common.
    """
    model = load_trained(trial)
    model.tta = "none"
    return model


def _reporter(
    timetable: Timetable, start: float, who: str, progress: Callable[[float, str], None]
) -> Callable[[EpochReport], None]:
    def on_report(report: EpochReport) -> None:
        epochs = timetable.recipe.schedule.epochs
        progress(
            start + SHARE * report.step / epochs,
            f"{who}, epoch {report.step}/{epochs}, val accuracy {report.val_accuracy:.1%}",
        )

    return on_report
