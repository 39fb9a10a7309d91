"""The moving average of the weights, which is what is scored."""

from timm.utils import ModelEmaV3  # type: ignore[attr-defined]

from trainables.nets.classifier import Classifier


class WeightAverage:
    """An exponential moving average of a network's weights and buffers."""

    def __init__(self, model: Classifier, decay: float) -> None:
        """Start from the network as it is; a `decay` of 0 keeps the weights themselves.

        The decay warms up as 1 − (1 + steps)^(−2/3), so that a rung of a few dozen steps does
        not score its random start.
        """
        self._source, self._decay = model, decay
        self._average = ModelEmaV3(model, decay=decay, use_warmup=True)

    @property
    def model(self) -> Classifier:
        """The averaged network."""
        model: Classifier = self._average.module
        return model

    def update(self, steps: int) -> None:
        """Take in the weights after that many optimizer steps of the schedule."""
        if self._decay > 0:
            self._average.update(self._source, step=steps)

    def finish_epoch(self) -> None:
        """Copy the weights if there is no averaging."""
        if self._decay == 0:
            self._average.set(self._source)  # type: ignore[no-untyped-call]
