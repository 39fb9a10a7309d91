"""The gradient of a batch as a CUDA graph: captured once, then replayed for every batch.

A step of a small network is hundreds of kernels, and the CPU takes longer to start one than the GPU
to run it. A CUDA graph starts all of them at once. A replay uses the same memory as the capture, so
each batch is copied into the captured batch's tensors, and gradients always appear in the same
tensors.

A graph repeats exactly the captured step. If parameters are frozen or unfrozen, shapes change, or
another stage begins, a new graph is captured.
"""

import gc
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from common.failures import one_line
from common.garbage import collection_paused
from trainables.augmentation.batch import Batch
from trainables.recipe import Numerics
from trainables.training.kept_state import KeptState

log = logging.getLogger(__name__)

EAGER_STEPS = 2
"""Eager steps before one is captured. A capture takes as long as a few steps, so it must pay."""


class Graph(Protocol):
    """Captures work once and replays it; `CudaGraph` is the usual one."""

    def warm_up(self, work: Callable[[], Tensor]) -> None:
        """Run the work eagerly, on the stream that it will be captured on."""

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        """Capture the work without running it; return the tensor that each replay fills."""

    def replay(self) -> None:
        """Run the captured work on the same tensors."""


GraphOf = Callable[[nn.Module], Graph]
"""Makes a graph for the steps of a network."""


