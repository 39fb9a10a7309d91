"""Trials as the journal reports them."""

from analysis.facts.trials import best_trial, trials_of


def test_a_repeated_report_counts_once() -> None:
    start = {"event": "trial_started", "trial": "t0000", "number": 0, "kind": "search",
             "recipe": {}, "attempt": 1}  # fmt: skip
    first = {"event": "epoch", "trial": "t0000", "step": 1, "epoch": 1, "phase": "cooldown",
             "rung": 1, "val_nll": 0.5, "val_accuracy": 0.9, "seconds": 2.0}  # fmt: skip
    events = [start, first, {"event": "trial_retried", "trial": "t0000", "attempt": 2,
                             "reason": "killed"}, {**first, "val_nll": float("nan")}]  # fmt: skip
    (trial,) = trials_of(events, lambda _: None)
    assert trial.scores == {1: 0.5}
    assert (trial.retries, trial.status, trial.seconds) == (1, "unfinished", 2.0)
    assert best_trial([trial]) is trial
    assert best_trial([]) is None
