"""Examples: the images that the stated rules choose, from the right data set."""

import numpy as np
import pytest

from analysis.explain.confusions import most_confused
from analysis.explain.examples import (
    EXAMPLES_PER_PAIR,
    MOST_CLASSES,
    choose_by_class,
    choose_confused,
    same_images,
)
from trainables.data.image_set import ImageSet


def made(classes: int, count: int) -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(
        name="made", images=rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
        labels=np.arange(count, dtype=np.int64) % classes,
        class_names=tuple(f"class {i}" for i in range(classes)), fingerprint="sha256:made",
    )  # fmt: skip


def predicted(labels: np.ndarray, classes: int, skill: float) -> np.ndarray:
    logits = np.random.default_rng(1).standard_normal((len(labels), classes)) * 2
    logits[np.arange(len(labels)), labels] += skill
    log_probs: np.ndarray = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return log_probs


@pytest.mark.parametrize("classes", [2, 4, 30])
def test_a_typical_correct_prediction_and_the_worst_error_of_each_class_are_chosen(
    classes: int,
) -> None:
    images = made(classes, 600)
    test = np.arange(0, 600, 3) if classes % 3 else np.arange(600)
    labels = images.labels[test]
    log_probs = predicted(labels, classes, 2.0)
    chosen = choose_by_class(images, test, log_probs, labels)
    predictions, confidences = log_probs.argmax(1), np.exp(log_probs.max(1))
    errors = np.bincount(labels[predictions != labels], minlength=classes)
    assert len(chosen.classes) == min(classes, MOST_CLASSES)
    assert list(chosen.classes) == sorted(chosen.classes)
    assert errors[list(chosen.classes)].sum() == np.sort(errors)[::-1][:MOST_CLASSES].sum()
    for label in chosen.classes:
        hit, miss = chosen.find(label, correct=True), chosen.find(label, correct=False)
        hits = confidences[(labels == label) & (predictions == label)]
        misses = confidences[(labels == label) & (predictions != label)]
        assert (hit is None) == (len(hits) == 0)
        if hit is not None:
            assert chosen.confidences[hit] == pytest.approx(np.sort(hits)[(len(hits) - 1) // 2])
        assert (miss is None) == (len(misses) == 0)
        if miss is not None:
            assert chosen.confidences[miss] == pytest.approx(misses.max())
    rows = [np.flatnonzero((images.images == image).all((1, 2, 3))) for image in chosen.pixels]
    assert [images.labels[row[0]] for row in rows] == chosen.labels.tolist()


def test_a_class_without_errors_has_no_example_of_an_error() -> None:
    images, test = made(3, 30), np.arange(30)
    log_probs = np.log(np.full((30, 3), 0.1) + 0.7 * np.eye(3)[images.labels])
    chosen = choose_by_class(images, test, log_probs, images.labels)
    assert chosen.labels.tolist() == chosen.predictions.tolist() == [0, 1, 2]
    assert chosen.find(1, correct=False) is None
    assert chosen.correct.tolist() == [0, 1, 2]
    first = images.images[[15, 16, 17]]
    np.testing.assert_array_equal(chosen.pixels, first, "the median of ten equals is the sixth")


def test_examples_of_pairs_are_the_most_confident_errors() -> None:
    images, test = made(4, 400), np.arange(400)
    log_probs = predicted(images.labels, 4, 1.0)
    matrix = np.zeros((4, 4), int)
    np.add.at(matrix, (images.labels, log_probs.argmax(1)), 1)
    pairs = most_confused(matrix, most=3)
    chosen = choose_confused(images, test, log_probs, images.labels, pairs)
    assert len(chosen.labels) == 3 * EXAMPLES_PER_PAIR
    for number, pair in enumerate(pairs):
        part = slice(number * EXAMPLES_PER_PAIR, (number + 1) * EXAMPLES_PER_PAIR)
        assert set(chosen.labels[part]) == {pair.truth}
        assert set(chosen.predictions[part]) == {pair.predicted}
        wrong = (images.labels == pair.truth) & (log_probs.argmax(1) == pair.predicted)
        expected = np.sort(np.exp(log_probs.max(1)[wrong]))[::-1][:EXAMPLES_PER_PAIR]
        np.testing.assert_allclose(chosen.confidences[part], expected)


def test_predictions_of_other_images_are_recognized() -> None:
    images, test = made(4, 40), np.arange(0, 40, 3)
    labels = images.labels[test]
    assert same_images(images, test, labels)
    assert not same_images(images, test, (labels + 1) % 4)
    assert not same_images(images, test, labels[1:])
