"""Fit an ensemble and its baselines to some examples of a pool.

Axes: M members, N examples of the pool, R rows (examples in view), K classes. Nothing here
looks at examples outside the view, so a caller can cross-fit all of it.

Members are compared and selected at each one's own temperature (Ashukha et al., 2020): a
trial with label smoothing or MixUp is underconfident, and on raw probabilities greedy
selection prefers the sharpest members to the best. Pooling uses raw probabilities and is
followed by one temperature (pool, then calibrate: Ranjan & Gneiting, 2010). Measured on 29
small nets (CIFAR-10 as JPEG, 16×16, 8,000 training images; 5 draws of the holdout each): five
members selected on raw probabilities have 0.018 ± 0.007, 0.009 ± 0.003 and 0.005 ± 0.003 nats
more test NLL than the five best singles, at 400, 1,500 and 5,000 holdout examples (mean ±
standard error over the draws); selected at their own temperatures, they are not
distinguishable from the best singles.

A more complex choice is taken only if it wins out of fold. Learned weights must gain more
than one standard error of the paired differences in NLL over uniform weights. Searched
members must have a lower mean NLL than as many seeds of the best configuration, by any margin,
because both cost the same to run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from common.seeds import numpy_generator
from common.statistics.metrics import nll_per_example
from ensemble.selection.diversity import near_duplicates
from ensemble.selection.greedy import select_greedy
from ensemble.selection.mixture import (
    Mixture,
    Rows,
    View,
    Weights,
    pooled_log_probs,
    prob_true_at_own_temperature,
)
from ensemble.selection.pool import Pool
from ensemble.selection.weights import simplex_weights

FOLDS = 5

LEAST_WEIGHT = 1e-3
"""Smallest learned weight that justifies running its member."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """The selected ensemble, with the reasons for its weighting and source."""

    mixture: Mixture
    order: tuple[int, ...]
    """Members in the order in which they were chosen; greedy selection may repeat some."""
    weighting: Literal["learned", "uniform"]
    weighting_reason: str
    source: Literal["search", "seeds"]
    source_reason: str


def fit_ensemble(view: View, *, members: int, seed: int) -> Ensemble:
    """Select members, decide on weights and source out of fold, then calibrate."""
    order, options = _options(view, members=members, seed=seed)
    losses = _out_of_fold_losses(view, members=members, seed=seed)
    weighting: Literal["learned", "uniform"] = "uniform"
    learned, weighting_reason = _wins(losses, "learned", "uniform", errors=1.0)
    if learned:
        weighting = "learned"
    weights = options[weighting]
    source: Literal["search", "seeds"] = "search"
    source_reason = "the pool has fewer seeds than the ensemble has members"
    matching_seeds = _seeds(view.pool)[: np.count_nonzero(weights)]
    if len(matching_seeds) == np.count_nonzero(weights):
        searched, source_reason = _wins(losses, weighting, f"seeds for {weighting}", errors=0.0)
        if not searched:
            source, weighting = "seeds", "uniform"
            order, weights = tuple(matching_seeds.tolist()), _uniform(matching_seeds, len(weights))
    return Ensemble(
        mixture=Mixture.fit(view, weights),
        order=order,
        weighting=weighting,
        weighting_reason=weighting_reason,
        source=source,
        source_reason=source_reason,
    )


def fit_baselines(view: View, *, size: int) -> dict[str, Mixture]:
    """Fit `best_single`, and uniform ensembles of `size`: `uniform_top_k` and `seeds_ensemble`.

    Single members are ranked by NLL at their own temperatures. `seeds_ensemble` takes the
    first seeds in the pool's order, and is absent if there are fewer than `size`.
    """
    ranked = view.ranked()
    chosen = {"best_single": ranked[:1], "uniform_top_k": ranked[:size]}
    seeds = _seeds(view.pool)
    if len(seeds) >= size:
        chosen["seeds_ensemble"] = seeds[:size]
    return {
        name: Mixture.fit(view, _uniform(indices, len(ranked))) for name, indices in chosen.items()
    }


def stratified_folds(
    labels: Int[np.ndarray, " R"], folds: int, rng: np.random.Generator
) -> Iterator[tuple[Rows, Rows]]:
    """Yield pairs (the other rows, the fold's rows), with every class spread evenly over folds."""
    shuffled = rng.permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold_of = np.empty(len(labels), dtype=np.int64)
    fold_of[ordered] = np.arange(len(labels)) % folds
    for fold in range(folds):
        yield np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)


