"""Heat maps of the best single network, and their mean over the ensemble's members.

Axes: C images, S pixels a side, M members.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from analysis.explain.examples import Examples
from analysis.explain.explanations import METHODS, HeatMaps
from analysis.explain.grad_cam import grad_cam
from analysis.explain.saliency import smooth_grad
from common.seeds import torch_generator
from trainables.nets.classifier import Classifier

Array = np.ndarray[Any, Any]

MOST_MEMBERS = 8
"""Maximum number of members explained, the heaviest first. With the best single network, 24 images
and saliency's 32 copies of each, a report costs at most 9 × 24 × 33 = 7,128 forward and
backward passes of one image: a seventh of an epoch of CIFAR-10."""


def heat_maps(
    load: Callable[[str], Classifier],
    weights: Mapping[str, float],
    examples: Examples,
    *,
    single: str,
    seed: int,
) -> HeatMaps:
    """Compute the maps of the single network and the members' mean by weight.

    `load` returns a trial's network by name. Each map explains the prediction in `examples` and is
    scaled to 0 … 1 before averaging, so no member counts for more than its weight. A network
    that cannot be explained is left out, with its reason in `skipped`. All networks get the
    same noise, from the stream (seed, "report", "saliency"). If the single network is the only
    member, the ensemble has no separate maps.
    """
    heaviest = sorted(weights, key=lambda name: (-weights[name], name))
    members = heaviest[:MOST_MEMBERS] if set(heaviest) - {single} else []
    maps: dict[str, dict[str, Array]] = {method: {} for method in METHODS}
    skipped: dict[str, str] = {}
    for name in dict.fromkeys([single, *members]):
        by_method, reasons = _maps_of(load, name, examples, seed)
        for method, values in by_method.items():
            maps[method][name] = values
        skipped |= reasons
    if members:
        skipped |= dict.fromkeys(
            heaviest[MOST_MEMBERS:], f"only the {MOST_MEMBERS} heaviest members are explained"
        )
    means = {method: _weighted_mean(maps[method], members, weights) for method in METHODS}
    return HeatMaps(
        trial=single,
        single={method: by_net[single] for method, by_net in maps.items() if single in by_net},
        ensemble={method: mean for method, mean in means.items() if mean is not None},
        skipped=skipped,
    )


def _maps_of(
    load: Callable[[str], Classifier], name: str, examples: Examples, seed: int
) -> tuple[dict[str, Array], dict[str, str]]:
    """Return a network's maps by method, and the reasons for those that are missing."""
    # A custom network may raise anything; the report must continue.
    try:
        model = load(name)
    except Exception as error:
        return {}, {name: _describe(error)}
    noise = torch_generator(seed, "report", "saliency")
    methods: Mapping[str, Callable[..., Array]] = {
        "Grad-CAM": grad_cam,
        "saliency": partial(smooth_grad, generator=noise),
    }
    maps, skipped = {}, {}
    model.tta = "none"
    for method, explain in methods.items():
        try:
            maps[method] = explain(model, examples.pixels, examples.predictions)
        except Exception as error:
            skipped[f"{name}, {method}"] = _describe(error)
    return maps, skipped


def _weighted_mean(
    maps: Mapping[str, Array], members: list[str], weights: Mapping[str, float]
) -> Array | None:
    """Average the members' maps by weight; None if no member has one."""
    explained = [name for name in members if name in maps and weights[name] > 0]
    if not explained:
        return None
    shares = np.array([weights[name] for name in explained])
    stacked = np.stack([maps[name] for name in explained])
    return np.tensordot(shares / shares.sum(), stacked, axes=1).astype(np.float32)


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
