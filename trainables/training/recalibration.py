"""Measure batch normalization's statistics again, after weights were averaged.

Axes: B images of a batch, C channels. The activations of averaged weights differ from the averaged
statistics of the networks that were averaged (Izmailov et al., 2018), so the statistics are
measured again on images of train.

The result should be that of one pass with all images in a single batch, which memory seldom
allows: batches have 1,024 images of 32 px, 20 of 224 px. So every layer's moments are pooled over
the batches. The mean of the batches' variances would leave out the variance between batches,
which is nearly all of it where a batch is one image and a layer has few pixels: it fell to 0.02
of the truth.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.nets.classifier import Classifier
from trainables.prediction import PixelSource, autocast, model_batch
from trainables.recipe import Numerics, Recipe

TOLERANCE = 0.02
"""Largest change of a statistic in a pass, in standard deviations of its channel, that ends the
passes."""
MOST_PASSES = 6
"""Most passes over the images."""
TYPICAL_PASSES = 4
"""Passes that forecasts assume for images of more than one batch. Networks with 6 to 20 layers of
batch normalization, after ten steps of training, needed 4 at 32 px and 6 at 224 px."""


_Statistics = tuple[Tensor, Tensor]
"""Mean and variance of a layer's channels, float32 [C] each."""


def is_recalibrated(recipe: Recipe) -> bool:
    """Return whether the recipe's network is recalibrated: only if it was trained from scratch.

    A network that starts from trained weights keeps its running statistics, which come from far
    more images, and on which its frozen layers and its head rely. Statistics of 2,048 images
    instead lowered the accuracy of a head on frozen features from 64.9% to 44.6%.
    """
    return not recipe.architecture.pretrained


class PooledMoments:
    """The mean and variance of each channel, pooled over batches that can be measured again.

    By the law of total variance, the variance of all values is the mean of the batches' variances
    plus the variance of the batches' means, both weighted by the batches' sizes. Sums of values
    and of squares in float64 say the same, and let one batch's share be replaced.
    """

    def __init__(self) -> None:
        """Start without batches."""
        self.count = 0
        """Values of each channel."""
        self._batches: list[Tensor] = []
        """Sums of the values and of their squares in each batch, float64 [2, C]."""
        self._total: Tensor | None = None

    def put(self, index: int, values: Tensor) -> None:
        """Add batch number `index` [B, C, …], or replace what was measured for it before."""
        others = [axis for axis in range(values.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(values.ndim)]
        values = values.float()
        count = values.numel() // values.shape[1]
        mean = values.mean(dim=others)
        # Two passes: torch.var_mean took five times as long (64×32×48×48, one thread).
        variance = (values - mean.reshape(shape)).square_().mean(dim=others).double()
        mean = mean.double()
        sums = torch.stack([count * mean, count * (variance + mean.square())])
        if index < len(self._batches):
            assert self._total is not None
            self._total = self._total - self._batches[index] + sums
            self._batches[index] = sums
        else:
            self._total = sums if self._total is None else self._total + sums
            self._batches.append(sums)
            self.count += count

    @property
    def mean(self) -> Tensor:
        """The mean of all values, float64 [C]."""
        assert self._total is not None
        return self._total[0] / self.count

    @property
    def variance(self) -> Tensor:
        """The unbiased variance, float64 [C], as torch's running variance is; 0 for one value."""
        assert self._total is not None
        squares = self._total[1] - self.count * self.mean.square()
        return squares.clamp(min=0) / max(self.count - 1, 1)


def recalibrate(
    model: Classifier,
    source: PixelSource,
    positions: Tensor,
    numerics: Numerics,
    *,
    batch: int | None = None,
) -> None:
    """Set batch normalization's statistics to those of the images at `positions`.

    `batch` is the largest batch size; the default depends on the image size. A layer normalizes
    with the moments pooled so far, those of its current batch included. Early batches of the first
    pass are thus normalized with the moments of few images, later ones with those of nearly all.
    Further passes replace the moments batch by batch until they no longer change; the fixed point
    is the result of a pass with a single batch. (Replacing them only at the end of a pass is
    unstable: errors of the first layers grew a hundredfold on their way through 49 layers.) A
    single batch needs one pass.

    The network sees one view of each image. It is left in eval mode, so dropout is inactive
    throughout.
    """
    model.eval()
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not norms:
        return
    size = batch or model_batch(model, source)
    layers = [_Layer(norm) for norm in norms]
    hooks = [layer.norm.register_forward_pre_hook(layer.measure) for layer in layers]
    try:
        for number in range(MOST_PASSES):
            before = [layer.statistics() for layer in layers]
            for layer in layers:
                layer.calls = 0
            batches = 0
            with torch.no_grad(), autocast(numerics):
                for images in source.batches(positions, size=size):
                    model.net(model.normalized(images))
                    batches += 1
            if batches <= 1:
                return
            if number > 0 and _largest_change(layers, before) <= TOLERANCE:
                return
    finally:
        for hook in hooks:
            hook.remove()


class _Layer:
    """A layer of batch normalization and the moments of its inputs."""

    def __init__(self, norm: _BatchNorm) -> None:
        self.norm = norm
        self.calls = 0
        """Batches of the current pass; a layer that a network uses twice counts each twice."""
        self._moments = PooledMoments()

    def measure(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Pool the layer's inputs and normalize with the result."""
        self._moments.put(self.calls, inputs[0])
        self.calls += 1
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.copy_(self._moments.mean)
        self.norm.running_var.copy_(self._moments.variance)

    def statistics(self) -> _Statistics:
        """Return copies of the running mean and variance, float32 [C] each."""
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        return self.norm.running_mean.clone(), self.norm.running_var.clone()

    def change(self, before: _Statistics) -> Tensor:
        """Return the largest change of a statistic, in standard deviations of its channel."""
        mean, variance = self.statistics()
        deviation = (variance + self.norm.eps).sqrt()
        shift = (mean - before[0]).abs() / deviation
        scale = ((before[1] + self.norm.eps).sqrt() / deviation - 1).abs()
        return torch.maximum(shift, scale).max()


def _largest_change(layers: Sequence[_Layer], before: Sequence[_Statistics]) -> float:
    """Return the largest change in all layers; it is read from the device once."""
    changes = [layer.change(since) for layer, since in zip(layers, before, strict=True)]
    return float(torch.stack(changes).max())