def _options(view: View, *, members: int, seed: int) -> tuple[tuple[int, ...], dict[str, Weights]]:
    """Return the members in the order they were chosen, and each option's weights by name.

    Members are chosen greedily or, where that is better, by rank. The option `uniform` weights
    the first n members equally, for the largest n whose calibrated NLL is within one paired
    standard error of the lowest: among averages that the examples cannot separate, the larger
    varies less on new data. Equal weights for all members would undo the greedy choice, which
    may take one member 38 times and another twice. `learned` has the optimal weights. The
    option `seeds for NAME` has as many seeds as NAME has members, or all there are.
    """
    pool_size = view.raw.shape[1]
    ties = numpy_generator(seed, "select", "ties")
    greedy = select_greedy(view.own, rng=ties, cap=members).order
    attempts = []
    for order in (greedy, tuple(view.ranked()[:members].tolist())):
        chosen = _without_near_duplicates(view, tuple(dict.fromkeys(order)))
        for size in range(1, len(chosen) + 1):
            weights = _uniform(np.array(chosen[:size]), pool_size)
            pooled = pooled_log_probs(view.pool, view.rows, weights)
            losses = -np.log(prob_true_at_own_temperature(pooled, view.labels))
            attempts.append(_Attempt(losses=losses, order=order, weights=weights))
    best = _largest_close_to_best(attempts)
    order, uniform = best.order, best.weights
    options = {"uniform": uniform, "learned": _learned_weights(view, tuple(dict.fromkeys(order)))}
    seeds = _seeds(view.pool)
    if len(seeds):
        for name, weights in list(options.items()):
            matching_seeds = seeds[: np.count_nonzero(weights)]
            options[f"seeds for {name}"] = _uniform(matching_seeds, pool_size)
    return order, options


def _without_near_duplicates(view: View, chosen: tuple[int, ...]) -> tuple[int, ...]:
    """Return the chosen members without near-duplicates of a member chosen earlier."""
    pairs = near_duplicates(view.pool.log_probs[np.ix_(np.array(chosen), view.rows)])
    later = {b for _, b in pairs}
    return tuple(member for place, member in enumerate(chosen) if place not in later)


class _Attempt(NamedTuple):
    """A uniform ensemble of the first members of an order."""

    losses: Float[np.ndarray, " R"]
    """NLL of each example at the ensemble's own temperature."""
    order: tuple[int, ...]
    weights: Weights


def _largest_close_to_best(attempts: list[_Attempt]) -> _Attempt:
    """Return the largest attempt within one paired standard error of the lowest mean loss."""
    best = min(attempts, key=lambda attempt: float(attempt.losses.mean())).losses

    def rank(attempt: _Attempt) -> tuple[bool, int, float]:
        excess = attempt.losses - best
        error = excess.std(ddof=1) / np.sqrt(len(excess)) if len(excess) > 1 else 0.0
        close = bool(excess.mean() <= error)
        size = int(np.count_nonzero(attempt.weights)) if close else 0
        return (close, size, -float(excess.mean()))

    return max(attempts, key=rank)


def _learned_weights(view: View, chosen: tuple[int, ...]) -> Weights:
    """Return the optimal weights of the chosen members, without weights below LEAST_WEIGHT."""
    support = np.array(chosen)
    shares = simplex_weights(view.raw[:, support])
    while shares.min() < LEAST_WEIGHT:
        support = support[shares >= LEAST_WEIGHT]
        shares = simplex_weights(view.raw[:, support])
    weights = np.zeros(view.raw.shape[1])
    weights[support] = shares
    return weights


def _out_of_fold_losses(
    view: View, *, members: int, seed: int
) -> dict[str, Float[np.ndarray, " R"]]:
    """Return each option's NLL per example, selected and fitted without the example's fold.

    Only the members' own temperatures have seen the fold: one number each, used to select.
    """
    losses: dict[str, Float[np.ndarray, " R"]] = {}
    rng = numpy_generator(seed, "select", "inner folds")
    for rest, fold in stratified_folds(view.labels, FOLDS, rng):
        seen = view.take(rest)
        _, options = _options(seen, members=members, seed=seed)
        for name, weights in options.items():
            log_probs = Mixture.fit(seen, weights).log_probs(view.pool, view.rows[fold])
            option_losses = losses.setdefault(name, np.empty(len(view.rows)))
            option_losses[fold] = nll_per_example(log_probs, view.labels[fold])
    return losses


def _wins(
    losses: dict[str, Float[np.ndarray, " R"]], challenger: str, incumbent: str, *, errors: float
) -> tuple[bool, str]:
    """Decide whether the mean paired gain exceeds `errors` of its standard errors, and say why."""
    gains = losses[incumbent] - losses[challenger]
    mean, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))
    threshold = errors * error
    return mean > threshold, (
        f"out of fold, {challenger} gains {mean:+.5f} nats over {incumbent.split()[0]} "
        f"(standard error {error:.5f}); it must gain more than {threshold:.5f}"
    )


def _seeds(pool: Pool) -> Int[np.ndarray, " S"]:
    return np.flatnonzero([kind == "seed" for kind in pool.kinds])


def _uniform(indices: Int[np.ndarray, " S"], members: int) -> Weights:
    weights = np.zeros(members)
    weights[indices] = 1.0 / len(indices)
    return weights
