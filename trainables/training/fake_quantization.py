"""Train a network as if its convolutions and linear layers computed with 8-bit numbers.

As in the exported int8 file (ensemble/deployment/quantize.py), weights are symmetric int8 with one
scale per output channel, and activations are affine uint8 with one scale per tensor. A batch norm
after a convolution multiplies each channel's weights and scale alike, so weights are rounded in
the same places before and after it is folded. Rounding passes gradients on unchanged
(straight-through estimator, Bengio et al., 2013). The scale of activations follows from
their smallest and largest value in the batch.

Axes: B images of a batch, C output channels of a layer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

LARGEST = 127
"""Largest int8 weight; −128 is not used, so that the range is symmetric."""

LARGEST_REDUCED = 64
"""Largest int8 weight in files of reduced range, for processors whose 16-bit sums of two products
overflow (see ensemble/deployment/quantize.py)."""

STEPS = 255
"""Steps between the smallest and the largest uint8 activation."""


@contextmanager
def fake_quantized(model: nn.Module, *, reduce_range: bool = False) -> Iterator[int]:
    """Round weights and inputs of the model's layers inside the block; yield how many layers.

    With `reduce_range`, weights have 7 bits, as in a file that was quantized so. Parameters, names
    and copies of the model are not affected.
    """
    largest = LARGEST_REDUCED if reduce_range else LARGEST
    layers: list[nn.Module] = []
    for layer in model.modules():
        forward = _forward(layer, largest)
        if forward is not None:
            layer.forward = forward
            layers.append(layer)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.forward  # that of the class again


def quantized_weights(weights: Tensor, largest: int = LARGEST) -> Tensor:
    """Return weights [C, …], rounded to ±`largest` steps with one scale for each output channel."""
    extremes = weights.detach().abs().flatten(1).amax(dim=1)
    scale = (extremes / largest).clamp(min=torch.finfo(weights.dtype).tiny)
    scale = scale.reshape(-1, *[1] * (weights.dim() - 1))
    return _straight_through(weights, (weights / scale).round() * scale)


def quantized_activations(x: Tensor) -> Tensor:
    """Return activations [B, …], rounded to uint8 over their range, in which 0 is exact."""
    low, high = x.detach().amin().clamp(max=0.0), x.detach().amax().clamp(min=0.0)
    scale = ((high - low) / STEPS).clamp(min=torch.finfo(x.dtype).tiny)
    zero = (-low / scale).round()
    steps = ((x / scale).round() + zero).clamp(0, STEPS)
    return _straight_through(x, (steps - zero) * scale)


def _straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """Return `rounded`, with the gradient of `x`."""
    return x + (rounded - x).detach()


def _forward(layer: nn.Module, largest: int) -> Callable[[Tensor], Tensor] | None:
    """Return the forward pass of a layer with rounded weights and inputs; None for other layers."""
    if type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
        return partial(_convolve, layer, largest)
    if type(layer) is nn.Linear:
        return partial(_multiply, layer, largest)
    return None


def _convolve(layer: nn.Conv2d, largest: int, x: Tensor) -> Tensor:
    return functional.conv2d(
        quantized_activations(x),
        quantized_weights(layer.weight, largest),
        layer.bias,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )


def _multiply(layer: nn.Linear, largest: int, x: Tensor) -> Tensor:
    return functional.linear(
        quantized_activations(x), quantized_weights(layer.weight, largest), layer.bias
    )
