"""Train a student on the training split: with a teacher, or without one for comparison."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from common.errors import RunError
from common.files import dump_json, read_json, write_bytes_atomically
from common.parsing import from_mapping, to_mapping
from ensemble.student.teacher import IdentifiedTeacher
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.nets.classifier import Classifier
from trainables.recipe import Numerics, Recipe
from trainables.trainer import EpochReport
from trainables.training.data_parallel import DataParallel
from trainables.training.loop import Training
from trainables.training.losses import Distillation
from trainables.weights import load_trained

HISTORY = "history.json"
"""The file beside the checkpoint that holds the reports and the teacher's identity."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudentResult:
    """A trained student."""

    model: Classifier
    """The net that was scored last, in eval mode."""
    seconds: float
    """Training and scoring time, over all sessions of a resumed training."""
    steps: int
    """Optimizer steps."""
    params: int
    reports: tuple[EpochReport, ...]
    """One for every epoch."""


class StudentTrainer(Protocol):
    """Trains a student: `distill`, or a function that does the same elsewhere."""

    def __call__(
        self,
        recipe: Recipe,
        *,
        images: ImageSet,
        splits: Splits,
        seed: int,
        numerics: Numerics,
        start: Path | None = None,
        teacher: IdentifiedTeacher | None = None,
        distillation: Distillation | None = None,
        on_report: Callable[[EpochReport], None] | None = None,
        folder: Path | None = None,
    ) -> StudentResult:
        """Train a student; see `distill`."""


def distill(
    recipe: Recipe,
    *,
    images: ImageSet,
    splits: Splits,
    seed: int,
    numerics: Numerics,
    start: Path | None = None,
    teacher: IdentifiedTeacher | None = None,
    distillation: Distillation | None = None,
    on_report: Callable[[EpochReport], None] | None = None,
    folder: Path | None = None,
    parallel: DataParallel | None = None,
) -> StudentResult:
    """Train the recipe's net on train, from a teacher or, for `student_plain`, without one.

    With and without a teacher, the net, its initial weights, the augmented views and the
    number of optimizer steps are the same. `start` is the folder of a trial whose weights the
    training starts from; without it they are random. With a `folder`, every epoch is saved there,
    and a training saved there is resumed: it ends with the weights of an uninterrupted one.
    `on_report` receives each new epoch. With `parallel`, this is one of several processes that
    share every batch; all need the same arguments, and only rank 0 writes.

    Raises:
        SpecError: a recipe that these images do not allow, or a teacher without distillation.
        RunError: the folder holds another training, or one with another teacher.
        DivergedError: a loss is not finite.
    """
    training = Training(
        recipe,
        rungs=(recipe.schedule.epochs,),
        seed=seed,
        numerics=numerics,
        images=images,
        splits=splits,
        teacher=teacher,
        distillation=distillation,
        parallel=parallel,
    )
    if start is not None:
        training.start_from(load_trained(start))
    history = _History(folder, teacher, writes=parallel is None or parallel.rank == 0)
    history.resume(training)
    for report in training.reports():
        history.add(report, training)
        if on_report is not None:
            on_report(report)
    return StudentResult(
        model=training.scored_model(),
        seconds=sum(report.seconds for report in history.reports),
        steps=training.step * training.batches,
        params=training.params,
        reports=tuple(history.reports),
    )


def read_reports(folder: Path) -> list[EpochReport]:
    """Return the reports saved in a distillation's folder so far, none before the first epoch."""
    path = folder / HISTORY
    if not path.exists():
        return []
    saved = read_json(path)["reports"]
    return [from_mapping(EpochReport, item, where=str(path)) for item in saved]


class _History:
    """The reports of a training and its checkpoint, in a folder or in memory only."""

    def __init__(
        self, folder: Path | None, teacher: IdentifiedTeacher | None, *, writes: bool
    ) -> None:
        self.reports: list[EpochReport] = []
        self._folder, self._writes = folder, writes
        self._teacher = teacher.identity if teacher is not None else None

    def resume(self, training: Training) -> None:
        """Load the checkpoint, if there is one, and the reports up to it."""
        if self._folder is None or not (self._folder / "checkpoint").is_dir():
            return
        history = read_json(self._folder / HISTORY)
        if history.get("teacher") != self._teacher:
            raise RunError(
                f"{self._folder} holds a student of the teacher {history.get('teacher')}, but "
                f"this teacher is {self._teacher}; remove the folder to start again"
            )
        training.load(self._folder / "checkpoint")
        self.reports = read_reports(self._folder)[: training.step]

    def add(self, report: EpochReport, training: Training) -> None:
        """Save a report before its checkpoint, so that no checkpoint lacks a report."""
        self.reports.append(report)
        if self._folder is None or not self._writes:
            return
        content: dict[str, Any] = {"teacher": self._teacher, "reports": to_mapping(self.reports)}
        write_bytes_atomically(self._folder / HISTORY, dump_json(content).encode())
        training.save(self._folder / "checkpoint")
