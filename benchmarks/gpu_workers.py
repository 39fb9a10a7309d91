"""Processes that train on one device when they are asked to, in one thread or in several."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from common.failures import one_line
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics, Recipe
from trainables.training.loop import Training

T = TypeVar("T")

START_SECONDS = 120.0
"""Longest time in which the threads of a worker start."""


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


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that trains when it is asked to."""

    process: BaseProcess
    connection: Connection

    def send(self, request: tuple[int, float]) -> None:
        """Ask for trials; `request` is the number of threads and the seconds to train for."""
        self.connection.send(request)

    def receive(self) -> list[Progress]:
        """Wait for the progress of each thread.

        Raises:
            RuntimeError: a training failed.
            EOFError: the process ended.
        """
        answer: list[Progress] | str = self.connection.recv()
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer


@dataclass(slots=True)
class Crew:
    """The worker processes; unless an answer is due, each waits for a request."""

    work: Work
    workers: list[Worker] = field(default_factory=list)

    def at_least(self, count: int) -> list[Worker]:
        """Return `count` workers; start those that are missing and wait until they are ready.

        A worker holds nothing on the device before its first request.
        """
        missing = [_started(self.work) for _ in range(count - len(self.workers))]
        self.workers += missing
        for worker in missing:
            worker.receive()
        return self.workers[:count]

    def at_most(self, count: int) -> None:
        """Stop all workers but the first `count`; what they hold on the device becomes free."""
        stopped, self.workers = self.workers[count:], self.workers[:count]
        for worker in stopped:
            worker.process.kill()
            worker.connection.close()
        for worker in stopped:
            worker.process.join()


def _started(work: Work) -> Worker:
    context = get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=serve, args=(far, work), daemon=True)
    process.start()
    far.close()  # so that a dead worker is an EOFError here
    return Worker(process, near)


def serve(connection: Connection, work: Work) -> None:
    """Report ready, then answer requests until the other side closes the connection."""
    images = mapped(work.images)
    threads: Threads | None = None
    connection.send([])
    while True:
        try:
            count, seconds = connection.recv()
        except EOFError:
            return
        task = partial(train_for, work, images, seconds)
        try:
            if count > 1 and (threads is None or threads.count != count):
                threads = Threads(count, on_gpu=work.numerics.device != "cpu")
            connection.send([task()] if count == 1 or threads is None else threads.run(task))
        except Exception as error:  # e.g. memory ran out
            connection.send(one_line(error))


class Threads:
    """Threads that stay alive between tasks, each with a CUDA stream of its own.

    cuDNN's choices of algorithms belong to a thread, and torch's cached memory to a stream: those
    of threads that end would be lost.
    """

    def __init__(self, count: int, *, on_gpu: bool) -> None:
        """Prepare `count` threads, which start with the first task; free unused device memory."""
        self.count = count
        if on_gpu:
            torch.cuda.empty_cache()
        self._pool = ThreadPoolExecutor(count, initializer=_use_own_stream if on_gpu else None)

    def run(self, task: Callable[[], T]) -> list[T]:
        """Run the task in all threads at the same time; return their results."""
        together = threading.Barrier(self.count)

        def begin() -> T:
            together.wait(START_SECONDS)  # so that no thread takes the task of another
            return task()

        futures = [self._pool.submit(begin) for _ in range(self.count)]
        return [future.result() for future in futures]


def _use_own_stream() -> None:
    torch.cuda.set_stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]


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
