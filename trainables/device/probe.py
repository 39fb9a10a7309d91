"""A short probe of speed and parity: the fastest dtype and memory format for training a network.

Axes: B images of a batch, K classes. The fastest combination of float32 or a 16-bit data type
with contiguous or channels_last depends on the network, the image size, the processor and its
load, and occasionally a kernel is wrong. So speed and parity are measured on the network itself,
once per sweep and kind of machine, and the choice is frozen in the record.
"""

import copy
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from common.seeds import numpy_generator, torch_generator
from trainables.device.candidates import REFERENCE, candidates_with, half_precision
from trainables.nets.build import build_model
from trainables.nets.classifier import Classifier
from trainables.nets.custom import is_custom
from trainables.prediction import (
    MEMORY_FORMATS,
    apply_numerics,
    autocast,
    is_out_of_memory,
    place_model,
)
from trainables.recipe import Dtype, Numerics, Recipe
from trainables.training.captured_gradient import CapturedStep, GraphOf, graph_of
from trainables.training.depthwise_gradients import depthwise_gradients
from trainables.training.optimizer_step import LOSS_SCALE

logger = logging.getLogger(__name__)

Autocast = Callable[[Numerics], AbstractContextManager[object]]
"""Returns the context of a forward pass; `trainables.prediction.autocast` is the usual one."""

MAX_LOGIT_ERROR = 0.1
"""Largest ‖logits − reference‖ / ‖reference‖; bfloat16 had 0.01 to 0.04 (n = 8 networks)."""
MIN_GRADIENT_COSINE = 0.9
"""Smallest cosine of the gradient with the reference's; bfloat16 had 0.96 to 0.997 (n = 8)."""
MIN_GAIN = 1.05
"""Speed-up over float32 that 16 bits must reach, so that timing noise does not decide; the same
for a captured step over an eager one."""

