"""Verdicts: the end of a trial that was scored at a rung."""

from typing import NamedTuple

from journal.events import Status
from journal.trial import Trial


class Verdict(NamedTuple):
    """The end of a trial."""

    status: Status
    reason: str
    """One line; empty for a completed trial, unless its schedule was shortened."""


def verdict_on(trial: Trial, *, last_rung: int) -> Verdict | None:
    """Return how a trial ends at its highest rung; None if it continues, waits or is undecided."""
    rung, score = trial.rung, trial.score
    if rung is None or score is None:
        return None
    if score.val_nll is None:
        return Verdict("failed", f"val_nll is not finite at rung {rung}")
    if rung == last_rung:
        return Verdict("completed", "")
    if rung == trial.shortened_to:
        return Verdict("completed", f"time for {rung} of {last_rung} epochs")
    decision = trial.decisions.get(rung)
    if decision is None or decision.decision in ("continue", "pause"):
        return None
    if decision.cutoff is None:
        return Verdict("pruned", f"no time was left to continue from rung {rung}")
    return Verdict(
        "pruned",
        f"val_nll {score.val_nll:.4f} missed the cutoff {decision.cutoff:.4f} of rung {rung}",
    )
