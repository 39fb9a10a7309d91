"""Faster gradients of depthwise convolutions on processors that have AVX2 but not AVX-512.

Axes: B images of a batch, C channels, H×W positions, a kernel of R×S taps.

There, oneDNN's fast code for the gradient of a depthwise kernel's weights covers only kernels of
at most three columns. For wider ones it falls back to its general code, which takes up to 30 times
as long, and a third of a training step of EfficientNet-Lite0 (docs/log.md). As no
tap depends on another, the gradient is computed here for three columns of the kernel at a time,
from the columns of the image that they see.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from trainables.recipe import Numerics

COLUMNS = 3
"""Largest number of kernel columns for which oneDNN has fast code with AVX2."""


def depthwise_gradients(numerics: Numerics) -> AbstractContextManager[object]:
    """Return a context in which convolutions have the faster gradients, if they would help.

    Only the forward pass need run in it. Results are the same but for rounding. There are no
    second derivatives.
    """
    helps = (
        numerics.device == "cpu"
        and numerics.dtype == "float32"
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
    )
    return DepthwiseGradients() if helps else nullcontext()


class DepthwiseGradients(TorchFunctionMode):
    """Replaces `conv2d` for depthwise kernels wider than COLUMNS that are being trained."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or a convolution with the same result whose gradient is computed here."""
        if func is functional.conv2d and torch.is_grad_enabled():
            result = _depthwise(*args, **(kwargs or {}))
            if result is not None:
                return result
        return func(*args, **(kwargs or {}))


def _depthwise(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    """Return the convolution, or None where torch's own gradient serves; arguments as in conv2d."""
    if input.dim() != 4 or groups == 1 or not groups == input.shape[1] == len(weight):
        return None
    if weight.shape[-1] <= COLUMNS or not weight.requires_grad:
        return None
    if isinstance(padding, str) or _pair(dilation) != (1, 1):
        return None
    if input.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return None
    result: Tensor = _Depthwise.apply(input, weight, bias, _pair(stride), _pair(padding))
    return result


class _Depthwise(Function):
    """A depthwise convolution of images [B, C, H, W] with kernels [C, 1, R, S]."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        of_images = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_images, _ = _gradients(
                gradient, images, weight, ctx.stride, ctx.padding, which=(True, False)
            )
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(
                gradient, images, weight, stride=ctx.stride, padding=ctx.padding
            )
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_images, of_weight, of_bias, None, None


def weight_gradient(
    gradient: Tensor,
    images: Tensor,
    weight: Tensor,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """Return the gradient of the weights, [C, 1, R, S], computed for COLUMNS columns at a time.

    `gradient` [B, C, H', W'] is that of the convolution's output for `images` [B, C, H, W].
    """
    rows, columns = weight.shape[2:]
    parts = []
    for first in range(0, columns, COLUMNS):
        part = weight[..., first : first + COLUMNS]
        seen = _window(
            images,
            first=(-padding[0], first - padding[1]),
            size=tuple(
                step * (count - 1) + taps
                for step, count, taps in zip(
                    stride, gradient.shape[2:], (rows, part.shape[-1]), strict=True
                )
            ),
        )
        _, of_part = _gradients(gradient, seen, part, stride, (0, 0), which=(False, True))
        parts.append(of_part)
    return torch.cat(parts, dim=-1)


def _window(images: Tensor, *, first: tuple[int, int], size: tuple[int, ...]) -> Tensor:
    """Return `size` rows and columns of the images from `first` on, zero outside of them."""
    sides, start = [], []  # from the last axis to the first, as `pad` wants them
    for axis in (1, 0):
        before = max(0, -first[axis])
        after = max(0, first[axis] + size[axis] - images.shape[2 + axis])
        sides += [before, after]
        start.append(first[axis] + before)
    left, top = start
    # Negative padding could crop, too, but fails for a window outside the image.
    return functional.pad(images, sides)[..., top : top + size[0], left : left + size[1]]


def _gradients(
    gradient: Tensor,
    images: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    *,
    which: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """Return torch's own gradients of images and weight; `which` says which of them to compute."""
    of_images, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        images,
        weight,
        None,
        list(stride),
        list(padding),
        [1, 1],
        False,
        [0, 0],
        len(weight),
        [*which, False],
    )
    return of_images, of_weight


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return the values for rows and columns of an argument of `conv2d`."""
    if isinstance(value, int):
        return value, value
    first, *others = value
    return first, others[0] if others else first
