"""The number of trials that may run at a time, read again while a sweep runs.

Nodes join late, are lost, or are started on demand: an autoscaler adds machines for pending
requests. So a sweep keeps placement groups pending for more trials than fit now, and removes each
one once it is granted, so that a trial can use its resources.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from common.errors import RunError
from search.timetable.capacity import Capacity, Share
from search.tune.cluster import READ_SECONDS, autoscales
from search.tune.occupancy import Waiting

log = logging.getLogger(__name__)

ASKED_AHEAD = 8
"""Largest number of trials for which room is requested beyond those that fit now."""

PATIENCE_SECONDS, AUTOSCALER_SECONDS = 60.0, 1200.0
"""Time to wait for a node that can hold a trial: without an autoscaler, and with one, which may
have to start a machine and install everything on it."""

REMINDER_SECONDS = 60.0
"""Interval at which a sweep that waits for a node says so."""


class Requests(Protocol):
    """Asks the cluster's autoscaler for room; `PlacementGroups` is the usual one."""

    def keep(self, count: int, share: Share) -> None:
        """Keep this many requests waiting, each for one trial that occupies `share`."""


class NoRequests:
    """Asks for nothing: a private Ray has one node."""

    def keep(self, count: int, share: Share) -> None:
        """Do nothing."""


class PlacementGroups:
    """Requests as placement groups; Ray removes them when the driver ends."""

    def __init__(self) -> None:
        """Nothing is requested yet."""
        self._waiting: list[PlacementGroup] = []
        self._share: Share | None = None

    def keep(self, count: int, share: Share) -> None:
        """Remove granted groups, to free their resources; add or remove pending ones."""
        if share != self._share:
            for group in self._waiting:
                remove_placement_group(group)
            self._waiting, self._share = [], share
        for group in self._waiting[:]:
            if len(self._waiting) > count or placement_group_table(group)["state"] != "PENDING":
                remove_placement_group(group)
                self._waiting.remove(group)
        while len(self._waiting) < count:
            self._waiting.append(placement_group([share.resources]))


class Room:
    """The places for trials on the nodes that are there now."""

    def __init__(
        self,
        share: Share | Callable[[Capacity], Share],
        capacity: Callable[[], Capacity],
        *,
        most: int | None = None,
        trials_left: Callable[[], float] = lambda: math.inf,
        further: Callable[[Capacity], int] | None = None,
        awaited: Callable[[], Sequence[Waiting]] = tuple,
        requests: Requests | None = None,
        autoscales: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`share` is what a trial occupies, or a function that returns it.

        `most` is the user's limit. `trials_left` is how many trials are still to be started; room
        is requested for no more. `further` returns how many more fit beside those that run, if
        trials differ in what they need. `awaited` are trials that wait for resources that only some
        nodes have. `autoscales` returns whether an autoscaler starts nodes for `requests`.
        """
        self._share_in = share if callable(share) else lambda _: share
        self._capacity = capacity
        self._most = math.inf if most is None else most
        self._trials_left = trials_left
        self._further = further
        self._awaited = awaited
        self._requests = requests or NoRequests()
        self._autoscales = autoscales
        self._clock = clock
        self._read_at = -math.inf
        self._fitting = 0
        self._waiting_since: float | None = None
        self._said_at = -math.inf

    def limit(self, running: int) -> int:
        """Return how many trials may run at a time, at least 1; `running` have started.

        One trial is always allowed; it waits in Ray's queue until a node can hold it.

        Raises:
            RunError: no node could hold a trial within the time allowed (`PATIENCE_SECONDS`).
        """
        now = self._clock()
        if now - self._read_at >= READ_SECONDS:
            self._read_at = now
            capacity = self._capacity()
            share = self._share_in(capacity)
            self._fitting = (
                capacity.trials_at_a_time(share)
                if self._further is None
                else running + self._further(capacity)
            )
            awaited = self._awaited()
            self._wait_for_a_node(awaited or [Waiting(share)], capacity, now)
            # A request could be granted part of the node that a trial is waiting to have to itself.
            self._requests.keep(0 if awaited else self._requested(running), share)
        return int(max(1, min(self._most, self._fitting)))

    def close(self) -> None:
        """Give all requests back."""
        self._requests.keep(0, Share(cores=1.0))

    def _requested(self, running: int) -> int:
        """Return how many requests to keep: none while there are free places for trials.

        A request that waits could be granted a place before the next trial asks for it.
        """
        if running < self._fitting:
            return 0
        wanted = min(self._most, running + self._trials_left(), self._fitting + ASKED_AHEAD)
        return int(max(0, wanted - running))

    def _wait_for_a_node(self, waiting: Sequence[Waiting], capacity: Capacity, now: float) -> None:
        lacking = [each for each in waiting if not each.can_run(capacity)]
        if not lacking:
            self._waiting_since = None
            return
        share = lacking[0].share
        if self._waiting_since is None:
            self._waiting_since = now
        message = unplaceable(share, capacity)
        patience = AUTOSCALER_SECONDS if self._autoscales() else PATIENCE_SECONDS
        if now - self._waiting_since >= patience:
            raise RunError(f"{message}; none joined within {patience / 60:g} min; add such a node")
        if now - self._said_at >= REMINDER_SECONDS:
            self._said_at = now
            log.warning("%s; waiting for one to join", message)


def unplaceable(share: Share, capacity: Capacity) -> str:
    """Return why no trial can run, in words, with the largest node."""
    node = capacity.largest()
    largest = (
        f"the largest, {node.name}, has {node.gpus:g} GPUs and {node.cores:g} CPU cores"
        if node.cores or node.gpus
        else "there is no worker yet"
    )
    return f"no node of the cluster has the {share} that a trial needs; {largest}"


@contextmanager
def room_for(
    share: Callable[[Capacity], Share],
    capacity: Callable[[], Capacity],
    *,
    most: int | None,
    trials_left: Callable[[], float],
    further: Callable[[Capacity], int],
    awaited: Callable[[], Sequence[Waiting]],
    elastic: bool,
) -> Iterator[Room]:
    """Yield the room for a sweep's trials; ask for more nodes only if the sweep is `elastic`.

    Requests are given back at the end of the block.
    """
    requests = PlacementGroups() if elastic else NoRequests()
    room = Room(
        share,
        capacity,
        most=most,
        trials_left=trials_left,
        further=further,
        awaited=awaited,
        requests=requests,
        autoscales=autoscales if elastic else lambda: False,
    )
    try:
        yield room
    finally:
        if ray.is_initialized():
            room.close()
