"""How long an epoch takes: a few real training steps, timed.

A probe of the bare net (`trainables.device.probe`) chooses dtype and layout; what an epoch costs
also hangs on augmentation, the optimizer, the moving average, a teacher, and on the other
workers that share the memory bus. So the training itself is rehearsed, in as many threads
as there will be workers.
"""

import statistics
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from common.seeds import global_torch_stream
from trainables.augmentation.batch import count_views
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.nets.classifier import Classifier
from trainables.prediction import PixelSource, log_probs_of
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage
from trainables.training.loop import Training
from trainables.training.scoring import RECALIBRATION_IMAGES

MOST_WORKERS = 4
"""Workers that are rehearsed at once; beyond, Python's lock would be what is measured."""

_WARM_UP = 2
_FEWEST_STEPS = 2
_FORWARD_BATCH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What a pass over the training images costs in one worker while all of them work."""

    stage_seconds: tuple[float, ...]
    """Of training in each stage of the recipe: augmentation, both passes, optimizer, moving
    average; scoring on val."""
    entry_seconds: tuple[float, ...]
    """Of what is computed once in each stage: features, where only the head learns."""
    forward_seconds: float
    """Of one look at every training image, as a teacher takes it."""
    predict_seconds: float
    """Of predicting every training image, with all views that `tta` averages."""

    @property
    def train_seconds(self) -> float:
        """Of training in the last stage."""
        return self.stage_seconds[-1]


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
    part = replace(splits, train=splits.train[: _enough(recipe)])

    def one(_: int) -> Rehearsal:
        # Built here: torch keeps the number of threads by calling thread.
        training = Training(
            recipe,
            rungs=(recipe.schedule.epochs,),
            seed=0,
            numerics=numerics,
            images=images,
            splits=part,
            **teaching,
        )
        return _timed(training, recipe, images, splits, numerics, seconds)

    try:
        with global_torch_stream(0, "rehearsal"), ThreadPoolExecutor(count) as pool:
            found = list(pool.map(one, range(count)))
    finally:
        torch.set_num_threads(threads)
    return Rehearsal(
        stage_seconds=_means(one.stage_seconds for one in found),
        entry_seconds=_means(one.entry_seconds for one in found),
        forward_seconds=statistics.mean(one.forward_seconds for one in found),
        predict_seconds=statistics.mean(one.predict_seconds for one in found),
    )


def _enough(recipe: Recipe) -> int | None:
    """How many training images will do: features of all of them would take too long."""
    head_only = any(stage.train == "head" for stage in recipe.schedule.stages)
    return max(recipe.optimizer.batch_size, _FORWARD_BATCH) if head_only else None


def _means(found: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(statistics.mean(column) for column in zip(*found, strict=True))


def _timed(
    training: Training,
    recipe: Recipe,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    seconds: float,
) -> Rehearsal:
    stages = recipe.schedule.stages or (Stage(),)
    steps = [_step_seconds(training, index, seconds / len(stages)) for index in range(len(stages))]
    some = PixelSource(images.images, splits.train[:_FORWARD_BATCH], numerics)
    model = training.scored_model()
    predict = _seconds_each(model, some, numerics)
    model.tta = "none"
    count, batch = len(splits.train), min(recipe.optimizer.batch_size, len(splits.train))
    forward = _seconds_each(model, some, numerics) * count
    recalibrated = min(RECALIBRATION_IMAGES, count)
    heads = [stage.train == "head" for stage in stages]
    return Rehearsal(
        stage_seconds=tuple(
            step * (count // batch) + predict * (len(splits.val) + (0 if head else recalibrated))
            for step, head in zip(steps, heads, strict=True)
        ),
        entry_seconds=tuple(
            forward * count_views(recipe.in_stage(index).augmentation) if head else 0.0
            for index, head in enumerate(heads)
        ),
        forward_seconds=forward,
        predict_seconds=predict * count,
    )


def _step_seconds(training: Training, stage: int, seconds: float) -> float:
    """The median over about so many seconds."""
    training.rehearse(_WARM_UP, stage=stage)
    until = time.perf_counter() + seconds
    steps: list[float] = []
    while len(steps) < _FEWEST_STEPS or time.perf_counter() < until:
        began = time.perf_counter()
        training.rehearse(1, stage=stage)
        steps.append(time.perf_counter() - began)
    return statistics.median(steps)


def _seconds_each(model: Classifier, source: PixelSource, numerics: Numerics) -> float:
    began = time.perf_counter()
    log_probs_of(model, source, numerics)
    return (time.perf_counter() - began) / len(source)
