"""Load pretrained weights from a file, for all layers except the head.

The file is in the safetensors format, never a pickle: `weights.safetensors` of a trial, or a
file with timm's parameter names, as on its hub. The head is skipped because the classes differ;
all other weights must fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import RunError, SpecError
from trainables.nets.head import head_weight_names
from trainables.nets.tensor_file import bytes_to_tensors

_PICKLES = (b"PK\x03\x04", b"\x80")
"""First bytes of files written by torch.save, since version 1.6 and before."""

Norm = tuple[Tensor, Tensor]
"""Mean and standard deviation, float32 [3] each, of the images that the weights expect."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backbone:
    """The contents of a file of weights."""

    path: str
    weights: Mapping[str, Tensor]
    """Tensors by their names in the network's state dict."""
    norm: Norm | None
    """The normalization in a trial's file; None for a file with timm's parameter names."""


def read_backbone(path: str | Path) -> Backbone:
    """Read a .safetensors file.

    Raises:
        SpecError: the file is missing, a folder, a pickle or truncated, or has values that are
            not finite.
    """
    try:
        data = Path(path).read_bytes()
        tensors, _ = bytes_to_tensors(data, where=str(path))
    except IsADirectoryError:
        raise SpecError(
            f"pretrained: {path} is a folder; name the .safetensors file in it"
        ) from None
    except OSError as error:
        raise SpecError(f"pretrained: {path} cannot be read: {error.strerror or error}") from None
    except RunError as error:
        if data.startswith(_PICKLES):
            raise SpecError(
                f"pretrained: {path} is a pickle, which can run any code and is never opened; "
                "save its state_dict with safetensors.torch.save_file"
            ) from None
        raise SpecError(f"pretrained: {error}; fetch it again") from None
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise SpecError(
                f"pretrained: {path} has {name!r} with values that are not finite; use weights "
                "of a training that did not diverge"
            )
    own = {name: value for name, value in tensors.items() if name.startswith("net.")}
    return Backbone(
        path=str(path),
        weights={name.removeprefix("net."): value for name, value in (own or tensors).items()},
        norm=(tensors["mean"], tensors["std"]) if own else None,
    )


def load_backbone(net: nn.Module, path: str | Path) -> Norm | None:
    """Copy all weights except the head's into `net`; return the file's normalization, if any.

    Raises:
        SpecError: the file cannot be read, or its weights belong to another network.
    """
    backbone = read_backbone(path)
    check_backbone(net, backbone)
    skipped = head_weight_names(net)
    kept = {name: value for name, value in backbone.weights.items() if name not in skipped}
    net.load_state_dict(kept, strict=False)
    return backbone.norm


def check_backbone(net: nn.Module, backbone: Backbone) -> None:
    """Refuse weights of another network; the head is not compared.

    Raises:
        SpecError: a weight is missing, has another shape, or is unknown.
    """
    _check(net, backbone.weights, head_weight_names(net), backbone.path)


def expected_norm(net: nn.Module) -> Norm | None:
    """Return the normalization with which timm's weights of this network were trained."""
    about = getattr(net, "pretrained_cfg", None) or {}
    if "mean" not in about or "std" not in about:
        return None
    return torch.tensor(about["mean"]), torch.tensor(about["std"])


def _check(
    net: nn.Module, weights: Mapping[str, Tensor], skipped: frozenset[str], path: str | Path
) -> None:
    expected = {name: v for name, v in net.state_dict().items() if name not in skipped}
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):
            continue  # files on timm's hub lack it
        if name not in weights:
            raise SpecError(
                f"pretrained: {path} lacks the network's weight {name!r}; it belongs to another "
                "network, choose its file or its model"
            )
        if weights[name].shape != value.shape:
            raise SpecError(
                f"pretrained: {path} has {name!r} of shape {list(weights[name].shape)}, the "
                f"network needs {list(value.shape)}; set the recipe's width and depth to the file's"
            )
    for name in sorted(weights):
        if name not in expected and name not in skipped:
            raise SpecError(
                f"pretrained: {path} has the weight {name!r}, which the network lacks; it belongs "
                "to another network, choose its file or its model"
            )
