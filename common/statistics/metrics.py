"""How good predictions are.

Axes: N examples, K classes. Predictions are log-probabilities float32 [N, K], labels whole
numbers [N]. Sums run in float64. NLL and temperature take a probability below FLOOR for
FLOOR: one example costs at most 16.1 nats, and a log-probability may be −inf. A NaN among
the predictions is not refused, it makes NLL, Brier score and ECE NaN.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from common.errors import PoolError

FLOOR = 1e-7
LOG_FLOOR = float(np.log(FLOOR))
SUM_TOLERANCE = 1e-3
ECE_BINS = 15
TEMPERATURES = (0.05, 20.0)


def correct(
    logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    """Whether the most probable class is the label; of equals, the first class counts."""
    _check(logp, labels)
    right: Bool[np.ndarray, " N"] = logp.argmax(axis=1) == labels
    return right


def accuracy(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """The share of correct predictions."""
    return float(correct(logp, labels).mean())


def balanced_accuracy(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """The mean over classes of the share that is correct; absent classes do not count."""
    right = correct(logp, labels)
    examples = np.bincount(labels, minlength=logp.shape[1])
    recalled = np.bincount(labels[right], minlength=logp.shape[1])
    present = examples > 0
    return float((recalled[present] / examples[present]).mean())


def macro_f1(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """The mean over classes of F1 = 2·hits / (examples + predictions).

    A class that is neither among the labels nor predicted does not count.
    """
    right = correct(logp, labels)
    examples = np.bincount(labels, minlength=logp.shape[1])
    predicted = np.bincount(logp.argmax(axis=1), minlength=logp.shape[1])
    hits = np.bincount(labels[right], minlength=logp.shape[1])
    seen = examples + predicted > 0
    return float((2 * hits[seen] / (examples + predicted)[seen]).mean())


def nll(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """The mean negative log-likelihood of the labels, in nats."""
    return float(nll_per_example(logp, labels).mean())


def nll_per_example(
    logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]
) -> Float64[np.ndarray, " N"]:
    """−log p of each example's label, in nats; at most −log FLOOR."""
    _check(logp, labels)
    return -_floored(logp[np.arange(len(labels)), labels])


def brier(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """The mean of Σ_k (p_k − [k = label])², from 0 to 2 (Brier, 1950)."""
    return float(brier_per_example(logp, labels).mean())


def brier_per_example(
    logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]
) -> Float64[np.ndarray, " N"]:
    """Each example's Brier score, from 0 to 2."""
    _check(logp, labels)
    error = np.exp(logp.astype(np.float64))
    error[np.arange(len(labels)), labels] -= 1.0
    scores: Float64[np.ndarray, " N"] = np.square(error).sum(axis=1)
    return scores


def ece(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """The expected calibration error of the predicted class, from 0 to 1.

    The examples are put in order of confidence and cut into ECE_BINS bins of equal size
    (their sizes differ by one at most); the error is the mean over examples of
    |mean confidence − accuracy| of their bin. Examples of the same confidence share their
    accuracy, so the order of the examples does not matter.
    """
    right = correct(logp, labels)
    bins = _bins(logp)
    return _calibration_error(bins, right[bins.order])


def ece_null(
    logp: Float[np.ndarray, "N K"], *, rng: np.random.Generator, draws: int = 200
) -> float:
    """The mean ECE that these predictions have when they are perfectly calibrated.

    Labels are drawn from the predictions themselves, `draws` times. The predicted class is
    right with a probability equal to its confidence, which is all that ECE sees.
    """
    bins = _bins(logp)
    errors = [
        _calibration_error(bins, rng.random(len(logp)) < bins.confidence) for _ in range(draws)
    ]
    return float(np.mean(errors))


def fit_temperature(logp: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """The T in TEMPERATURES at which log_softmax(logp / T) has the lowest smoothed NLL.

    Each label counts 1 − ε for its class and ε spread over the others, ε = 1/(N + 2), as in
    Platt (1999): without that, a model that happens to be right on all N examples would be
    sharpened without end, and a single error elsewhere would cost it dearly. The loss is
    convex in 1/T (Guo et al., 2017), so its minimum is found within bounds over log T.
    Predictions with NaN, which no temperature mends, keep T = 1.
    """
    _check(logp, labels)
    floored = _floored(logp)
    rows = np.arange(len(labels))
    smoothing = label_smoothing(len(labels))

    def loss(temperature: float) -> float:
        log_probs = log_softmax(floored / temperature, axis=1)
        true = log_probs[rows, labels]
        others = (log_probs.sum(axis=1) - true) / (logp.shape[1] - 1)
        return float(-((1 - smoothing) * true + smoothing * others).mean())

    if np.isnan(loss(1.0)):
        return 1.0
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda log_t: loss(float(np.exp(log_t))),
        bounds=(float(low), float(high)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    # Of equals the first: 1 where all predictions are uniform, a bound where it is reached.
    return min((1.0, *TEMPERATURES, float(np.exp(found.x))), key=loss)


def label_smoothing(examples: int) -> float:
    """The mass that `fit_temperature` takes from each label: that of one error among N + 2."""
    return 1.0 / (examples + 2)


def apply_temperature(
    logp: Float[np.ndarray, "... K"], temperature: float
) -> Float32[np.ndarray, "... K"]:
    """log_softmax(logp / temperature), as float32.

    Raises:
        PoolError: the temperature is not positive.
    """
    if not 0 < temperature < np.inf:
        raise PoolError(f"a temperature must be positive, got {temperature}")
    return log_softmax(_floored(logp) / temperature, axis=-1).astype(np.float32)


def log_probs_from_probs(probs: Float[np.ndarray, "... K"]) -> Float32[np.ndarray, "... K"]:
    """Probabilities as log-probabilities: rows are renormalized, then floored at FLOOR.

    Raises:
        PoolError: a probability is negative or not finite, or a row's sum is further than
            1e-3 from 1. The message has the row.
    """
    values = np.asarray(probs, np.float64)
    if values.ndim < 1 or values.shape[-1] < 1:
        raise PoolError(f"probabilities must be [..., K], got shape {list(values.shape)}")
    sums = values.sum(axis=-1, keepdims=True)
    wrong = ~(np.abs(sums - 1) <= SUM_TOLERANCE)[..., 0] | ~(values >= 0).all(axis=-1)
    if wrong.any():
        row = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise PoolError(
            f"probabilities must be at least 0 and sum to 1 within {SUM_TOLERANCE}; row "
            f"{list(row)} sums to {float(sums[row][0]):.6g}, its least is "
            f"{float(values[row].min()):.6g}; give softmax outputs, not logits"
        )
    return _floored(np.log(np.maximum(values / sums, FLOOR))).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Bins:
    """The examples in order of confidence, cut into bins and into runs of equals."""

    order: np.ndarray
    confidence: Float64[np.ndarray, " N"]
    """Ascending."""
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
    """ECE of these outcomes, given in the order of the bins."""
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
