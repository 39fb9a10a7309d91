"""The gradient of a batch as a CUDA graph: recorded once, then replayed for every batch.

A step of a small network is hundreds of kernels, and the CPU takes longer to start one than the GPU
to run it. A CUDA graph starts all of them at once; what they compute is the same. Its kernels read
and write the memory that they were recorded with. So batches are copied to where the recorded one
lay, and gradients appear where they were recorded.

A graph holds what the recorded step did: parameters that learn later, other sizes, another stage's
loss need a new one.
"""

import gc
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from common.failures import one_line
from trainables.augmentation.batch import Batch
from trainables.recipe import Numerics
from trainables.training.kept_state import KeptState

log = logging.getLogger(__name__)

EAGER_STEPS = 2
"""Steps that are taken as usual before one is recorded: they load kernels, choose algorithms and
make buffers, none of which may happen while recording."""


class Graph(Protocol):
    """Records work once and replays it; `CudaGraph` is the usual one."""

    def warm_up(self, work: Callable[[], Tensor]) -> None:
        """Run the work as usual, but where it will be recorded."""

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        """Record the work without running it; return where its result will lie."""

    def replay(self) -> None:
        """Run the recorded work: in the memory, and with the shapes, that it was recorded with."""


GraphOf = Callable[[nn.Module], Graph]
"""Makes a graph for the steps of a network."""


class CudaGraph:
    """A CUDA graph on the device of a network."""

    def __init__(self, model: nn.Module) -> None:
        """Make a stream to record on: the default one cannot be recorded."""
        device = next(model.parameters()).device
        self._graph = torch.cuda.CUDAGraph()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, work: Callable[[], Tensor]) -> None:
        """Run the work on the stream that it will be recorded on."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                work()
        finally:  # if memory runs out, what has been started still runs
            current.wait_stream(self._stream)

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        """Record the work; return where its result will lie after a replay."""
        # Other threads may copy images meanwhile, which the usual mode does not allow.
        mode = "thread_local"
        with (
            torch.cuda.device(self._stream.device),
            _uncollected(),
            torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode=mode),
        ):
            return work()

    def replay(self) -> None:
        """Run the recorded kernels on the current stream."""
        with torch.cuda.device(self._stream.device):
            self._graph.replay()


@contextmanager
def _no_random_numbers_of_the_host(model: nn.Module) -> Iterator[None]:
    """Refuse work that draws random numbers on the CPU: replays would repeat the recorded ones.

    Raises:
        RuntimeError: Python's, NumPy's or, for a network on a GPU, torch's generator was used.
    """
    on_gpu = next(model.parameters()).is_cuda

    def states() -> tuple[object, ...]:
        state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 (custom networks may use it)
        numpy_part = (state["state"]["key"].tobytes(), state["state"]["pos"])
        torch_part = torch.get_rng_state().numpy().tobytes() if on_gpu else b""
        return random.getstate(), numpy_part, torch_part

    before = states()
    yield
    if states() != before:
        raise RuntimeError("the network draws random numbers on the CPU")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Collect garbage now and not inside: to destroy a graph would spoil one being recorded."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def graph_of(numerics: Numerics) -> GraphOf | None:
    """Return the kind of graph that steps are recorded as; None if they are not recorded."""
    if not numerics.captured or not numerics.device.startswith("cuda"):
        return None
    return CudaGraph


class Recording:
    """Recorded work whose result and gradients lie where they were recorded."""

    def __init__(
        self,
        model: nn.Module,
        work: Callable[[], Tensor],
        *,
        graph: GraphOf,
    ) -> None:
        """Record `work`, which sets gradients of the model's parameters and returns a tensor.

        Gradients are lost; buffers and torch's random state stay as they are.

        Raises:
            RuntimeError: the work cannot be recorded, e.g. because it waits for the device.
        """
        self._graph = graph(model)
        self._parameters = [*model.parameters()]
        kept = KeptState(model)
        kept.save()
        try:
            # Gradients are made anew in both, so that the recorded ones have memory of their own.
            self._clear()
            with _no_random_numbers_of_the_host(model):
                self._graph.warm_up(work)
            self._clear()
            self._result = self._graph.record(work)
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
class _Kind:
    """All that a recorded step depends on, besides the numbers in its memory."""

    stage: object
    shapes: tuple[tuple[torch.Size, torch.dtype] | None, ...]
    first_rotated: int
    learns: tuple[bool, ...]
    trains: tuple[bool, ...]


class CapturedGradient:
    """Computes gradients of batches: as usual at first, then by replaying a recorded step."""

    def __init__(
        self,
        model: nn.Module,
        gradient_of: Callable[[Batch], Tensor],
        *,
        graph: GraphOf,
    ) -> None:
        """`gradient_of` adds the gradient of a batch's loss, and returns the loss."""
        self._model, self._gradient_of, self._graph = model, gradient_of, graph
        self._parameters, self._modules = [*model.parameters()], [*model.modules()]
        self._kind: _Kind | None = None
        self._steps = 0
        """Steps of this kind."""
        self._recording: Recording | None = None
        self._batch: Batch | None = None
        """The batch whose memory the recorded kernels read."""
        self._failed = False

    def __call__(self, batch: Batch, *, stage: object) -> Tensor:
        """Set the gradients; return the loss. `stage` is any object that differs in every stage."""
        kind = self._kind_of(batch, stage)
        if kind != self._kind:
            # The memory of the old graph is freed before a new one takes its own.
            self.forget()
            self._kind, self._steps = kind, 0
        self._steps += 1
        if self._recording is None and self._steps > EAGER_STEPS and not self._failed:
            self._record(batch)
        if self._recording is None or self._batch is None:
            return self._usual(batch)
        for field in fields(Batch):
            target, value = getattr(self._batch, field.name), getattr(batch, field.name)
            if isinstance(target, Tensor):
                target.copy_(value)
        return self._recording.replay()

    def forget(self) -> None:
        """Free the memory of the recorded step."""
        self._recording = self._batch = self._kind = None

    def _record(self, batch: Batch) -> None:
        """Record a step on a copy of the batch; if that fails, take the usual steps from now on."""
        values = {field.name: getattr(batch, field.name) for field in fields(Batch)}
        copies = {
            name: value.clone() for name, value in values.items() if isinstance(value, Tensor)
        }
        copied = self._batch = Batch(**{**values, **copies})
        try:
            work = partial(self._gradient_of, copied)
            self._recording = Recording(self._model, work, graph=self._graph)
        except RuntimeError as error:
            self._failed, self._batch = True, None
            # The end of a failed capture raises an error of its own; the first names the cause.
            cause = error.__context__ if isinstance(error.__context__, Exception) else error
            log.warning("the training step is not captured as a graph: %s", one_line(cause))

    def _usual(self, batch: Batch) -> Tensor:
        for parameter in self._parameters:
            parameter.grad = None
        return self._gradient_of(batch)

    def _kind_of(self, batch: Batch, stage: object) -> _Kind:
        return _Kind(
            stage=stage,
            shapes=tuple(
                (value.shape, value.dtype) if isinstance(value, Tensor) else None
                for value in (getattr(batch, field.name) for field in fields(Batch))
            ),
            first_rotated=batch.first_rotated,
            learns=tuple(parameter.requires_grad for parameter in self._parameters),
            trains=tuple(module.training for module in self._modules),
        )
