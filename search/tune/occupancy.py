"""The resources that a sweep's trials occupy, and whether one more may start.

A trial that ran out of memory waits to run alone. Ray does not collect free resources for it: small
trials would take each of them first. So one node is reserved: no other trial starts there until the
waiting one has started, while other nodes, and the node's other GPUs, stay in use. Trials on the
reserved node end, so the wait is as long as the longest of them; then the node's resources are all
free and nobody else requests them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from search.timetable.capacity import Capacity, Node, Share
from search.tune.packing import MemoryKind, Packing, memory_kind
from trainables.recipe import Recipe

MOST_WAITING = 4
"""Number of trials that may wait to run alone, one after the other, while others start. If more
wait, no other trial starts, and those that wait run on all nodes at the same time."""

NEGLIGIBLE = 1e-6
"""Rounding error of sums of fractions."""


class Place(NamedTuple):
    """The nodes on which a trial may start: all, or all but one."""

    avoid: str = ""
    """The node (Ray's name) on which it may not start; empty if it may start anywhere."""


ANYWHERE = Place()


class Waiting(NamedTuple):
    """The resources of a trial that waits for them, and the node that it avoids."""

    share: Share
    avoid: str = ""

    def can_run(self, capacity: Capacity) -> bool:
        """Return whether any node has the resources when nothing runs on it."""
        return any(
            node.holds(self.share) for node in capacity.nodes if node.id != (self.avoid or None)
        )


@dataclass(slots=True, kw_only=True)
class Occupant:
    """A trial that has been launched and has not ended."""

    kind: MemoryKind
    avoid: str = ""
    node: str = ""
    """Its node; empty until it has reported."""
    started: bool = False
    alone: Share | None = None
    """Its resources if it is retried alone."""


class Occupancy:
    """The trials of a sweep on the nodes of a cluster."""

    def __init__(
        self,
        packing: Packing,
        capacity: Callable[[], Capacity],
        *,
        waiting_alone: Callable[[], Mapping[str, Share]] = dict,
    ) -> None:
        """`waiting_alone` has the resources of trials that wait to run alone, by name."""
        self._packing = packing
        self._capacity = capacity
        self._waiting_alone = waiting_alone
        self._occupants: dict[str, Occupant] = {}
        self._reserved = ""
        """The node that is kept for the trials that wait to run alone."""

    def launched(self, trial: str, recipe: Recipe, place: Place) -> None:
        """Count a trial that is handed to Ray."""
        self._occupants[trial] = Occupant(kind=memory_kind(recipe), avoid=place.avoid)

    def started(self, trial: str, alone: Share | None = None) -> None:
        """Note that Ray has started a trial; `alone` if it had waited to run alone."""
        if trial in self._occupants:
            occupant = self._occupants[trial]
            occupant.started, occupant.alone = True, alone
            if alone is not None:
                occupant.avoid, occupant.node = "", self._reserved  # until it reports

    def reported(self, trial: str, node: str) -> None:
        """Note the node on which a trial runs."""
        if trial in self._occupants:
            self._occupants[trial].node = node

    def retried(self, trial: str) -> Place:
        """Note that a failed trial is queued again; return where it may start.

        It must not be held back, so it avoids the reserved node only if another node could hold it.
        """
        if trial not in self._occupants:
            return ANYWHERE
        capacity = self._capacity()
        occupant = self._occupants[trial]
        share = self._packing.share_in(capacity, occupant.kind)
        reserved = self._reserve(capacity)
        others = (node for node in capacity.nodes if node.id != reserved)
        avoid = reserved if any(node.holds(share) for node in others) else ""
        self._occupants[trial] = Occupant(kind=occupant.kind, avoid=avoid)
        return Place(avoid)

    def ended(self, trial: str) -> None:
        """Free what a trial occupied."""
        self._occupants.pop(trial, None)

    @property
    def waiting(self) -> list[Waiting]:
        """Trials whose resources only some nodes have: the sweep fails if those are lost."""
        capacity = self._capacity()
        return [
            *(Waiting(share) for share in self._waiting_alone().values()),
            *(
                Waiting(self._packing.share_in(capacity, each.kind), each.avoid)
                for each in self._occupants.values()
                if each.avoid and not each.started
            ),
        ]

    def further(self, capacity: Capacity) -> int:
        """Return how many trials of the smallest kind fit beside those that are launched.

        A reserved node does not count.
        """
        if self._too_many_wait:
            return 0
        share = self._packing.least_share_in(capacity)
        free = self._free(capacity)
        free.pop(self._reserve(capacity), None)
        return sum(node.places(share) for node in free.values())

    def place(self, recipe: Recipe | None) -> Place | None:
        """Return where a trial may start now, or None; without a recipe, the smallest one."""
        if self._too_many_wait:
            return None
        capacity = self._capacity()
        share = (
            self._packing.least_share_in(capacity)
            if recipe is None
            else self._packing.share_in(capacity, memory_kind(recipe))
        )
        reserved = self._reserve(capacity)
        free = self._free(capacity)
        there = free.pop(reserved, None)
        if any(node.places(share) for node in free.values()):
            return Place(avoid=reserved)
        if there is None:
            return None
        return ANYWHERE if self._spare(reserved, capacity, share) else None

    @property
    def _too_many_wait(self) -> bool:
        return len(self._waiting_alone()) > MOST_WAITING

    def _spare(self, reserved: str, capacity: Capacity, share: Share) -> bool:
        """Return whether the reserved node could hold one more trial beside the waiting one.

        All trials whose node is not known yet may be there. Ray puts a part of a GPU on the
        fullest GPU that has it, so that another GPU empties.
        """
        alone = next(iter(self._waiting_alone().values()))
        (node,) = (node for node in capacity.nodes if node.id == reserved)
        there = [
            self._share(each, capacity)
            for name, each in self._occupants.items()
            if name not in self._waiting_alone()
            and (each.node == reserved or (not each.node and each.avoid != reserved))
        ]
        taken = [alone, *there, share]
        return (
            sum(each.cores for each in taken) <= node.cores + NEGLIGIBLE
            and sum(each.gpus for each in taken) <= node.gpus + NEGLIGIBLE
            and sum(each.memory_bytes for each in taken) <= node.memory_bytes
        )

    def _reserve(self, capacity: Capacity) -> str:
        """Return the reserved node: the same until none waits or the node is lost."""
        waiting = next(iter(self._waiting_alone().values()), None)
        if waiting is None:
            self._reserved = ""
            return ""
        large = {node.id: node for node in capacity.nodes if node.holds(waiting)}
        if self._reserved not in large:
            free = self._free(capacity)
            self._reserved = max(large, key=lambda each: free[each].share_free, default="")
        return self._reserved

    def _free(self, capacity: Capacity) -> dict[str, "Free"]:
        """Return what is free on each node; trials without a known node count where they fit."""
        free = {node.id: Free.all_of(node) for node in capacity.nodes}
        waiting = self._waiting_alone()
        active = [each for name, each in self._occupants.items() if name not in waiting]
        for occupant in sorted(active, key=lambda each: not each.node):
            share = self._share(occupant, capacity)
            if occupant.node in free:
                free[occupant.node].take(share)
                continue
            able = [n for key, n in free.items() if key != occupant.avoid and n.places(share)]
            others = [node for key, node in free.items() if key != occupant.avoid]
            for node in (able or others)[:1]:
                node.take(share)
        return free

    def _share(self, occupant: Occupant, capacity: Capacity) -> Share:
        return occupant.alone or self._packing.share_in(capacity, occupant.kind)


@dataclass(slots=True, kw_only=True)
class Free:
    """The free part of a node; negative if more is running than fits by now."""

    node: Node
    cores: float
    memory_bytes: float
    gpus: list[float] = field(default_factory=list)
    """The free part of each GPU."""

    @classmethod
    def all_of(cls, node: Node) -> "Free":
        """Return an empty node."""
        gpus = [1.0] * int(node.gpus)
        return cls(node=node, cores=node.cores, memory_bytes=node.memory_bytes, gpus=gpus)

    @property
    def share_free(self) -> float:
        """The free part of the node's GPUs, or else of its cores."""
        if self.gpus:
            return max(self.gpus)
        return self.cores / self.node.cores if self.node.cores else 0.0

    def take(self, share: Share) -> None:
        """Occupy a trial's resources; a part of a GPU on the fullest that has it, as Ray does."""
        self.cores -= share.cores
        self.memory_bytes -= share.memory_bytes
        if share.gpus and self.gpus:
            able = [gpu for gpu in self.gpus if gpu + NEGLIGIBLE >= share.gpus]
            self.gpus[self.gpus.index(min(able, default=max(self.gpus)))] -= share.gpus

    def places(self, share: Share) -> int:
        """Return how many trials fit."""
        places = (self.cores + NEGLIGIBLE) // share.cores
        if share.memory_bytes:
            places = min(places, self.memory_bytes // share.memory_bytes)
        if share.gpus:
            places = min(places, sum((gpu + NEGLIGIBLE) // share.gpus for gpu in self.gpus))
        return max(0, int(places))
