"""The place where a run is measured and its trials run: this machine, or a cluster's workers.

Devices, numerics and paces differ between machines, so they are measured where trials will run.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from common.cpu_runtime import usable_cores
from search.timetable.capacity import Capacity, Share, machine_capacity, share_of
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.device.python_speed import slowness
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder

if TYPE_CHECKING:
    from trainables.device.rehearsal import Rehearsal


class Site(Protocol):
    """A place with machines of one or more kinds."""

    @property
    def on_cluster(self) -> bool:
        """True if machines other than this one run the trials."""

    def cores(self, device: str | None) -> int:
        """Return the cores of the smallest machine that can run a trial on `device`."""

    def capacity(self, numerics: Numerics) -> Capacity:
        """Return the machines that are there now."""

    def probe(
        self, recipe: Recipe, images: ImageSet, *, device: str | None, threads: int
    ) -> Numerics:
        """Measure which dtype and memory layout train a recipe fastest there.

        `device` is `cpu`, `cuda`, or None for a GPU if there is one.

        Raises:
            SpecError: `device` is `cuda`, and there is no GPU.
            RunError: no machine that can run a trial has joined the cluster.
        """

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
        """Time training steps of a recipe there; see `trainables.device.rehearsal.rehearse`."""

    def driver_slowness(self) -> float:
        """Return the factor by which Python is slower than usual in this process; at least 1."""

    def send(self, images: ImageSet) -> Any:
        """Send the images to the workers, once; return a handle, or None if workers run here."""

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
        """Call `function(folder, images=, splits=, progress=, **arguments)` on a machine there.

        The machine is one that can train with `numerics`. The function may read the files and
        folders `reads` of the run's folder, and write those in `writes`. If it `leads`, it starts
        other tasks that need the cores and GPUs.
        """

    @property
    def measured_on(self) -> str | None:
        """The kind of machine that numerics were measured on; None if all machines are alike.

        An empty string if the kind is unknown: measured by an earlier process, or on several kinds.
        """


class ThisMachine:
    """The machine that this process runs on."""

    on_cluster = False
    measured_on: str | None = None

    def cores(self, device: str | None) -> int:  # noqa: ARG002 (a Site)
        """Return the cores that this process may use."""
        return usable_cores()

    def capacity(self, numerics: Numerics) -> Capacity:
        """Return this machine."""
        return machine_capacity(numerics)

    def probe(
        self, recipe: Recipe, images: ImageSet, *, device: str | None, threads: int
    ) -> Numerics:
        """Measure here."""
        return probe_here(
            recipe,
            classes=len(images.class_names),
            image_size=images.image_size,
            device=device,
            threads=threads,
        )

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
        """Measure here."""
        from trainables.device.rehearsal import rehearse  # imports torch

        measured = rehearse(
            recipe,
            images=images,
            splits=splits,
            numerics=numerics,
            workers=workers,
            seconds=seconds,
        )
        return replace(measured, slowness=self.driver_slowness())

    def driver_slowness(self) -> float:
        """Measure here."""
        return slowness()

    def send(self, images: ImageSet) -> Any:  # noqa: ARG002 (a Site)
        """Return None: workers are on this machine."""
        return None

    def run_stage(
        self,
        function: Callable[..., Any],
        folder: RunFolder,
        *,
        images: ImageSet,
        splits: Splits,
        numerics: Numerics,  # noqa: ARG002 (a Site)
        reads: Sequence[str],  # noqa: ARG002
        writes: Sequence[str],  # noqa: ARG002
        progress: Callable[[float, str], None],
        leads: bool = False,  # noqa: ARG002
        **arguments: Any,
    ) -> Any:
        """Call the function here."""
        return function(folder, images=images, splits=splits, progress=progress, **arguments)


def probe_here(
    recipe: Recipe, *, classes: int, image_size: int, device: str | None, threads: int
) -> Numerics:
    """Measure which dtype and memory layout train a recipe fastest on this machine.

    Raises:
        SpecError: `device` is `cuda`, and there is no GPU.
    """
    # torch takes seconds to import, and a run that only selects does not need it.
    import torch

    from trainables.device.gpus import require_gpu
    from trainables.device.probe import probe

    if device == "cuda":
        require_gpu()
    return probe(
        recipe,
        classes=classes,
        image_size=image_size,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        threads=threads,
    )


def trials_at_a_time(site: Site, numerics: Numerics, *, most: int | None) -> tuple[int, int]:
    """Return how many trials run at a time, in all and on one machine; at least one each.

    `most` is the user's limit.
    """
    share, capacity = share_of(numerics), site.capacity(numerics)
    in_all = max(1, capacity.trials_at_a_time(share))
    workers = in_all if most is None else min(most, in_all)
    return workers, max(1, min(workers, capacity.most_on_a_node(share)))


def whole_machine(cores: int, numerics: Numerics) -> Share:
    """Return the resources of a single training that has a machine to itself."""
    on_gpu = numerics.device.startswith("cuda")
    return Share(cores=1.0, gpus=1.0) if on_gpu else Share(cores=float(cores))
