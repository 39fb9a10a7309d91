"""The moving average of the weights; scores are computed from it."""

from timm.utils import ModelEmaV3  # type: ignore[attr-defined]

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

    @property
    def model(self) -> Classifier:
        """The averaged network."""
        model: Classifier = self._average.module
        return model

    def update(self, steps: int) -> None:
        """Include the current weights, after `steps` optimizer steps of the schedule."""
        if self._decay > 0:
            self._average.update(self._source, step=steps)

    def finish_epoch(self) -> None:
        """Copy the current weights if averaging is off."""
        if self._decay == 0:
            self._average.set(self._source)  # type: ignore[no-untyped-call]
