"""The student learns from the teacher, and a killed distillation resumes exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import RunError, SpecError
from common.statistics.metrics import accuracy
from ensemble.student.distillation import StudentResult, distill
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.prediction import predict_log_probs
from trainables.recipe import Numerics, Recipe
from trainables.trainer import EpochReport
from trainables.training.losses import Distillation

NUMERICS = Numerics()
RECIPE = Recipe(
    width=2,
    block="plain",
    activation="relu",
    whitening=False,
    epochs=3,
    batch_size=16,
    optimizer="adamw",
    adamw_lr=1e-2,
    translate=1,
    mixup_alpha=0.4,
)
HALF = Distillation(alpha=0.5, tau=2.0)


def tiny_problem(count: int = 96) -> tuple[ImageSet, Splits]:
    """Return images of noise in three colours, labelled by colour."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 120, (count, 8, 8, 3))
    images[np.arange(count), :, :, labels] += 100
    images_set = ImageSet(
        name="colours",
        images=images.astype(np.uint8),
        labels=labels.astype(np.int64),
        class_names=("red", "green", "blue"),
    )
    order = np.arange(count)
    train, val, none = order[: count // 2], order[count // 2 :], order[:0]
    return images_set, Splits(train=train, val=val, holdout=none, test=none, split_id="tiny")


IMAGES, SPLITS = tiny_problem()


class Colourist:
    """A teacher that knows the colour; it is killed after `lives` batches."""

    identity = "colourist"

    def __init__(self, lives: int = 1000) -> None:
        self.seen: list[Tensor] = []
        self.lives = lives

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        if len(self.seen) > self.lives:
            raise KeyboardInterrupt("killed")
        return torch.log_softmax(20 * images.mean(dim=(2, 3)), dim=1)


def train(recipe: Recipe = RECIPE, **options: object) -> StudentResult:
    values: dict[str, object] = {
        "images": IMAGES,
        "splits": SPLITS,
        "seed": 1,
        "numerics": NUMERICS,
    }
    return distill(recipe, **{**values, **options})  # type: ignore[arg-type]


def same_weights(a: StudentResult, b: StudentResult) -> bool:
    others = b.model.state_dict()
    return all(torch.equal(value, others[name]) for name, value in a.model.state_dict().items())


def test_a_teacher_without_distillation_is_refused() -> None:
    with pytest.raises(SpecError, match="teacher and distillation"):
        train(teacher=Colourist())


def test_the_student_learns_from_the_teacher_instead_of_wrong_labels() -> None:
    wrong = ImageSet(
        name="wrong",
        images=IMAGES.images,
        labels=(IMAGES.labels + 1) % 3,
        class_names=IMAGES.class_names,
    )
    recipe = RECIPE.with_values(epochs=12, width=4)
    taught = train(
        recipe, images=wrong, teacher=Colourist(), distillation=Distillation(alpha=1, tau=1)
    )
    plain = train(recipe, images=wrong)
    log_probs, plain_log_probs = (
        predict_log_probs(student.model, IMAGES.images, NUMERICS, indices=SPLITS.val)
        for student in (taught, plain)
    )
    truth = IMAGES.labels[SPLITS.val]
    assert accuracy(log_probs, truth) > 0.9
    assert accuracy(plain_log_probs, truth) < 0.2


def test_a_teacher_of_weight_zero_changes_nothing() -> None:
    teacher = Colourist()
    student = train(teacher=teacher, distillation=Distillation(alpha=0, tau=2))
    plain = train()
    assert same_weights(student, plain)
    assert (student.steps, student.params) == (plain.steps, plain.params) == (9, plain.params)
    assert len(teacher.seen) == student.steps
    other = Colourist()
    train(teacher=other, distillation=HALF)
    assert all(torch.equal(a, b) for a, b in zip(teacher.seen, other.seen, strict=True))


@pytest.mark.parametrize("kills", [(1,), (2,), (3,), (1, 2)])
def test_a_killed_distillation_ends_with_the_same_weights(
    tmp_path: Path, kills: tuple[int, ...]
) -> None:
    whole = train(teacher=Colourist(), distillation=HALF)
    seen: list[int] = []

    def on_report(report: EpochReport, until: int | None = None) -> None:
        seen.append(report.step)
        if report.step == until:
            raise KeyboardInterrupt("killed")

    for until in kills:
        with pytest.raises(KeyboardInterrupt, match="killed"):
            train(
                teacher=Colourist(),
                distillation=HALF,
                folder=tmp_path,
                on_report=lambda report, until=until: on_report(report, until),
            )
    resumed = train(teacher=Colourist(), distillation=HALF, folder=tmp_path, on_report=on_report)
    assert seen == [1, 2, 3], "no finished epoch is trained again"
    assert same_weights(resumed, whole)
    assert [r.val_nll for r in resumed.reports] == [r.val_nll for r in whole.reports]
    assert resumed.steps == whole.steps
    assert resumed.seconds == pytest.approx(sum(r.seconds for r in resumed.reports))


def test_a_distillation_killed_within_an_epoch_repeats_that_epoch(tmp_path: Path) -> None:
    whole = train(teacher=Colourist(), distillation=HALF)
    for lives, steps in ((2, []), (5, [1]), (2, [])):
        seen: list[int] = []
        with pytest.raises(KeyboardInterrupt, match="killed"):
            train(
                teacher=Colourist(lives),
                distillation=HALF,
                folder=tmp_path,
                on_report=lambda report, seen=seen: seen.append(report.step),
            )
        assert seen == steps
    resumed = train(teacher=Colourist(), distillation=HALF, folder=tmp_path)
    assert same_weights(resumed, whole)
    assert [report.step for report in resumed.reports] == [1, 2, 3]


def test_a_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    train(RECIPE.with_values(epochs=1), folder=tmp_path)
    with pytest.raises(RunError, match="holds a student of the teacher None"):
        train(
            RECIPE.with_values(epochs=1),
            teacher=Colourist(),
            distillation=HALF,
            folder=tmp_path,
        )
    with pytest.raises(RunError, match=r"seed is 1 .* 2"):
        train(RECIPE.with_values(epochs=1), seed=2, folder=tmp_path)


def test_reports_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    """Simulate a kill between the two writes, which leaves one report too many."""
    train(RECIPE.with_values(epochs=2), folder=tmp_path / "ahead")
    history = (tmp_path / "ahead" / "history.json").read_bytes()
    seen: list[EpochReport] = []

    def stop(report: EpochReport) -> None:
        raise KeyboardInterrupt("killed")

    with pytest.raises(KeyboardInterrupt, match="killed"):
        train(RECIPE.with_values(epochs=2), folder=tmp_path / "torn", on_report=stop)
    (tmp_path / "torn" / "history.json").write_bytes(history)
    resumed = train(RECIPE.with_values(epochs=2), folder=tmp_path / "torn", on_report=seen.append)
    assert [report.step for report in resumed.reports] == [1, 2]
    assert [report.step for report in seen] == [2]
