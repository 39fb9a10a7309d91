"""First weights from elsewhere: a file of one's own, or what timm finds on its hub.

A file is in the safetensors format, never a pickle: `weights.safetensors` of a trial, or
one in timm's own names, as its hub has them. The classifier's weights are left out, since
the classes are others; all the rest must fit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables.checkpoint import bytes_to_tensors
from trainables.errors import SpecError

HUB = "hub"
"""The value of `pretrained` that means timm's own weights."""

Norm = tuple[Tensor, Tensor]
"""Mean and standard deviation, float32 [3] each, of the images that the weights expect."""


def load_backbone(net: nn.Module, path: str | Path) -> Norm | None:
    """Copy all weights but the classifier's into `net`; what a trial's file says of images.

    Raises:
        SpecError: the file cannot be read, or its weights are of another net.
    """
    try:
        tensors, _ = bytes_to_tensors(Path(path).read_bytes(), where=str(path))
    except OSError as error:
        raise SpecError(f"pretrained: {path} cannot be read: {error.strerror or error}") from None
    own = {name: value for name, value in tensors.items() if name.startswith("net.")}
    norm = (tensors["mean"], tensors["std"]) if own else None
    weights = {name.removeprefix("net."): value for name, value in (own or tensors).items()}
    skipped = classifier_names(net)
    _check(net, weights, skipped, path)
    kept = {name: value for name, value in weights.items() if name not in skipped}
    net.load_state_dict(kept, strict=False)
    return norm


def expected_norm(net: nn.Module) -> Norm | None:
    """The mean and deviation with which timm's weights of this net were trained."""
    about = getattr(net, "pretrained_cfg", None) or {}
    if "mean" not in about or "std" not in about:
        return None
    return torch.tensor(about["mean"]), torch.tensor(about["std"])


def classifier_of(net: nn.Module, name: str) -> nn.Linear:
    """The last linear layer of a net with timm's `get_classifier`.

    Raises:
        SpecError: the net does not say which it is, or has several.
    """
    protocol = ("forward_features", "forward_head", "get_classifier")
    anything: Any = net
    head = anything.get_classifier() if all(hasattr(net, part) for part in protocol) else None
    if not isinstance(head, nn.Linear):
        raise SpecError(
            f"model {name!r} must have forward_features, forward_head and a get_classifier that "
            "gives one linear layer, as timm's nets have, for its head to be trained apart"
        )
    return head


def classifier_names(net: nn.Module) -> frozenset[str]:
    """The names in the state of `net` that belong to its classifier; none if it has no such."""
    anything: Any = net
    head = anything.get_classifier() if hasattr(net, "get_classifier") else None
    if not isinstance(head, nn.Module):
        return frozenset()
    prefixes = [name for name, module in net.named_modules() if module is head]
    return frozenset(f"{prefix}.{name}" for prefix in prefixes for name in head.state_dict())


def _check(
    net: nn.Module, weights: Mapping[str, Tensor], skipped: frozenset[str], path: str | Path
) -> None:
    wanted = {name: v for name, v in net.state_dict().items() if name not in skipped}
    for name, value in wanted.items():
        if name.endswith("num_batches_tracked"):
            continue  # hubs leave it out
        if name not in weights:
            raise SpecError(
                f"pretrained: {path} has no {name!r}, which the net has; it is of another net"
            )
        if weights[name].shape != value.shape:
            raise SpecError(
                f"pretrained: {path} has {name!r} of shape {list(weights[name].shape)}, the net "
                f"wants {list(value.shape)}; give the recipe the shape of the net it came from"
            )
    for name in sorted(weights):
        if name not in wanted and name not in skipped:
            raise SpecError(f"pretrained: {path} has {name!r}, which the net has not")
