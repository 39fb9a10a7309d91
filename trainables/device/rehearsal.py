"""Predict the duration of an epoch from a few real training steps.

`trainables.device.probe` times the bare network, to choose dtype and layout. The duration of an
epoch also depends on augmentation, the optimizer, the moving average, a teacher, and the other
workers that share the memory bus. So the rehearsal takes real training steps, in as many threads
as there will be workers.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from common.seeds import global_torch_stream
from trainables.augmentation.batch import count_views
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.nets.classifier import Classifier
from trainables.prediction import PixelSource, log_probs_of, model_batch
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage
from trainables.training.captured_gradient import EAGER_STEPS
from trainables.training.loop import Training, with_train_share
from trainables.training.recalibration import TYPICAL_PASSES, is_recalibrated
from trainables.training.scoring import RECALIBRATION_IMAGES

MOST_WORKERS = 4
"""Most workers rehearsed in parallel; with more threads, contention for the GIL would distort
the times."""

_WARM_UP = 2
_FEWEST_STEPS = 2
_SHORTEST = 0.25
"""Shortest interval that is timed, in seconds."""
_FORWARD_IMAGES = 512
_PREDICTIONS = 3
"""Most predictions that are timed."""
_ENOUGH = 0.5
"""Time after which a prediction is not repeated, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Times of one worker while all workers are busy."""

    pass_seconds: tuple[float, ...]
    """Time of one pass over the training images in each stage of the recipe: augmentation, forward
    and backward passes, optimizer and moving average."""
    score_seconds: tuple[float, ...]
    """Time of scoring on val after an epoch of each stage."""
    entry_seconds: tuple[float, ...]
    """Time to enter each stage: if only the head learns, features are computed once, of val for
    scoring and, unless they change with every augmentation, of train."""
    forward_seconds: float
    """Time of one forward pass over every training image, e.g. of a teacher."""
    predict_seconds: float
    """Time to predict every training image, with all views that `tta` averages."""
    passes: float = 1.0
    """Passes over the training images in an epoch."""
    slowness: float = 1.0
    """Time that work besides training takes, as a multiple of the usual one; at least 1."""

    @property
    def stage_seconds(self) -> tuple[float, ...]:
        """Time of an epoch in each stage."""
        return tuple(
            self.passes * each + score
            for each, score in zip(self.pass_seconds, self.score_seconds, strict=True)
        )

    @property
    def train_seconds(self) -> float:
        """Time of an epoch in the last stage."""
        return self.stage_seconds[-1]


def slowest(rehearsals: Sequence[Rehearsal]) -> Rehearsal:
    """Return the longest of each time in rehearsals of one recipe on several machines."""
    first = rehearsals[0]
    longest: dict[str, Any] = {}
    for each in fields(Rehearsal):
        values = [getattr(rehearsal, each.name) for rehearsal in rehearsals]
        if isinstance(values[0], tuple):
            longest[each.name] = tuple(map(max, zip(*values, strict=True)))
        elif each.name != "passes":
            longest[each.name] = max(values)
    return replace(first, **longest)


class Rehearsable(Protocol):
    """The part of `Training` that is timed."""

    def rehearse(self, steps: int, *, stage: int = 0) -> None:
        """Take optimizer steps of the stage with this index."""

    def scored_model(self) -> Classifier:
        """Return the network that is scored after an epoch."""


def rehearse(
    recipe: Recipe,
    *,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    workers: int = 1,
    seconds: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
    make_training: Callable[..., Rehearsable] = Training,
    **teaching: Any,
) -> Rehearsal:
    """Time training steps of `recipe` for about `seconds`, not counting the set-up.

    `teaching` (a teacher and a distillation) is passed to `Training`. The training is discarded;
    torch's thread count and generators are restored.

    Raises:
        SpecError: the recipe does not suit these images.
    """
    threads = torch.get_num_threads()
    count = min(workers, MOST_WORKERS) if numerics.device == "cpu" else 1
    splits = with_train_share(splits, recipe.schedule.train_share)
    recipe = recipe.with_values(train_share=1.0)
    part = replace(splits, train=splits.train[: _images_needed(recipe)])

    def rehearse_worker(_: int) -> Rehearsal:
        # Built in the worker's thread, because torch's thread count belongs to the calling thread.
        training = make_training(
            recipe,
            rungs=(recipe.schedule.epochs,),
            seed=0,
            numerics=numerics,
            images=images,
            splits=part,
            **teaching,
        )
        return _timed(training, recipe, images, splits, numerics, seconds, clock)

    try:
        with global_torch_stream(0, "rehearsal"), ThreadPoolExecutor(count) as pool:
            rehearsals = list(pool.map(rehearse_worker, range(count)))
    finally:
        torch.set_num_threads(threads)
    return Rehearsal(
        pass_seconds=_means(each.pass_seconds for each in rehearsals),
        score_seconds=_means(each.score_seconds for each in rehearsals),
        passes=recipe.schedule.passes,
        entry_seconds=_means(each.entry_seconds for each in rehearsals),
        forward_seconds=statistics.mean(each.forward_seconds for each in rehearsals),
        predict_seconds=statistics.mean(each.predict_seconds for each in rehearsals),
    )


def _images_needed(recipe: Recipe) -> int | None:
    """Return the number of training images to use; None for all.

    If a stage trains only the head, features of all images would take too long.
    """
    head_only = any(stage.train == "head" for stage in recipe.schedule.stages)
    return max(recipe.optimizer.batch_size, _FORWARD_IMAGES) if head_only else None


def _means(rows: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(statistics.mean(column) for column in zip(*rows, strict=True))


def _timed(
    training: Rehearsable,
    recipe: Recipe,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    seconds: float,
    clock: Callable[[], float],
) -> Rehearsal:
    stages = recipe.schedule.stages or (Stage(),)
    steps = [
        _step_seconds(
            partial(training.rehearse, stage=index),
            seconds / len(stages),
            clock,
            warm_up=_WARM_UP + EAGER_STEPS * numerics.captured,
        )
        for index in range(len(stages))
    ]
    sample = PixelSource(images.images, splits.train[:_FORWARD_IMAGES], numerics)
    model = training.scored_model()
    predict = forward = _seconds_per_image(model, sample, numerics, clock)
    if model.tta != "none":
        model.tta = "none"
        forward = _seconds_per_image(model, sample, numerics, clock)
    count = len(splits.train)
    batch = min(recipe.optimizer.batch_size, count)
    recalibrated = min(RECALIBRATION_IMAGES, count) * forward if is_recalibrated(recipe) else 0.0
    if recalibrated and min(RECALIBRATION_IMAGES, count) > model_batch(model, sample):
        recalibrated *= TYPICAL_PASSES
    heads = [stage.train == "head" for stage in stages]
    return Rehearsal(
        pass_seconds=tuple(step * (count // batch) for step in steps),
        score_seconds=tuple(
            0.0 if head else predict * len(splits.val) + recalibrated for head in heads
        ),
        entry_seconds=tuple(
            forward * count * count_views(recipe.in_stage(index).augmentation)
            + predict * len(splits.val)
            if head
            else 0.0
            for index, head in enumerate(heads)
        ),
        forward_seconds=forward * count,
        predict_seconds=predict * count,
    )


def _step_seconds(
    take_steps: Callable[[int], None],
    seconds: float,
    clock: Callable[[], float],
    *,
    warm_up: int = _WARM_UP,
) -> float:
    """Return the median time of a step after `warm_up` steps, measured for about `seconds`.

    A call times several short steps, because each call first prepares an epoch, which takes ten
    times as long as a step of a head on cached features.
    """
    take_steps(warm_up)
    until = clock() + seconds
    times: list[float] = []
    steps = 1
    while len(times) < _FEWEST_STEPS or clock() < until:
        started = clock()
        take_steps(steps)
        elapsed = clock() - started
        times.append(elapsed / steps)
        if elapsed < _SHORTEST and clock() < until:
            steps, times = 2 * steps, []
    return statistics.median(times)


def _seconds_per_image(
    model: nn.Module, source: PixelSource, numerics: Numerics, clock: Callable[[], float]
) -> float:
    """Return the median time of a prediction, divided by its images; repeated while it is quick.

    On a GPU the first one is not timed: it loads kernels, times cuDNN's algorithms for this batch
    and allocates memory, which a trial does once. On the CPU it took 1.04 to 1.5 times as long as
    the next (4 networks, one thread), too little to justify a second slow one.
    """

    def predict() -> float:
        started = clock()
        log_probs_of(model, source, numerics)
        return clock() - started

    if numerics.device != "cpu":
        predict()
    times = [predict()]
    while len(times) < _PREDICTIONS and sum(times) < _ENOUGH:
        times.append(predict())
    return statistics.median(times) / len(source)
