"""Saliency: how an answer hangs on each pixel (Simonyan et al., 2014; Smilkov et al., 2017).

Axes: C images, S pixels a side, B images of a batch. It asks nothing of a net but a
gradient, so that it also serves where no layer has a map of places.

Gradients of nets for small images are noisy. Of a net of CIFAR-10 (n = 20 images, 16 copies),
maps of two draws of the noise correlate by 0.32 as SmoothGrad has them, with means of gradients
and 15% of noise; by 0.52 with 5%; and by 0.74 with 5% and means of squares.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.explain.examples import COPIES, NOISE, PERCENTILE

Array = np.ndarray[Any, Any]

BATCH_PIXELS = 256 * 32**2
"""Most pixels that pass through a net at once: 256 images of 32 px, 5 of 224 px."""


def largest_batch(image_size: int) -> int:
    """How many images may pass through a net at once, gradients included."""
    return max(1, BATCH_PIXELS // image_size**2)


def smooth_grad(
    model: nn.Module, pixels: Array, classes: Array, *, generator: torch.Generator
) -> Array:
    """Maps float32 [C, S, S] from 0 to 1 of images uint8 [C, S, S, 3], for `classes` int [C].

    The gradient of a class's log-probability is squared and averaged over COPIES of the image
    with Gaussian noise (SmoothGrad-Squared; Hooker et al., 2019); the map is the largest value
    over the channels, divided by its PERCENTILE and cut off at 1. An image on which nothing
    hangs gets zeros. `model` takes float images [B, 3, S, S] from 0 to 1 and gives logits, in
    eval mode. The same generator's state gives every net the same noise.

    Raises:
        ValueError: the gradient is not finite.
    """
    maps = []
    for image, label in zip(pixels, classes, strict=True):
        clean = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
        drawn = torch.randn((COPIES, *clean.shape), generator=generator)
        noisy = clean + NOISE * (clean.max() - clean.min()) * drawn
        parts = torch.split(noisy, largest_batch(clean.shape[-1]))
        sums = torch.stack([_squares(model, part, int(label)) for part in parts])
        maps.append(_scaled((sums.sum(dim=0) / COPIES).amax(dim=0).numpy()))
    return np.stack(maps)


def _squares(model: nn.Module, images: Tensor, label: int) -> Tensor:
    """The sum over a batch [B, 3, S, S] of the squared gradients of log p(label), [3, S, S]."""
    images = images.requires_grad_()
    logits = model(images).double()
    # log p by the margin over all others: the p of a sure answer is rounded to 1, and
    # log_softmax then has no gradient for its own logit.
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1).logsumexp(dim=1)
    log_probs = functional.logsigmoid(logits[:, label] - others)
    (gradient,) = torch.autograd.grad(log_probs.sum(), images)
    # In float32 the square of a gradient below 1e-23 is 0.
    return gradient.double().square().sum(dim=0)


def _scaled(values: Array) -> Array:
    if not np.isfinite(values).all():
        raise ValueError("its gradients are not finite")
    # Where hardly a pixel counts, the percentile is 0, and the largest value serves.
    top = float(np.percentile(values, PERCENTILE)) or float(values.max()) or 1.0
    return np.asarray(np.minimum(values / top, 1.0), np.float32)