class CudaGraph:
    """A CUDA graph on the device of a network."""

    def __init__(self, model: nn.Module) -> None:
        """Make a stream to capture: the default one cannot be captured."""
        device = next(model.parameters()).device
        self._graph = torch.cuda.CUDAGraph()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, work: Callable[[], Tensor]) -> None:
        """Run the work eagerly: it loads kernels, chooses algorithms and makes workspaces."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                work()
        finally:  # kernels launched before an error still run
            current.wait_stream(self._stream)

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        """Capture the work; return the tensor that each replay fills."""
        # The default mode, `global`, fails if another thread makes an unsafe CUDA call such as
        # cudaMalloc, as the thread that reads batches ahead may.
        mode = "thread_local"
        gc.collect()  # an old graph that is freed during a capture may spoil the capture
        with (
            torch.cuda.device(self._stream.device),
            collection_paused(),
            torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode=mode),
        ):
            return work()

    def replay(self) -> None:
        """Run the captured kernels on the current stream."""
        with torch.cuda.device(self._stream.device):
            self._graph.replay()


def graph_of(numerics: Numerics) -> GraphOf | None:
    """Return the kind of graph that steps are captured as; None if they are not captured."""
    if not numerics.captured or not numerics.device.startswith("cuda"):
        return None
    return CudaGraph


class CapturedStep:
    """A captured step, with the tensors that a replay fills."""

    def __init__(
        self,
        model: nn.Module,
        work: Callable[[], Tensor],
        *,
        graph: GraphOf,
    ) -> None:
        """Capture `work`, which sets gradients of the model's parameters and returns a tensor.

        Discards the present gradients; restores buffers and torch's random state.

        Raises:
            RuntimeError: the work cannot be captured, e.g. because it waits for the device.
        """
        self._graph = graph(model)
        self._parameters = [*model.parameters()]
        kept = KeptState(model)
        kept.save()
        try:
            # Cleared before both, so that the captured gradients are allocated by the graph.
            self._clear()
            with _no_cpu_randomness(model):
                self._graph.warm_up(work)
            self._clear()
            self._result = self._graph.capture(work)
        finally:
            kept.restore()
        self._gradients = [parameter.grad for parameter in self._parameters]

    def replay(self) -> Tensor:
        """Run the work again, set the gradients, and return a copy of the result."""
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._result.detach().clone()

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signature:
    """All that a captured step depends on except the values of tensors."""

    stage: object
    shapes: tuple[tuple[torch.Size, torch.dtype] | None, ...]
    first_rotated: int
    requires_grad: tuple[bool, ...]
    training: tuple[bool, ...]


class CapturedGradient:
    """Computes gradients of batches: eagerly at first, then by replaying a captured step."""

    def __init__(
        self,
        model: nn.Module,
        gradient_of: Callable[[Batch], Tensor],
        *,
        graph: GraphOf,
    ) -> None:
        """`gradient_of` adds the gradients of a batch's loss to `.grad`, and returns the loss."""
        self._model, self._gradient_of, self._graph = model, gradient_of, graph
        self._parameters, self._modules = [*model.parameters()], [*model.modules()]
        self._signature: _Signature | None = None
        self._steps = 0
        """Steps since the signature last changed."""
        self._captured: CapturedStep | None = None
        self._batch: Batch | None = None
        """The batch whose tensors the captured kernels read."""
        self._failed = False
        self.seconds = 0.0
        """Time that captures took, those that failed included."""

    @property
    def replays(self) -> bool:
        """True from a capture until it is forgotten: batches like the last one are replayed."""
        return self._captured is not None

    def __call__(self, batch: Batch, *, stage: object) -> Tensor:
        """Set the gradients; return the loss. `stage` is any object that identifies the stage."""
        signature = self._signature_of(batch, stage)
        if signature != self._signature:
            # The memory of the old graph is freed before a new one takes more.
            self.forget()
            self._signature, self._steps = signature, 0
        self._steps += 1
        if self._captured is None and self._steps > EAGER_STEPS and not self._failed:
            self._capture(batch)
        if self._captured is None or self._batch is None:
            return self._eager(batch)
        for field in fields(Batch):
            target, value = getattr(self._batch, field.name), getattr(batch, field.name)
            if isinstance(target, Tensor):
                target.copy_(value)
        return self._captured.replay()

    def forget(self) -> None:
        """Free the memory of the captured step."""
        self._captured = self._batch = self._signature = None

    def _capture(self, batch: Batch) -> None:
        """Capture a step on a copy of the batch; if that fails, all further steps are eager."""
        values = {field.name: getattr(batch, field.name) for field in fields(Batch)}
        copies = {name: v.clone() for name, v in values.items() if isinstance(v, Tensor)}
        copied = self._batch = Batch(**{**values, **copies})
        started = time.perf_counter()
        try:
            work = partial(self._gradient_of, copied)
            self._captured = CapturedStep(self._model, work, graph=self._graph)
        except RuntimeError as error:
            self._failed, self._batch = True, None
            # Ending a failed capture raises a second error; the first one names the cause.
            cause = error.__context__ if isinstance(error.__context__, Exception) else error
            log.warning("the training step is not captured as a graph: %s", one_line(cause))
        self.seconds += time.perf_counter() - started

    def _eager(self, batch: Batch) -> Tensor:
        for parameter in self._parameters:
            parameter.grad = None
        return self._gradient_of(batch)

    def _signature_of(self, batch: Batch, stage: object) -> _Signature:
        return _Signature(
            stage=stage,
            shapes=tuple(
                (value.shape, value.dtype) if isinstance(value, Tensor) else None
                for value in (getattr(batch, field.name) for field in fields(Batch))
            ),
            first_rotated=batch.first_rotated,
            requires_grad=tuple(parameter.requires_grad for parameter in self._parameters),
            training=tuple(module.training for module in self._modules),
        )


@contextmanager
def _no_cpu_randomness(model: nn.Module) -> Iterator[None]:
    """Refuse a step that draws random numbers on the CPU: replays would repeat them.

    Raises:
        RuntimeError: Python's, NumPy's or, for a network on a GPU, torch's CPU generator was used.
    """
    on_gpu = next(model.parameters()).is_cuda

    def states() -> tuple[object, ...]:
        state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 (only read)
        numpy_part = (state["state"]["key"].tobytes(), state["state"]["pos"])
        torch_part = torch.get_rng_state().numpy().tobytes() if on_gpu else b""
        return random.getstate(), numpy_part, torch_part

    before = states()
    yield
    for name, old, new in zip(("Python", "NumPy", "torch"), before, states(), strict=True):
        if old != new:
            raise RuntimeError(
                f"{name}'s CPU generator was used during the step, and replays would repeat its "
                "numbers; draw on the GPU"
            )
