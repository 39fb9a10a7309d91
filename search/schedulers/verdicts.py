"""How a trial ends that stands at a rung: by its score there, and by what ASHA decided."""

from journal.history import TrialHistory
from search.schedulers.asha import Asha
from trainables.records import Status


def verdict_on(
    trial: TrialHistory, *, last_rung: int, asha: Asha | None
) -> tuple[Status, str] | None:
    """Its status and, unless it is through, the reason in one line; None if it is to go on."""
    rung = trial.rung
    if rung is None:
        return None
    if "val_nll" not in trial.scores[rung]:
        return "failed", f"val_nll is not finite at rung {rung}"
    if rung == last_rung:
        return "completed", ""
    decision = asha.decided(trial.trial, rung) if asha is not None else None
    if decision is None or decision.action == "continue":
        return None
    if decision.cutoff is None:
        return "pruned", f"no time was left to go on from rung {rung}"
    value = trial.scores[rung]["val_nll"]
    return "pruned", f"val_nll {value:.4f} missed the cutoff {decision.cutoff:.4f} of rung {rung}"
