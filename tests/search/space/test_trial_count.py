"""A sweep that states no number of trials trains enough to choose an ensemble from."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SpecError
from search.schedulers.asha import Asha
from search.space.spec import SweepSpec
from search.space.sweep_files import load_spec, spec_from_mapping
from search.space.trial_count import DEFAULT_TRIALS, enough_trials, pool_note
from tests.simulated_tune import Sweep
from trainables.records import RunFolder


@given(members=st.integers(1, 12), rungs=st.integers(1, 5), factor=st.integers(2, 5))
def test_enough_trials_is_the_smallest_sufficient_number(
    members: int, rungs: int, factor: int
) -> None:
    def suffice(trials: int) -> bool:
        finished = trials / factor ** (rungs - 1)
        pool = trials / factor ** max(0, rungs - 2)
        return bool(finished >= members and pool >= 3 * members)

    enough = enough_trials(members, rungs=rungs, reduction_factor=factor)
    assert suffice(enough)
    assert not suffice(enough - 1)
    assert pool_note(enough, members, rungs=rungs, reduction_factor=factor) is None
    note = pool_note(enough - 1, members, rungs=rungs, reduction_factor=factor)
    assert f"set trials to at least {enough}" in str(note)


@pytest.mark.parametrize("members", [2, 5, 10])
@pytest.mark.parametrize(("rungs", "factor"), [(1, 3), (2, 2), (2, 3), (3, 2), (3, 3), (4, 4)])
def test_asha_finishes_enough_trials_on_average(members: int, rungs: int, factor: int) -> None:
    """Check the count against the scheduler itself, on trials whose scores are exchangeable."""
    trials = enough_trials(members, rungs=rungs, reduction_factor=factor)
    counts = np.array([_reached(seed, trials, rungs, factor) for seed in range(40)])
    pools = counts[:, max(0, rungs - 2)]
    error = 3 * counts.std(axis=0, ddof=1) / np.sqrt(len(counts))
    assert counts[:, -1].mean() + error[-1] >= members
    assert pools.mean() + error[max(0, rungs - 2)] >= 3 * members


def _reached(seed: int, trials: int, rungs: int, factor: int) -> list[int]:
    """Return how many trials of a sweep reach each rung."""
    asha = Asha(range(1, rungs + 1), factor)
    reached = [0] * rungs
    for score in np.random.default_rng(seed).random(trials):
        for rung in range(1, rungs + 1):
            reached[rung - 1] += 1
            if asha.decide(rung, float(score)).action != "continue":
                break
    return reached


def test_a_sweep_without_a_number_of_trials_runs_enough(tmp_path: Path) -> None:
    values = {"rungs": [1, 2, 4], "reduction_factor": 2, "members": 6, "splits": SPLIT}
    spec = spec_from_mapping(values | {"space": SPACE})
    assert spec.trials is None
    assert spec.trial_count == 6 * 2 * 3
    sweep = Sweep(RunFolder(tmp_path / "run"), spec)
    sweep.run()
    trials = sweep.emitter.state.trials.of_kind("search")
    assert len(trials) == spec.trial_count
    assert sum(trial.status == "completed" for trial in trials) >= spec.members
    assert sum(2 in trial.decisions for trial in trials) >= 3 * spec.members


SPLIT = {"counts": [30, 20, 20]}
SPACE = {"dropout": {"type": "float", "low": 0.0, "high": 0.9}}


def test_the_number_follows_from_members_rungs_and_what_is_delivered() -> None:
    assert SweepSpec(name="own").trial_count == 5 * 9
    assert SweepSpec(name="own", members=10).trial_count == 10 * 9
    assert SweepSpec(name="own", members=2).trial_count == DEFAULT_TRIALS
    assert SweepSpec(name="own", deliver="single", members=40).trial_count == DEFAULT_TRIALS
    assert SweepSpec(name="own", trials=3, members=10).trial_count == 3
    assert spec_from_mapping({"trials": None}).trial_count == 45
    with pytest.raises(SpecError, match="trials must be at least 1, got 0"):
        SweepSpec(name="own", trials=0)


def test_a_number_too_small_for_the_members_is_noted() -> None:
    assert load_spec("digits").warnings == ()
    (note,) = load_spec("digits").with_values(members=10).warnings
    assert "20 trials are too few to choose 10 members from" in note
    assert "20 get into the pool and 6.67 to the last rung, where 30 and 10 are needed" in note
    assert note.endswith("set trials to at least 30"), "one rung needs as many"
    (three,) = SweepSpec(name="own", trials=44).warnings
    assert "14.7 get into the pool and 4.89 to the last rung, where 15 and 5 are needed" in three
    assert three.endswith("set trials to at least 45, or use fewer rungs")
    (one,) = SweepSpec(name="own", trials=1, members=1, rungs=(3,)).warnings
    assert one.startswith("1 trial is too few to choose 1 member from")
    assert load_spec("digits").with_values(members=10, deliver="single").warnings == ()
