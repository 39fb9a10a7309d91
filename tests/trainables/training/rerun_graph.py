"""A graph for the CPU that behaves as a CUDA graph does, by running the work again."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainables.training.kept_state import KeptState


class RerunGraph:
    """Replays into the memory of the recorded results; until then, that memory holds garbage.

    As in CUDA graphs, recording computes nothing, and a replay does not create tensors.
    """

    recorded = 0
    """Graphs recorded by this class."""
    replayed = 0

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def warm_up(self, work: Callable[[], Tensor]) -> None:
        work()

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        type(self).recorded += 1
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
        type(self).replayed += 1
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


class Unrecordable(RerunGraph):
    """Fails like work that waits for the device while it is recorded."""

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        super().record(work)
        raise RuntimeError("operation not permitted when stream is capturing")
