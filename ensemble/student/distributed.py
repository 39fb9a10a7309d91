"""Distil on several processes or machines at once, through Ray Train.

The number of workers is a matter of speed alone: every batch is divided over them, and
they take the same optimizer steps as one process would (see
trainables/training/data_parallel.py, and there what holds for batch normalization). Rank 0
saves every epoch; a worker that dies is replaced, and all go on from the last epoch saved.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from common.errors import QuorumError, RunError
from common.plugins import use_folder
from ensemble.student.student import NamedTeacher, StudentResult, distil, read_reports
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics, Recipe
from trainables.training.data_parallel import Replica
from trainables.training.loop import EpochReport
from trainables.training.losses import Distillation

POLL_SECONDS = 0.5
"""How often the driver looks for new reports."""

RESTARTS = 2
"""How often a group with a lost worker is started again."""

TIMEOUT_SECONDS = 300
"""How long a worker waits for the others before it gives up."""


def distil_distributed(
    recipe: Recipe,
    *,
    workers: int,
    images: ImageSet,
    splits: Splits,
    seed: int,
    numerics: Numerics,
    teacher: NamedTeacher | None = None,
    distillation: Distillation | None = None,
    on_report: Callable[[EpochReport], None] | None = None,
    folder: Path | None = None,
    load_images: Callable[[], ImageSet] | None = None,
) -> StudentResult:
    """`ensemble.student.student.distil` on `workers` processes of the Ray that is running.

    Each worker takes numerics.threads cores, or a GPU if the numerics name one. `folder`
    must be on storage that all machines share; without one, a temporary folder serves as
    long as all workers are on this machine. `load_images` is for sets too large to
    send: each worker calls it instead of receiving `images`.

    Raises:
        RunError: Ray is not running or too small, or workers were lost more than twice;
            and all that `distil` raises.
    """
    _require_room(workers, numerics)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(folder or temporary).absolute()
        arguments: dict[str, Any] = {
            "recipe": recipe,
            "splits": splits,
            "seed": seed,
            "numerics": numerics,
            "teacher": teacher,
            "distillation": distillation,
            "folder": work,
        }
        config = {
            "arguments": ray.put(arguments),
            "images": ray.put(images if load_images is None else load_images),
            "load": load_images is not None,
            "modules": str(Path.cwd()),
        }
        shutil.rmtree(work / "ray", ignore_errors=True)  # of a driver that was killed
        fit = _Fit(_trainer(config, workers, numerics, scratch=work / "ray"))
        _follow(fit, work, on_report or (lambda _: None))
        if fit.error is not None:
            raise fit.error
        shutil.rmtree(work / "ray", ignore_errors=True)
        # The whole schedule is in the folder now: this trains nothing, it loads the result.
        return distil(images=images, **arguments)


def _require_room(workers: int, numerics: Numerics) -> None:
    """Ray would wait without end for resources that it does not have."""
    if not ray.is_initialized():
        raise RunError("distilling with several workers needs a running Ray; start one first")
    there = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, needed in _resources(numerics).items():
        if workers * needed > there.get(name, 0):
            raise RunError(
                f"{workers} workers need {workers * needed} {name}, Ray has "
                f"{there.get(name, 0):g}; take fewer workers or a larger cluster"
            )


def _resources(numerics: Numerics) -> dict[str, int]:
    """What one worker takes."""
    gpu = numerics.device.startswith("cuda")
    return {"CPU": 1, "GPU": 1} if gpu else {"CPU": numerics.threads}


def _trainer(
    config: dict[str, Any], workers: int, numerics: Numerics, scratch: Path
) -> TorchTrainer:
    gpu = numerics.device.startswith("cuda")
    return TorchTrainer(
        _work,  # type: ignore[arg-type]  # Ray's types know no return value, its Result does
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo", timeout_s=TIMEOUT_SECONDS),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpu,
            resources_per_worker=_resources(numerics),
        ),
        run_config=ray.train.RunConfig(
            name="distil",
            storage_path=str(scratch),
            failure_config=ray.train.FailureConfig(max_failures=RESTARTS),
        ),
    )


def _work(config: dict[str, Any]) -> QuorumError | None:
    """What every worker runs. An error of ours is returned: starting again would not mend it."""
    use_folder(config["modules"])  # where a net of the user's own comes from
    context = ray.train.get_context()
    replica = Replica(rank=context.get_world_rank(), world=context.get_world_size())
    images = ray.get(config["images"])
    try:
        distil(
            images=images() if config["load"] else images,
            replica=replica,
            **ray.get(config["arguments"]),
        )
    except QuorumError as error:
        return error
    return None


class _Fit(Thread):
    """Ray Train at work; in the main thread it would take Ctrl-C over."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(daemon=True)
        self.error: QuorumError | None = None
        self._trainer = trainer

    def run(self) -> None:
        try:
            self.error = self._trainer.fit().return_value  # type: ignore[attr-defined]
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.error = RunError(f"distilling with several workers failed: {lines[-1]}")


def _follow(fit: _Fit, folder: Path, on_report: Callable[[EpochReport], None]) -> None:
    """Start it, and hand on every new report until it ends."""
    told = len(read_reports(folder))
    fit.start()
    running = True
    while running:
        fit.join(POLL_SECONDS)
        running = fit.is_alive()
        reports = read_reports(folder)
        for report in reports[told:]:
            on_report(report)
        told = max(told, len(reports))
