"""Part `replay` of gpu.py: differences between two trainings from the same recipe and seed.

    as it is        as in a run: cuDNN times its algorithms and chooses
    captured        with the gradients in a CUDA graph, beside the eager training; only on a GPU
    another seed    the same recipe from another seed, for scale
    deterministic   torch.use_deterministic_algorithms, cuBLAS's fixed workspace and no timing by
                    cuDNN; what it costs

The second training of a pair has a process of its own, as a replay has: within a process cuDNN
remembers its choices. Seconds are those of the second training and include cuDNN's timing, except
those of `another seed`, which is trained in the first one's process and uses its choices.
Log-probabilities and accuracy are those of val.

On the CPU a replay is bitwise equal. On a GPU, sums by atomic operations are added in an order
that varies, and each of the differences grows from step to step.
"""

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from gpu_session import Column, Report, Session

from common.errors import DivergedError
from common.failures import one_line
from trainables.data.image_set import ImageSet
from trainables.data.splits import SplitSpec, make_splits
from trainables.recipe import Recipe
from trainables.training.loop import Training

RECIPE = Recipe(epochs=8, augment="trivialaugment", mixup_alpha=0.2)
"""The layers and operations of an ordinary trial, scatters and gathers included."""
TINY: dict[str, Any] = {"width": 4, "epochs": 1, "batch_size": 64}
COLUMNS = {
    "arm": Column("arm"),
    "bitwise": Column("bitwise equal"),
    "weights": Column("largest difference of weights", ".2g"),
    "log_probs": Column("largest difference of log-probabilities", ".2g"),
    "accuracy": Column("difference of accuracy", ".2%"),
    "seconds": Column("seconds", ".1f"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The result of a training; `weights` are those of the scored network."""

    weights: Mapping[str, np.ndarray]
    log_probs: np.ndarray
    accuracy: float
    seconds: float


def run_replay(session: Session) -> None:
    """Train pairs from the same seed and compare them."""
    report = Report(session, "replay", COLUMNS)
    images = session.images()
    first = train(session, images, seed=0)
    started = time.perf_counter()
    add(report, "as it is", first, trained_apart(session, images))
    apart_seconds = time.perf_counter() - started
    if session.on_gpu:
        with noted(report, "captured"):
            add(report, "captured", first, trained_apart(session, images, captured=True))
    add(report, "another seed", first, train(session, images, seed=1))
    if session.seconds_left < session.pick(2.5 * apart_seconds, 0):  # two more, each slower
        report.note("deterministic: no time left")
        return
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when cuBLAS starts in a new process
    with noted(report, "deterministic"):  # e.g. an operation without a deterministic kernel
        pair = [trained_apart(session, images, deterministic=True) for _ in range(2)]
        add(report, "deterministic", *pair)


@contextmanager
def noted(report: Report, arm: str) -> Iterator[None]:
    """Note an error of torch, or a training that diverges, and go on."""
    try:
        yield
    except (RuntimeError, DivergedError) as error:
        report.note(f"{arm}: {one_line(error)}")


def trained_apart(
    session: Session, images: ImageSet, *, captured: bool = False, deterministic: bool = False
) -> Trained:
    """Train once from seed 0 in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(
            train, session, images, seed=0, captured=captured, deterministic=deterministic
        ).result()


def train(
    session: Session,
    images: ImageSet,
    *,
    seed: int,
    captured: bool = False,
    deterministic: bool = False,
) -> Trained:
    """Train once; with `deterministic`, by deterministic kernels only, for the whole process."""
    recipe = RECIPE.with_values(**session.pick({}, TINY))
    splits = make_splits(images, SplitSpec())
    if deterministic:
        torch.use_deterministic_algorithms(True)
    session.wait()
    started = time.perf_counter()
    training = Training(
        recipe,
        rungs=(recipe.schedule.epochs,),
        seed=seed,
        numerics=session.numerics(captured=captured),
        images=images,
        splits=splits,
    )
    if deterministic:
        torch.backends.cudnn.benchmark = False  # which the training switched on
    *_, last = training.reports()
    if captured and not training.is_captured:
        raise RuntimeError("the step was not captured; the log says why")
    session.wait()
    weights = training.scored_model().state_dict()
    return Trained(
        weights={name: value.cpu().numpy() for name, value in weights.items()},
        log_probs=training.log_probs(splits.val),
        accuracy=last.val_accuracy,
        seconds=time.perf_counter() - started,
    )


def add(report: Report, arm: str, first: Trained, second: Trained) -> None:
    """Add a row that compares two trainings."""
    pairs = [(value, second.weights[name]) for name, value in first.weights.items()]
    same = all(np.array_equal(a, b) for a, b in (*pairs, (first.log_probs, second.log_probs)))
    report.row(
        arm=arm,
        bitwise="yes" if same else "no",
        weights=max(largest(a, b) for a, b in pairs),
        log_probs=largest(first.log_probs, second.log_probs),
        accuracy=abs(first.accuracy - second.accuracy),
        seconds=second.seconds,
        val_images=len(first.log_probs),
    )


def largest(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest absolute difference."""
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
