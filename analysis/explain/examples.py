"""Examples from test: typical correct predictions, worst errors, and images of confused pairs.

Axes: N images of test, K classes, C chosen images, S pixels a side. Fixed rules, which the
report states, choose the images; none is picked by hand.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.explain.confusions import ConfusedPair
from trainables.data.image_set import ImageSet

Array = np.ndarray[Any, Any]

MOST_CLASSES = 12
"""Maximum number of classes with examples: those with the most errors."""
EXAMPLES_PER_PAIR = 4
"""Maximum number of examples of a confused pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Images of test with the predictions of the explained stage."""

    pixels: Array
    """uint8 [C, S, S, 3]."""
    labels: Array
    """int [C]: the true classes."""
    predictions: Array
    """int [C]: the predicted classes."""
    confidences: Array
    """float [C]: the probability of the predicted class."""

    @property
    def classes(self) -> tuple[int, ...]:
        """The true classes, in the order of their first image."""
        return tuple(dict.fromkeys(int(label) for label in self.labels))

    @property
    def correct(self) -> Array:
        """Positions of the correct predictions, int."""
        return np.flatnonzero(self.labels == self.predictions)

    def find(self, label: int, *, correct: bool) -> int | None:
        """Return the index of a class's first correct (or wrong) prediction; None without one."""
        matches = (self.labels == label) & ((self.predictions == label) == correct)
        return int(np.argmax(matches)) if matches.any() else None


def same_images(images: ImageSet, test: Array, labels: Array) -> bool:
    """Return whether predictions with these labels [N] can belong to the images at `test`."""
    return len(labels) == len(test) and np.array_equal(images.labels[test], labels)


def choose_by_class(images: ImageSet, test: Array, log_probs: Array, labels: Array) -> Examples:
    """Choose a typical correct prediction and the worst error of each class, where they exist.

    The correct prediction has the median confidence of the class's correct predictions (the lower
    one of an even number); the error has the highest confidence. Ties go to the earlier
    image. Beyond MOST_CLASSES, only the classes with the most errors are shown.
    """
    predictions, confidence = log_probs.argmax(axis=1), log_probs.max(axis=1)
    errors = np.bincount(labels[predictions != labels], minlength=log_probs.shape[1])
    shown = np.sort(np.argsort(-errors, kind="stable")[:MOST_CLASSES])
    chosen: list[int] = []
    for label in shown:
        correct = np.flatnonzero((labels == label) & (predictions == label))
        wrong = np.flatnonzero((labels == label) & (predictions != label))
        chosen += _most_confident(correct, confidence)[len(correct) // 2 :][:1]
        chosen += _most_confident(wrong, confidence)[:1]
    return _examples(images, test, log_probs, labels, chosen)


def choose_confused(
    images: ImageSet,
    test: Array,
    log_probs: Array,
    labels: Array,
    pairs: Iterable[ConfusedPair],
) -> Examples:
    """Choose the EXAMPLES_PER_PAIR most confident errors of every pair, pair by pair."""
    predictions, confidence = log_probs.argmax(axis=1), log_probs.max(axis=1)
    chosen: list[int] = []
    for pair in pairs:
        errors = np.flatnonzero((labels == pair.truth) & (predictions == pair.predicted))
        chosen += _most_confident(errors, confidence)[:EXAMPLES_PER_PAIR]
    return _examples(images, test, log_probs, labels, chosen)


def _most_confident(positions: Array, confidence: Array) -> list[int]:
    """Sort positions by falling confidence."""
    order = np.argsort(-confidence[positions], kind="stable")
    return [int(position) for position in positions[order]]


def _examples(
    images: ImageSet, test: Array, log_probs: Array, labels: Array, chosen: Sequence[int]
) -> Examples:
    positions = np.array(chosen, np.int64)
    return Examples(
        pixels=np.asarray(images.images[test[positions]]),
        labels=labels[positions],
        predictions=log_probs[positions].argmax(axis=1),
        confidences=np.exp(log_probs[positions].max(axis=1)),
    )
