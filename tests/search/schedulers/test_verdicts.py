"""Every way in which a trial ends at a rung, and those in which it goes on."""

from typing import Any

import pytest

from journal.history import TrialHistory
from search.schedulers.asha import Asha
from search.schedulers.verdicts import verdict_on

RUNGS = (1, 3, 9)


def trial(scores: dict[int, dict[str, float]]) -> TrialHistory:
    return TrialHistory(trial="t0", number=0, kind="search", recipe={}, seed=0, scores=scores)


def decided(decision: str, cutoff: float | None) -> Asha:
    event = {"event": "decision", "trial": "t0", "rung": 3, "value": 0.5}
    return Asha(RUNGS, 3).replay([{**event, "decision": decision, "cutoff": cutoff}])


@pytest.mark.parametrize(
    ("scores", "asha", "verdict"),
    [
        ({}, None, None),
        ({3: {"val_nll": 0.5}}, None, None),
        ({3: {"val_nll": 0.5}}, Asha(RUNGS, 3), None),
        ({3: {"val_nll": 0.5}}, decided("continue", 0.6), None),
        ({3: {"val_nll": 0.5}}, decided("stop", 0.4),
         ("pruned", "val_nll 0.5000 missed the cutoff 0.4000 of rung 3")),
        ({3: {"val_nll": 0.5}}, decided("stop", None),
         ("pruned", "no time was left to go on from rung 3")),
        ({3: {"val_nll": 0.5}, 9: {"val_nll": 0.3}}, None, ("completed", "")),
        ({9: {"val_accuracy": 0.1}}, None, ("failed", "val_nll is not finite at rung 9")),
        ({3: {"val_accuracy": 0.1}}, decided("stop", 0.4),
         ("failed", "val_nll is not finite at rung 3")),
    ],
)  # fmt: skip
def test_how_a_trial_ends(scores: dict[int, Any], asha: Asha | None, verdict: Any) -> None:
    assert verdict_on(trial(scores), last_rung=9, asha=asha) == verdict
