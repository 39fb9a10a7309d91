"""Distill on several processes or machines at once, through Ray Train.

The number of workers changes only the speed: every batch is divided among them, and they take
the same optimizer steps as one process (see trainables/training/data_parallel.py, also for
batch normalization). Rank 0 saves every epoch. A worker that dies is replaced, and all workers
resume from the last epoch saved.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import ray
import ray.train
from pyarrow.fs import FileSystem
from ray.train.torch import TorchTrainer

from common.errors import QuorumError, RunError
from common.mirrored_folder import MirroredFolder
from common.plugins import add_import_folder
from ensemble.student.distillation import StudentResult, distill, read_reports
from ensemble.student.network import RaysNetwork
from ensemble.student.teacher import IdentifiedTeacher
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics, Recipe
from trainables.trainer import EpochReport
from trainables.training.data_parallel import DataParallel
from trainables.training.losses import Distillation


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """A folder on a file system that all workers reach, and the local folder that it copies."""

    filesystem: FileSystem
    path: str
    root: Path
    """Local folder of the process that leads the workers; relative paths are the same in both."""

    def mirror(self, root: Path) -> MirroredFolder:
        """Return a copy of the folder in `root`."""
        return MirroredFolder(self.filesystem, self.path, root)

    def name_of(self, path: Path) -> str:
        """Return the name of a path below the root."""
        return path.absolute().relative_to(self.root.absolute()).as_posix()


LEADERS_GPU = 0.01
"""Share of a GPU for the process that leads workers on other machines; it measures and exports."""

POLL_SECONDS = 0.5
"""Interval at which the driver looks for new reports."""

RESTARTS = 2
"""Number of times that a group with a lost worker is restarted."""

TIMEOUT_SECONDS = 300
"""Time that a worker waits for the others before it gives up."""


def distill_distributed(
    recipe: Recipe,
    *,
    workers: int,
    images: ImageSet,
    splits: Splits,
    seed: int,
    numerics: Numerics,
    start: Path | None = None,
    teacher: IdentifiedTeacher | None = None,
    distillation: Distillation | None = None,
    on_report: Callable[[EpochReport], None] | None = None,
    folder: Path | None = None,
    load_images: Callable[[], ImageSet] | None = None,
    shared: SharedFolder | None = None,
) -> StudentResult:
    """Run `ensemble.student.distillation.distill` on `workers` processes of the running Ray.

    Each worker takes numerics.threads cores, or a GPU if the numerics name one. Workers on other
    machines read `start` from `shared` and save every epoch there, from where it is copied to
    `folder`. Without `shared`, all workers must be on this machine. For data sets too large to
    send, each worker calls `load_images` instead of receiving `images`.

    Raises:
        RunError: Ray is not running or too small, or workers were lost more than twice;
            and every error of `distill`.
    """
    _require_room(workers, numerics)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(folder or temporary).absolute()
        arguments: dict[str, Any] = {
            "recipe": recipe,
            "splits": splits,
            "seed": seed,
            "numerics": numerics,
            "start": start,
            "teacher": teacher,
            "distillation": distillation,
            "folder": work,
        }
        config = {
            "arguments": ray.put(arguments),
            "images": ray.put(images if load_images is None else load_images),
            "load": load_images is not None,
            "modules": str(Path.cwd()),
            "shared": None if shared is None else ray.put(shared),
        }
        shutil.rmtree(work / "ray", ignore_errors=True)  # left by a killed driver
        refresh = _refreshing(shared, work, start)
        fit = _Fit(_trainer(config, workers, numerics, scratch=work / "ray", shared=shared))
        _follow(fit, work, on_report or (lambda _: None), refresh)
        if fit.error is not None:
            raise fit.error
        refresh()
        shutil.rmtree(work / "ray", ignore_errors=True)
        # The folder now holds the whole schedule: this loads the result and trains nothing.
        return distill(images=images, **arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTrainer:
    """Trains a student as `distill_distributed` does, led from any machine of a cluster."""

    workers: int
    filesystem: FileSystem
    path: str
    """Folder of the file system that no other training uses."""

    def __call__(
        self, recipe: Recipe, *, folder: Path, start: Path | None = None, **values: Any
    ) -> StudentResult:
        """Train; see `ensemble.student.distillation.distill`."""
        root = Path(os.path.commonpath([folder.parent, start or folder.parent]))
        shared = SharedFolder(self.filesystem, self.path, root)
        return distill_distributed(
            recipe, workers=self.workers, folder=folder, start=start, shared=shared, **values
        )


def _require_room(workers: int, numerics: Numerics) -> None:
    """Refuse more workers than Ray has resources for; Ray itself would wait forever."""
    if not ray.is_initialized():
        raise RunError("distillation on several workers needs a running Ray; start Ray first")
    available = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, needed in _resources(numerics).items():
        if workers * needed > available.get(name, 0):
            raise RunError(
                f"{workers} workers need {workers * needed} {name}, Ray has "
                f"{available.get(name, 0):g}; use fewer workers or a larger cluster"
            )


def _resources(numerics: Numerics) -> dict[str, int]:
    """Return the Ray resources of one worker."""
    gpu = numerics.device.startswith("cuda")
    return {"CPU": 1, "GPU": 1} if gpu else {"CPU": numerics.threads}


def _trainer(
    config: dict[str, Any],
    workers: int,
    numerics: Numerics,
    scratch: Path,
    shared: SharedFolder | None = None,
) -> TorchTrainer:
    gpu = numerics.device.startswith("cuda")
    resources: dict[str, float] = {**_resources(numerics)}
    storage: dict[str, Any] = {"storage_path": str(scratch)}
    if shared is not None:
        place = f"{shared.path}/{shared.name_of(scratch)}"
        storage = {"storage_path": place, "storage_filesystem": shared.filesystem}
        if gpu:
            resources["GPU"] = 1.0 - LEADERS_GPU
    return TorchTrainer(
        _work,  # type: ignore[arg-type]  # Ray's types do not allow a return value; its Result has one
        train_loop_config=config,
        torch_config=RaysNetwork(backend="nccl" if gpu else "gloo", timeout_s=TIMEOUT_SECONDS),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpu,
            resources_per_worker=resources,
        ),
        run_config=ray.train.RunConfig(
            name="distill",
            **storage,
            failure_config=ray.train.FailureConfig(max_failures=RESTARTS),
        ),
    )


def _work(config: dict[str, Any]) -> QuorumError | None:
    """Run one worker.

    A QuorumError is returned, not raised: Ray would restart the group, which cannot help.
    """
    add_import_folder(config["modules"])  # makes a user-defined net importable
    context = ray.train.get_context()
    parallel = DataParallel(rank=context.get_world_rank(), world_size=context.get_world_size())
    images = ray.get(config["images"])
    arguments = ray.get(config["arguments"])
    shared = None if config["shared"] is None else ray.get(config["shared"])
    try:
        with _mirrored(arguments, shared, writes=parallel.rank == 0) as mirrored:
            distill(images=images() if config["load"] else images, parallel=parallel, **mirrored)
    except QuorumError as error:
        return error
    return None


@contextmanager
def _mirrored(
    arguments: dict[str, Any], shared: SharedFolder | None, *, writes: bool
) -> Iterator[dict[str, Any]]:
    """Yield the arguments with local folders; if `writes`, push the folder after every epoch."""
    if shared is None:
        yield arguments
        return
    folders = {name: arguments[name] for name in ("folder", "start") if arguments[name] is not None}
    names = {key: shared.name_of(path) for key, path in folders.items()}
    with tempfile.TemporaryDirectory(prefix="quorum-") as temporary:
        root = Path(temporary)
        mirror = shared.mirror(root)
        mirror.pull(names.values())
        (root / names["folder"]).mkdir(parents=True, exist_ok=True)

        def push(_: EpochReport) -> None:
            mirror.push([names["folder"]])

        yield {
            **arguments,
            **{key: root / name for key, name in names.items()},
            "on_report": push if writes else None,
        }


def _refreshing(
    shared: SharedFolder | None, folder: Path, start: Path | None
) -> Callable[[], None]:
    """Put what workers need into the shared folder; return a function that fetches their epochs.

    A group that was lost earlier may have saved more epochs there than there are here.
    """
    if shared is None:
        return lambda: None
    mirror, name = shared.mirror(shared.root), shared.name_of(folder)
    mirror.pull([name])
    mirror.push([name, *([] if start is None else [shared.name_of(start)])])
    return lambda: mirror.pull([name])


class _Fit(Thread):
    """Run Ray Train in a thread; in the main thread it would intercept Ctrl-C."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(daemon=True)
        self.error: QuorumError | None = None
        self._trainer = trainer

    def run(self) -> None:
        try:
            self.error = self._trainer.fit().return_value  # type: ignore[attr-defined]
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.error = RunError(f"distillation on several workers failed: {lines[-1]}")


def _follow(
    fit: _Fit,
    folder: Path,
    on_report: Callable[[EpochReport], None],
    refresh: Callable[[], None] = lambda: None,
) -> None:
    """Start the training and pass on every new report until it ends."""
    passed_on = len(read_reports(folder))
    fit.start()
    running = True
    while running:
        fit.join(POLL_SECONDS)
        running = fit.is_alive()
        refresh()
        reports = read_reports(folder)
        for report in reports[passed_on:]:
            on_report(report)
        passed_on = max(passed_on, len(reports))
