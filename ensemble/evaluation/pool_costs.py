"""Measure what the networks of a run's pool would cost if they shipped, before the selection."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from common.provenance import machine_description
from ensemble.deployment.network_cost import UNKNOWN, NetworkCost, exact_cost, measured_cost
from ensemble.selection.front import PoolCosts, TrialCost, write_costs
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.hyperparameters import Architecture
from trainables.recipe import Recipe
from trainables.records import RunFolder, read_record, read_start

log = logging.getLogger(__name__)

TIMED_IMAGES = 256


def measure_pool_costs(
    folder: RunFolder,
    *,
    names: Sequence[str],
    images: ImageSet,
    splits: Splits,
    progress: Callable[[float, str], None],
    seconds: float = 15.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Measure the networks of these trials for about `seconds`; write costs.json.

    For networks that are not reached in time, only parameters and arithmetic are known.

    Trials whose networks do the same work share one measurement: weights do not change it. Networks
    that may be on the Pareto front come first: those that no other network beats in NLL on val,
    parameters and arithmetic at once. Within both groups, the best on val comes first.
    """
    until = clock() + seconds
    classes, timed = len(images.class_names), images.images[splits.holdout[:TIMED_IMAGES]]
    recipes, scores = _networks(folder, names)
    costs = {
        network: _cost(
            recipe, lambda r: exact_cost(r, classes=classes, image_size=images.image_size)
        )
        for network, recipe in recipes.items()
    }
    order = _most_promising_first(scores, costs)
    for done, network in enumerate(order):
        if clock() >= until:
            break
        progress(done / len(order), f"cost of network {done + 1}/{len(order)}")
        costs[network] = _cost(
            recipes[network], lambda r: measured_cost(r, timed, classes=classes), costs[network]
        )
    write_costs(
        folder.costs,
        PoolCosts(
            machine=machine_description(),
            trials={name: _trial_cost(costs[_network(folder, name)]) for name in names},
        ),
    )


def _network(folder: RunFolder, name: str) -> Architecture:
    return read_start(folder.trial(name) / "start.json").recipe.architecture.prediction_work


def _networks(
    folder: RunFolder, names: Sequence[str]
) -> tuple[dict[Architecture, Recipe], dict[Architecture, float]]:
    """Return a recipe of each network, and the lowest NLL on val of its trials."""
    recipes: dict[Architecture, Recipe] = {}
    scores: dict[Architecture, float] = {}
    for name in names:
        recipe = read_start(folder.trial(name) / "start.json").recipe
        network = recipe.architecture.prediction_work
        score = read_record(folder.trial(name) / "record.json").metrics.get("val_nll", math.inf)
        recipes.setdefault(network, recipe)
        scores[network] = min(score, scores.get(network, math.inf))
    return recipes, scores


def _most_promising_first(
    scores: Mapping[Architecture, float], costs: Mapping[Architecture, NetworkCost]
) -> list[Architecture]:
    values = {
        network: (scores[network], cost.int8.params or math.inf, cost.int8.gflops or math.inf)
        for network, cost in costs.items()
    }

    def beaten(network: Architecture) -> bool:
        own = values[network]
        return any(
            other != own and all(a <= b for a, b in zip(other, own, strict=True))
            for other in values.values()
        )

    return sorted(values, key=lambda network: (beaten(network), scores[network]))


def _cost(
    recipe: Recipe,
    measure: Callable[[Recipe], NetworkCost],
    otherwise: NetworkCost = UNKNOWN,
) -> NetworkCost:
    """Return a network's cost, or `otherwise` where it cannot be exported.

    The front is only informative: a custom network that ONNX cannot express may still be a member.
    """
    try:
        return measure(recipe)
    except Exception as error:  # torch's exporter raises errors of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning("the cost of %s is unknown: %s", recipe.architecture.model, reason)
        return otherwise


def _trial_cost(cost: NetworkCost) -> TrialCost:
    file = cost.shipped
    return TrialCost(
        params=file.params,
        gflops=file.gflops,
        bytes=file.bytes,
        latency_ms=file.latency_ms_batch1,
    )
