"""Time budgets hold on clusters whose workers are slower or faster than the head, and mixed."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from search.space.spec import SweepSpec
from search.timetable.measuring import SUSTAINED
from search.timetable.pace import overhead_seconds
from search.timetable.plan import TooShortError
from tests.simulated_cluster import HEAD, SimulatedRun, pace_of
from tests.simulated_tune import SPEC as SMALL

SPEC = SMALL.with_values(rungs=(3, 9, 27), members=3)
SPEEDS = st.floats(0.25, 4.0)


def simulated(
    spec: SweepSpec, head: float, speeds: list[float], minutes: float, seed: int
) -> SimulatedRun:
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(seed)
        run = SimulatedRun(spec, speeds, 60 * minutes, rng, Path(folder), head=head)
        try:
            run.run()
        except TooShortError:
            assume(False)
    return run


@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    head=SPEEDS,
    speeds=st.lists(SPEEDS, min_size=1, max_size=6),
    minutes=st.floats(5, 120),
    seed=st.integers(0, 1000),
)
def test_a_run_ends_within_its_budget(
    head: float, speeds: list[float], minutes: float, seed: int
) -> None:
    run = simulated(SPEC, head, speeds, minutes, seed)
    assert run.now <= run.budget
    assert run.ended > 0


@pytest.mark.parametrize("speed", [0.25, 1.0, 4.0])
def test_a_plan_has_the_pace_of_the_workers(speed: float) -> None:
    pace = pace_of(SPEC, [speed] * 3)
    assert pace.epoch_seconds == pytest.approx(SUSTAINED * HEAD.train_seconds / speed)


@pytest.mark.parametrize(
    ("head", "workers", "slower"),
    [(0.25, 1.0, {"sweep", "seeds", "select", "report"}),
     (1.0, 0.25, {"sweep", "seeds", "distill", "ledger"})],
)  # fmt: skip
def test_time_besides_training_is_that_of_the_machine_that_does_the_work(
    head: float, workers: float, slower: set[str]
) -> None:
    usual = overhead_seconds(SPEC, pace_of(SPEC, [1.0]))
    planned = overhead_seconds(SPEC, pace_of(SPEC, [workers], head=head))
    assert {stage for stage, seconds in planned.items() if seconds > usual[stage]} == slower


def test_in_a_mixed_cluster_the_slowest_worker_sets_the_pace() -> None:
    """Whichever worker trains or evaluates a network, there is time for it."""
    mixed, slow = pace_of(SPEC, [4.0, 0.25, 1.0]), pace_of(SPEC, [0.25] * 3)
    assert mixed == slow
