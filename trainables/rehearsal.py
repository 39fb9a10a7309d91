"""How long an epoch takes: a few real training steps, timed.

A probe of the bare net (`trainables.probe`) chooses dtype and layout; what an epoch costs
also hangs on augmentation, the optimizer, the moving average, a teacher, and on the other
workers that share the memory bus. So the training itself is rehearsed, in as many threads
as there will be workers.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from trainables.imageset import ImageSet
from trainables.models import Classifier
from trainables.prediction import PixelSource, log_probs_of
from trainables.recipe import Numerics, Recipe
from trainables.seeds import global_torch_stream
from trainables.splits import Splits
from trainables.training import RECALIBRATION_IMAGES, Training

MOST_WORKERS = 4
"""Workers that are rehearsed at once; beyond, Python's lock would be what is measured."""

_WARM_UP = 2
_FEWEST_STEPS = 2
_FORWARD_BATCH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What a pass over the training images costs in one worker while all of them work."""

    train_seconds: float
    """Of training: augmentation, both passes, optimizer, moving average; scoring on val."""
    forward_seconds: float
    """Of one look at every training image, as a teacher takes it."""
    predict_seconds: float
    """Of predicting every training image, with all views that `tta` averages."""


def rehearse(
    recipe: Recipe,
    *,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    workers: int = 1,
    seconds: float = 3.0,
    **teaching: Any,
) -> Rehearsal:
    """Time training steps of `recipe` for about `seconds`, the set-up left out.

    `teaching` (a teacher and a distillation) is what `Training` takes. Nothing is kept of
    the training; torch's thread count and generators are put back.

    Raises:
        SpecError: a recipe that these images do not allow.
    """
    threads = torch.get_num_threads()
    count = min(workers, MOST_WORKERS) if numerics.device == "cpu" else 1

    def one(_: int) -> Rehearsal:
        # Built here: torch keeps the number of threads by calling thread.
        training = Training(
            recipe,
            rungs=(recipe.epochs,),
            seed=0,
            numerics=numerics,
            images=images,
            splits=splits,
            **teaching,
        )
        return _timed(training, images, splits, numerics, time.perf_counter() + seconds)

    try:
        with global_torch_stream(0, "rehearsal"), ThreadPoolExecutor(count) as pool:
            found = list(pool.map(one, range(count)))
    finally:
        torch.set_num_threads(threads)
    return Rehearsal(
        train_seconds=statistics.mean(one.train_seconds for one in found),
        forward_seconds=statistics.mean(one.forward_seconds for one in found),
        predict_seconds=statistics.mean(one.predict_seconds for one in found),
    )


def _timed(
    training: Training, images: ImageSet, splits: Splits, numerics: Numerics, until: float
) -> Rehearsal:
    training.rehearse(_WARM_UP)
    steps: list[float] = []
    while len(steps) < _FEWEST_STEPS or time.perf_counter() < until:
        began = time.perf_counter()
        training.rehearse(1)
        steps.append(time.perf_counter() - began)
    some = PixelSource(images.images, splits.train[:_FORWARD_BATCH], numerics)
    model = training.scored_model()
    predict = _seconds_each(model, some, numerics)
    model.tta = "none"
    scored = len(splits.val) + min(RECALIBRATION_IMAGES, len(splits.train))
    return Rehearsal(
        train_seconds=statistics.median(steps) * training.batches + predict * scored,
        forward_seconds=_seconds_each(model, some, numerics) * len(splits.train),
        predict_seconds=predict * len(splits.train),
    )


def _seconds_each(model: Classifier, source: PixelSource, numerics: Numerics) -> float:
    began = time.perf_counter()
    log_probs_of(model, source, numerics)
    return (time.perf_counter() - began) / len(source)
