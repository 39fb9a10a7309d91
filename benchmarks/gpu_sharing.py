"""Part `sharing` of gpu.py: trials per hour with 1, 4 and 16 at a time on one device.

    processes   each trial in a process of its own, all on one device, without CUDA MPS
    threads     all trials in one process, each in a thread with a CUDA stream of its own
    ray         actors of Ray with a share of the GPU each, if Ray can be imported

A trial is built, trained for TRIAL's 8 epochs of 42,500 images, scored after each, and predicts
val and holdout; then the next one begins. All train for the same time, and an epoch counts when it
ends. Starting processes and threads, and the first epoch of each, are not counted. In the arms
`threads` and `ray`, no other process holds memory on the device.

The arm `threads` measures speed only. Trainings in one process share torch's generators, so their
initial weights and dropout masks depend on the order in which the threads draw: these trials cannot
be replayed. A sweep therefore packs processes. Threads would have to be much faster to be worth
generators of their own. Steps are not captured here.
"""

import importlib.util
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gpu_session import Column, Report, Session
from gpu_workers import Crew, Progress, Work, Worker, mapped, train_for

from common.failures import one_line
from trainables.data.splits import SplitSpec, make_splits
from trainables.recipe import Recipe

GOAL = 4.0
"""Smallest ratio of the best rate to that of one trial at a time."""
TRIAL = Recipe(epochs=8)
TINY: dict[str, Any] = {"width": 4, "epochs": 2, "batch_size": 64}
COUNTS = (1, 4, 16)
COLUMNS = {
    "arm": Column("arm"),
    "at_a_time": Column("at a time"),
    "trials_per_hour": Column("trials/h", ",.0f"),
    "ratio": Column("over one", ".2f"),
    "images_per_second": Column("images/s", ",.0f"),
    "gib": Column("GiB on the card", ".1f"),
    "busy": Column("GPU busy", ".0%"),
}


def run_sharing(session: Session) -> None:
    """Measure every arm at every count; print how much the best gains."""
    report = Report(session, "sharing", COLUMNS)
    images = session.images()
    splits = make_splits(images, SplitSpec())
    counts = session.pick(COUNTS, (1, 2))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        np.save(Path(folder) / "images.npy", images.images)
        np.save(Path(folder) / "labels.npy", images.labels)
        work = Work(
            images=folder,
            splits=splits,
            recipe=TRIAL.with_values(**session.pick({}, TINY)),
            numerics=session.numerics(),
        )
        crew = Crew(work)
        stack.callback(crew.at_most, 0)
        with noted(report, crew, "starting the workers"):
            crew.at_least(max(counts))  # now, because imports would slow the first arm down
        planned: list[tuple[str, int]] = [("processes", count) for count in counts]
        planned += [("threads", count) for count in counts if count > 1]
        ray = not session.tiny and importlib.util.find_spec("ray") is not None
        planned += [("ray", counts[-1])] if ray else []
        for number, (arm, count) in enumerate(planned):
            # Half for measuring: the first trials and the last epochs take time, too.
            seconds = session.pick(0.5 * session.seconds_left / (len(planned) - number), 0.1)
            if seconds < session.pick(1, 0):
                report.note(f"{arm}, {count} at a time: no time left")
                continue
            with noted(report, crew, f"{arm}, {count} at a time"):
                measure(report, crew, arm, count, seconds=seconds)
    if not report.rows:
        raise SystemExit(1)
    best = max(report.rows, key=lambda row: float(row["ratio"]))
    report.note(
        f"best: {best['at_a_time']} {best['arm']}, {best['ratio']:.2f} times one at a time; "
        f"the goal is {GOAL:.0f}"
    )


@contextmanager
def noted(report: Report, crew: Crew, what: str) -> Iterator[None]:
    """Note an exception, e.g. of a worker out of memory, and stop the workers.

    The others may be training for this arm, and the next would read their answers as its own.
    """
    try:
        yield
    except Exception as error:
        report.note(f"{what}: failed ({one_line(error)})")
        crew.at_most(0)


def measure(report: Report, crew: Crew, arm: str, count: int, *, seconds: float) -> None:
    """Train `count` trials at a time for `seconds`; add a row."""
    work = crew.work
    card = Card(report.session.on_gpu)
    watcher = threading.Timer(seconds / 2, card.look)
    watcher.daemon = True  # an arm that failed does not wait for it
    if arm == "ray":
        crew.at_most(0)
        progresses = in_ray(work, count, seconds, watcher.start)
    elif arm == "threads":
        crew.at_most(1)
        progresses = in_workers(crew.at_least(1), count, seconds, watcher.start)
    else:
        progresses = in_workers(crew.at_least(count), 1, seconds, watcher.start)
    watcher.join()
    rate = sum(progress.rate for progress in progresses)
    one = next((row["epochs_per_second"] for row in report.rows), rate)
    report.row(
        arm=arm, at_a_time=count,
        trials_per_hour=3600 * rate / work.recipe.schedule.epochs,
        ratio=rate / one,
        images_per_second=rate * len(work.splits.train),
        gib=card.gib, busy=card.busy,
        epochs_per_second=rate,
        epochs=sum(progress.epochs for progress in progresses),
        seconds=seconds,
    )  # fmt: skip


@dataclass(slots=True)
class Card:
    """Memory and load of the GPU, read once by nvidia-smi."""

    present: bool
    gib: float | None = None
    busy: float | None = None

    def look(self) -> None:
        """Read them now, if there is a GPU."""
        if not self.present:
            return
        query = ["nvidia-smi", "--query-gpu=memory.used,utilization.gpu"]
        query += ["--format=csv,noheader,nounits"]
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            used, load = done.stdout.splitlines()[0].split(",")
            self.gib, self.busy = float(used) / 1024, float(load) / 100


def in_workers(
    workers: Sequence[Worker], threads: int, seconds: float, begin: Callable[[], None]
) -> list[Progress]:
    """Train in `threads` threads of each worker, after an uncounted epoch in each thread."""
    for phase in (0.0, seconds):
        if phase:
            begin()
        for worker in workers:
            worker.send((threads, phase))
        answers = [worker.receive() for worker in workers]
    return [progress for answer in answers for progress in answer]


def in_ray(work: Work, count: int, seconds: float, begin: Callable[[], None]) -> list[Progress]:
    """Train in actors of Ray that share the GPU."""
    import ray

    from search.tune.session import ray_session

    gpu = work.numerics.device != "cpu"
    with ray_session(cpus=count, gpus=int(gpu)):
        actors: list[Any] = [
            ray.remote(RayWorker).options(num_cpus=1, num_gpus=gpu / count).remote(work)
            for _ in range(count)
        ]
        ray.get([actor.train.remote(0.0) for actor in actors])
        begin()
        progresses: list[Progress] = ray.get([actor.train.remote(seconds) for actor in actors])
    return progresses


class RayWorker:
    """An actor that trains when it is asked to."""

    def __init__(self, work: Work) -> None:
        """Map the images."""
        self._work, self._images = work, mapped(work.images)

    def train(self, seconds: float) -> Progress:
        """Train one trial after another for `seconds`."""
        return train_for(self._work, self._images, seconds)
