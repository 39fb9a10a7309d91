"""Losses equal loops in NumPy, closed forms and torch's losses."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from torch.nn import functional

from common.errors import SpecError
from common.seeds import torch_generator
from trainables.training.losses import (
    Distillation,
    cross_entropy,
    distillation_loss,
    label_weights,
    soft_targets,
)


def draw(*shape: int, name: str = "x", scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch_generator(0, name))


@given(
    labels=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8),
    share=st.floats(0, 1, width=32),
    smoothing=st.floats(0, 0.9),
)
def test_soft_targets_equal_a_loop_and_sum_to_one(
    labels: list[tuple[int, int]], share: float, smoothing: float
) -> None:
    a, b = (torch.tensor(column) for column in zip(*labels, strict=True))
    shares = torch.full((len(labels),), share)
    targets = soft_targets(a, b, shares, classes=5, smoothing=smoothing)
    expected = np.full((len(labels), 5), smoothing / 5)
    for i, (first, second) in enumerate(labels):
        expected[i, first] += (1 - smoothing) * share
        expected[i, second] += (1 - smoothing) * (1 - share)
    np.testing.assert_allclose(targets.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(targets.sum(dim=1).numpy(), 1, atol=1e-6)


@given(smoothing=st.floats(0, 0.9))
def test_cross_entropy_of_unmixed_images_is_torchs(smoothing: float) -> None:
    logits, labels = draw(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    targets = soft_targets(labels, labels, torch.ones(6), classes=4, smoothing=smoothing)
    expected = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert float(cross_entropy(logits, targets)) == pytest.approx(float(expected), rel=1e-5)


def test_cross_entropy_of_equal_logits_is_log_k() -> None:
    targets = torch.tensor([[0.25, 0.75, 0.0]])
    assert float(cross_entropy(torch.full((1, 3), 7.0), targets)) == pytest.approx(np.log(3))


@given(alpha=st.floats(0, 1), tau=st.floats(0.5, 8))
def test_distillation_equals_a_loop_over_images(alpha: float, tau: float) -> None:
    logits, taught = draw(5, 4), torch.log_softmax(draw(5, 4, name="t"), dim=1)
    targets = torch.softmax(draw(5, 4, name="y"), dim=1)
    loss = distillation_loss(logits, targets, taught, Distillation(alpha=alpha, tau=tau))
    expected = 0.0
    for z, t, y in zip(logits.numpy(), taught.numpy(), targets.numpy(), strict=True):
        p, q = softmax(t / tau), softmax(z / tau)
        divergence = float(np.sum(p * np.log(p / q)))
        plain = float(-(y * log_softmax(z)).sum())
        expected += (alpha * tau**2 * divergence + (1 - alpha) * plain) / 5
    assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_distillation_vanishes_at_the_teacher_and_has_the_known_gradient() -> None:
    distillation = Distillation(alpha=1.0, tau=4.0)
    logits = draw(5, 4).requires_grad_()
    targets = torch.full((5, 4), 0.25)
    alike = distillation_loss(logits, targets, torch.log_softmax(logits, dim=1), distillation)
    assert float(alike.detach()) == pytest.approx(0, abs=1e-5)
    taught = torch.log_softmax(draw(5, 4, name="t"), dim=1)
    loss = distillation_loss(logits, targets, taught, distillation)
    loss.backward()  # type: ignore[no-untyped-call]
    expected = 4.0 * (torch.softmax(logits / 4, dim=1) - torch.softmax(taught / 4, dim=1)) / 5
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad, expected.detach(), atol=1e-6)


@pytest.mark.parametrize(("alpha", "tau", "named"), [(1.5, 4.0, "alpha"), (0.5, 0.0, "tau")])
def test_impossible_distillations_are_refused(alpha: float, tau: float, named: str) -> None:
    with pytest.raises(SpecError, match=f"{named} must"):
        Distillation(alpha=alpha, tau=tau)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.sampled_from(["balanced", "sqrt"]))
def test_class_weights_equal_a_loop(labels: list[int], kind: Literal["balanced", "sqrt"]) -> None:
    found = label_weights(torch.tensor(labels), classes=5, kind=kind)
    assert found is not None
    power = 1.0 if kind == "balanced" else 0.5
    raw = [labels.count(k) ** -power if k in labels else 0.0 for k in range(5)]
    mean = sum(raw[label] for label in labels) / len(labels)
    np.testing.assert_allclose(found.numpy(), np.array(raw) / mean, rtol=1e-5)
    assert float(found[torch.tensor(labels)].mean()) == pytest.approx(1, rel=1e-5)


def test_balanced_weights_give_every_class_the_same_share_of_the_loss() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = label_weights(labels, classes=3, kind="balanced")
    assert weights is not None
    shares = [float(weights[k] * (labels == k).sum()) for k in range(3)]
    assert shares == pytest.approx([10 / 3] * 3)
    assert label_weights(labels, classes=3, kind="none") is None
    even = label_weights(torch.arange(6) % 3, classes=3, kind="balanced")
    assert even is not None
    assert even.tolist() == [1, 1, 1]


@given(share=st.floats(0, 1, width=32), smoothing=st.floats(0, 0.9))
def test_a_weighted_loss_mixes_the_weighted_losses(share: float, smoothing: float) -> None:
    logits, a, b = draw(4, 3), torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 2])
    weights = torch.tensor([0.5, 2.0, 1.25])
    shares = torch.full((4,), share)
    options: dict[str, Any] = {"classes": 3, "smoothing": smoothing}
    found = cross_entropy(logits, soft_targets(a, b, shares, weights=weights, **options))
    first, second = (
        functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        for labels in (a, b)
    )
    expected = (share * weights[a] * first + (1 - share) * weights[b] * second).mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-4, abs=1e-5)
    unweighted = soft_targets(a, b, shares, weights=torch.ones(3), **options)
    np.testing.assert_allclose(unweighted, soft_targets(a, b, shares, **options), atol=1e-6)
