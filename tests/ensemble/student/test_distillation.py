"""Distillation: the teacher against its closed form, the student against its twin, kills."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from common.errors import PoolError, RunError, SpecError
from common.statistics.metrics import accuracy, apply_temperature, log_probs_from_probs
from ensemble.student.distillation import StudentResult, distill
from ensemble.student.teacher import EnsembleTeacher
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
    """Three colours on noise; labels that say which."""
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
    """A teacher who knows the answer without having learned it."""

    identity = "colourist"

    def __init__(self, lives: int = 1000) -> None:
        self.seen: list[Tensor] = []
        self.lives = lives

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        if len(self.seen) > self.lives:
            raise KeyboardInterrupt("killed")
        return torch.log_softmax(20 * images.mean(dim=(2, 3)), dim=1)


class Constant(nn.Module):
    """The same logits for every image."""

    def __init__(self, logits: Sequence[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


def train(recipe: Recipe = RECIPE, **options: object) -> StudentResult:
    values: dict[str, object] = {
        "images": IMAGES,
        "splits": SPLITS,
        "seed": 1,
        "numerics": NUMERICS,
    }
    return distill(recipe, **{**values, **options})  # type: ignore[arg-type]


def same_weights(a: StudentResult, b: StudentResult) -> bool:
    theirs = b.model.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.model.state_dict().items())


@given(
    logits=st.lists(st.lists(st.floats(-9, 9), min_size=3, max_size=3), min_size=1, max_size=4),
    weights=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    temperature=st.floats(0.3, 4),
)
def test_the_teacher_is_the_tempered_mean_of_probabilities(
    logits: list[list[float]], weights: list[float], temperature: float
) -> None:
    weights = [w + 0.01 if i == 0 else w for i, w in enumerate(weights[: len(logits)])]
    teacher = EnsembleTeacher([Constant(row) for row in logits], weights, temperature, NUMERICS)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    pooled = np.average(probs, axis=0, weights=weights)
    expected = apply_temperature(log_probs_from_probs(pooled), temperature)
    found = teacher(torch.zeros(2, 3, 8, 8))
    np.testing.assert_allclose(found.exp(), np.stack([np.exp(expected)] * 2), atol=1e-4)


def test_the_teacher_answers_in_batches_in_eval_mode_outside_autograd() -> None:
    dropping = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Dropout(0.9)).train()
    images = torch.rand(7, 3, 8, 8)
    whole = EnsembleTeacher([dropping, Constant([1, 0, 0])], [3.0, 1.0], 1.5, NUMERICS)
    parts = EnsembleTeacher([dropping, Constant([1, 0, 0])], [3.0, 1.0], 1.5, NUMERICS, batch=2)
    torch.testing.assert_close(whole(images), parts(images))
    assert torch.equal(whole(images), whole(images)), "dropout is off"
    student = torch.zeros(7, 3, requires_grad=True)
    (whole(images).exp() * student).sum().backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None


def test_the_teachers_identity_is_its_answers() -> None:
    def identity(logits: list[float], weights: list[float], temperature: float) -> str:
        models = [Constant(logits), Constant([0, 0, 1])]
        return EnsembleTeacher(models, weights, temperature, NUMERICS).identity

    first = identity([1, 0, 0], [1, 1], 1.0)
    assert first == identity([1, 0, 0], [2, 2], 1.0), "only the shares count"
    others = [([1, 0, 1], [1, 1], 1.0), ([1, 0, 0], [1, 2], 1.0), ([1, 0, 0], [1, 1], 2.0)]
    assert first not in {identity(*other) for other in others}  # type: ignore[arg-type]


def test_teachers_that_cannot_be_are_refused() -> None:
    member = Constant([0, 0, 0])
    with pytest.raises(PoolError, match="got 1 members and 2 weights"):
        EnsembleTeacher([member], [1, 1], 1.0, NUMERICS)
    with pytest.raises(PoolError, match="one of them positive"):
        EnsembleTeacher([member, member], [1, -0.1], 1.0, NUMERICS)
    with pytest.raises(PoolError, match="one of them positive"):
        EnsembleTeacher([member], [0], 1.0, NUMERICS)
    with pytest.raises(PoolError, match="a temperature must be positive, got 0"):
        EnsembleTeacher([member], [1], 0, NUMERICS)
    with pytest.raises(SpecError, match="teacher and distillation come together"):
        train(teacher=Colourist())


def test_the_student_learns_from_the_teacher_and_not_from_wrong_labels() -> None:
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
    deaf = train(teacher=teacher, distillation=Distillation(alpha=0, tau=2))
    plain = train()
    assert same_weights(deaf, plain)
    assert (deaf.steps, deaf.params) == (plain.steps, plain.params) == (9, deaf.params)
    assert len(teacher.seen) == deaf.steps
    again = Colourist()
    train(teacher=again, distillation=HALF)
    assert all(torch.equal(a, b) for a, b in zip(teacher.seen, again.seen, strict=True))


@pytest.mark.parametrize("kills", [(1,), (2,), (3,), (1, 2)])
def test_a_killed_distillation_ends_where_it_would_have(
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


def test_a_folder_of_another_student_is_refused(tmp_path: Path) -> None:
    train(RECIPE.with_values(epochs=1), folder=tmp_path)
    with pytest.raises(RunError, match="holds a student of the teacher None"):
        train(
            RECIPE.with_values(epochs=1),
            teacher=Colourist(),
            distillation=HALF,
            folder=tmp_path,
        )
    with pytest.raises(RunError, match="is of another training: seed is 1 there and 2 here"):
        train(RECIPE.with_values(epochs=1), seed=2, folder=tmp_path)


def test_reports_that_outran_their_checkpoint_are_dropped(tmp_path: Path) -> None:
    """A kill between the two writes leaves one report too many."""
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