_ROUNDS = 3
"""Timed steps of each candidate."""
_STEPS = 4 * (1 + _ROUNDS)
"""Steps that share the budget: four candidates, each with a first step and its timed ones."""
_SMALL_BATCH = 4
_SMALLEST_BATCH = 2
"""Images that batch normalization needs."""
_BARELY_LONGER = 1.25
"""Ratio up to which two steps take about the same time, or two batches have about one size."""
_GROWTH = 4
"""Largest factor between the batch sizes that are timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Speed and accuracy of one combination of dtype and memory format."""

    numerics: Numerics
    batch: int
    """Images per step of the probe."""
    seconds: float
    """Shortest wall time of the forward and backward pass of one batch: load only adds to it."""
    logit_error: float
    """‖logits − reference‖ / ‖reference‖ against contiguous float32."""
    gradient_cosine: float
    """Cosine of the whole gradient with the reference's."""

    @property
    def parity(self) -> bool:
        """True if logits and gradient are close enough to the reference; False for NaN."""
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
    """Return the fastest numerics for this network that keep parity with contiguous float32.

    Timed steps take about `budget_seconds`, and untimed first steps at most as much again. To keep
    to this, a heavy network is probed with a smaller batch, and candidates for which no time
    remains are skipped. The probe takes longer only if four images already take that long, or if
    the device takes long to start. A batch that does not fit into memory is halved. On a GPU,
    capturing the fastest candidate takes about eight more steps.
    Torch's thread count is restored afterwards.
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
    """Return the fastest numerics with parity; 16 bits and capture must each be 5% faster.

    The first measurement is the reference, which is chosen if nothing else has parity.
    """

    def cost(measurement: Measurement) -> float:
        numerics = measurement.numerics
        return measurement.seconds * MIN_GAIN ** ((numerics.dtype != "float32") + numerics.captured)

    accurate = [each for each in measurements if each.parity] or measurements[:1]
    return min(accurate, key=cost).numerics


def measure(
    recipe: Recipe,
    *,
    classes: int,
    image_size: int,
    device: str,
    threads: int,
    budget_seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    autocast: Autocast = autocast,
    half: Dtype | None = None,
    graph: GraphOf | None = None,
) -> tuple[Measurement, ...]:
    """Time forward and backward passes of the candidates in turns, as far as the time allows.

    Candidates take turns because the load of a shared machine drifts. The optimizer is not timed,
    because it computes in float32 in any case. A candidate that fails is skipped, except the first,
    the reference (contiguous float32). Forward passes run inside `autocast`. `half` is the 16-bit
    data type, by default the one that suits the device, if any does. The candidate that is chosen
    is also captured as a `graph`, by default a CUDA graph on a GPU, and no graph elsewhere. A
    custom network is not captured: its `forward` may depend on Python values that a replay would
    not see.

    Times of first steps are left out, because they load kernels and choose algorithms: seconds on a
    GPU. They have a budget of their own, so that a slow start leaves the timed steps their time.

    Raises:
        SpecError: the recipe's network cannot be built for images of this size.
        RuntimeError: the network fails in contiguous float32, e.g. because memory runs out for two
            or three images.
    """
    apply_numerics(Numerics(device=device, threads=threads))
    model = _model(recipe, classes=classes, image_size=image_size)
    batch = _affordable_batch(
        partial(_reference, model, device=device, threads=threads, clock=clock, autocast=autocast),
        most=recipe.optimizer.batch_size,
        seconds=budget_seconds / _STEPS,
    )
    deadline = clock() + budget_seconds
    candidates = [_reference(model, batch, device, threads, clock, autocast)]
    for dtype, layout in candidates_with(half or half_precision(device))[1:]:
        numerics = Numerics(device=device, dtype=dtype, layout=layout, threads=threads)
        if clock() > deadline:
            break
        try:
            candidates.append(_Candidate(model, numerics, candidates[0].batch, clock, autocast))
        except RuntimeError as error:
            logger.info("probe: %s fails: %s", numerics, error)
    deadline = clock() + budget_seconds
    for _ in range(_ROUNDS):
        for candidate in candidates:
            if clock() < deadline:
                candidate.step()
    graph = graph or graph_of(Numerics(device=device, captured=True))
    if graph is not None and not is_custom(recipe.architecture.model):
        candidates += _captured(model, candidates, graph, clock, autocast)
    return tuple(candidate.measurement(candidates[0]) for candidate in candidates)


def _captured(
    model: Classifier,
    candidates: Sequence["_Candidate"],
    graph: GraphOf,
    clock: Callable[[], float],
    autocast: Autocast,
) -> list["_Candidate"]:
    """Return the chosen candidate, captured, in a list; an empty list if that fails."""
    chosen = choose([candidate.measurement(candidates[0]) for candidate in candidates])
    eager = next(each for each in candidates if each.numerics == chosen)
    numerics = replace(chosen, captured=True)
    try:
        captured = _Candidate(model, numerics, eager.batch, clock, autocast, graph=graph)
        for _ in range(_ROUNDS):
            eager.step()
            captured.step()
    except RuntimeError as error:
        logger.info("probe: %s fails: %s", numerics, error)
        return []
    return [captured]


class _Candidate:
    """A copy of the network with one choice of numerics, and the times of its steps."""

    def __init__(
        self,
        model: Classifier,
        numerics: Numerics,
        batch: int,
        clock: Callable[[], float],
        autocast: Autocast,
        *,
        graph: GraphOf | None = None,
    ) -> None:
        self.numerics, self.batch = numerics, batch
        self._clock, self._autocast = clock, autocast
        self._model = place_model(copy.deepcopy(model), numerics)
        generator = torch_generator(0, "probe")
        size = model.image_size
        images = torch.rand(batch, 3, size, size, generator=generator)
        labels = torch.randint(0, model.classes, (batch,), generator=generator)
        self._images = images.to(numerics.device, memory_format=MEMORY_FORMATS[numerics.layout])
        self._labels = labels.to(numerics.device)
        self.seconds: list[float] = []
        self._scale = LOSS_SCALE if numerics.dtype == "float16" else 1.0
        self._captured: CapturedStep | None = None
        if graph is not None:
            self._captured = CapturedStep(self._model, self._gradients, graph=graph)
        self.logits = self.step().cpu()
        gradients = (p.grad for p in self._model.parameters() if p.grad is not None)
        self.gradient = torch.cat([each.float().flatten().cpu() for each in gradients])

    def step(self) -> Tensor:
        """Time a forward and a backward pass; return the logits."""
        started = self._clock()
        captured = self._captured
        logits = self._gradients() if captured is None else captured.replay()
        if self.numerics.device != "cpu":
            torch.cuda.synchronize(self.numerics.device)
        self.seconds.append(self._clock() - started)
        return logits

    def _gradients(self) -> Tensor:
        """Set the gradients; return the logits."""
        self._model.zero_grad(set_to_none=True)
        with self._autocast(self.numerics), depthwise_gradients(self.numerics):
            logits: Tensor = self._model(self._images)
        loss = functional.cross_entropy(logits.float(), self._labels)
        (self._scale * loss).backward()  # type: ignore[no-untyped-call]
        return logits.detach().float()

    def measurement(self, reference: "_Candidate") -> Measurement:
        """Compare with `reference`; the first step is a warm-up, used only if there is no other."""
        error = (self.logits - reference.logits).norm() / reference.logits.norm()
        cosine = functional.cosine_similarity(self.gradient, reference.gradient, dim=0)
        return Measurement(
            numerics=self.numerics,
            batch=self.batch,
            seconds=min(self.seconds[1:] or self.seconds),
            logit_error=float(error),
            gradient_cosine=float(cosine),
        )


def _model(recipe: Recipe, *, classes: int, image_size: int) -> Classifier:
    """Return the recipe's network, with normalization and whitening computed from noise.

    Dropout and drop path are off, because all candidates must compute the same.
    """
    noise = numpy_generator(0, "probe").integers(
        0, 256, (64, image_size, image_size, 3), dtype=np.uint8
    )
    return build_model(
        recipe.with_values(dropout=0.0, drop_path=0.0),
        classes=classes,
        image_size=image_size,
        train_images=noise,
        seed=0,
    ).train()


def _reference(
    model: Classifier,
    batch: int,
    device: str,
    threads: int,
    clock: Callable[[], float],
    autocast: Autocast,
) -> _Candidate:
    """Return the first candidate, with half of `batch` or less if memory runs out."""
    dtype, layout = REFERENCE
    numerics = Numerics(device=device, dtype=dtype, layout=layout, threads=threads)
    while True:
        try:
            return _Candidate(model, numerics, batch, clock, autocast)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or batch < 2 * _SMALLEST_BATCH:
                raise
        # After the handler, because the exception keeps the activations in memory.
        logger.info("probe: memory ran out for %d images: halved", batch)
        batch //= 2


def _affordable_batch(reference: Callable[[int], _Candidate], *, most: int, seconds: float) -> int:
    """Return the batch size, at most `most`, whose step takes about `seconds`.

    A step has a fixed cost for launching kernels and a cost per image. Where launches dominate, a
    full batch takes hardly longer than two images, and is taken even if both take longer than
    `seconds`. So both costs are estimated from the last two sizes, and the size is raised in steps.

    First steps are never timed: on a GPU they start the device and load kernels, and say nothing
    about the network.
    """

    def timed(size: int) -> tuple[int, float]:
        candidate = reference(size)
        for _ in range(2):
            candidate.step()
        return candidate.batch, min(candidate.seconds[1:])

    low, low_seconds = timed(min(most, _SMALLEST_BATCH))
    limit = max(seconds, _BARELY_LONGER * low_seconds)
    size = min(most, _SMALL_BATCH)
    while size > low:
        batch, step = timed(size)
        if batch < size:
            return max(low, batch)
        per_image = max(0.0, step - low_seconds) / (batch - low)
        if step > limit:
            return max(low, min(most, _SMALL_BATCH), low + int((limit - low_seconds) / per_image))
        low, low_seconds = batch, step
        size = min(most, _GROWTH * batch)
        if per_image > 0:
            size = int(min(size, batch + (limit - step) / per_image))
        if size < _BARELY_LONGER * batch:
            return size
    return low
