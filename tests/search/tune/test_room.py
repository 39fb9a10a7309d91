"""The number of trials at a time follows the nodes of the cluster."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RunError
from search.timetable.capacity import Capacity, Node, Share
from search.tune.occupancy import Waiting
from search.tune.room import ASKED_AHEAD, AUTOSCALER_SECONDS, PATIENCE_SECONDS, Room

ONE_CORE = Share(cores=1.0)


class Nodes:
    """A cluster whose nodes, clock and requests a test sets and reads."""

    def __init__(self, *cores: int) -> None:
        self.cores = list(cores)
        self.now = 0.0
        self.requested = 0
        self.share: Share | None = None

    def capacity(self) -> Capacity:
        return Capacity(nodes=tuple(Node(cores=c, name=f"n{c}") for c in self.cores))

    def keep(self, count: int, share: Share) -> None:
        self.requested, self.share = count, share

    def room(
        self, share: Share = ONE_CORE, *, most: int | None = None, left: float = math.inf,
        autoscales: bool = False,
    ) -> Room:  # fmt: skip
        return Room(
            share,
            self.capacity,
            most=most,
            trials_left=lambda: left,
            requests=self,
            autoscales=lambda: autoscales,
            clock=lambda: self.now,
        )


def test_nodes_that_join_late_are_used_and_lost_ones_forgotten() -> None:
    nodes = Nodes(2)
    room = nodes.room()
    assert room.limit(running=0) == 2
    nodes.cores += [4, 1]
    nodes.now += 1
    assert room.limit(running=2) == 7
    nodes.cores = [1]
    nodes.now += 1
    assert room.limit(running=7) == 1


def test_nodes_are_not_read_at_every_call() -> None:
    nodes = Nodes(2)
    room = nodes.room()
    assert room.limit(running=0) == 2
    nodes.cores = [4]
    nodes.now += 0.5
    assert room.limit(running=2) == 2


@given(
    cores=st.lists(st.integers(0, 5), max_size=4),
    most=st.none() | st.integers(1, 12),
    left=st.integers(0, 30),
    running=st.integers(0, 12),
)
def test_room_is_requested_for_trials_that_exist_and_may_run(
    cores: list[int], most: int | None, left: int, running: int
) -> None:
    nodes = Nodes(*cores)
    limit = nodes.room(most=most, left=left).limit(running)
    assert 1 <= limit <= max(1, sum(cores))
    assert most is None or limit <= most
    assert 0 <= nodes.requested <= min(left, ASKED_AHEAD)
    if nodes.requested:
        assert nodes.requested + sum(cores) <= (math.inf if most is None else most)


def test_an_empty_cluster_is_asked_for_nodes_and_one_trial_waits() -> None:
    nodes = Nodes()
    room = nodes.room(most=4, left=20, autoscales=True)
    assert room.limit(running=0) == 1
    assert nodes.requested == 4
    room.close()
    assert nodes.requested == 0


@pytest.mark.parametrize(
    ("autoscales", "patience"), [(False, PATIENCE_SECONDS), (True, AUTOSCALER_SECONDS)]
)
def test_a_trial_that_no_node_can_hold_is_an_error_in_the_end(
    autoscales: bool, patience: float, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = Nodes(2, 3)
    room = nodes.room(Share(cores=1.0, gpus=1.0), autoscales=autoscales)
    assert room.limit(running=0) == 1
    assert "n3" in caplog.text  # said at once, with the largest node
    nodes.now += patience - 1
    room.limit(running=1)
    nodes.now += 1
    with pytest.raises(RunError, match=r"no node of the cluster has the 1 GPU and 1 CPU core"):
        room.limit(running=1)


def test_the_wait_begins_again_once_a_node_was_there() -> None:
    nodes = Nodes()
    room = nodes.room()
    room.limit(running=0)
    nodes.now, nodes.cores = PATIENCE_SECONDS - 1, [1]
    room.limit(running=1)
    nodes.now, nodes.cores = PATIENCE_SECONDS + 5, []
    assert room.limit(running=1) == 1


def test_a_trial_that_waits_to_run_alone_is_waited_for_like_a_node() -> None:
    """The node that could hold it may be lost, while others still hold ordinary trials."""
    nodes = Nodes(2)
    alone = Share(cores=4.0)
    room = Room(ONE_CORE, nodes.capacity, awaited=lambda: [Waiting(alone)], clock=lambda: nodes.now)
    assert room.limit(running=1) == 2
    nodes.now += PATIENCE_SECONDS
    with pytest.raises(RunError, match="4 CPU cores"):
        room.limit(running=1)


def test_requests_have_the_share_of_the_next_trial() -> None:
    nodes = Nodes()
    shares = [Share(cores=1.0), Share(cores=2.0)]
    room = Room(lambda _: shares[0], nodes.capacity, requests=nodes, clock=lambda: nodes.now)
    room.limit(running=0)
    shares.pop(0)
    nodes.now += 1
    room.limit(running=1)
    assert nodes.share == Share(cores=2.0)
