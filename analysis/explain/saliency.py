"""Saliency: the gradient of a prediction with respect to the pixels.

Sources: Simonyan et al., 2014; Smilkov et al., 2017.

Axes: C images, S pixels a side, B images of a batch. It needs only a gradient, so it also
explains networks without a layer of feature maps.

Gradients are noisy in networks for small images. For one CIFAR-10 network (n = 20 images, 16
copies), maps from two draws of the noise correlate by 0.32 with SmoothGrad's defaults
(mean gradients, 15% noise), by 0.52 with 5% noise, and by 0.74 with 5% and mean squares.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.explain.explanations import COPIES, NOISE, PERCENTILE

Array = np.ndarray[Any, Any]

BATCH_PIXELS = 256 * 32**2
"""Maximum number of pixels in a batch: 256 images of 32 px, or 5 of 224 px."""


def largest_batch(image_size: int, *, pixels: int = BATCH_PIXELS) -> int:
    """Return the largest batch of images for which gradients are computed."""
    return max(1, pixels // image_size**2)


def smooth_grad(
    model: nn.Module,
    pixels: Array,
    classes: Array,
    *,
    generator: torch.Generator,
    batch_pixels: int = BATCH_PIXELS,
) -> Array:
    """Compute saliency maps of images uint8 [C, S, S, 3] for `classes` int [C].

    Returns float32 [C, S, S] from 0 to 1. The gradient of the class's log-probability is
    squared and averaged over COPIES of the image with Gaussian noise (SmoothGrad-Squared;
    Hooker et al., 2019). The map is the largest value over the channels, divided by its
    PERCENTILE and cut off at 1; an image that does not influence the prediction gets zeros.
    `model` takes float images [B, 3, S, S] from 0 to 1 and returns logits, in eval mode. A
    generator in the same state gives every network the same noise.

    Raises:
        ValueError: the gradient is not finite.
    """
    maps = []
    for image, label in zip(pixels, classes, strict=True):
        clean = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
        noise = torch.randn((COPIES, *clean.shape), generator=generator)
        noisy = clean + NOISE * (clean.max() - clean.min()) * noise
        parts = torch.split(noisy, largest_batch(clean.shape[-1], pixels=batch_pixels))
        sums = torch.stack([_squared_gradients(model, part, int(label)) for part in parts])
        maps.append(_scaled((sums.sum(dim=0) / COPIES).amax(dim=0).numpy()))
    return np.stack(maps)


def _squared_gradients(model: nn.Module, images: Tensor, label: int) -> Tensor:
    """Sum the squared gradients of log p(label) over a batch [B, 3, S, S] to [3, S, S]."""
    images = images.requires_grad_()
    logits = model(images).double()
    # log p from the margin over all other classes: a confident p is rounded to 1, and
    # log_softmax then has no gradient for its own logit.
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1).logsumexp(dim=1)
    log_probs = functional.logsigmoid(logits[:, label] - others)
    (gradient,) = torch.autograd.grad(log_probs.sum(), images)
    # In float32 the square of a gradient below 1e-23 is 0.
    return gradient.double().square().sum(dim=0)


def _scaled(values: Array) -> Array:
    if not np.isfinite(values).all():
        raise ValueError("the gradients are not finite")
    # If hardly any pixel counts, the percentile is 0: scale by the largest value instead.
    top = float(np.percentile(values, PERCENTILE)) or float(values.max()) or 1.0
    return np.asarray(np.minimum(values / top, 1.0), np.float32)
