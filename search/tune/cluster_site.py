"""Measure and run whole stages on a cluster's workers, as Ray tasks."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from common.errors import SpecError
from search.space.settings import Profile
from search.timetable.capacity import Capacity, Node, Share, share_of
from search.timetable.site import probe_here, whole_machine
from search.tune.cluster import (
    autoscales,
    call_everywhere,
    call_with_share,
    cluster_capacity,
)
from search.tune.data_travel import sent_images
from search.tune.remote_stage import run_remotely
from search.tune.room import PlacementGroups, Room
from search.tune.session import ray_session
from trainables.data.cache import Layout, layout_of
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.device.kinds import NumericsHere, machine_kind
from trainables.device.python_speed import slowness
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder

if TYPE_CHECKING:
    from trainables.device.rehearsal import Rehearsal

REHEARSED_AT_A_TIME = 4
"""Largest number of workers that a rehearsal imitates (see trainables/device/rehearsal.py)."""

REHEARSED_NODES = 16
"""Largest number of nodes that are measured at the same time."""

LEADERS_GPU = 0.01
"""Share of a GPU for a stage whose training runs on other workers; it must still see a GPU."""


class ClusterSite:
    """The workers of the Ray that this process has joined."""

    on_cluster = True

    def __init__(
        self,
        *,
        capacity: Callable[[], Capacity] = cluster_capacity,
        sleep: Callable[[float], None] = time.sleep,
        everywhere: Callable[..., dict[Node, Any]] = call_everywhere,
        send: Callable[..., Any] = sent_images,
        driver_slowness: Callable[[], float] = slowness,
    ) -> None:
        """`capacity` reads the nodes; `everywhere` calls a function on several of them at once."""
        self.driver_slowness = driver_slowness
        self._read = capacity
        self._sleep = sleep
        self._everywhere = everywhere
        self._send = send
        self._sent: dict[tuple[str, Layout], Any] = {}
        self._silent: set[str] = set()
        """Ids of nodes that did not answer; no later measurement waits for them."""
        self._kinds: set[str] = set()
        """Kinds of machines on which numerics were measured."""

    @property
    def measured_on(self) -> str:
        """The kind of machine that numerics were measured on.

        Empty if families were measured on different kinds, or if none was measured; workers then
        choose for themselves.
        """
        return next(iter(self._kinds)) if len(self._kinds) == 1 else ""

    def cores(self, device: str | None) -> int:
        """Return the cores of the smallest node that can run a trial; wait for one to join."""
        share = self._share(self.device(device))
        nodes = [node for node in self._wait_for(share).nodes if node.holds(share)]
        return int(min(node.cores for node in nodes))

    def capacity(self, numerics: Numerics) -> Capacity:  # noqa: ARG002 (a Site)
        """Return the nodes that are alive now."""
        return self._read()

    def probe(
        self, recipe: Recipe, images: ImageSet, *, device: str | None, threads: int
    ) -> Numerics:
        """Measure on a worker with a trial's resources."""
        device = self.device(device)
        share = share_of(Numerics(device=device, threads=threads))
        self._wait_for(share)
        kind, numerics = call_with_share(
            _probe,
            recipe,
            len(images.class_names),
            images.image_size,
            device,
            threads,
            share=share,
        )
        self._kinds.add(kind)
        return numerics

    def rehearse(
        self,
        recipe: Recipe,
        *,
        images: ImageSet,
        splits: Splits,
        numerics: Numerics,
        workers: int = 1,
        seconds: float,
    ) -> "Rehearsal":
        """Measure on all nodes at once, at most REHEARSED_NODES; return the slowest times.

        On each node the measurement has the resources of all `workers` of one machine. A schedule
        that fits the slowest node fits all others.
        """
        from trainables.device.rehearsal import slowest  # imports torch

        share = share_of(numerics)
        holding = [node for node in self._wait_for(share).nodes if node.holds(share)]
        nodes = [node for node in holding if node.id not in self._silent] or holding
        measured = nodes[:: -(-len(nodes) // REHEARSED_NODES)]
        found: dict[Node, Rehearsal] = self._everywhere(
            _rehearse,
            recipe,
            self.send(images),
            splits,
            numerics,
            workers,
            seconds,
            self.measured_on,
            shares={node: _rehearsal_share(node, share, workers) for node in measured},
        )
        self._silent |= {node.id for node in measured if node not in found}
        return slowest([*found.values()])

    def run_stage(
        self,
        function: Callable[..., Any],
        folder: RunFolder,
        *,
        images: ImageSet,
        splits: Splits,
        numerics: Numerics,
        reads: Sequence[str],
        writes: Sequence[str],
        progress: Callable[[float, str], None],
        leads: bool = False,
        **arguments: Any,
    ) -> Any:
        """Call the function on a worker that has a whole machine's cores, or a GPU."""
        share = whole_machine(self.cores(numerics.device), numerics)
        node = self._read().largest_for(share)
        if leads:
            share = Share(cores=0.0, gpus=min(share.gpus, LEADERS_GPU))
        return run_remotely(
            function,
            folder,
            images=self.send(images),
            splits=splits,
            reads=reads,
            writes=writes,
            share=share,
            node=node if leads else None,
            progress=progress,
            **arguments,
        )

    def device(self, device: str | None) -> str:
        """Return the device to train on: a GPU if the cluster has one now."""
        if device is None:
            self._wait_for(Share(cores=1.0))
            return "cuda" if self._read().has_gpus else "cpu"
        if device == "cuda" and not (self._read().has_gpus or autoscales()):
            raise SpecError(
                "--profile gpu: no node of the cluster has a GPU; add one, or leave out --profile "
                "to train on CPUs"
            )
        return device

    def _share(self, device: str) -> Share:
        return share_of(Numerics(device=device))

    def _wait_for(self, share: Share) -> Capacity:
        """Return the nodes once one of them can hold `share`.

        Raises:
            RunError: none has joined in time.
        """
        room = Room(share, self._read, most=1, requests=PlacementGroups(), autoscales=autoscales)
        try:
            while True:
                room.limit(running=0)
                capacity = self._read()
                if capacity.trials_at_a_time(share):
                    return capacity
                self._sleep(1.0)
        finally:
            room.close()

    def send(self, images: ImageSet) -> Any:
        """Send the images to the workers, once; return the handle from which they get them."""
        key = (images.fingerprint, layout_of(images))
        if key not in self._sent:
            self._sent.clear()
            self._sent[key] = self._send(images, cluster=self._read(), cache=None)
        return self._sent[key]


@contextmanager
def joined(address: str) -> Iterator[ClusterSite]:
    """Join the cluster at `address` until the end of the block.

    Raises:
        RunError: there is no cluster.
    """
    with ray_session(address=address):
        yield ClusterSite()


def profile_at(address: str) -> Profile:
    """Return the profile of the cluster at `address`: `gpu` if one of its nodes has a GPU now.

    Raises:
        RunError: there is no cluster, or none of its nodes can train.
    """
    with joined(address) as site:
        return "gpu" if site.device(None) == "cuda" else "cpu"


def _probe(
    recipe: Recipe, classes: int, image_size: int, device: str, threads: int
) -> tuple[str, Numerics]:
    """Return the kind of the node that this runs on, and the numerics that suit it."""
    numerics = probe_here(
        recipe, classes=classes, image_size=image_size, device=device, threads=threads
    )
    return machine_kind(device), numerics


def _rehearsal_share(node: Node, share: Share, workers: int) -> Share:
    """Return the resources of a rehearsal that imitates `workers` trials on `node`."""
    if share.gpus:
        return share
    return Share(cores=share.cores * min(workers, REHEARSED_AT_A_TIME, node.holds(share)))


def _rehearse(
    recipe: Recipe,
    images: Any,
    splits: Splits,
    numerics: Numerics,
    workers: int,
    seconds: float,
    measured_on: str,
) -> "Rehearsal":
    """Rehearse with the numerics that a trial would choose on this node."""
    from trainables.device.rehearsal import rehearse  # imports torch

    received: ImageSet = images.receive(None) if hasattr(images, "receive") else images
    if measured_on:
        numerics = NumericsHere().choose(
            recipe,
            numerics,
            measured_on=measured_on,
            classes=len(received.class_names),
            image_size=received.image_size,
        )
    measured = rehearse(
        recipe,
        images=received,
        splits=splits,
        numerics=numerics,
        workers=workers,
        seconds=seconds,
    )
    return replace(measured, slowness=slowness())
