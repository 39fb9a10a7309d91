"""Asynchronous successive halving (ASHA) decides which trials continue at a rung.

n trials have arrived at a rung (the new one included), η is the reduction factor, and v is
the score (lower is better). The new trial continues iff

    v ≤ the k-th lowest of the n scores,   k = max(1, ⌊n/η⌋)

(Li et al., 2020, "A system for massively parallel hyperparameter tuning", algorithm 2,
which promotes the top ⌊n/η⌋). There, a trial outside the top waits and may be promoted
later; here, as in other stopping variants, it is stopped for good. No trial waits for η arrivals: k
is 1 until then, and a trial continues only if it is the best so far. The first arrival always
continues, the second only if it beats the first. With exchangeable scores the share that continues
is 1/η almost exactly: of 24 arrivals and η = 3, 8.2 in expectation. (Ray Tune's rule compares with
a quantile of the earlier arrivals only and promotes NaN.)

A trial is compared only with trials of its own family. The learning curves of different kinds of
networks cross: at the first rung a head on fixed features is far ahead of the fine-tuning that
overtakes it later. So the best of every family are trained to the last rung, and compared there.

A score that is not finite stops its trial and counts as no arrival. At the last rung the
trial is done.
"""

import math
from bisect import insort
from collections.abc import Sequence

from journal.state import RunState
from search.schedulers.scheduler import Decision


class Asha:
    """The rule and the scores that have arrived. Equal arrivals give equal decisions."""

    def __init__(self, rungs: Sequence[int], reduction_factor: int) -> None:
        """`rungs` are rising epoch budgets; trials are done at the last."""
        self._last = rungs[-1]
        self._factor = reduction_factor
        self._scores: dict[tuple[str, int], list[float]] = {}

    def replay(self, state: RunState) -> "Asha":
        """Count the arrivals that a run has decided on, and return the rule."""
        for trial in state.trials.values():
            for rung, decision in trial.decisions.items():
                self._arrive(rung, decision.value, trial.family)
        return self

    def decide(
        self,
        rung: int,
        value: float | None,
        *,
        in_time: bool = True,
        family: str = "",
        paused: bool = False,
    ) -> Decision:
        """Decide on a trial of `family` that scored `value` at `rung`, once per trial and rung.

        A trial that could not reach the next rung `in_time` is paused; its score counts. A `paused`
        trial that is decided on again has arrived already.
        """
        scores = self._arrive(rung, None if paused else value, family)
        if value is None or not math.isfinite(value):
            return Decision(reason="not_finite")
        if rung == self._last:
            return Decision(reason="last_rung")
        if not in_time:
            return Decision(reason="no_time")
        cutoff = scores[max(1, len(scores) // self._factor) - 1]
        return Decision(reason="promoted" if value <= cutoff else "above_cutoff", cutoff=cutoff)

    def _arrive(self, rung: int, value: float | None, family: str) -> list[float]:
        scores = self._scores.setdefault((family, rung), [])
        if value is not None and math.isfinite(value):
            insort(scores, value)
        return scores
