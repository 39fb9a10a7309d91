"""Parameter groups: every trainable parameter in exactly one, with its rate and its decay.

A group is a mapping as torch's optimizers take it: `params`, `weight_decay`, `lr_scale` (its
learning rate as a multiple of the scheduled one) and, for Muon, `use_fallback`.
"""

from collections.abc import Collection
from fnmatch import fnmatch
from typing import Any

from timm.models import group_parameters
from timm.optim import auto_group_layers  # type: ignore[attr-defined]
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import SpecError
from trainables.hyperparameters import Optimization
from trainables.nets.head import head_weight_names

_AUXILIARY = "auxiliary."
_MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def parameter_groups(model: nn.Module, settings: Optimization) -> list[dict[str, Any]]:
    """Return groups of the trainable parameters of a classifier or of a bare network.

    - Learning rate: that of each layer is `layer_decay` times the next layer's; layers are those
      of the network's `group_matcher`, as in timm. The head and the auxiliary heads have the full
      rate, and biases of batch normalization `bias_lr_scale` times their layer's.
    - Weight decay: none for vectors, biases and the names (or patterns) in the network's
      `no_weight_decay()`.
    - Muon: only hidden matrices are orthogonalized, see `hidden_matrices`; other parameters are
      in groups with `use_fallback`.

    Raises:
        SpecError: `layer_decay` is less than 1, and the network does not define its layers.
    """
    net: nn.Module = getattr(model, "net", model)
    prefix = "" if net is model else "net."
    heads = {prefix + name for name in head_weight_names(net)}
    scales = {prefix + name: s for name, s in _layer_scales(net, settings.layer_decay).items()}
    undecayed = [prefix + pattern for pattern in _undecayed(net)]
    biases = {
        id(module.bias)
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.affine
    }
    muon = "muon" in settings.name
    hidden = {prefix + name for name in hidden_matrices(net)} if muon else set()
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        head = name in heads or name.startswith(_AUXILIARY)
        scale = 1.0 if head else scales.get(name, 1.0)
        if id(parameter) in biases:
            scale *= settings.bias_lr_scale
        plain = parameter.ndim <= 1 or name.endswith(".bias") or _matches(name, undecayed)
        decay = 0.0 if plain else settings.weight_decay
        fallback = muon and name not in hidden
        if fallback:
            scale *= settings.fallback_lr_scale
        group = {"params": [], "lr_scale": scale, "weight_decay": decay}
        if muon:
            group["use_fallback"] = fallback
        groups.setdefault((scale, decay, fallback), group)["params"].append(parameter)
    return list(groups.values())


def hidden_matrices(net: nn.Module) -> set[str]:
    """Return the names of the parameters for which Muon is meant: matrices of hidden layers.

    Muon's authors use it for "all the convolutional filters except the first one" and AdamW for
    the classifier, embeddings, gains and biases (github.com/KellerJordan/Muon, README). The first
    layer is the first convolution or linear layer, which in the convnet is the frozen whitening.
    The head is that of `get_classifier`, or the last such layer. Embeddings are the weights of
    `nn.Embedding` and what `no_weight_decay()` names. timm's Muon itself leaves out parameters of
    fewer than two long axes, e.g. position embeddings and depthwise convolutions.
    """
    layers = [name for name, module in net.named_modules() if isinstance(module, _MATRIX_LAYERS)]
    embeddings = [name for name, module in net.named_modules() if isinstance(module, nn.Embedding)]
    excluded = {f"{name}.weight" for name in (*layers[:1], *embeddings)}
    excluded |= head_weight_names(net) or {f"{name}.weight" for name in layers[-1:]}
    patterns = _undecayed(net)
    return {
        name
        for name, parameter in net.named_parameters()
        if parameter.ndim >= 2 and name not in excluded and not _matches(name, patterns)
    }


def _undecayed(net: nn.Module) -> Collection[str]:
    """Return the names and patterns of a network's `no_weight_decay()`, a method of timm's."""
    method = getattr(net, "no_weight_decay", None)
    return method() if callable(method) else ()


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _layer_scales(net: nn.Module, layer_decay: float) -> dict[str, float]:
    """Return the learning rate of every parameter by name, relative to the last layer's."""
    if layer_decay == 1:
        return {}
    matcher: Any = getattr(net, "group_matcher", None)
    if callable(matcher):
        layers = group_parameters(net, matcher(coarse=False), reverse=True)
    elif getattr(net, "pretrained_cfg", {}).get("classifier"):
        layers = auto_group_layers(net)  # type: ignore[no-untyped-call]
    else:
        raise SpecError(
            "layer_decay needs a network whose method group_matcher defines its layers, as "
            f"timm's networks have; {type(net).__name__} has none"
        )
    last = max(layers.values())
    return {name: layer_decay ** (last - layer) for name, layer in layers.items()}
