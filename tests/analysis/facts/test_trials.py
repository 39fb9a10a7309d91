"""Facts about each trial, from the run's state."""

from analysis.facts.trials import best_trial, trials_of
from journal.events import TrialRetried
from tests.events import epoch, state_of, trial_started


def test_a_restarted_trial_keeps_its_epochs() -> None:
    state = state_of(
        trial_started("t0000", recipe={}),
        epoch("t0000", 1, phase="cooldown", rung=1, val_nll=0.5, seconds=2.0),
        TrialRetried(trial="t0000", attempt=2, reason="killed", time=0),
        trial_started("t0000", recipe={}, attempt=2),
    )
    (trial,) = trials_of(state, lambda _: None)
    assert trial.scores == {1: 0.5}
    assert (trial.retries, trial.status, trial.seconds) == (1, "unfinished", 2.0)
    assert best_trial([trial]) is trial
    assert best_trial([]) is None
