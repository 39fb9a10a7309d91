"""A network with its input normalization and test-time augmentation.

Axes: B images, S×S pixels of an image, C features, K classes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainables.nets.auxiliary_heads import AuxiliaryHeads


class Classifier(nn.Module):
    """Maps float images in [0, 1] to logits: normalization, network, average over views."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        classes: int,
        image_size: int,
        input_size: int = 0,
        tta: str = "none",
        channels: int = 3,
    ) -> None:
        """Wrap `net`, which takes normalized images of `channels` and `input_size` pixels a side.

        `input_size` 0 stands for `image_size`, the side S of the images that are passed in.
        `tta` is a value of the recipe's `tta`.
        """
        super().__init__()
        self.classes = classes
        self.image_size = image_size
        self.input_size = input_size or image_size
        """Side in pixels to which images are resized before `net` sees them."""
        self.channels = channels
        self.tta = tta
        """Views whose logits are averaged in eval mode: "none", "mirror" or "mirror_translate"."""
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.net = net
        self.auxiliary: AuxiliaryHeads | None = None
        """Heads of auxiliary tasks, used in training only."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, K] of float images [B, 3, S, S] in [0, 1]."""
        x = self.normalized(images)
        if self.training or self.tta == "none":
            logits: Tensor = self.net(x)
            return logits
        return self._mean_over_views(self.net, x)

    def features(self, images: Tensor) -> Tensor:
        """Return the inputs [B, C] of the linear head for images as in `forward`, for one view."""
        return self._pooled(self.normalized(images))

    def mean_features(self, images: Tensor) -> Tensor:
        """Return `features` averaged over the views of `tta`: the head maps them to `forward`."""
        x = self.normalized(images)
        return self._pooled(x) if self.tta == "none" else self._mean_over_views(self._pooled, x)

    def normalized(self, images: Tensor) -> Tensor:
        """Return images [B, 3, S, S] as `net` takes them: normalized, with `input_size` pixels."""
        x = (images - self.mean[:, None, None]) / self.std[:, None, None]
        return resized(x, self.input_size)

    def _pooled(self, x: Tensor) -> Tensor:
        net: Any = self.net
        features: Tensor = net.forward_head(net.forward_features(x), pre_logits=True)
        return features

    def _mean_over_views(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return the mean of a function of normalized images over the views of `tta`."""

        def mirrored_mean(view: Tensor) -> Tensor:
            return (function(view) + function(view.flip(3))) / 2

        mean = mirrored_mean(x)
        if self.tta == "mirror_translate":
            # As in airbench, the unshifted image has half the weight.
            padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
            shifted = [padded[..., :-2, :-2], padded[..., 2:, 2:]]
            mean = mean / 2 + sum(mirrored_mean(view) for view in shifted) / 4
        return mean


def resized(images: Tensor, side: int) -> Tensor:
    """Return float images [B, 3, S, S] as [B, 3, side, side]: bilinear, antialiased if smaller."""
    if images.shape[-1] == side:
        return images
    return nn.functional.interpolate(
        images,
        size=(side, side),
        mode="bilinear",
        align_corners=False,
        antialias=images.shape[-1] > side,
    )
