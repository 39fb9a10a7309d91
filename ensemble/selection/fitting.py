"""Fit an ensemble and its baselines to some examples of a pool.

Axes: M members, N examples of the pool, R rows (examples in view), K classes. Nothing here
looks at other examples than those in view, so that a caller can cross-fit all of it.

Members are compared and selected at each one's own temperature (Ashukha et al., 2020): a
trial with label smoothing or MixUp is underconfident, and on raw probabilities the greedy
selection takes the sharpest members instead of the best. Pooling stays on raw probabilities,
and one temperature follows it (pool, then calibrate: Ranjan & Gneiting, 2010). Measured on 29
small nets (CIFAR-10 as JPEG, 16×16, 8,000 training images; 5 draws of the holdout each): five
members selected on raw probabilities have 0.018 ± 0.007, 0.009 ± 0.003 and 0.005 ± 0.003 nats
more test NLL than the five best singles, at 400, 1,500 and 5,000 holdout examples (mean ±
standard error over the draws); selected at own temperatures, they cannot be told apart.

A more elaborate choice is taken only if it wins out of fold. Learned weights must gain more
than one standard error of the paired differences in NLL over uniform ones. Members of the
search must gain something over as many seeds of the best configuration; neither is dearer to
run, so the lower mean decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

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
"""A learned weight below this is not worth running its member for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """What was chosen, and why."""

    mixture: Mixture
    order: tuple[int, ...]
    """Members in the order of their choice; greedy selection may repeat some."""
    weighting: Literal["learned", "uniform"]
    weighting_reason: str
    source: Literal["search", "seeds"]
    source_reason: str


def fit_ensemble(view: View, *, members: int, seed: int) -> Ensemble:
    """Select greedily, decide on weights and source out of fold, then calibrate."""
    order, options = _options(view, members=members, seed=seed)
    losses = _out_of_fold_losses(view, members=members, seed=seed)
    weighting: Literal["learned", "uniform"] = "uniform"
    learned, weighting_reason = _wins(losses, "learned", "uniform", errors=1.0)
    if learned:
        weighting = "learned"
    weights = options[weighting]
    source: Literal["search", "seeds"] = "search"
    source_reason = "the pool has fewer seeds than the ensemble has members"
    rivals = _seeds(view.pool)[: np.count_nonzero(weights)]
    if len(rivals) == np.count_nonzero(weights):
        searched, source_reason = _wins(losses, weighting, f"seeds for {weighting}", errors=0.0)
        if not searched:
            source, weighting = "seeds", "uniform"
            order, weights = tuple(rivals.tolist()), _uniform(rivals, len(weights))
    return Ensemble(
        mixture=Mixture.fit(view, weights),
        order=order,
        weighting=weighting,
        weighting_reason=weighting_reason,
        source=source,
        source_reason=source_reason,
    )


def fit_baselines(view: View, *, size: int) -> dict[str, Mixture]:
    """The best single member, and uniform ensembles of `size`: best singles, and seeds.

    Singles are ranked by NLL at their own temperatures. `seeds_ensemble` takes the first
    seeds in the pool's order, and is absent where there are fewer than `size`.
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
    """Pairs (the other rows, the fold's rows); every class is spread as evenly as can be."""
    shuffled = rng.permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold_of = np.empty(len(labels), dtype=np.int64)
    fold_of[ordered] = np.arange(len(labels)) % folds
    for fold in range(folds):
        yield np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)


