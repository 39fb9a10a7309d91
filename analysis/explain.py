"""Grad-CAM: which parts of an image an answer rests on (Selvaraju et al., 2017).

Axes: C images, S pixels a side, B images of a batch, M members. The only module that loads
pytorch-grad-cam, and torch in this package.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.data_facts import CELLS, Chosen, Maps
from trainables.models import Classifier
from trainables.prediction import load_trained
from trainables.records import RunFolder

Array = np.ndarray[Any, Any]

MOST_MEMBERS = 8
"""Members explained: the heaviest; each costs a training step on the chosen images."""


def explain(folder: RunFolder, weights: Mapping[str, float], chosen: Chosen) -> Maps:
    """Maps of the ensemble's members, and their weighted mean.

    Each map explains the class that the ensemble names, and is scaled to 0 … 1 by itself
    before it is averaged, so that no member counts for more than its weight. A member that
    cannot be explained is left out of the mean, and its reason given.
    """
    maps: dict[str, Array] = {}
    skipped: dict[str, str] = {}
    heaviest = sorted(weights, key=lambda name: (-weights[name], name))
    for name in heaviest[:MOST_MEMBERS]:
        try:
            maps[name] = grad_cam(load_trained(folder.trial(name)), chosen.pixels, chosen.answers)
        # Any net may be a member, also a user's own: whatever it raises, the report goes on.
        except Exception as error:
            skipped[name] = " ".join(str(error).split())[:160] or type(error).__name__
    skipped |= dict.fromkeys(heaviest[MOST_MEMBERS:], f"only {MOST_MEMBERS} are")
    if not maps:
        return Maps(skipped=skipped)
    shares = np.array([weights[name] for name in maps])
    mean = np.tensordot(shares / shares.sum(), np.stack(list(maps.values())), axes=1)
    return Maps(members=maps, ensemble=mean.astype(np.float32), skipped=skipped)


def grad_cam(model: Classifier, pixels: Array, classes: Array) -> Array:
    """Maps float32 [C, S, S] from 0 to 1 of images uint8 [C, S, S, 3], for `classes` int [C].

    They explain one look at each image, as it stands: the net's `tta` is switched off.

    Raises:
        ValueError: the net has no layer with a map of places, or none that has a gradient.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    model.tta = "none"
    layer, reshape = target_layer(model.eval(), images[:1])
    # No `with`: its exit prints an IndexError and goes on.
    camera = GradCAM(model=model, target_layers=[layer], reshape_transform=reshape)
    try:
        targets = [ClassifierOutputTarget(int(label)) for label in classes]
        maps = np.asarray(camera(input_tensor=images, targets=targets), np.float32)
    finally:
        camera.activations_and_grads.release()
    if maps.shape != (len(pixels), *pixels.shape[1:3]) or not np.isfinite(maps).all():
        raise ValueError(f"its maps have the shape {list(maps.shape)} or are not finite")
    return maps


def target_layer(
    model: nn.Module, image: Tensor
) -> tuple[nn.Module, Callable[[Tensor], Tensor] | None]:
    """The last layer of a net whose output is a map of at least CELLS × CELLS cells.

    Found by running one image [1, 3, S, S] and watching every module's output. Of a net
    that ends in finer steps, the last map would be a single cell, which shows no place;
    where no layer has CELLS, the last with at least 2 cells a side serves. The second
    value moves the channels of a map [B, S, S, channels] to where Grad-CAM wants them.

    Raises:
        ValueError: no layer's output is a map.
    """
    seen: list[tuple[nn.Module, tuple[int, ...]]] = []

    def watch(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.requires_grad:
            seen.append((module, tuple(output.shape)))

    handles = [module.register_forward_hook(watch) for module in model.modules()]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    for least in (CELLS, 2):
        for module, shape in reversed(seen):
            places = _places(shape)
            if places is not None and shape[places] >= least:
                return module, None if places == 2 else _channels_first
    raise ValueError("no layer's output is a map of places")


def _places(shape: tuple[int, ...]) -> int | None:
    """The first of the two axes of places; None where the axes are not those of a map."""
    if shape[2] == shape[3]:
        return 2
    return 1 if shape[1] == shape[2] else None


def _channels_first(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)
