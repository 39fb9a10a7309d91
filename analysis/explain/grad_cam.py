"""Where nets look: maps of single nets and their mean; Grad-CAM (Selvaraju et al., 2017).

Axes: C images, S pixels a side, B images of a batch, M members. The only module that loads
pytorch-grad-cam.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.explain.examples import METHODS, Chosen, Maps, reason
from analysis.explain.saliency import largest_batch, smooth_grad
from analysis.facts.data_facts import CELLS
from common.seeds import torch_generator
from trainables.nets.build import Classifier
from trainables.prediction import load_trained
from trainables.records import RunFolder

Array = np.ndarray[Any, Any]
Reshape = Callable[[Tensor], Tensor]

MOST_MEMBERS = 8
"""Members explained: the heaviest. With the best single net, 24 images and saliency's 32
copies of each, a report costs at most 9 × 24 × 33 = 7,128 passes of an image there and back:
a seventh of an epoch of CIFAR-10."""


def explain(
    folder: RunFolder, weights: Mapping[str, float], chosen: Chosen, *, single: str, seed: int
) -> Maps:
    """Maps of the single net and, of more members than that, their weighted mean.

    Each map explains the answer in `chosen`, and is scaled to 0 … 1 by itself before it is
    averaged, so that no member counts for more than its weight. A net that cannot be
    explained is left out, and its reason given. Noise is of the stream (seed, "report",
    "saliency"), the same for all nets.
    """
    heaviest = sorted(weights, key=lambda name: (-weights[name], name))
    members = heaviest[:MOST_MEMBERS] if set(heaviest) - {single} else []
    maps: dict[str, dict[str, Array]] = {method: {} for method in METHODS}
    skipped: dict[str, str] = {}
    for name in dict.fromkeys([single, *members]):
        found, reasons = _maps_of(folder, name, chosen, seed)
        for method, values in found.items():
            maps[method][name] = values
        skipped |= reasons
    if members:
        skipped |= dict.fromkeys(heaviest[MOST_MEMBERS:], f"only {MOST_MEMBERS} are")
    pooled = {method: _weighted(maps[method], members, weights) for method in METHODS}
    return Maps(
        trial=single,
        single={method: found[single] for method, found in maps.items() if single in found},
        ensemble={method: mean for method, mean in pooled.items() if mean is not None},
        skipped=skipped,
    )


def _maps_of(
    folder: RunFolder, name: str, chosen: Chosen, seed: int
) -> tuple[dict[str, Array], dict[str, str]]:
    """A net's maps by method, and why some are missing."""
    # Any net may be a member, also a user's own: whatever it raises, the report goes on.
    try:
        model = load_trained(folder.trial(name))
    except Exception as error:
        return {}, {name: reason(error, folder)}
    noise = torch_generator(seed, "report", "saliency")
    model.tta = "none"
    ways: Mapping[str, Callable[[], Array]] = {
        "Grad-CAM": lambda: grad_cam(model, chosen.pixels, chosen.answers),
        "saliency": lambda: smooth_grad(model, chosen.pixels, chosen.answers, generator=noise),
    }
    found, skipped = {}, {}
    for method, way in ways.items():
        try:
            found[method] = way()
        except Exception as error:
            skipped[f"{name}, {method}"] = reason(error, folder)
    return found, skipped


def _weighted(
    maps: Mapping[str, Array], members: list[str], weights: Mapping[str, float]
) -> Array | None:
    """The mean of the members' maps by weight; None where none of them has one."""
    known = [name for name in members if name in maps and weights[name] > 0]
    if not known:
        return None
    shares = np.array([weights[name] for name in known])
    mean = np.tensordot(shares / shares.sum(), np.stack([maps[name] for name in known]), axes=1)
    return mean.astype(np.float32)


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
    targets = [ClassifierOutputTarget(int(label)) for label in classes]
    size = largest_batch(images.shape[-1])
    try:
        parts = [
            camera(input_tensor=images[start : start + size], targets=targets[start : start + size])
            for start in range(0, len(images), size)
        ]
    finally:
        camera.activations_and_grads.release()
    maps = np.concatenate([np.asarray(part, np.float32) for part in parts])
    if maps.shape != (len(pixels), *pixels.shape[1:3]) or not np.isfinite(maps).all():
        raise ValueError(f"its maps have the shape {list(maps.shape)} or are not finite")
    return maps


def target_layer(model: nn.Module, image: Tensor) -> tuple[nn.Module, Reshape | None]:
    """The last layer of a net whose output is a map of at least CELLS × CELLS cells.

    Found by running one image [1, 3, S, S] and watching every module's output. Of a net
    that ends in finer steps, the last map would be a single cell, which shows no place;
    where no layer has CELLS, the last with at least 2 cells a side serves. The answer must
    hang on the places of the map: in a transformer that ends at its class token they stop
    to count before its last block does. The second value turns an output [B, s, s,
    channels] or [B, tokens, channels] into the map [B, channels, s, s] of Grad-CAM.

    Raises:
        ValueError: no layer's output is a map.
    """
    seen: list[tuple[nn.Module, Tensor]] = []

    def watch(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() in (3, 4) and output.requires_grad:
            seen.append((module, output))

    handles = [module.register_forward_hook(watch) for module in model.modules()]
    try:
        answer = model(image).max()
    finally:
        for handle in handles:
            handle.remove()
    outputs = [output for _, output in seen]
    gradients = torch.autograd.grad(answer, outputs, allow_unused=True) if outputs else ()
    before = getattr(getattr(model, "net", model), "num_prefix_tokens", None)
    for least in (CELLS, 2):
        for (module, _), gradient in zip(reversed(seen), reversed(gradients), strict=True):
            reshape = None if gradient is None else _as_map(gradient.shape, before)
            if gradient is None or reshape is None:
                continue
            places = reshape(gradient)
            if places.shape[2] >= least and places.any():
                return module, None if reshape is _unchanged else reshape
    raise ValueError("no layer's output is a map of places")


def _as_map(shape: tuple[int, ...], before: int | None) -> Reshape | None:
    """What turns an output into a map [B, channels, s, s]; None where it has no places.

    `before` is how many tokens of a sequence stand for no place; where a net does not say,
    it is one or none.
    """
    if len(shape) == 4:
        if shape[2] == shape[3]:
            return _unchanged
        return _channels_first if shape[1] == shape[2] else None
    for skip in (0, 1) if before is None else (before,):
        side = math.isqrt(max(shape[1] - skip, 0))
        if side >= 2 and side**2 == shape[1] - skip:
            return partial(_tokens_as_map, skip=skip, side=side)
    return None


def _unchanged(output: Tensor) -> Tensor:
    return output


def _channels_first(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def _tokens_as_map(output: Tensor, *, skip: int, side: int) -> Tensor:
    return output[:, skip:].transpose(1, 2).reshape(len(output), -1, side, side)