def _options(view: View, *, members: int, seed: int) -> tuple[tuple[int, ...], dict[str, Weights]]:
    """Members in the order of their choice, and the weights that each use of them comes to.

    Members are chosen greedily or, where that is better, by rank. Equal shares go to the
    first of them: to as many as have a calibrated NLL within one paired standard error of
    the lowest, for of averages that the examples cannot tell apart the larger has the
    smaller variance elsewhere. Not to all, for greedy selection may take one member 38
    times and another twice, and equal shares for both would undo its work. `seeds for
    NAME` are as many seeds as NAME has members, or all there are.
    """
    pool_size = view.raw.shape[1]
    ties = numpy_generator(seed, "select", "ties")
    greedy = select_greedy(view.own, rng=ties, cap=members).order
    tried = []
    for order in (greedy, tuple(view.ranked()[:members].tolist())):
        chosen = _without_twins(view, tuple(dict.fromkeys(order)))
        for size in range(1, len(chosen) + 1):
            weights = _uniform(np.array(chosen[:size]), pool_size)
            pooled = pooled_log_probs(view.pool, view.rows, weights)
            losses = -np.log(prob_true_at_own_temperature(pooled, view.labels))
            tried.append((losses, order, weights))
    order, uniform = _largest_of_the_best(tried)
    options = {"uniform": uniform, "learned": _learned_weights(view, tuple(dict.fromkeys(order)))}
    seeds = _seeds(view.pool)
    if len(seeds):
        for name, weights in list(options.items()):
            rivals = seeds[: np.count_nonzero(weights)]
            options[f"seeds for {name}"] = _uniform(rivals, pool_size)
    return order, options


def _without_twins(view: View, chosen: tuple[int, ...]) -> tuple[int, ...]:
    """The members chosen, less those that say nearly the same as one chosen before."""
    pairs = near_duplicates(view.pool.log_probs[np.ix_(np.array(chosen), view.rows)])
    later = {b for _, b in pairs}
    return tuple(member for place, member in enumerate(chosen) if place not in later)


def _largest_of_the_best(
    tried: list[tuple[Float[np.ndarray, " R"], tuple[int, ...], Weights]],
) -> tuple[tuple[int, ...], Weights]:
    """Of the attempts within one paired standard error of the lowest mean loss, the largest."""
    best = min(tried, key=lambda attempt: float(attempt[0].mean()))[0]

    def rank(attempt: tuple[Float[np.ndarray, " R"], tuple[int, ...], Weights]) -> Any:
        excess = attempt[0] - best
        error = excess.std(ddof=1) / np.sqrt(len(excess)) if len(excess) > 1 else 0.0
        close = bool(excess.mean() <= error)
        return (close, np.count_nonzero(attempt[2]) if close else 0, -float(excess.mean()))

    _, order, weights = max(tried, key=rank)
    return order, weights


def _learned_weights(view: View, chosen: tuple[int, ...]) -> Weights:
    """The optimal weights of the members chosen, without those that hardly count."""
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
    """NLL of each example under each option, selected and fitted without the example's fold.

    Only the members' own temperatures have seen the fold: one number each, used to select.
    """
    losses: dict[str, Float[np.ndarray, " R"]] = {}
    rng = numpy_generator(seed, "select", "inner folds")
    for rest, fold in stratified_folds(view.labels, FOLDS, rng):
        seen = view.take(rest)
        _, options = _options(seen, members=members, seed=seed)
        for name, weights in options.items():
            log_probs = Mixture.fit(seen, weights).log_probs(view.pool, view.rows[fold])
            kept = losses.setdefault(name, np.empty(len(view.rows)))
            kept[fold] = nll_per_example(log_probs, view.labels[fold])
    return losses


def _wins(
    losses: dict[str, Float[np.ndarray, " R"]], challenger: str, incumbent: str, *, errors: float
) -> tuple[bool, str]:
    """Whether the mean of the paired gains exceeds so many of their standard errors."""
    gains = losses[incumbent] - losses[challenger]
    mean, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))
    needed = errors * error
    return mean > needed, (
        f"out of fold, {challenger} gains {mean:+.5f} nats over {incumbent.split()[0]} "
        f"(standard error {error:.5f}); it must gain more than {needed:.5f}"
    )


def _seeds(pool: Pool) -> Int[np.ndarray, " S"]:
    return np.flatnonzero([kind == "seed" for kind in pool.kinds])


def _uniform(indices: Int[np.ndarray, " S"], members: int) -> Weights:
    weights = np.zeros(members)
    weights[indices] = 1.0 / len(indices)
    return weights
