"""The moving average of the weights; scores are computed from it."""

import math
from copy import deepcopy

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from trainables.nets.classifier import Classifier

WARM_UP_POWER = 2 / 3


class WeightAverage:
    """An exponential moving average of a network's weights and buffers.

    The tensors to average are looked up once an epoch, because walking through all modules took
    most of an update's time.
    """

    def __init__(self, model: Classifier, decay: float, *, every: int = 1) -> None:
        """Start from the network's current weights; a `decay` of 0 switches averaging off.

        The decay of step t, counted from 1, is at most 1 − t^(−2/3), so that after a few dozen
        steps the random initial weights no longer dominate the average.

        The average is updated after every `every`-th step of the schedule and at the end of an
        epoch: E ← d·E + (1 − d)·W, where W are the weights then, and d the product of the decays
        of the steps since the last update, decay^every after the warm-up. So earlier weights
        count as if every step had been included; those between updates are left out.
        """
        self._source, self._decay, self._every = model, decay, every
        self._pending = 1.0
        """Product of the decays of the steps since the last update."""
        self._average = deepcopy(model).eval()
        self._averaged: list[Tensor] = []
        self._followed: list[Tensor] = []
        """Floating-point tensors of the average, and the network's tensors that they follow."""
        self._counters: list[tuple[Tensor, Tensor]] = []
        """Integers, which are copied at the end of an epoch, and what they follow."""
        self.start_epoch(frozen=False)

    @property
    def model(self) -> Classifier:
        """The averaged network."""
        return self._average

    def start_epoch(self, *, frozen: bool) -> bool:
        """Find what to average; return whether all frozen weights equal their averages.

        With `frozen`, layers that are not trained do not change until the next call, not even
        their statistics of batch normalization. A frozen tensor that equals its average needs no
        update and is left out, so that usually only the head is averaged. The result is bitwise
        the same as if all tensors were.
        """
        pairs = [
            (average, tensor)
            for average, tensor in self._pairs()
            if not frozen or tensor.requires_grad or not torch.equal(average, tensor)
        ]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        numbers = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averaged = [average for average, _ in numbers]
        self._followed = [tensor.detach() for _, tensor in numbers]
        return frozen and all(tensor.requires_grad for _, tensor in pairs)

    def update(self, steps: int) -> None:
        """Include the current weights, if due, after `steps` optimizer steps of the schedule."""
        if self._decay:
            self._pending *= decay_after(steps, self._decay)
            if steps % self._every == 0:
                self._include()

    def finish_epoch(self) -> None:
        """Include the last steps and copy counters; copy the weights if averaging is off."""
        if self._pending < 1:
            self._include()
        pairs = self._counters if self._decay else self._pairs()
        with torch.no_grad():
            for average, tensor in pairs:
                average.copy_(tensor)

    def _include(self) -> None:
        if self._averaged:
            # All tensors in one call, which is a few kernels on a GPU.
            average = get_ema_multi_avg_fn(self._pending)  # type: ignore[no-untyped-call]
            average(self._averaged, self._followed, None)
        self._pending = 1.0

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Return the average's tensors, and those of the network."""
        averages = self._average.state_dict().values()
        tensors = self._source.state_dict(keep_vars=True).values()
        return list(zip(averages, tensors, strict=True))


def decay_after(steps: int, decay: float) -> float:
    """Return the decay of an update after `steps` steps: 0 at first, at most `decay`.

    It is that of timm's ModelEmaV3 with warm-up, after K. Crowson.
    """
    return min(1 - math.pow(1 + max(0, steps - 1), -WARM_UP_POWER), decay)
