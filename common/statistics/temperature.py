"""Find the temperature that minimises an NLL, from the NLL's derivatives.

The NLL of log_softmax(logp / T) is convex in the sharpness 1/T (Guo et al., 2017), so its minimum
in an interval is where its slope changes sign, or at an end.
"""

import math
from collections.abc import Callable

TEMPERATURES = (0.05, 20.0)
"""Lowest and highest temperature that is fitted."""

_RELATIVE_STEP = 1e-7
_MOST_STEPS = 200

Derivatives = Callable[[float], tuple[float, float]]
"""Maps the sharpness 1/T to the loss's first and second derivative by it."""


def minimizing_temperature(derivatives: Derivatives) -> float:
    """Return the T in TEMPERATURES that minimises a loss convex in 1/T; 1 if it is constant or NaN.

    Newton's method within a bracket: a step that leaves it goes to its end. If the slope there is
    known, or a step is more than half as long as the one before, the next point is the geometric
    mean of both ends. It takes 5 to 20 evaluations.
    """
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    ends = {low: TEMPERATURES[1], high: TEMPERATURES[0]}
    known: set[float] = set()
    sharpness, left, right, previous = 1.0, low, high, math.inf
    for _ in range(_MOST_STEPS):
        slope, curvature = derivatives(sharpness)
        if math.isnan(slope):
            return 1.0
        if slope == 0 or (sharpness == low and slope > 0) or (sharpness == high and slope < 0):
            break
        known.add(sharpness)
        left, right = (left, sharpness) if slope > 0 else (sharpness, right)
        step = slope / curvature if curvature > 0 else math.copysign(math.inf, slope)
        if abs(step) <= _RELATIVE_STEP * sharpness:
            break
        following = min(max(sharpness - step, left), right)
        bracketed = left in known and right in known
        if following in known or (bracketed and abs(step) > previous / 2):
            following = math.sqrt(left * right)
            if right - left <= _RELATIVE_STEP * left:
                break
        previous, sharpness = abs(following - sharpness), following
    return ends.get(sharpness, 1 / sharpness)


def platt_smoothing(examples: int) -> float:
    """Return the mass that a temperature fit to N examples moves off each label: 1/(N + 2).

    Without it, a model that is correct on all N examples would be sharpened without limit, and
    one later error would cost it dearly (Platt, 1999).
    """
    return 1.0 / (examples + 2)
