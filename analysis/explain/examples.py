"""The images of test that a report shows, and where nets looked in them.

Axes: N images of test, K classes, C chosen images, S pixels a side. Which images are shown
follows from the predictions by rules that the report states, so that none is picked by hand.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.explain.confusions import ConfusedPair
from trainables.data.image_set import ImageSet
from trainables.records import RunFolder

Array = np.ndarray[Any, Any]

MOST_CLASSES = 12
"""Classes with a hit and a miss on the sheet; of more, those with the most errors."""
EACH = 4
"""Most examples of a confused pair."""
METHODS = ("Grad-CAM", "saliency")
"""How an answer is explained, in the order of the columns."""
COPIES = 32
"""Noisy copies of an image over which saliency averages; each costs a pass there and back."""
NOISE = 0.05
"""Standard deviation of that noise, as a share of the image's range of values. The usual 15%
is too much for nets of small images, see analysis/explain/saliency.py."""
PERCENTILE = 99.0
"""Of saliency's values, the one that becomes 1: a few pixels outshine all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Images of test with their answers."""

    pixels: Array
    """uint8 [C, S, S, 3]."""
    labels: Array
    """int [C]."""
    answers: Array
    """int [C]: the class that the explained stage names."""
    confidences: Array
    """float [C]: the probability that it gives to it."""

    @property
    def classes(self) -> tuple[int, ...]:
        """The true classes, in the order of their first image."""
        return tuple(dict.fromkeys(int(label) for label in self.labels))

    @property
    def hits(self) -> Array:
        """Where the answer is right, int."""
        return np.flatnonzero(self.labels == self.answers)

    def find(self, label: int, *, right: bool) -> int | None:
        """The first hit of a class, or its first miss; None where there is none."""
        fits = (self.labels == label) & ((self.answers == label) == right)
        return int(np.argmax(fits)) if fits.any() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """Where nets looked: maps float32 [C, S, S] of the chosen images, from 0 to 1."""

    trial: str = ""
    """The single net that is explained."""
    single: Mapping[str, Array] = field(default_factory=dict)
    """Its maps by method, as far as it could be explained."""
    ensemble: Mapping[str, Array] = field(default_factory=dict)
    """By method: the weighted mean of the members' maps; empty where a run has no ensemble."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Why a net has no maps, by its name and the method."""

    def columns(self) -> list[tuple[str, str, Array]]:
        """Method, whose, and maps, in the order of the sheet."""
        sources = (("best single", self.single), ("ensemble", self.ensemble))
        return [
            (method, whose, maps[method])
            for method in METHODS
            for whose, maps in sources
            if method in maps
        ]


def reason(error: Exception, folder: RunFolder) -> str:
    """Why a net is not explained: one line, without the place of the run on this machine."""
    line = " ".join(str(error).split()).replace(f"{folder.root}/", "")
    return line[:160] or type(error).__name__


def same_images(images: ImageSet, test: Array, labels: Array) -> bool:
    """Whether predictions with these labels [N] can be of the images at `test`, int [N]."""
    return len(labels) == len(test) and np.array_equal(images.labels[test], labels)


def choose_by_class(images: ImageSet, test: Array, log_probs: Array, labels: Array) -> Chosen:
    """A typical hit and the worst miss of each class, as far as there are any.

    The hit is the one whose confidence is the median of the class's hits (of an even number
    the lower one), the miss the one with the highest confidence; ties go to the earlier
    image. Classes stand in their order; of more than MOST_CLASSES, those with the most errors.
    """
    answers, sure = log_probs.argmax(axis=1), log_probs.max(axis=1)
    errors = np.bincount(labels[answers != labels], minlength=log_probs.shape[1])
    most = np.argsort(-errors, kind="stable")[:MOST_CLASSES]
    picked: list[int] = []
    for label in np.sort(most):
        hits = np.flatnonzero((labels == label) & (answers == label))
        misses = np.flatnonzero((labels == label) & (answers != label))
        picked += _surest(hits, sure)[len(hits) // 2 :][:1]
        picked += _surest(misses, sure)[:1]
    return _chosen(images, test, log_probs, labels, picked)


def choose_confused(
    images: ImageSet,
    test: Array,
    log_probs: Array,
    labels: Array,
    pairs: Iterable[ConfusedPair],
) -> Chosen:
    """The EACH most confident errors of every pair, pair by pair."""
    answers, sure = log_probs.argmax(axis=1), log_probs.max(axis=1)
    picked: list[int] = []
    for pair in pairs:
        errors = np.flatnonzero((labels == pair.truth) & (answers == pair.answer))
        picked += _surest(errors, sure)[:EACH]
    return _chosen(images, test, log_probs, labels, picked)


def _surest(among: Array, sure: Array) -> list[int]:
    """Positions, the most confident first."""
    order = np.argsort(-sure[among], kind="stable")
    return [int(index) for index in among[order]]


def _chosen(
    images: ImageSet, test: Array, log_probs: Array, labels: Array, picked: Sequence[int]
) -> Chosen:
    where = np.array(picked, np.int64)
    return Chosen(
        pixels=np.asarray(images.images[test[where]]),
        labels=labels[where],
        answers=log_probs[where].argmax(axis=1),
        confidences=np.exp(log_probs[where].max(axis=1)),
    )
