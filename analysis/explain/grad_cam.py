"""Grad-CAM (Selvaraju et al., 2017), for any network with a layer of feature maps.

Axes: C images, S pixels a side, B images of a batch, s cells a side of a feature map. The
only module that loads pytorch-grad-cam.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.explain.explanations import CELLS
from analysis.explain.saliency import BATCH_PIXELS, largest_batch
from trainables.nets.classifier import Classifier

Array = np.ndarray[Any, Any]
ToMap = Callable[[Tensor], Tensor]
"""Turns a layer's output into a feature map [B, channels, s, s]."""


def grad_cam(
    model: Classifier, pixels: Array, classes: Array, *, batch_pixels: int = BATCH_PIXELS
) -> Array:
    """Compute Grad-CAM maps of images uint8 [C, S, S, 3] for `classes` int [C].

    Returns float32 [C, S, S] from 0 to 1. They explain a single view of each image: the
    network's `tta` is switched off. At most `batch_pixels` pass through the network at once.

    Raises:
        ValueError: the network has no layer of feature maps, or none that has a gradient.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    model.tta = "none"
    layer, to_map = target_layer(model.eval(), images[:1])
    # No `with`: its exit swallows an IndexError and prints it.
    cam = GradCAM(model=model, target_layers=[layer], reshape_transform=to_map)
    targets = [ClassifierOutputTarget(int(label)) for label in classes]
    size = largest_batch(images.shape[-1], pixels=batch_pixels)
    try:
        parts = [
            cam(input_tensor=images[start : start + size], targets=targets[start : start + size])
            for start in range(0, len(images), size)
        ]
    finally:
        cam.activations_and_grads.release()
    maps = np.concatenate([np.asarray(part, np.float32) for part in parts])
    if maps.shape != (len(pixels), *pixels.shape[1:3]) or not np.isfinite(maps).all():
        raise ValueError(
            f"Grad-CAM gave maps of shape {list(maps.shape)}, or values that are not finite"
        )
    return maps


def target_layer(model: nn.Module, image: Tensor) -> tuple[nn.Module, ToMap | None]:
    """Find the last layer whose output is a feature map of at least CELLS × CELLS cells.

    Runs one image [1, 3, S, S] and watches every module's output. Many networks end in a map of
    a single cell, which has no position; if no layer has CELLS a side, the last layer with at
    least 2 is used. The map must influence the prediction: in a transformer that reads only its
    class token, the patch tokens stop mattering before the last block. The second value
    turns the layer's output, [B, s, s, channels] or [B, tokens, channels], into the map
    [B, channels, s, s] of Grad-CAM; None if it is one already.

    Raises:
        ValueError: no layer's output is a feature map.
    """
    outputs: list[tuple[nn.Module, Tensor]] = []

    def watch(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() in (3, 4) and output.requires_grad:
            outputs.append((module, output))

    handles = [module.register_forward_hook(watch) for module in model.modules()]
    try:
        score = model(image).max()
    finally:
        for handle in handles:
            handle.remove()
    tensors = [output for _, output in outputs]
    gradients = torch.autograd.grad(score, tensors, allow_unused=True) if tensors else ()
    prefix = getattr(getattr(model, "net", model), "num_prefix_tokens", None)
    for fewest in (CELLS, 2):
        for (module, _), gradient in zip(reversed(outputs), reversed(gradients), strict=True):
            to_map = None if gradient is None else _to_map(gradient.shape, prefix)
            if gradient is None or to_map is None:
                continue
            cells = to_map(gradient)
            if cells.shape[2] >= fewest and cells.any():
                return module, None if to_map is _unchanged else to_map
    raise ValueError("no layer's output is a feature map")


def _to_map(shape: tuple[int, ...], prefix: int | None) -> ToMap | None:
    """Return the function that turns an output of this shape into a feature map, if there is one.

    `prefix` is the number of tokens before the patches; None tries zero, then one.
    """
    if len(shape) == 4:
        if shape[2] == shape[3]:
            return _unchanged
        return _channels_first if shape[1] == shape[2] else None
    for skip in (0, 1) if prefix is None else (prefix,):
        side = math.isqrt(max(shape[1] - skip, 0))
        if side >= 2 and side**2 == shape[1] - skip:
            return partial(_tokens_to_map, skip=skip, side=side)
    return None


def _unchanged(output: Tensor) -> Tensor:
    return output


def _channels_first(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def _tokens_to_map(output: Tensor, *, skip: int, side: int) -> Tensor:
    return output[:, skip:].transpose(1, 2).reshape(len(output), -1, side, side)
