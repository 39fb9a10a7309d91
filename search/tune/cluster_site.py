"""Measure and run whole stages on a cluster's workers, as Ray tasks."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from common.errors import SpecError
from search.timetable.capacity import Capacity, Share, share_of
from search.timetable.site import probe_here, whole_machine
from search.tune.cluster import autoscales, call_with_share, cluster_capacity
from search.tune.data_travel import sent_images
from search.tune.remote_stage import run_remotely
from search.tune.room import PlacementGroups, Room
from search.tune.session import ray_session
from trainables.data.cache import Layout, layout_of
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.device.kinds import machine_kind
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder

if TYPE_CHECKING:
    from trainables.device.rehearsal import Rehearsal

REHEARSED_AT_A_TIME = 4
"""Most workers that a rehearsal imitates (see trainables/device/rehearsal.py)."""


LEADERS_GPU = 0.01
"""Part of a GPU that a stage takes if others train for it; it must see one."""


class ClusterSite:
    """The workers of the Ray that this process has joined."""

    on_cluster = True

    def __init__(
        self,
        *,
        capacity: Callable[[], Capacity] = cluster_capacity,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`capacity` reads the nodes."""
        self._read = capacity
        self._sleep = sleep
        self._sent: dict[tuple[str, Layout], Any] = {}
        self._kinds: set[str] = set()
        """Kinds of machines on which numerics were measured."""

    @property
    def measured_on(self) -> str:
        """The kind of machine that numerics were measured on.

        Empty, so that workers choose for themselves, if families were measured on different kinds,
        or none was measured.
        """
        return next(iter(self._kinds)) if len(self._kinds) == 1 else ""

    def cores(self, device: str | None) -> int:
        """Return the cores of the smallest node that can run a trial; wait for one to join."""
        share = self._share(self._device(device))
        nodes = [node for node in self._wait_for(share).nodes if node.holds(share)]
        return int(min(node.cores for node in nodes))

    def capacity(self, numerics: Numerics) -> Capacity:  # noqa: ARG002 (a Site)
        """Return the nodes that are alive now."""
        return self._read()

    def probe(
        self, recipe: Recipe, images: ImageSet, *, device: str | None, threads: int
    ) -> Numerics:
        """Measure on a worker with a trial's resources."""
        device = self._device(device)
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
        """Measure on a worker that has the resources of all `workers` of one machine."""
        share = share_of(numerics)
        if not share.gpus:
            cores = share.cores * min(workers, REHEARSED_AT_A_TIME)
            share = Share(cores=min(cores, self._read().largest_for(share).cores))
        return call_with_share(
            _rehearse,
            recipe,
            self.send(images),
            splits,
            numerics,
            workers,
            seconds,
            share=share,
        )

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

    def _device(self, device: str | None) -> str:
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
        """Return what workers get the images from; they are sent once."""
        key = (images.fingerprint, layout_of(images))
        if key not in self._sent:
            self._sent.clear()
            self._sent[key] = sent_images(images, cluster=self._read(), cache=None)
        return self._sent[key]


@contextmanager
def joined(address: str) -> Iterator[ClusterSite]:
    """Join the cluster at `address` until the end of the block.

    Raises:
        RunError: there is no cluster.
    """
    with ray_session(address=address):
        yield ClusterSite()


def _probe(
    recipe: Recipe, classes: int, image_size: int, device: str, threads: int
) -> tuple[str, Numerics]:
    """Return the kind of the node that this runs on, and the numerics that suit it."""
    numerics = probe_here(
        recipe, classes=classes, image_size=image_size, device=device, threads=threads
    )
    return machine_kind(device), numerics


def _rehearse(
    recipe: Recipe,
    images: Any,
    splits: Splits,
    numerics: Numerics,
    workers: int,
    seconds: float,
) -> "Rehearsal":
    from trainables.device.rehearsal import rehearse  # imports torch

    return rehearse(
        recipe,
        images=images.receive(None) if hasattr(images, "receive") else images,
        splits=splits,
        numerics=numerics,
        workers=workers,
        seconds=seconds,
    )
