"""The moving average of the weights; scores are computed from it."""

import torch
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor

from trainables.nets.classifier import Classifier


class WeightAverage:
    """An exponential moving average of a network's weights and buffers."""

    def __init__(self, model: Classifier, decay: float) -> None:
        """Start from the network's current weights; a `decay` of 0 switches averaging off.

        The decay warms up as 1 − (1 + steps)^(−2/3), so that after a few dozen steps the random
        initial weights no longer dominate the average.
        """
        self._source, self._decay = model, decay
        self._average = ModelEmaV3(model, decay=decay, use_warmup=True)
        self._pairs: list[tuple[Tensor, Tensor]] | None = None
        """Averages and the tensors that they follow, if only these can change; None for all."""

    @property
    def model(self) -> Classifier:
        """The averaged network."""
        model: Classifier = self._average.module
        return model

    def start_epoch(self, *, frozen: bool) -> bool:
        """Find what to average; return whether all frozen weights equal their averages.

        With `frozen`, layers outside training stay as they are until the next call, statistics
        of batch normalization included. The average of a frozen tensor that it already equals
        would not change either, so these are left out: usually all but the head. The average is
        bitwise the same as that of everything.
        """
        self._pairs = None
        if not frozen:
            return False
        averages = self.model.state_dict().values()
        tensors = self._source.state_dict(keep_vars=True).values()
        pairs = [
            (average, tensor.detach(), tensor.requires_grad)
            for average, tensor in zip(averages, tensors, strict=True)
            if tensor.requires_grad or not torch.equal(average, tensor)
        ]
        self._pairs = [(average, tensor) for average, tensor, _ in pairs]
        return all(learns for _, _, learns in pairs)

    def update(self, steps: int) -> None:
        """Include the current weights, after `steps` optimizer steps of the schedule."""
        if self._decay == 0:
            return
        if self._pairs is None:
            self._average.update(self._source, step=steps)
            return
        weight = 1.0 - self._average.get_decay(steps)
        for average, tensor in self._pairs:
            if average.is_floating_point():
                average.lerp_(tensor, weight)
            else:
                average.copy_(tensor)

    def finish_epoch(self) -> None:
        """Copy the current weights if averaging is off."""
        if self._decay == 0:
            self._average.set(self._source)  # type: ignore[no-untyped-call]
