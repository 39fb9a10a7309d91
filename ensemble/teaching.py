"""Train the student twice, with the ensemble as its teacher and without one.

The twin without a teacher has the same net, the same start and the same optimizer steps:
what the teacher is worth is the difference between the two.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ensemble.card import Teacher
from ensemble.evaluation import mixtures
from ensemble.release import Lesson, export_student
from ensemble.student import PooledTeacher, StudentResult, distil
from trainables.imageset import ImageSet
from trainables.losses import Distillation
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder, read_json, write_json_once
from trainables.splits import Splits
from trainables.training import EpochReport, load_trained

SAFETY = 0.85
"""Share of the time left that training may plan for; export and quantization have the rest."""


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

    Both trainings are saved every epoch and go on where they stood. With a `deadline`
    (unix seconds) both get the same, shorter schedule that fits. `train` is `distil`, or
    something with its arguments that trains elsewhere.

    Raises:
        RunError: no selection, or a member whose files are missing or damaged.
        DivergedError: a loss that is not finite.
    """
    selection = read_json(folder.selection)
    mixture = mixtures(selection)["ensemble"]
    teacher = PooledTeacher(
        [load_trained(folder.trial(name)) for name in mixture.names],
        mixture.weights,
        selection["temperature"],
        numerics,
    )
    teach = partial(train, images=images, splits=splits, seed=seed, numerics=numerics)
    teach_with_teacher = partial(teach, teacher=teacher, distillation=distillation)
    work = folder.student / "work"
    recipe = _planned(recipe, work, deadline, (teach, teach_with_teacher))
    lesson = Lesson(
        recipe=recipe,
        seed=seed,
        distillation=distillation,
        teacher=tuple(
            Teacher(name=name, weight=weight)
            for name, weight in zip(mixture.names, mixture.weights, strict=True)
        ),
        teacher_temperature=selection["temperature"],
    )
    plain = teach(
        recipe,
        folder=work / "plain",
        on_report=_reporter(recipe, 0.0, "student without a teacher", progress),
    )
    student = teach_with_teacher(
        recipe,
        folder=work / "taught",
        on_report=_reporter(recipe, 0.4, "student", progress),
    )
    progress(0.9, "export and quantization")
    export = partial(export_student, images=images, splits=splits)
    export(plain, Lesson(recipe=recipe, seed=seed), folder.student / "plain", int8=False)
    export(student, lesson, folder.student, int8=True)
    shutil.rmtree(work)


def shortened(recipe: Recipe, seconds_left: float, seconds_an_epoch: float) -> Recipe:
    """The recipe with as many epochs as fit into the time left, at least one."""
    fitting = int(SAFETY * seconds_left / seconds_an_epoch)
    return recipe.with_values(epochs=max(1, min(recipe.epochs, fitting)))


def _planned(
    recipe: Recipe, work: Path, deadline: float | None, ways: Sequence[Callable[..., StudentResult]]
) -> Recipe:
    """The recipe with the epochs that were planned before a kill, or that fit before `deadline`."""
    plan = work / "plan.json"
    if plan.exists():
        return recipe.with_values(epochs=int(read_json(plan)["epochs"]))
    if deadline is not None:
        # The second of two epochs is timed: the first warms caches up.
        short = recipe.with_values(epochs=2)
        seconds = sum(way(short).reports[-1].seconds for way in ways)
        recipe = shortened(recipe, deadline - time.time(), seconds)
    write_json_once(plan, {"epochs": recipe.epochs})
    return recipe


def _reporter(
    recipe: Recipe, start: float, who: str, progress: Callable[[float, str], None]
) -> Callable[[EpochReport], None]:
    share = 0.4 if start == 0.0 else 0.5

    def on_report(report: EpochReport) -> None:
        done = start + share * report.step / recipe.epochs
        progress(
            done,
            f"{who}, epoch {report.step}/{recipe.epochs}, val accuracy {report.val_accuracy:.1%}",
        )

    return on_report
