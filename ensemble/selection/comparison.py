"""Compare two sets of predictions on the same examples, in accuracy or NLL.

Axes: N examples, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from common.seeds import numpy_generator
from common.statistics.intervals import paired_difference
from common.statistics.metrics import correct, nll_per_example

SCORES = {"accuracy": correct, "nll": nll_per_example}
"""The metrics that can be compared: each gives one number per example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The metric of `a` minus the metric of `b` on the same examples, as JSON files hold it."""

    a: str
    b: str
    metric: str
    """`accuracy` or `nll`."""
    value: float
    interval: tuple[float, float]
    """95% interval."""
    method: str
    """`paired-bootstrap` or `mcnemar-exact`."""
    p_value: float
    """Two-sided, for the hypothesis that the two are equal."""
    verdict: Literal["distinguishable", "not distinguishable"]


def compare(
    a: str,
    b: str,
    metric: str,
    log_probs: Mapping[str, Float[np.ndarray, "N K"]],
    labels: Int[np.ndarray, " N"],
    *,
    seed: int,
) -> Comparison:
    """Compare the predictions named `a` and `b` in a metric of SCORES.

    `a` and `b` are keys of `log_probs`. `paired_difference` chooses method and interval;
    `seed` roots its draws.
    """
    score = SCORES[metric]
    difference = paired_difference(
        score(log_probs[a], labels),
        score(log_probs[b], labels),
        rng=numpy_generator(seed, "compare", a, b, metric),
    )
    return Comparison(
        a=a,
        b=b,
        metric=metric,
        value=difference.value,
        interval=(difference.interval.low, difference.interval.high),
        method=difference.method,
        p_value=difference.p_value,
        verdict="distinguishable" if difference.distinguishable else "not distinguishable",
    )
