"""Load pretrained weights from a file or a package, for all layers except the head.

The file is a trial's `weights.safetensors`, or has timm's parameter names: a .safetensors file as
on its hub, or a file of torch.save, which torch's safe loader opens without running code. The
head is skipped because the classes differ; all other weights must fit.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from torch import Tensor, nn

from common.errors import MissingWeightsError, RunError, SpecError
from trainables.hyperparameters import PACKAGE, Architecture
from trainables.initial_weights import (
    PACKAGED,
    PackagedNet,
    file_stamp,
    packaged_file,
    packaged_net,
    read_packaged,
)
from trainables.nets.efficientnet_names import has_efficientnet_names, with_timm_names
from trainables.nets.head import head_weight_names
from trainables.nets.tensor_file import bytes_to_tensors
from trainables.nets.timm_weights import norm_for_channels, weights_for_channels, weights_for_size
from trainables.nets.torch_file import is_torch_file, torch_file_to_tensors

Norm = tuple[Tensor, Tensor]
"""Mean and standard deviation, float32 [C] each, of the images that the weights expect."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backbone:
    """The contents of a file of weights."""

    path: str
    sha256: str
    """SHA-256 of the file, as hex."""
    weights: Mapping[str, Tensor]
    """Tensors by their names in the network's state dict."""
    norm: Norm | None
    """The normalization in a trial's file; None for a file with timm's parameter names."""


def read_backbone(architecture: Architecture) -> Backbone:
    """Read the weights that a recipe names: a file, or `package`; once per process.

    Raises:
        SpecError: the file is missing, a folder, truncated or needs code to be opened, or has
            values that are not finite; the package is missing, or its file is not the known one.
    """
    source = architecture.pretrained
    package = packaged_net(architecture.model) if source == PACKAGE else None
    path = packaged_file(package) if package is not None else Path(source).expanduser()
    try:
        return _read(path, file_stamp(path), package)
    except IsADirectoryError:
        raise SpecError(f"pretrained: {path} is a folder; name the file of weights in it") from None
    except OSError as error:
        reason = error.strerror or error
        raise MissingWeightsError(f"pretrained: {path} cannot be read: {reason}") from None


@lru_cache(maxsize=2)
def _read(path: Path, _stamp: tuple[int, int, int], package: PackagedNet | None) -> Backbone:
    data = path.read_bytes() if package is None else read_packaged(package)
    try:
        tensors = _parsed(data, str(path))
    except RunError as error:
        raise SpecError(f"pretrained: {error}") from None
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise SpecError(
                f"pretrained: {path} has {name!r} with values that are not finite; use weights "
                "of a training that did not diverge"
            )
    own = {name: value for name, value in tensors.items() if name.startswith("net.")}
    weights = {name.removeprefix("net."): value for name, value in (own or tensors).items()}
    return Backbone(
        path=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        weights=with_timm_names(weights) if has_efficientnet_names(weights) else weights,
        norm=(tensors["mean"], tensors["std"]) if own else None,
    )


def load_backbone(net: nn.Module, architecture: Architecture) -> Norm | None:
    """Copy all weights except the head's into `net`; return the file's normalization, if any.

    Raises:
        SpecError: the weights cannot be read, or belong to another network.
    """
    backbone = adapted(read_backbone(architecture), net)
    check_backbone(net, backbone, model=architecture.model)
    skipped = head_weight_names(net)
    kept = {name: value for name, value in backbone.weights.items() if name not in skipped}
    net.load_state_dict(kept, strict=False)
    return backbone.norm


def adapted(backbone: Backbone, net: nn.Module) -> Backbone:
    """Return the weights for the image size and channels of `net`, if it is one of timm's.

    timm interpolates position embeddings, and sums or repeats the filters of the first layer over
    its channels. Weights of other networks are returned as they are.
    """
    skipped = head_weight_names(net)
    if _fault(net, backbone.weights, skipped) is None:
        return backbone
    weights = weights_for_channels(net, backbone.weights)
    if _fault(net, weights, skipped) is not None:
        weights = weights_for_size(net, weights)
    return replace(backbone, weights=weights)


def check_backbone(net: nn.Module, backbone: Backbone, *, model: str) -> None:
    """Refuse weights of another network than `net`, the recipe's `model`; skip the head.

    Raises:
        SpecError: a weight is missing, has another shape, or is unknown.
    """
    fault = _fault(net, backbone.weights, head_weight_names(net))
    if fault is None:
        return
    known = [net.model for net in PACKAGED if net.sha256 == backbone.sha256]
    if known:
        remedy = f"set model to {known[0]!r}"
    elif model == "convnet":
        remedy = "set width and depth, or model, to those of the network that it was saved from"
    else:
        remedy = "set model to the network that it was saved from, or name another file"
    raise SpecError(f"pretrained: {backbone.path} does not fit model {model!r}: {fault}; {remedy}")


def expected_norm(net: nn.Module, *, channels: int) -> Norm | None:
    """Return the normalization, [channels] each, with which timm's weights were trained."""
    about = getattr(net, "pretrained_cfg", None) or {}
    if "mean" not in about or "std" not in about:
        return None
    mean, std = about["mean"], about["std"]
    return norm_for_channels(mean, channels), norm_for_channels(std, channels)


def _parsed(data: bytes, where: str) -> Mapping[str, Tensor]:
    if is_torch_file(data):
        return torch_file_to_tensors(data, where=where)
    try:
        return bytes_to_tensors(data, where=where)[0]
    except RunError as error:
        raise RunError(f"{error}; fetch it again") from None


def _fault(net: nn.Module, weights: Mapping[str, Tensor], skipped: frozenset[str]) -> str | None:
    """Return the first reason why the weights do not fit, or None."""
    expected = {name: v for name, v in net.state_dict().items() if name not in skipped}
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):
            continue  # files on timm's hub lack it
        if name not in weights:
            return f"it lacks the weight {name!r}"
        if weights[name].shape != value.shape:
            return (
                f"it has {name!r} of shape {list(weights[name].shape)}, the network needs "
                f"{list(value.shape)}"
            )
    for name in sorted(weights):
        if name not in expected and name not in skipped:
            return f"it has the weight {name!r}, which the network lacks"
    return None
