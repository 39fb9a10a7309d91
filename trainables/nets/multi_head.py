"""What our own nets have in common: features, then one linear layer.

Axes: B images, S×S pixels, K classes. Its parts are called as those of timm's nets, so that
heads are trained alone, and replaced, in the same way in both.
"""

from abc import abstractmethod

from torch import Tensor, nn


class HeadedNet(nn.Module):
    """A net whose last layer is `head`."""

    head: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K] of normalized images [B, 3, S, S]."""
        return self.forward_head(self.forward_features(x))

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """The last map, [B, C, s, s], of normalized images [B, 3, S, S]."""

    @abstractmethod
    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits [B, K] of a map; with `pre_logits` the features [B, C] before."""

    def get_classifier(self) -> nn.Linear:
        """The linear layer."""
        return self.head
