"""Part `sharing` of gpu.py: trials per hour with 1, 4 and 16 at a time on one device.

    processes   each trial in a process of its own, all on one device, no service between them
    threads     all trials in one process, each in a thread with a CUDA stream of its own
    ray         actors of Ray with a share of the GPU each, if Ray can be imported

A trial is built, trained for TRIAL.epochs epochs of 42,500 images, scored after each, and predicts
val and holdout; then the next one begins. All train for the same time, and an epoch counts when it
ends. Starting the processes and a first trial are not counted.
"""

import importlib.util
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_session import Column, Report, Session

from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits, SplitSpec, make_splits
from trainables.recipe import Numerics, Recipe
from trainables.training.loop import Training

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The trials of a worker; it can be sent to another process."""

    images: str
    """A folder with images.npy and labels.npy, which workers map into their memory."""
    splits: Splits
    recipe: Recipe
    numerics: Numerics


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Epochs that ended, and the seconds until the last of them."""

    epochs: int
    seconds: float

    @property
    def rate(self) -> float:
        """Epochs per second."""
        return self.epochs / self.seconds


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
        workers = stack.enter_context(started(work, max(counts)))
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
            try:
                measure(report, work, arm, count, workers, seconds=seconds)
            except Exception as error:  # e.g. a worker out of memory; the other rows count
                report.note(f"{arm}, {count} at a time: failed ({error!r})")
    if not report.rows:
        raise SystemExit(1)
    best = max(report.rows, key=lambda row: float(row["ratio"]))
    report.note(
        f"best: {best['at_a_time']} {best['arm']}, {best['ratio']:.2f} times one at a time; "
        f"the goal is {GOAL:.0f}"
    )


def measure(
    report: Report,
    work: Work,
    arm: str,
    count: int,
    workers: "Sequence[Worker]",
    *,
    seconds: float,
) -> None:
    """Train `count` trials at a time for `seconds`; add a row."""
    card = Card(report.session.on_gpu)
    watcher = threading.Timer(seconds / 2, card.look)
    if arm == "ray":
        progresses = in_ray(work, count, seconds, watcher.start)
    else:
        chosen = workers[:1] if arm == "threads" else workers[:count]
        threads = count if arm == "threads" else 1
        for phase in (0.0, seconds):  # a first trial each, then the measured ones
            for worker in chosen:
                worker.send((threads, phase))
            if phase:
                watcher.start()
            answers = [worker.receive() for worker in chosen]
        progresses = [progress for answer in answers for progress in answer]
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


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that trains when it is asked to."""

    connection: Connection

    def send(self, request: tuple[int, float]) -> None:
        """Ask for trials in so many threads, for so many seconds."""
        self.connection.send(request)

    def receive(self) -> list[Progress]:
        """Wait for the progress of each thread."""
        answer: list[Progress] = self.connection.recv()
        return answer


@contextmanager
def started(work: Work, count: int) -> Iterator[list[Worker]]:
    """Start worker processes; stop them at the end."""
    context = get_context("spawn")
    workers, processes = [], []
    for _ in range(count):
        near, far = context.Pipe()
        process = context.Process(target=serve, args=(far, work), daemon=True)
        process.start()
        far.close()  # so that a dead worker is an EOFError here
        workers.append(Worker(near))
        processes.append(process)
    try:
        yield workers
    finally:
        for worker in workers:
            worker.connection.close()
        for process in processes:
            process.join(5)
            process.kill()


def serve(connection: Connection, work: Work) -> None:
    """Answer requests until the other side closes the connection."""
    images = mapped(work.images)
    while True:
        try:
            threads, seconds = connection.recv()
        except EOFError:
            return
        connection.send(train_in_threads(work, images, threads, seconds))


def mapped(folder: str) -> ImageSet:
    """Return the images in a folder, mapped into memory."""
    labels = np.load(Path(folder) / "labels.npy")
    return ImageSet(
        name="shared",
        images=np.load(Path(folder) / "images.npy", mmap_mode="r"),
        labels=labels,
        class_names=tuple(str(number) for number in range(int(labels.max()) + 1)),
        digests=np.zeros((len(labels), 16), np.uint8),
    )


def train_in_threads(work: Work, images: ImageSet, threads: int, seconds: float) -> list[Progress]:
    """Train in so many threads at a time, each with a stream of its own."""
    if threads == 1:
        return [train_for(work, images, seconds)]
    results: list[Progress] = []

    def train() -> None:
        on_gpu = work.numerics.device != "cpu"
        stream = torch.cuda.Stream() if on_gpu else None  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            results.append(train_for(work, images, seconds))

    pool = [threading.Thread(target=train) for _ in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    if len(results) < threads:
        raise RuntimeError(f"{threads - len(results)} of {threads} threads failed")
    return results


def train_for(work: Work, images: ImageSet, seconds: float) -> Progress:
    """Train one trial after another until the time is over; at least one epoch."""
    started, epochs, seed = time.perf_counter(), 0, 0
    while True:
        training = Training(
            work.recipe,
            rungs=(work.recipe.schedule.epochs,),
            seed=seed,
            numerics=work.numerics,
            images=images,
            splits=work.splits,
        )
        for _ in training.reports():
            epochs += 1
            elapsed = time.perf_counter() - started
            if elapsed >= seconds:
                return Progress(epochs=epochs, seconds=elapsed)
        for rows in (work.splits.val, work.splits.holdout):
            training.log_probs(rows)
        seed += 1


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
        """Train trials for so many seconds."""
        return train_for(self._work, self._images, seconds)
