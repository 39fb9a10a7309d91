"""Which trials go on at a rung: asynchronous successive halving, and its seat in Ray Tune.

n trials have arrived at a rung (the new one included), η is the reduction factor, and v is
the score (lower is better). The new trial goes on iff

    v ≤ the k-th lowest of the n scores,   k = max(1, ⌊n/η⌋)

(Li et al., 2020, "A system for massively parallel hyperparameter tuning", algorithm 2,
which promotes the top ⌊n/η⌋). There a trial that is not among them waits and may be
promoted later; here, as in other stopping variants, it is stopped for good, and so nobody
may be kept waiting for η arrivals: until then k is 1, and a trial goes on only if it is
the best so far. The first arrival therefore always goes on, the second only if it beats
the first. With exchangeable scores the share that goes on is 1/η almost exactly: of 24
arrivals and η = 3, 8.2 in expectation. (Ray Tune's rule compares with a quantile of the
earlier arrivals only and passes whatever is not a number.)

A score that is not finite stops its trial and counts as no arrival. At the last rung the
trial is done.
"""

import math
from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of a trial at a rung."""

    action: Literal["continue", "stop"]
    cutoff: float | None
    """The highest score that goes on; None where no score is compared, or none could go on
    for want of time."""


class Asha:
    """The rule and all that it has seen. Equal histories give equal decisions."""

    def __init__(self, rungs: Sequence[int], reduction_factor: int) -> None:
        """`rungs` are rising epoch budgets; trials are done at the last."""
        self._last = rungs[-1]
        self._factor = reduction_factor
        self._scores: dict[int, list[float]] = {rung: [] for rung in rungs}
        self._decisions: dict[tuple[str, int], Decision] = {}

    def replay(self, events: Iterable[Mapping[str, Any]]) -> "Asha":
        """Take over the decisions of a journal as they were made."""
        for event in events:
            if event["event"] == "decision":
                key = (event["trial"], event["rung"])
                decision = Decision(action=event["decision"], cutoff=event["cutoff"])
                if key not in self._decisions:
                    self._arrive(event["rung"], event["value"])
                    self._decisions[key] = decision
        return self

    def decided(self, trial: str, rung: int) -> Decision | None:
        """The decision on a trial at a rung, if it was made."""
        return self._decisions.get((trial, rung))

    def record(
        self, trial: str, rung: int, value: float | None, *, in_time: bool = True
    ) -> Decision:
        """Decide on a trial that scored `value` at `rung`.

        A trial that could not reach the next rung `in_time` is stopped; its score counts.
        A second report of the same trial and rung is given the first decision again,
        whatever its value.
        """
        key = (trial, rung)
        if key not in self._decisions:
            self._decisions[key] = self._decide(rung, value, in_time)
        return self._decisions[key]

    def _decide(self, rung: int, value: float | None, in_time: bool) -> Decision:
        scores = self._arrive(rung, value)
        if rung == self._last or not in_time or value is None or not math.isfinite(value):
            return Decision(action="stop", cutoff=None)
        cutoff = scores[max(1, len(scores) // self._factor) - 1]
        return Decision(action="continue" if value <= cutoff else "stop", cutoff=cutoff)

    def _arrive(self, rung: int, value: float | None) -> list[float]:
        scores = self._scores[rung]
        if value is not None and math.isfinite(value):
            insort(scores, value)
        return scores


class TuneAsha(FIFOScheduler):
    """Tune's scheduler: asks the rule where a result ends a rung, and lets all others pass."""

    def __init__(self, decide: Callable[[str, Mapping[str, Any]], bool]) -> None:
        """`decide(trial, result)` says whether the trial goes on; it must not raise."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._decide = decide

    def on_trial_result(
        self,
        tune_controller: Any,  # noqa: ARG002 (Tune's hook)
        trial: Trial,
        result: dict[str, Any],
    ) -> str:
        """Tune's hook: called for every result but a trial's last."""
        goes_on = self._decide(trial.config["start"]["trial"], result)
        verdict: str = TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
        return verdict
