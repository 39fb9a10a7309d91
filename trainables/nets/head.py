"""Split networks into features and one linear head, with the method names of timm's networks.

Axes: B images, S×S pixels, C features, K classes. With these methods, the head of any network
(Quorum's, timm's or custom) can be trained alone or replaced.
"""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from common.errors import SpecError


class NetWithHead(nn.Module):
    """A network whose last layer is the linear layer `head`."""

    head: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K] of normalized images [B, 3, S, S]."""
        return self.forward_head(self.forward_features(x))

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, [B, C, s, s], of normalized images [B, 3, S, S]."""

    @abstractmethod
    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits [B, K] of a feature map; with `pre_logits`, the pooled features [B, C]."""

    def get_classifier(self) -> nn.Linear:
        """Return the linear head."""
        return self.head


def linear_head(net: nn.Module, name: str) -> nn.Linear:
    """Return the linear head of a network with timm's methods; the error gives its `name`.

    Raises:
        SpecError: a method is missing, or the head is not one linear layer.
    """
    methods = ("forward_features", "forward_head", "get_classifier")
    timm_like: Any = net
    head = timm_like.get_classifier() if all(hasattr(net, method) for method in methods) else None
    if not isinstance(head, nn.Linear):
        raise SpecError(
            f"model {name!r} must have forward_features, forward_head and get_classifier (which "
            "returns one linear layer), as timm's models have, to train its head alone or beside "
            "auxiliary heads"
        )
    return head


def head_weight_names(net: nn.Module) -> frozenset[str]:
    """Return the names of the head's weights in the state dict of `net`; empty without a head.

    Some of timm's networks have several heads, e.g. those trained by distillation.
    """
    timm_like: Any = net
    head = timm_like.get_classifier() if hasattr(net, "get_classifier") else ()
    heads = head if isinstance(head, list | tuple | nn.ModuleList) else (head,)
    return frozenset(
        f"{prefix}.{name}"
        for prefix, module in net.named_modules()
        if any(module is each for each in heads)
        for name in module.state_dict()
    )
