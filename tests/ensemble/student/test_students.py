"""A student that starts from the best single trial never loses what the search found."""

import functools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import DivergedError
from ensemble.deployment.card import Card, read_card
from ensemble.deployment.export import NoOnnxFormError
from ensemble.deployment.packaging import TrainedStudent, export_student
from ensemble.deployment.student_folder import network_folders
from ensemble.ledger.predictions import Network
from ensemble.selection.selection import Member, read_selection
from ensemble.student.design import Candidate
from ensemble.student.distillation import StudentResult, read_reports
from ensemble.student.students import teacher_members, train_students
from ensemble.student.teacher import EnsembleTeacher
from quorum import Outcome
from search.space.sweep_files import spec_of_run
from trainables.data.dataset import load_dataset
from trainables.data.splits import make_splits
from trainables.recipe import Numerics
from trainables.records import RunFolder, read_record, read_start
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


Cards = dict[Network, Card]


@pytest.fixture(scope="module")
def students(
    finished_run: Outcome, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Cards]:
    """Make each set of students once: exporting and quantizing its files takes seconds."""

    @functools.cache
    def made(**options: Any) -> Cards:
        with pytest.MonkeyPatch.context() as patch:
            to = tmp_path_factory.mktemp("students")
            return make_students(finished_run, to, monkeypatch=patch, **options)

    return made


def make_students(
    run: Outcome,
    to: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    val_nll: float = 0.0,
    deadline: float | None = None,
    from_scratch: bool = False,
    without_onnx_form: tuple[str, ...] = (),
) -> Cards:
    """Return all cards if the trainings of the student and its twin score `val_nll`."""
    folder = RunFolder(to / "run")
    shutil.copytree(run.folder.root, folder.root)
    shutil.rmtree(folder.student)
    spec = spec_of_run(folder)
    images = load_dataset(spec.dataset)
    best = read_selection(folder.selection).best_single.name
    start = folder.trial(best)

    def train(*_: object, **options: Any) -> StudentResult:
        assert options["start"] == (None if from_scratch else start)
        if not math.isfinite(val_nll):
            raise DivergedError("the loss became nan")
        model = load_trained(start)
        count = sum(parameter.numel() for parameter in model.parameters())
        reports = (report_of(val_nll),)
        return StudentResult(model=model, seconds=9.0, steps=STEPS, params=count, reports=reports)

    def export(student: TrainedStudent, place: Path, **options: Any) -> Card:
        if place.name in without_onnx_form:
            raise NoOnnxFormError("no operator")
        return export_student(student, place, **options)

    monkeypatch.setattr("ensemble.student.students.export_student", export)
    recipe = spec.tuned_student_recipe(spec.base_recipe())
    train_students(
        folder,
        [Candidate(name=best, recipe=recipe, start=None if from_scratch else best)],
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
    return {network: read_card(place) for network, place in network_folders(folder.student).items()}


@pytest.mark.parametrize(("val_nll", "steps"), [(0.0, STEPS), (1e3, 0)])
def test_further_training_is_kept_only_if_it_is_no_worse_on_val(
    val_nll: float, steps: int, students: Callable[..., Cards]
) -> None:
    cards = students(val_nll=val_nll)
    assert (cards["student"].steps, cards["student_plain"].steps) == (steps, steps)
    assert bool(cards["student"].teacher) == (steps > 0)


@pytest.mark.parametrize(
    ("without", "rest"),
    [
        (("single",), {"student", "student_plain"}),
        (("plain", "single"), {"student"}),
    ],
)
def test_networks_without_onnx_form_have_no_files_and_the_rest_ships(
    without: tuple[str, ...], rest: set[Network], students: Callable[..., Cards]
) -> None:
    cards = students(without_onnx_form=without)
    assert set(cards) == rest
    assert cards["student"].int8 is not None


def test_the_card_names_the_temperatures_that_the_teacher_used() -> None:
    numerics = Numerics()
    nets = [torch.nn.Flatten(), torch.nn.Flatten()]
    teacher = EnsembleTeacher(nets, [0.5, 0.5], 1.0, numerics, member_temperatures=[1.5, 2.0])
    members = [
        Member(name="a", weight=0.5, temperature=1.2),
        Member(name="b", weight=0.0, temperature=1.2),
        Member(name="c", weight=0.5),
    ]
    described = [(each.name, each.temperature) for each in teacher_members(members, teacher)]
    assert described == [("a", 1.5), ("c", None)]


def test_without_time_for_an_epoch_the_student_is_the_trial_itself(
    students: Callable[..., Cards],
) -> None:
    cards = students(deadline=0.0)
    student, twin = cards["student"], cards["student_plain"]
    assert (student.steps, twin.steps, student.train_seconds) == (0, 0, 0.0)


@pytest.mark.parametrize("from_scratch", [False, True])
def test_where_trainings_diverge_the_best_trial_can_still_be_released(
    from_scratch: bool, students: Callable[..., Cards]
) -> None:
    cards = students(val_nll=math.nan, **({"from_scratch": True} if from_scratch else {}))
    assert {card.steps for card in cards.values()} == {0, None}
    assert "diverged" in cards["student"].untaught_because
    assert cards["student"].int8 is not None
    assert cards["best_single"].int8 is not None


@pytest.mark.parametrize("options", [{"val_nll": 1e3}, {"deadline": 0.0}, {"val_nll": math.nan}])
def test_a_trial_that_is_kept_is_described_as_it_was_trained(
    options: dict[str, Any], finished_run: Outcome, students: Callable[..., Cards]
) -> None:
    cards = students(**options)
    folder = finished_run.folder
    best = folder.trial(read_selection(folder.selection).best_single.name)
    start, record = read_start(best / "start.json"), read_record(best / "record.json")
    single = cards["best_single"]
    for card in (cards["student"], single):
        assert (card.recipe, card.seed) == (start.recipe.to_mapping(), start.seed)
        assert (card.teacher, card.alpha, card.teacher_temperature) == ((), None, None)
    assert (single.train_seconds, single.steps, single.untaught_because) == (
        record.seconds, None, "",
    )  # fmt: skip
