"""A short probe of speed and parity: which dtype and memory format trains a net fastest.

Axes: B images of a batch, K classes. Which of float32 and bfloat16, contiguous and
channels_last is fastest depends on the net, the image's size, the processor and its load,
and now and then a kernel is wrong. So both are measured on the net itself, once per sweep
and kind of machine, and the choice is frozen in the record.
"""

import copy
import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from common.seeds import numpy_generator, torch_generator
from trainables.nets.build import build_model
from trainables.nets.classifier import Classifier
from trainables.prediction import apply_numerics, autocast, place_model
from trainables.recipe import Numerics, Recipe

logger = logging.getLogger(__name__)

MAX_LOGIT_ERROR = 0.1
"""Largest ‖logits − reference‖ / ‖reference‖; bfloat16 had 0.01 to 0.04 (n = 8 nets)."""
MIN_GRADIENT_COSINE = 0.9
"""Smallest cosine of the gradient with the reference's; bfloat16 had 0.96 to 0.997 (n = 8)."""
MIN_GAIN = 1.05
"""How many times as fast as float32 bfloat16 must be, lest noise decide."""

_WAYS: tuple[tuple[Literal["float32", "bfloat16"], Literal["contiguous", "channels_last"]], ...] = (
    ("float32", "contiguous"),  # the reference
    ("float32", "channels_last"),
    ("bfloat16", "channels_last"),
    ("bfloat16", "contiguous"),
)
_ROUNDS = 3
_STEPS = len(_WAYS) * (1 + _ROUNDS)
_SMALL_BATCH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one way to compute came to."""

    numerics: Numerics
    seconds: float
    """Median wall time of forward and backward pass of one batch."""
    logit_error: float
    """‖logits − reference‖ / ‖reference‖ against contiguous float32."""
    gradient_cosine: float
    """Cosine of the whole gradient with the reference's."""

    @property
    def parity(self) -> bool:
        """It computes what the reference computes; false for NaN."""
        return self.logit_error <= MAX_LOGIT_ERROR and self.gradient_cosine >= MIN_GRADIENT_COSINE


def probe(
    recipe: Recipe,
    *,
    classes: int,
    image_size: int,
    device: str = "cpu",
    threads: int = 1,
    budget_seconds: float = 2.0,
) -> Numerics:
    """The fastest way to train this net that keeps parity with contiguous float32.

    Takes about `budget_seconds` in all: a heavy net is probed at a smaller batch, and what
    there is no time for is not chosen. A net that needs longer for four images takes longer.
    Torch's thread count is put back afterwards.
    """
    before = torch.get_num_threads()
    try:
        measurements = measure(
            recipe,
            classes=classes,
            image_size=image_size,
            device=device,
            threads=threads,
            budget_seconds=budget_seconds,
        )
    finally:
        torch.set_num_threads(before)
    chosen = choose(measurements)
    logger.info("probe chose %s from %s", chosen, measurements)
    return chosen


def choose(measurements: Sequence[Measurement]) -> Numerics:
    """The fastest with parity; bfloat16 only with a gain of 5% over float32.

    The first measurement is the reference itself, which is chosen if nothing agrees with it.
    """

    def cost(one: Measurement) -> float:
        return one.seconds * (MIN_GAIN if one.numerics.dtype == "bfloat16" else 1.0)

    agreeing = [one for one in measurements if one.parity] or measurements[:1]
    return min(agreeing, key=cost).numerics


def measure(
    recipe: Recipe,
    *,
    classes: int,
    image_size: int,
    device: str,
    threads: int,
    budget_seconds: float,
) -> tuple[Measurement, ...]:
    """Time forward and backward passes of every way there is time for, in turns.

    Turns, because the load of a shared machine drifts. The optimizer is left out: it
    computes in float32 whatever the choice. A way that fails is left out, except the
    reference, contiguous float32, which stands first.

    Raises:
        SpecError: the recipe's net cannot be built for such images.
        RuntimeError: the net fails in plain float32 too.
    """
    deadline = time.perf_counter() + budget_seconds
    apply_numerics(Numerics(device=device, threads=threads))
    model = _model(recipe, classes=classes, image_size=image_size)
    batch = _affordable_batch(model, recipe.optimizer.batch_size, device, budget_seconds / _STEPS)
    racers: list[_Racer] = []
    for dtype, layout in _WAYS:
        numerics = Numerics(device=device, dtype=dtype, layout=layout, threads=threads)
        if racers and time.perf_counter() > deadline:
            break
        try:
            racers.append(_Racer(model, numerics, batch))
        except RuntimeError as error:
            if not racers:
                raise
            logger.info("probe: %s fails: %s", numerics, error)
    for _ in range(_ROUNDS):
        for racer in racers:
            if time.perf_counter() < deadline:
                racer.step()
    return tuple(racer.measurement(racers[0]) for racer in racers)


class _Racer:
    """A copy of the net that computes in one way, and the times it took."""

    def __init__(self, model: Classifier, numerics: Numerics, batch: int) -> None:
        self.numerics = numerics
        self.model = place_model(copy.deepcopy(model), numerics)
        generator = torch_generator(0, "probe")
        size = model.image_size
        images = torch.rand(batch, 3, size, size, generator=generator)
        labels = torch.randint(0, model.classes, (batch,), generator=generator)
        layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
        self.images = images.to(numerics.device, memory_format=layouts[numerics.layout])
        self.labels = labels.to(numerics.device)
        self.seconds: list[float] = []
        self.logits = self.step().cpu()
        self.gradient = torch.cat(
            [p.grad.float().flatten().cpu() for p in self.model.parameters() if p.grad is not None]
        )

    def step(self) -> Tensor:
        """Forward and backward pass, timed; the logits."""
        started = time.perf_counter()
        self.model.zero_grad(set_to_none=True)
        with autocast(self.numerics):
            logits: Tensor = self.model(self.images)
        loss = functional.cross_entropy(logits.float(), self.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()  # waits for the device
        if self.numerics.device != "cpu":
            torch.cuda.synchronize(self.numerics.device)
        self.seconds.append(time.perf_counter() - started)
        return logits.detach().float()

    def measurement(self, reference: "_Racer") -> Measurement:
        """Speed, and agreement with `reference`; the first step, a warm-up, counts only alone."""
        error = (self.logits - reference.logits).norm() / reference.logits.norm()
        cosine = functional.cosine_similarity(self.gradient, reference.gradient, dim=0)
        return Measurement(
            numerics=self.numerics,
            seconds=statistics.median(self.seconds[1:] or self.seconds),
            logit_error=float(error),
            gradient_cosine=float(cosine),
        )


def _model(recipe: Recipe, *, classes: int, image_size: int) -> Classifier:
    """The recipe's net, fitted to noise, without dropout: all ways must compute the same."""
    noise = numpy_generator(0, "probe").integers(
        0, 256, (64, image_size, image_size, 3), dtype=np.uint8
    )
    return build_model(
        recipe.with_values(dropout=0.0),
        classes=classes,
        image_size=image_size,
        train_images=noise,
        seed=0,
    ).train()


def _affordable_batch(model: Classifier, most: int, device: str, seconds: float) -> int:
    """The batch of at most `most` images whose step takes about `seconds`, at least two."""
    small = min(most, _SMALL_BATCH)
    racer = _Racer(model, Numerics(device=device, layout="contiguous"), small)
    if racer.seconds[-1] < seconds:  # worth a second one, without the first one's set-up
        racer.step()
    return max(small, min(most, int(small * seconds / racer.seconds[-1])))
