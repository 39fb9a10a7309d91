"""What attention blocks do: how their gates vary, and how trials with them compare.

Axes: N images, K classes, C channels, G values of a gate (C of a channel gate, h·w of a
spatial one), T trials. A gate is what a block multiplies a map with, from 0 to 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from analysis.facts.trials import TrialFacts
from common.statistics.intervals import Difference, Interval

Array = NDArray[Any]
Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

FEWEST_TRIALS = 3
"""Trials of each kind below which kinds are not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFacts:
    """One gate of a net, over the images of val."""

    name: str
    """`block 1`, or with CBAM `block 1, channels` and `block 1, places`."""
    side: int | None
    """Cells a side of a spatial gate; None of one that weighs channels."""
    mean: Floats
    """Mean over images, float [G]."""
    class_means: Floats
    """Mean over the images of a class, float [K, G]; not a number for one without images."""
    between: Floats
    """Standard deviation between the classes' means, float [G]."""
    within: Floats
    """That between the images of one class, float [G]."""
    shown: Floats | None = None
    """Of a spatial gate: its values for the images that are shown, float [n, side, side]."""

    @property
    def share(self) -> float:
        """Share of the variance over images that lies between classes, from 0 to 1."""
        between, within = float((self.between**2).sum()), float((self.within**2).sum())
        return between / (between + within) if between + within > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFacts:
    """What attention does in one net of the run."""

    trial: str
    kind: str
    """`se`, `eca` or `cbam`."""
    images: int
    """Images of val over which the gates are measured."""
    gates: tuple[GateFacts, ...]
    holdout: int
    """Images of holdout on which the net answered with its gates held at their means, too."""
    changed: int
    """How many of them then got another answer."""
    loss: Difference
    """Accuracy with held gates less accuracy as trained."""
    pixels: Array | None = None
    """The images of `GateFacts.shown`, uint8 [n, S, S, 3]."""

    @property
    def shown(self) -> tuple[GateFacts, ...]:
        """The spatial gates with their values for images; a single cell shows no place."""
        return tuple(
            gate for gate in self.gates if gate.shown is not None and gate.shown.shape[-1] > 1
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KindFacts:
    """The trials of a search with one kind of attention."""

    kind: str
    rung: int
    """The budget in epochs at which they are compared."""
    trials: int
    mean: float
    """Mean NLL on val."""
    difference: float | None
    """That less the mean of trials without attention; None where too few are compared."""
    interval: Interval | None


def describe_gate(
    name: str, values: Floats, labels: Ints, *, classes: int, side: int | None
) -> GateFacts:
    """Mean and spread of a gate's values [N, G] for images of the classes `labels` [N].

    The variance is divided as in a one-way analysis of variance with random classes
    (Searle, 1971): between = (mean square between − within) / n₀, at least 0, where n₀ is
    the images of a class, or their adjusted mean where classes differ in size. The spread
    of the class means that comes of few images alone is therefore not counted.
    """
    values = np.asarray(values, np.float64)
    sizes = np.bincount(labels, minlength=classes)
    members = np.zeros((classes, len(labels)))
    members[labels, np.arange(len(labels))] = 1.0
    with np.errstate(invalid="ignore"):
        class_means = members @ values / sizes[:, None]
    mean = values.mean(axis=0)
    used = sizes > 0
    inside = ((values - class_means[labels]) ** 2).sum(axis=0)
    across = (sizes[used, None] * (class_means[used] - mean) ** 2).sum(axis=0)
    groups, images = int(used.sum()), len(labels)
    square_within = inside / max(images - groups, 1)
    typical = (images - (sizes**2).sum() / images) / max(groups - 1, 1)
    square_across = across / max(groups - 1, 1)
    between = (square_across - square_within) / typical if groups > 1 else 0 * across
    return GateFacts(
        name=name,
        side=side,
        mean=mean,
        class_means=class_means,
        between=np.sqrt(np.maximum(between, 0.0)),
        within=np.sqrt(square_within),
    )


def compare_kinds(trials: Iterable[TrialFacts]) -> tuple[KindFacts, ...]:
    """The search's trials by kind of attention, at the lowest rung, the only one all reach.

    Each kind is compared with no attention by the difference of the mean NLL on val with
    Welch's 95% interval. Other values differ between the trials too, and later ones are
    drawn where earlier ones were good, so this describes the search; it is no experiment.
    Empty where there are not FEWEST_TRIALS without attention and as many of a kind.
    """
    ours = [t for t in trials if t.kind == "search" and t.recipe.get("model") == "convnet"]
    rung = min((min(trial.scores) for trial in ours if trial.scores), default=0)
    scores: dict[str, list[float]] = {}
    for trial in ours:
        if rung in trial.scores:
            kind = str(trial.recipe.get("attention", "none"))
            scores.setdefault(kind, []).append(trial.scores[rung])
    plain = scores.pop("none", [])
    if len(plain) < FEWEST_TRIALS or all(len(v) < FEWEST_TRIALS for v in scores.values()):
        return ()
    found = [KindFacts(kind="none", rung=rung, trials=len(plain), mean=float(np.mean(plain)),
                       difference=None, interval=None)]  # fmt: skip
    for kind, values in sorted(scores.items()):
        enough = len(values) >= FEWEST_TRIALS
        found.append(
            KindFacts(
                kind=kind,
                rung=rung,
                trials=len(values),
                mean=float(np.mean(values)),
                difference=float(np.mean(values) - np.mean(plain)) if enough else None,
                interval=_welch(values, plain) if enough else None,
            )
        )
    return tuple(found)


def _welch(a: list[float], b: list[float]) -> Interval:
    """Welch's 95% interval (1947) of the difference of two means."""
    errors = [float(np.var(values, ddof=1)) / len(values) for values in (a, b)]
    error = sum(errors)
    difference = float(np.mean(a) - np.mean(b))
    if error == 0:
        return Interval(low=difference, high=difference, level=0.95)
    squares = sum(e**2 / (len(v) - 1) for e, v in zip(errors, (a, b), strict=True))
    half = float(student_t.ppf(0.975, error**2 / squares)) * error**0.5
    return Interval(low=difference - half, high=difference + half, level=0.95)
