"""First weights from elsewhere: a file of one's own, or what timm finds on its hub.

A file is in the safetensors format, never a pickle: `weights.safetensors` of a trial, or
one in timm's own names, as its hub has them. The classifier's weights are left out, since
the classes are others; all the rest must fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import RunError, SpecError
from trainables.nets.tensor_file import bytes_to_tensors

_PICKLES = (b"PK\x03\x04", b"\x80")
"""How files of torch.save begin, now and before version 1.6."""

Norm = tuple[Tensor, Tensor]
"""Mean and standard deviation, float32 [3] each, of the images that the weights expect."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backbone:
    """What a file of weights holds."""

    path: str
    weights: Mapping[str, Tensor]
    """By the net's own names."""
    norm: Norm | None
    """What a trial's file says of images; None for a file in timm's names."""


def read_backbone(path: str | Path) -> Backbone:
    """Read a .safetensors file.

    Raises:
        SpecError: it is missing, a folder, a pickle, not whole, or not finite.
    """
    try:
        data = Path(path).read_bytes()
        tensors, _ = bytes_to_tensors(data, where=str(path))
    except IsADirectoryError:
        raise SpecError(
            f"pretrained: {path} is a folder; give the .safetensors file in it"
        ) from None
    except OSError as error:
        raise SpecError(f"pretrained: {path} cannot be read: {error.strerror or error}") from None
    except RunError as error:
        if data.startswith(_PICKLES):
            raise SpecError(
                f"pretrained: {path} is a pickle, which is never opened, since it can run "
                "anything; save its state_dict with safetensors.torch.save_file"
            ) from None
        raise SpecError(f"pretrained: {error}; fetch it again") from None
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise SpecError(
                f"pretrained: {path} has {name!r} with values that are not finite; give weights "
                "of a training that has not diverged"
            )
    own = {name: value for name, value in tensors.items() if name.startswith("net.")}
    return Backbone(
        path=str(path),
        weights={name.removeprefix("net."): value for name, value in (own or tensors).items()},
        norm=(tensors["mean"], tensors["std"]) if own else None,
    )


def load_backbone(net: nn.Module, path: str | Path) -> Norm | None:
    """Copy all weights but the classifier's into `net`; what a trial's file says of images.

    Raises:
        SpecError: the file cannot be read, or its weights are of another net.
    """
    backbone = read_backbone(path)
    check_backbone(net, backbone)
    skipped = classifier_names(net)
    kept = {name: value for name, value in backbone.weights.items() if name not in skipped}
    net.load_state_dict(kept, strict=False)
    return backbone.norm


def check_backbone(net: nn.Module, backbone: Backbone) -> None:
    """Refuse weights of another net than this one; its classifier's are not asked for.

    Raises:
        SpecError: the first name that is missing, of another shape, or too many.
    """
    _check(net, backbone.weights, classifier_names(net), backbone.path)


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
