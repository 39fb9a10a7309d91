"""A stand-in for a CUDA graph on the CPU."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainables.training.kept_state import KeptState


class RerunGraph:
    """Reruns the work and copies the results into the captured tensors.

    As with a CUDA graph, these hold nothing of use (here NaN) until the first replay, and the
    network's buffers and random state do not change in a capture. Unlike a CUDA graph, a replay
    runs the Python code again, so it cannot show that a step depends on Python values.
    """

    captures = 0
    """Captures by all graphs of this class."""
    replays = 0
    """Replays by all graphs of this class."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def warm_up(self, work: Callable[[], Tensor]) -> None:
        work()

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        type(self).captures += 1
        kept = KeptState(self._model)
        kept.save()
        assert all(parameter.grad is None for parameter in self._model.parameters())
        self._work, self._result = work, work().detach()
        self._gradients = [parameter.grad for parameter in self._model.parameters()]
        kept.restore()
        with torch.no_grad():
            for memory in (self._result, *self._gradients):
                if memory is not None:
                    memory.fill_(float("nan"))
        return self._result

    def replay(self) -> None:
        type(self).replays += 1
        for parameter in self._model.parameters():
            parameter.grad = None
        result = self._work()
        with torch.no_grad():
            self._result.copy_(result)
            for memory, parameter in zip(self._gradients, self._model.parameters(), strict=True):
                assert (memory is None) == (parameter.grad is None)
                if memory is not None and parameter.grad is not None:
                    memory.copy_(parameter.grad)
                parameter.grad = None


class Uncapturable(RerunGraph):
    """Fails like work that waits for the device while it is captured."""

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        super().capture(work)
        raise RuntimeError("operation not permitted when stream is capturing")
