"""Every way in which a trial ends or continues at a rung."""

from typing import Any

import pytest

from journal.events import Action, Reason, RungDecided
from journal.trial import Score, Trial
from search.schedulers.verdict import verdict_on


def decided(action: Action, reason: Reason, cutoff: float | None) -> RungDecided:
    return RungDecided(trial="t0", rung=3, value=0.5, decision=action, cutoff=cutoff,
                       reason=reason, time=0.0)  # fmt: skip


SCORED = {3: Score(0.5, 0.8)}
MISSED = decided("stop", "above_cutoff", 0.4)


@pytest.mark.parametrize(
    ("scores", "decision", "verdict"),
    [
        ({}, None, None),
        (SCORED, None, None),
        (SCORED, decided("continue", "promoted", 0.6), None),
        (SCORED, MISSED, ("pruned", "val_nll 0.5000 missed the cutoff 0.4000 of rung 3")),
        (SCORED, decided("stop", "no_time", None),
         ("pruned", "no time was left to continue from rung 3")),
        ({**SCORED, 9: Score(0.3, 0.9)}, None, ("completed", "")),
        ({9: Score(None, 0.1)}, None, ("failed", "val_nll is not finite at rung 9")),
        ({3: Score(None, 0.1)}, MISSED, ("failed", "val_nll is not finite at rung 3")),
    ],
)  # fmt: skip
def test_a_trial_ends_by_its_score_and_its_decision(
    scores: dict[int, Score], decision: RungDecided | None, verdict: Any
) -> None:
    trial = Trial(name="t0", number=0, kind="search", recipe={}, seed=0, scores=scores)
    if decision is not None:
        trial.decisions[3] = decision
    assert verdict_on(trial, last_rung=9) == verdict
