"""The plan of an ablation: as many epochs as all of its trials have time for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.ablation.plan import COMPARE_SECONDS, plan_trials
from search.space.sweep_files import load_spec
from search.timetable.pace import START_SECONDS
from search.timetable.plan import Plan, TooShortError


def planned(budget: float | None, **values: Any) -> Plan:
    given: dict[str, Any] = {
        "trials": 20, "workers": 2, "epoch_seconds": 3.0, "handover_seconds": 1.0, "now": 1000.0,
        "deadline": None if budget is None else 1000.0 + budget, **values,
    }  # fmt: skip
    return plan_trials(load_spec("digits"), **given)


def test_trials_get_as_many_epochs_as_fit() -> None:
    """Ten rounds of two trials, 31 s each: ten epochs of 3 s, and the handover."""
    overhead = START_SECONDS + COMPARE_SECONDS
    plan = planned(overhead + 310)
    assert (plan.rungs, plan.trials) == ((10,), 20)
    assert plan.seconds["sweep"] == START_SECONDS + 310
    assert plan.end_of("sweep") == 1000 + START_SECONDS + 310
    assert planned(None).rungs == planned(1e6).rungs == (27,)
    assert planned(None).seconds["sweep"] == START_SECONDS + 10 * (27 * 3 + 1)
    assert planned(overhead + 310, keep_epochs=True).rungs == (27,)
    assert planned(None, trials=0).seconds["sweep"] == START_SECONDS


def test_the_error_for_a_short_budget_names_the_shortest_possible_one() -> None:
    overhead = START_SECONDS + COMPARE_SECONDS
    with pytest.raises(TooShortError, match=r"69 s, is too short .* 70 s here; give 1\.5m"):
        planned(overhead + 39)
    assert planned(overhead + 40).rungs == (1,)


@given(st.floats(40, 1e5), st.integers(1, 60), st.integers(1, 8), st.floats(0.01, 100))
def test_a_plan_ends_by_its_deadline(
    budget: float, trials: int, workers: int, epoch_seconds: float
) -> None:
    try:
        plan = planned(budget, trials=trials, workers=workers, epoch_seconds=epoch_seconds)
    except TooShortError:
        return
    assert sum(plan.seconds.values()) <= budget + 1e-6
    assert 1 <= plan.rungs[-1] <= 27
