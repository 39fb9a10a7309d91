"""Attention weights: the factors by which attention layers multiply feature maps.

Axes: N images, K classes, C shown images, S pixels a side, G weights of a layer (one per
channel, or side·side cells). The weights show what attention does in a network; `quorum ablate`
measures whether it improves the network.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from analysis.explain.explanations import AttentionWeights, LayerWeights
from analysis.facts.data import RunImages
from common.sampling import evenly_spaced
from trainables.nets.classifier import Classifier
from trainables.nets.convnet import ConvBlock, ConvNet
from trainables.prediction import predict_log_probs
from trainables.recipe import Numerics

Array = np.ndarray[Any, Any]

MOST_IMAGES = 1000
"""Maximum number of val images that the weights are averaged over."""


def attention_weights(
    model: Classifier,
    images: RunImages,
    *,
    trial: str,
    kind: str,
    shown: Array | None = None,
) -> AttentionWeights:
    """Measure the attention weights of a convnet over val images.

    `shown` are images, uint8 [C, S, S, 3], whose spatial weights are kept per image. The
    network sees a single view of each image: its `tta` is switched off.

    Raises:
        ValueError: the network has no attention.
    """
    model.tta = "none"
    modules = attention_modules(model)
    if not modules:
        raise ValueError("the network has no attention")
    val = images.splits.val[evenly_spaced(len(images.splits.val), MOST_IMAGES)]
    weights = _outputs(model, modules, images.image_set.images, val)
    if not any(by == "place" for _, by in modules):
        shown = None
    kept = {}
    if shown is not None:
        kept = _outputs(model, modules, shown, np.arange(len(shown)))
    return AttentionWeights(
        trial=trial,
        kind=kind,
        images=len(val),
        layers=tuple(
            _layer(key, values, images.image_set.labels[val], model.classes, kept.get(key))
            for key, values in weights.items()
        ),
        pixels=shown,
    )


def attention_modules(model: Classifier) -> dict[tuple[str, str], nn.Module]:
    """Return the modules that compute attention weights, by block and `channel` or `place`.

    Every kind of attention in the convnet multiplies its feature map by the output of a module
    called `gate`; CBAM has one gate for channels, then one for places.
    """
    if not isinstance(model.net, ConvNet):
        return {}
    modules: dict[tuple[str, str], nn.Module] = {}
    for number, block in enumerate(model.net.blocks, 1):
        assert isinstance(block, ConvBlock)
        for path, module in block.attention.named_modules():
            *parents, name = path.split(".")
            if name == "gate":
                by = "place" if "spatial" in parents else "channel"
                modules[f"block {number}", by] = module
    return modules


def _outputs(
    model: Classifier,
    modules: Mapping[tuple[str, str], nn.Module],
    images: Array,
    indices: Array,
) -> dict[tuple[str, str], Array]:
    """Return each module's outputs for the images at `indices`, [N, …]."""
    parts: dict[tuple[str, str], list[Array]] = {key: [] for key in modules}

    def keep(key: tuple[str, str]) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _module, _inputs, output: parts[key].append(output.cpu().numpy().copy())

    handles = [module.register_forward_hook(keep(key)) for key, module in modules.items()]
    try:
        predict_log_probs(model, images, Numerics(), indices=indices)
    finally:
        for handle in handles:
            handle.remove()
    return {key: np.concatenate(outputs) for key, outputs in parts.items()}


def _layer(
    key: tuple[str, str], outputs: Array, labels: Array, classes: int, shown: Array | None
) -> LayerWeights:
    """Average a module's outputs [N, …] over all images and within each class."""
    block, by = key
    values = outputs.reshape(len(outputs), -1).astype(np.float64)
    members = labels[None, :] == np.arange(classes)[:, None]
    with np.errstate(invalid="ignore"):
        class_means = members.astype(np.float64) @ values / members.sum(axis=1)[:, None]
    return LayerWeights(
        block=block,
        side=outputs.shape[-1] if by == "place" else None,
        mean=values.mean(axis=0),
        spread=values.std(axis=0),
        class_means=class_means,
        shown=None if shown is None or by == "channel" else shown[:, 0],
    )
