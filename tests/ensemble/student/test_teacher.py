"""The ensemble as a teacher: answers in closed form, identity, no test-time augmentation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from common.errors import PoolError
from common.statistics.metrics import apply_temperature, fit_temperature, log_probs_from_probs
from ensemble.selection.selection import Member
from ensemble.student.teacher import EnsembleTeacher, load_teacher
from tests.trainables.test_weights import IMAGES, SPLITS, write_trial
from tests.trainables.training.test_loop import EVERYTHING
from trainables.prediction import predict_log_probs
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder
from trainables.weights import load_trained

NUMERICS = Numerics()


class Constant(nn.Module):
    """The same logits for every image."""

    def __init__(self, logits: Sequence[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


@given(
    logits=st.lists(st.lists(st.floats(-9, 9), min_size=3, max_size=3), min_size=1, max_size=4),
    weights=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    temperature=st.floats(0.3, 4),
)
def test_the_teacher_gives_the_temperature_scaled_mean_of_probabilities(
    logits: list[list[float]], weights: list[float], temperature: float
) -> None:
    weights = [w + 0.01 if i == 0 else w for i, w in enumerate(weights[: len(logits)])]
    teacher = EnsembleTeacher([Constant(row) for row in logits], weights, temperature, NUMERICS)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    pooled = np.average(probs, axis=0, weights=weights)
    expected = apply_temperature(log_probs_from_probs(pooled), temperature)
    log_probs = teacher(torch.zeros(2, 3, 8, 8))
    np.testing.assert_allclose(log_probs.exp(), np.stack([np.exp(expected)] * 2), atol=1e-4)


def test_the_teacher_works_in_batches_in_eval_mode_and_without_gradients() -> None:
    dropping = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Dropout(0.9)).train()
    images = torch.rand(7, 3, 8, 8)
    whole = EnsembleTeacher([dropping, Constant([1, 0, 0])], [3.0, 1.0], 1.5, NUMERICS)
    parts = EnsembleTeacher([dropping, Constant([1, 0, 0])], [3.0, 1.0], 1.5, NUMERICS, batch=2)
    torch.testing.assert_close(whole(images), parts(images))
    assert torch.equal(whole(images), whole(images)), "dropout is off"
    student = torch.zeros(7, 3, requires_grad=True)
    (whole(images).exp() * student).sum().backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None


def test_the_identity_changes_with_the_answers() -> None:
    def identity(logits: list[float], weights: list[float], temperature: float) -> str:
        models = [Constant(logits), Constant([0, 0, 1])]
        return EnsembleTeacher(models, weights, temperature, NUMERICS).identity

    first = identity([1, 0, 0], [1, 1], 1.0)
    assert first == identity([1, 0, 0], [2, 2], 1.0), "weights are scaled to sum 1"
    others = [([1, 0, 1], [1, 1], 1.0), ([1, 0, 0], [1, 2], 1.0), ([1, 0, 0], [1, 1], 2.0)]
    assert first not in {identity(*other) for other in others}  # type: ignore[arg-type]


def test_invalid_weights_and_temperatures_are_refused() -> None:
    member = Constant([0, 0, 0])
    with pytest.raises(PoolError, match="1 members and 2 weights"):
        EnsembleTeacher([member], [1, 1], 1.0, NUMERICS)
    with pytest.raises(PoolError, match="one of them positive"):
        EnsembleTeacher([member, member], [1, -0.1], 1.0, NUMERICS)
    with pytest.raises(PoolError, match="one of them positive"):
        EnsembleTeacher([member], [0], 1.0, NUMERICS)
    with pytest.raises(PoolError, match="must be positive, got 0"):
        EnsembleTeacher([member], [1], 0, NUMERICS)


def test_members_teach_without_test_time_augmentation(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_trial(folder.trial("t0000"), Recipe(**EVERYTHING, tta="mirror_translate"))
    saved = tmp_path / "teacher.json"
    teacher = loaded(folder, saved, temperature=1.0)
    model = load_trained(folder.trial("t0000"))
    images = torch.from_numpy(IMAGES.images[:9]).permute(0, 3, 1, 2) / 255
    heat = teacher.temperature
    with torch.inference_mode():
        with_views = torch.log_softmax(model(images) / heat, dim=1)
        assert not torch.allclose(teacher(images), with_views, atol=1e-4)
        model.tta = "none"
        torch.testing.assert_close(teacher(images), torch.log_softmax(model(images) / heat, dim=1))


def test_a_teacher_without_views_has_temperatures_fitted_without_them(tmp_path: Path) -> None:
    folder, saved = RunFolder(tmp_path), tmp_path / "teacher.json"
    write_trial(folder.trial("t0000"), Recipe(**EVERYTHING, tta="mirror_translate"))
    teacher = loaded(folder, saved, temperature=7.0)
    model, labels = load_trained(folder.trial("t0000")), IMAGES.labels[SPLITS.holdout]
    model.tta = "none"
    log_probs = predict_log_probs(model, IMAGES.images, NUMERICS, indices=SPLITS.holdout)
    assert teacher.temperature == pytest.approx(fit_temperature(log_probs, labels))
    assert loaded(folder, saved, temperature=7.0).identity == teacher.identity
    saved.write_text(saved.read_text().replace(str(teacher.temperature), "2.5"))
    assert loaded(folder, saved, temperature=7.0).temperature == 2.5


def test_a_teacher_whose_members_have_no_views_keeps_its_temperature(tmp_path: Path) -> None:
    folder, saved = RunFolder(tmp_path), tmp_path / "teacher.json"
    write_trial(folder.trial("t0000"), Recipe(**EVERYTHING, tta="none"))
    assert loaded(folder, saved, temperature=7.0).temperature == 7.0
    assert not saved.exists()


def loaded(folder: RunFolder, saved: Path, *, temperature: float) -> EnsembleTeacher:
    """Load the trial t0000 as a teacher."""
    members = (Member(name="t0000", weight=1.0),)
    return load_teacher(
        folder, members, temperature, NUMERICS, images=IMAGES, splits=SPLITS, saved=saved
    )


def test_members_teach_at_their_own_temperatures() -> None:
    logits, own = np.array([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0]]), [0.5, 2.0]
    teacher = EnsembleTeacher(
        [Constant(row) for row in logits], [0.3, 0.7], 1.5, NUMERICS, member_temperatures=own
    )
    scaled = np.exp(logits / np.array(own)[:, None])
    pooled = np.average(scaled / scaled.sum(axis=1, keepdims=True), axis=0, weights=[0.3, 0.7])
    expected = apply_temperature(log_probs_from_probs(pooled), 1.5)
    np.testing.assert_allclose(teacher(torch.zeros(1, 3, 8, 8))[0], expected, atol=1e-5)
    raw = EnsembleTeacher([Constant(row) for row in logits], [0.3, 0.7], 1.5, NUMERICS)
    assert teacher.identity != raw.identity
    with pytest.raises(PoolError, match="2 members and 1 temperatures"):
        EnsembleTeacher(
            [Constant(row) for row in logits], [1, 1], 1.0, NUMERICS, member_temperatures=[1.0]
        )
