"""One optimizer step: gradients, SAM, clipping; micro-batches are halved if memory runs out.

Axes: B images of a batch. A batch is drawn and augmented as a whole and then split, so the images
are the same for any number of micro-batches. The losses of a batch are means, so the micro-batches'
gradients, weighted by their shares of the batch, sum to the gradient of the batch, apart from
rounding. Two kinds of layer depend on the split in training: batch normalization sees one
micro-batch at a time, and dropout draws its masks for one at a time.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from common.errors import SpecError
from trainables.augmentation.batch import Batch
from trainables.hyperparameters import Optimization
from trainables.prediction import is_out_of_memory
from trainables.recipe import Numerics
from trainables.training.captured_gradient import CapturedGradient, GraphOf
from trainables.training.data_parallel import DataParallel, part_of_batch
from trainables.training.kept_state import KeptState

log = logging.getLogger(__name__)

SMALLEST = 2
"""Images that batch normalization needs in a micro-batch."""

LOSS_SCALE = 2.0**10
"""Initial loss scale in float16. With torch's default, 2^16, the first gradients of our networks
overflow, and every overflow skips a step."""


def loss_scaler(numerics: Numerics) -> GradScaler | None:
    """Return the scaler of the loss in float16; None for other data types."""
    if numerics.dtype != "float16":
        return None
    return GradScaler(torch.device(numerics.device).type, init_scale=LOSS_SCALE)


class StepPosition(NamedTuple):
    """The position of an optimizer step in a training."""

    epoch: int
    """Epochs trained before this one, cooldown branches included."""
    step: int
    """Steps of this epoch taken before this step."""


class OptimizerStep:
    """Takes the optimizer steps of a training."""

    def __init__(
        self,
        model: nn.Module,
        loss_of: Callable[[Batch], Tensor],
        *,
        parallel: DataParallel | None = None,
        halvings: Iterable[StepPosition] = (),
        scaler: GradScaler | None = None,
        graph: GraphOf | None = None,
    ) -> None:
        """`loss_of` returns the mean loss of a batch.

        `halvings` are the steps before which micro-batches are halved, as in a recorded training.

        `scaler` scales the loss, so that small gradients do not vanish in float16. With `graph`,
        gradients of whole batches are captured and replayed (see CapturedGradient), unless the
        processes are `parallel`.
        """
        self._model, self._parallel = model, parallel
        self._scaler = scaler
        self._planned = tuple(halvings)
        self._before, self._after = KeptState(model), KeptState(model)
        self._add_gradient = partial(_add_gradient, loss_of, scaler)
        self._captured = None
        if graph is not None and parallel is None:
            self._captured = CapturedGradient(model, self._add_gradient, graph=graph)
        self.halvings: list[StepPosition] = []
        """The halvings so far, in order."""

    def take(
        self,
        batch: Batch,
        optimizer: Optimizer,
        settings: Optimization,
        *,
        share: float = 1.0,
        at: StepPosition,
    ) -> Tensor:
        """Take one step on a batch; return its mean loss before the step, a scalar in nats.

        `share` is the batch's share of all processes' batches. If memory runs out, the
        micro-batches are halved from this step (`at`) on, and its gradient is computed again from
        the same weights, statistics and random numbers.

        Raises:
            SpecError: memory runs out for micro-batches of at most three images.
        """
        self.halvings += self._planned_at(at)
        self._before.save()
        while True:
            count = settings.accumulation * 2 ** len(self.halvings)
            size = len(batch.images) // count
            try:
                loss = self._gradient(batch, optimizer, settings, count, share)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size // 2 < SMALLEST:
                    raise SpecError(
                        f"memory ran out for micro-batches of {size} images; choose a smaller "
                        f"network or image size ({error})"
                    ) from error
            # After the handler, because the exception keeps the activations in memory.
            log.warning("memory ran out for micro-batches of %d images: halved", size)
            optimizer.zero_grad(set_to_none=True)
            self._before.restore()
            self.halvings.append(at)
        if settings.clip_grad_norm:
            if self._scaler is not None:
                self._scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self._model.parameters(), settings.clip_grad_norm)
        if self._scaler is None:
            optimizer.step()
        else:
            # Skips the step if a gradient is not finite. To decide this it waits for a GPU, except
            # for torch's fused optimizers outside Lookahead, which decide on the GPU.
            self._scaler.step(optimizer)
            self._scaler.update()
        return loss

    @property
    def is_captured(self) -> bool:
        """True if the gradient of the last step was computed by a captured graph."""
        return self._captured is not None and self._captured.replays

    @property
    def capture_seconds(self) -> float:
        """Time that captures of the gradient took."""
        return 0.0 if self._captured is None else self._captured.seconds

    def restore(self, halvings: Sequence[StepPosition]) -> None:
        """Continue after these halvings, e.g. those of a checkpoint."""
        self.halvings = list(halvings)

    def _planned_at(self, at: StepPosition) -> list[StepPosition]:
        due = sum(halving <= at for halving in self._planned)
        return [at] * (due - len(self.halvings))

    def _gradient(
        self,
        batch: Batch,
        optimizer: Optimizer,
        settings: Optimization,
        count: int,
        share: float,
    ) -> Tensor:
        """Set the gradients; return the loss. With SAM, they are taken at the perturbed weights."""
        loss = self._whole_gradient(batch, optimizer, count, share)
        if not settings.sam_rho:
            return loss
        weights = [p for p in self._model.parameters() if p.grad is not None]
        kept = [weight.detach().clone() for weight in weights]
        self._after.save()
        try:
            _climb(weights, settings.sam_rho)
            self._before.restore_random()  # both passes have the same dropout masks
            self._whole_gradient(batch, optimizer, count, share)
        finally:
            with torch.no_grad():
                for weight, value in zip(weights, kept, strict=True):
                    weight.copy_(value)
            self._after.restore()
        return loss

    def _whole_gradient(
        self, batch: Batch, optimizer: Optimizer, count: int, share: float
    ) -> Tensor:
        """Set the gradients of the mean loss over a batch and all processes; return the loss.

        The gradients are those of the scaled loss, if it is scaled.
        """
        if self._captured is not None:
            if count == 1:
                return self._captured(batch, stage=optimizer)
            self._captured.forget()  # micro-batches are not captured
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=batch.labels_a.device)
        for index in range(count):
            part = part_of_batch(batch, index, count)
            total = total + self._add_gradient(part, len(part.images) / len(batch.images))
        if self._parallel is not None:
            total = self._parallel.average_gradients(total, self._model, share)
        return total


def _add_gradient(
    loss_of: Callable[[Batch], Tensor], scaler: GradScaler | None, part: Batch, share: float = 1.0
) -> Tensor:
    """Add the gradient of a part's loss times its share of the batch; return that product.

    A function, because a bound method would make a reference cycle with CapturedGradient, whose
    memory would wait for the garbage collector.
    """
    loss = loss_of(part)
    if share != 1:
        loss = loss * share
    scaled = loss if scaler is None else scaler.scale(loss)
    scaled.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _climb(weights: Sequence[nn.Parameter], rho: float) -> None:
    """Move weights by `rho` along the normalized gradient of all of them (Foret et al., 2021)."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients]))
    scale = rho / (norm + 1e-12)
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.add_(gradient * scale)
