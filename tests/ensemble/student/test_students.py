"""A student that starts from the best single trial never loses what the search found."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ensemble.deployment.card import Card, read_card
from ensemble.selection.selection import read_selection
from ensemble.student.design import Candidate
from ensemble.student.distillation import StudentResult, read_reports
from ensemble.student.students import train_students
from quorum import Outcome
from search.space.spec import spec_of_run
from trainables.data.dataset import load_dataset
from trainables.data.splits import make_splits
from trainables.recipe import Numerics
from trainables.records import RunFolder
from trainables.trainer import EpochReport
from trainables.training.losses import Distillation
from trainables.weights import load_trained

STEPS = 7


def report_of(val_nll: float) -> EpochReport:
    return EpochReport(
        step=1, epoch=1, phase="trunk", rung=None, train_loss=1.0, val_nll=val_nll,
        val_accuracy=0.5, temperature=1.0, lr=0.1, seconds=1.0, images_per_second=1.0,
        peak_memory_bytes=1,
    )  # fmt: skip


def students(
    run: Outcome, to: Path, *, val_nll: float = 0.0, deadline: float | None = None
) -> tuple[Card, Card]:
    """Return the cards of the student and its twin if further training scores `val_nll`."""
    folder = RunFolder(to / "run")
    shutil.copytree(run.folder.root, folder.root)
    shutil.rmtree(folder.student)
    spec = spec_of_run(folder)
    images = load_dataset(spec.dataset)
    best = read_selection(folder.selection).best_single.name
    start = folder.trial(best)

    def train(*_: object, **options: Any) -> StudentResult:
        assert options["start"] == start
        model = load_trained(start)
        count = sum(parameter.numel() for parameter in model.parameters())
        reports = (report_of(val_nll),)
        return StudentResult(model=model, seconds=9.0, steps=STEPS, params=count, reports=reports)

    recipe = spec.tuned_student_recipe(spec.base_recipe())
    train_students(
        folder,
        [Candidate(name=best, recipe=recipe, start=best)],
        distillation=Distillation(alpha=0.5, tau=2.0),
        images=images,
        splits=make_splits(images, spec.splits),
        seed=0,
        train_with=Numerics(),
        deadline=deadline,
        progress=lambda fraction, detail: None,
        train=train,
    )
    assert not read_reports(folder.student / "work" / "taught")
    return read_card(folder.student), read_card(folder.student / "plain")


@pytest.mark.parametrize(("val_nll", "steps"), [(0.0, STEPS), (1e3, 0)])
def test_further_training_is_kept_only_if_it_is_no_worse_on_val(
    val_nll: float, steps: int, finished_run: Outcome, tmp_path: Path
) -> None:
    student, twin = students(finished_run, tmp_path, val_nll=val_nll)
    assert (student.steps, twin.steps) == (steps, STEPS)


def test_without_time_for_an_epoch_the_student_is_the_trial_itself(
    finished_run: Outcome, tmp_path: Path
) -> None:
    student, twin = students(finished_run, tmp_path, deadline=0.0)
    assert (student.steps, twin.steps, student.train_seconds) == (0, 0, 0.0)
