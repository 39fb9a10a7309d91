"""Measure training loops in turns, each in its own process, on random images.

`usual` is the loop of `usual_loop.py`, `steps` are its training steps on batches in memory, and
`ours` is our training.
"""

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import numpy as np
import torch
from usual_loop import UsualLoop, eager_batches

from common.cpu_runtime import usable_cores
from common.seeds import numpy_generator
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.device.probe import Measurement, measure
from trainables.recipe import Dtype, Numerics, Recipe
from trainables.training.loop import Training

K = TypeVar("K")

SIZE, CLASSES, IMAGES = 32, 10, 8192
SECONDS, MOST_STEPS = 4.0, 8
"""A turn takes as many steps as fit into SECONDS, MOST_STEPS at most."""

PAUSE = 3.0
"""Seconds after a turn of the usual loop, whose workers prepare a few more batches meanwhile."""

LITE0 = Recipe(
    model="timm:tf_efficientnet_lite0",
    pretrained="package",
    input_size=96,
    batch_size=64,
    optimizer="adamw",
    adamw_lr=7e-4,
)

USUAL, STEPS_ALONE, OURS = "usual", "steps", "ours"


def speeds_in_turns(
    tasks: Mapping[K, tuple[Any, ...]], rounds: int, *, with_loader: Collection[K]
) -> dict[K, list[float]]:
    """Return the images per second of every round by task; all take turns.

    A task is a function for `racing` and its arguments. Each runs in its own process, because ours
    changes its process's memory allocator. A pause follows the turns of tasks `with_loader`.
    """
    with ExitStack() as stack:
        turns = {key: stack.enter_context(racing(*task)) for key, task in tasks.items()}
        speeds: dict[K, list[float]] = {key: [] for key in tasks}
        for index in range(1 + rounds):
            for key, turn in turns.items():
                speed = turn()
                if index:  # the first warms up
                    speeds[key].append(speed)
                if key in with_loader:
                    time.sleep(PAUSE)
    return speeds


@contextmanager
def racing(task: Callable[..., None], *arguments: object) -> Iterator[Callable[[], float]]:
    """Start a process for `task`; yield a function that runs a turn in it and returns its speed."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=task, args=(far, *arguments))
    process.start()
    far.close()  # so that a process that fails ends the benchmark

    def turn() -> float:
        near.send("go")
        return float(near.recv())

    try:
        yield turn
    finally:
        with suppress(BrokenPipeError):
            near.send(None)
        process.join()


def race(connection: Connection, recipe: Recipe, dtype: Dtype, kind: str) -> None:
    """Answer every message with the images per second of a turn, until None."""
    task, lead = steps_of(recipe, dtype, kind)
    steps = 0
    while connection.recv():
        if not steps:
            task(2)
            start = time.perf_counter()
            task(2)
            each = (time.perf_counter() - start) / 2
            steps = max(2, min(MOST_STEPS, int(SECONDS / each)))
        task(lead)
        start = time.perf_counter()
        task(steps)
        seconds = time.perf_counter() - start
        connection.send(steps * recipe.optimizer.batch_size / seconds)


def steps_of(recipe: Recipe, dtype: Dtype, kind: str) -> tuple[Callable[[int], None], int]:
    """Return a function that takes n training steps, and the number of steps that warm it up.

    The warm-up is not timed, because the loader prepared its batches during other turns.
    """
    torch.set_num_threads(usable_cores())
    images = noise()
    if kind == OURS:
        return training_of(recipe, dtype, images, everything()).rehearse, 1
    loop = UsualLoop(recipe, images.images, images.labels, classes=CLASSES, seed=0, dtype=dtype)
    if kind == USUAL:
        batches, lead = loop.batches(), 3 * usable_cores()
    else:
        batches, lead = (
            eager_batches(images.images, images.labels, side=loop.model.input_size,
                          batch=loop.batch_size),
            1,
        )  # fmt: skip

    def take(steps: int) -> None:
        for pixels, labels in itertools.islice(batches, steps):
            loop.step(pixels, labels)

    return take, lead


def training_of(recipe: Recipe, dtype: Dtype, images: ImageSet, splits: Splits) -> Training:
    """Return our training with its first seed."""
    return Training(
        recipe,
        rungs=(recipe.schedule.epochs,),
        seed=0,
        numerics=numerics(dtype),
        images=images,
        splits=splits,
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the median of paired ratios and their range."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"


def faster_dtypes(recipe: Recipe) -> tuple[list[Dtype], float]:
    """Return float32 and, if it is faster, bfloat16; and the speed-up of a bare step."""
    measured = measure(
        recipe.with_values(pretrained=""),
        classes=CLASSES,
        image_size=SIZE,
        device="cpu",
        threads=usable_cores(),
        budget_seconds=8.0,
        half="bfloat16",
    )

    def best(dtype: Dtype) -> float:
        return min((each.seconds for each in measured if is_of(each, dtype)), default=float("inf"))

    gain = best("float32") / best("bfloat16")
    return ["float32", "bfloat16"] if gain > 1 else ["float32"], gain


def is_of(measured: Measurement, dtype: Dtype) -> bool:
    """Return whether the measurement has this dtype."""
    return measured.numerics.dtype == dtype


def numerics(dtype: Dtype) -> Numerics:
    """Return numerics in this dtype on all cores."""
    return Numerics(dtype=dtype, threads=usable_cores())


def noise() -> ImageSet:
    """Return random images, which take as long to process as real ones."""
    rng = numpy_generator(0, "benchmark")
    return ImageSet(
        name="noise",
        images=rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8),
        labels=np.arange(IMAGES) % CLASSES,
        class_names=tuple(str(i) for i in range(CLASSES)),
    )


def everything() -> Splits:
    """Return splits that train on all images and score on the first 512."""
    rows = np.arange(IMAGES)
    return Splits(train=rows, val=rows[:512], holdout=rows[:0], test=rows[:0], split_id="all")
