"""The number of trials at a time, and the resources of each."""

import pytest

from search.timetable.capacity import Capacity, threads_per_trial
from trainables.recipe import Numerics

CPU, GPU = Numerics(threads=2), Numerics(device="cuda", threads=4)
CLUSTER = Capacity(cores=16, gpus=2)
ONE_CORE = Capacity(cores=1)


@pytest.mark.parametrize(
    ("capacity", "numerics", "trials"),
    [(CLUSTER, CPU, 8), (CLUSTER, GPU, 2), (ONE_CORE, CPU, 1), (ONE_CORE, GPU, 1)],
)
def test_trials_at_a_time(capacity: Capacity, numerics: Numerics, trials: int) -> None:
    assert capacity.trials_at_a_time(numerics) == trials


@pytest.mark.parametrize(
    ("numerics", "trials", "resources"),
    [
        (CPU, 8, {"CPU": 2.0}),
        (CPU, 32, {"CPU": 0.5}),
        (CPU, 1, {"CPU": 2.0}),  # no more cores than threads
        (GPU, 2, {"CPU": 4.0, "GPU": 1.0}),
        (GPU, 6, {"CPU": 2.0, "GPU": 0.333}),
    ],
)
def test_cores_and_gpus_are_shared_among_trials(
    numerics: Numerics, trials: int, resources: dict[str, float]
) -> None:
    assert CLUSTER.share(numerics, trials=trials).resources == resources


@pytest.mark.parametrize(
    ("concurrent", "trials", "threads"), [(None, 27, 1), (None, 1, 8), (None, 3, 2), (2, 27, 4)]
)
def test_few_trials_share_all_cores(concurrent: int | None, trials: int, threads: int) -> None:
    assert threads_per_trial(8, concurrent=concurrent, trials=trials) == threads
