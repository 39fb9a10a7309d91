"""The trials that fit on the nodes of a cluster, and the resources of each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.timetable.capacity import Capacity, Node, Share, share_of, threads_per_trial
from trainables.recipe import Numerics

CPU, GPU = Numerics(threads=2), Numerics(device="cuda", threads=4)
NODES = Capacity(nodes=(Node(cores=3), Node(cores=3), Node(cores=4, gpus=2), Node(cores=0)))


@pytest.mark.parametrize(
    ("share", "places"),
    [
        (share_of(CPU), 4),  # a trial is not spread over two nodes
        (share_of(GPU), 2),
        (share_of(GPU, per_gpu=3), 4),  # six by its GPUs, but each takes a core
        (Share(cores=5), 0),
        (Share(cores=0.3), 33),
    ],
)
def test_trials_at_a_time(share: Share, places: int) -> None:
    assert NODES.trials_at_a_time(share) == places


def test_a_share_does_not_depend_on_the_number_of_trials() -> None:
    assert share_of(CPU).resources == {"CPU": 2.0}
    assert share_of(GPU).resources == {"CPU": 1.0, "GPU": 1.0}
    assert share_of(GPU, per_gpu=3).resources == {"CPU": 1.0, "GPU": 0.3333}


@given(per_gpu=st.integers(1, 64), gpus=st.integers(1, 8))
def test_as_many_trials_fit_on_a_gpu_as_asked(per_gpu: int, gpus: int) -> None:
    share = share_of(GPU, per_gpu=per_gpu)
    assert Node(cores=1000, gpus=gpus).holds(share) == per_gpu * gpus
    assert share.gpus * per_gpu <= 1


def test_an_empty_cluster_holds_nothing() -> None:
    empty = Capacity(nodes=())
    assert empty.trials_at_a_time(share_of(CPU)) == empty.most_on_a_node(share_of(CPU)) == 0
    assert empty.largest().cores == 0
    assert not empty.has_gpus


@pytest.mark.parametrize(
    ("concurrent", "trials", "threads"), [(None, 27, 1), (None, 1, 8), (None, 3, 2), (2, 27, 4)]
)
def test_few_trials_share_all_cores(concurrent: int | None, trials: int, threads: int) -> None:
    assert threads_per_trial(8, concurrent=concurrent, trials=trials) == threads
