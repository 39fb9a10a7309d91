"""Two sets of predictions compared on the same examples, as an entry of a JSON file.

Axes: N examples, K classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from common.seeds import numpy_generator
from common.statistics.intervals import paired_difference
from common.statistics.metrics import correct, nll_per_example

SCORES = {"accuracy": correct, "nll": nll_per_example}
"""What is compared: each gives one number per example."""


def compare(
    a: str,
    b: str,
    metric: str,
    log_probs: Mapping[str, Float[np.ndarray, "N K"]],
    labels: Int[np.ndarray, " N"],
    *,
    seed: int,
) -> dict[str, Any]:
    """The metric of `a` less that of `b`, with its 95% interval and p-value.

    `metric` is `accuracy` or `nll`; `a` and `b` are keys of `log_probs`. Method and interval
    are those of `paired_difference`; `seed` roots its draws.
    """
    score = SCORES[metric]
    found = paired_difference(
        score(log_probs[a], labels),
        score(log_probs[b], labels),
        rng=numpy_generator(seed, "compare", a, b, metric),
    )
    return {
        "a": a,
        "b": b,
        "metric": metric,
        "value": found.value,
        "interval": [found.interval.low, found.interval.high],
        "method": found.method,
        "p_value": found.p_value,
        "verdict": "distinguishable" if found.distinguishable else "not distinguishable",
    }
