"""Score predictions: accuracy, likelihood, calibration; fit and apply a temperature.

Axes: N examples, K classes. Predictions are log-probabilities float32 [N, K], labels
integers [N]. Sums run in float64. NLL and temperature raise probabilities below FLOOR to
FLOOR: one example costs at most 16.1 nats, and a log-probability may be −inf. NaN among the
predictions is allowed; NLL, Brier score and ECE are then NaN.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int
from scipy.special import log_softmax

from common.errors import PoolError
from common.statistics.temperature import minimizing_temperature, platt_smoothing

FLOOR = 1e-7
"""NLL and temperature fits raise smaller probabilities to this one."""
LOG_FLOOR = float(np.log(FLOOR))
SUM_TOLERANCE = 1e-3
"""Largest accepted deviation from 1 of a row's sum."""
ECE_BINS = 15
_CHUNK_VALUES = 1 << 16


def correct(
    logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    """Return whether each label is the most probable class; ties go to the first class."""
    _check(logp, labels)
    right: Bool[np.ndarray, " N"] = logp.argmax(axis=1) == labels
    return right


def accuracy(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """Return the share of correct predictions."""
    from sklearn.metrics import accuracy_score

    _check(logp, labels)
    return float(accuracy_score(labels, logp.argmax(axis=1)))


def balanced_accuracy(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """Return the mean recall of the classes that occur among the labels."""
    from sklearn.metrics import recall_score

    _check(logp, labels)
    # balanced_accuracy_score is the same, with a warning for predicted classes without labels.
    predicted, present = logp.argmax(axis=1), np.unique(labels)
    return float(recall_score(labels, predicted, labels=present, average="macro"))


def macro_f1(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """Return the mean F1 of the classes that occur among the labels or the predictions."""
    from sklearn.metrics import f1_score

    _check(logp, labels)
    return float(f1_score(labels, logp.argmax(axis=1), average="macro", zero_division=0.0))


def nll(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """Return the mean negative log-likelihood of the labels, in nats."""
    return float(nll_per_example(logp, labels).mean())


def nll_per_example(
    logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]
) -> Float64[np.ndarray, " N"]:
    """Return −log p of each example's label, in nats; at most −log FLOOR."""
    _check(logp, labels)
    return -_floored(logp[np.arange(len(labels)), labels])


def brier(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """Return the mean of Σ_k (p_k − [k = label])², from 0 to 2 (Brier, 1950)."""
    return float(brier_per_example(logp, labels).mean())


def brier_per_example(
    logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]
) -> Float64[np.ndarray, " N"]:
    """Return each example's Brier score, from 0 to 2."""
    _check(logp, labels)
    error = np.exp(logp.astype(np.float64))
    error[np.arange(len(labels)), labels] -= 1.0
    scores: Float64[np.ndarray, " N"] = np.square(error).sum(axis=1)
    return scores


def ece(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """Return the expected calibration error of the predicted class, from 0 to 1.

    Examples are sorted by confidence and cut into ECE_BINS bins of equal size (give or take
    one); the error is the mean over examples of |mean confidence − accuracy| of their bin.
    Examples of equal confidence share their accuracy, so their order does not matter.
    """
    right = correct(logp, labels)
    bins = _bins(logp)
    return _calibration_error(bins, right[bins.order])


def ece_null(
    logp: Float[np.ndarray, "N K"], *, rng: np.random.Generator, draws: int = 200
) -> float:
    """Return the mean ECE that these predictions would have if perfectly calibrated.

    Labels are drawn from the predictions `draws` times: the predicted class is correct with a
    probability equal to its confidence, which is all that ECE depends on.
    """
    bins = _bins(logp)
    errors = [
        _calibration_error(bins, rng.random(len(logp)) < bins.confidence) for _ in range(draws)
    ]
    return float(np.mean(errors))


def fit_temperature(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """Return the T in TEMPERATURES that minimises the smoothed NLL of log_softmax(logp / T).

    Each label has mass 1 − ε on its class and ε spread over the others, with ε from
    `platt_smoothing`. Constant predictions, a single class and NaN keep T = 1.
    """
    _check(logp, labels)
    count, classes = logp.shape
    if classes == 1:
        return 1.0
    scores = _floored(logp)
    scores -= scores.max(axis=1, keepdims=True)
    true = scores[np.arange(count), labels]
    smoothing = platt_smoothing(count)
    others = (scores.sum(axis=1) - true) / (classes - 1)
    target = float(((1 - smoothing) * true + smoothing * others).mean())
    rows = max(1, _CHUNK_VALUES // classes)  # temporaries stay in the processor's cache

    def derivatives(sharpness: float) -> tuple[float, float]:
        """Return slope and curvature: the mean and the variance of the scores, averaged."""
        slope, curvature = -target, 0.0
        for start in range(0, count, rows):
            part = scores[start : start + rows]
            weights = np.exp(part * sharpness)
            weights /= weights.sum(axis=1, keepdims=True)
            weights *= part
            means = weights.sum(axis=1)
            squares = np.einsum("nk,nk->n", weights, part)
            slope += float(means.sum()) / count
            curvature += float((squares - means**2).sum()) / count
        return slope, curvature

    return minimizing_temperature(derivatives)


def apply_temperature(
    logp: Float[np.ndarray, "... K"], temperature: float
) -> Float32[np.ndarray, "... K"]:
    """Return log_softmax(logp / temperature) as float32.

    Raises:
        PoolError: the temperature is not positive.
    """
    if not 0 < temperature < np.inf:
        raise PoolError(f"a temperature must be positive, got {temperature}")
    return log_softmax(_floored(logp) / temperature, axis=-1).astype(np.float32)


def log_probs_from_probs(probs: Float[np.ndarray, "... K"]) -> Float32[np.ndarray, "... K"]:
    """Return the log of probabilities whose rows are renormalized, then floored at FLOOR.

    Raises:
        PoolError: a probability is negative or not finite, or a row's sum is more than 1e-3
            from 1; the message names the row.
    """
    values = np.asarray(probs, np.float64)
    if values.ndim < 1 or values.shape[-1] < 1:
        raise PoolError(f"probabilities must be [..., K], got shape {list(values.shape)}")
    sums = values.sum(axis=-1, keepdims=True)
    wrong = ~(np.abs(sums - 1) <= SUM_TOLERANCE)[..., 0] | ~(values >= 0).all(axis=-1)
    if wrong.any():
        row = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise PoolError(
            f"probabilities must be at least 0 and sum to 1 within {SUM_TOLERANCE}, but row "
            f"{list(row)} sums to {float(sums[row][0]):.6g} and its smallest value is "
            f"{float(values[row].min()):.6g}; pass softmax outputs, not logits"
        )
    return _floored(np.log(np.maximum(values / sums, FLOOR))).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Bins:
    """Examples sorted by confidence, cut into bins and into runs of equal confidence."""

    order: np.ndarray
    confidence: Float64[np.ndarray, " N"]
    """In ascending order."""
    bin_starts: np.ndarray
    run_starts: np.ndarray
    run_sizes: np.ndarray


def _bins(logp: np.ndarray) -> _Bins:
    confidence = np.exp(logp.max(axis=1).astype(np.float64))
    order = np.argsort(confidence, kind="stable")
    ascending = confidence[order]
    count = len(ascending)
    starts = np.unique(np.arange(ECE_BINS) * count // ECE_BINS)
    runs = np.flatnonzero(np.diff(ascending, prepend=-1.0))
    return _Bins(
        order=order,
        confidence=ascending,
        bin_starts=starts,
        run_starts=runs,
        run_sizes=np.diff(runs, append=count),
    )


def _calibration_error(bins: _Bins, right: Bool[np.ndarray, " N"]) -> float:
    """Return the ECE of outcomes given in the order of the bins."""
    hits = np.add.reduceat(right.astype(np.float64), bins.run_starts) / bins.run_sizes
    gaps = bins.confidence - np.repeat(hits, bins.run_sizes)
    return float(np.abs(np.add.reduceat(gaps, bins.bin_starts)).sum() / len(gaps))


def _floored(logp: np.ndarray) -> Float64[np.ndarray, "... K"]:
    floored: Float64[np.ndarray, "... K"] = np.maximum(logp.astype(np.float64), LOG_FLOOR)
    return floored


def _check(logp: np.ndarray, labels: np.ndarray) -> None:
    if logp.ndim != 2 or labels.shape != logp.shape[:1] or 0 in logp.shape:
        raise PoolError(
            f"predictions must be [N, K] with labels [N], N and K at least 1; got "
            f"{list(logp.shape)} and {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= logp.shape[1]:
        raise PoolError(
            f"labels must lie in 0 … {logp.shape[1] - 1}, got {labels.min()} … {labels.max()}"
        )
