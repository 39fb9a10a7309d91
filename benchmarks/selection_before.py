"""The rule that chose ensembles before results/selection, kept to be measured beside the new one.

Searched members: the largest uniform ensemble, of greedy or of ranked members, within one standard
error of the lowest in-sample NLL. Learned weights if they gain more than one standard error out of
fold. Seeds unless the searched members' mean NLL out of fold is lower, by any margin.
"""

import numpy as np

from common.seeds import numpy_generator
from common.statistics.metrics import nll_per_example
from ensemble.selection.candidates import learned_weights, uniform_weights
from ensemble.selection.choice import paired
from ensemble.selection.fitting import FOLDS, assign_folds
from ensemble.selection.greedy import select_greedy
from ensemble.selection.mixture import (
    Mixture,
    View,
    Weights,
    centred_scores,
    fit_scores,
    log_prob_true,
    pooled_log_probs,
)
from ensemble.selection.pool import Pool


def choose_before(pool: Pool, *, members: int, seed: int) -> tuple[str, Mixture]:
    """Return the old rule's choice, `search`, `search, learned` or `seeds`, and its ensemble."""
    view = View.of(pool, np.arange(len(pool.labels)))
    options = _options(view, members=members, seed=seed)
    losses = _out_of_fold(view, members=members, seed=seed)
    gain, error = paired(losses["uniform"], losses["learned"])
    weighting = "learned" if gain > error else "uniform"
    weights = options[weighting]
    rival = f"seeds for {weighting}"
    if rival in options and np.count_nonzero(options[rival]) == np.count_nonzero(weights):
        gain, _ = paired(losses[rival], losses[weighting])
        if gain <= 0:
            return "seeds", Mixture.fit(view, options[rival])
    name = "search" if weighting == "uniform" else "search, learned"
    return name, Mixture.fit(view, weights)


def _options(view: View, *, members: int, seed: int) -> dict[str, Weights]:
    pool_size = len(view.nlls)
    ties = numpy_generator(seed, "select", "ties")
    greedy = select_greedy(view.prob_true("calibrated"), rng=ties, cap=members).members
    attempts = []
    for order in (greedy, tuple(view.ranked()[:members].tolist())):
        for size in range(1, len(order) + 1):
            weights = uniform_weights(order[:size], pool_size)
            scores = centred_scores(pooled_log_probs(view.pool, view.rows, weights).T)
            temperature = fit_scores(scores, view.labels)
            loss = -log_prob_true(scores, view.labels, temperature)
            attempts.append((loss, size, order, weights))
    best = min(attempts, key=lambda attempt: float(attempt[0].mean()))[0]
    close = []
    for losses, size, order, weights in attempts:
        excess, error = paired(losses, best)
        if excess <= error:
            close.append((size, -excess, order, weights))
    _, _, order, weights = max(close, key=lambda attempt: attempt[:2])
    options = {"uniform": weights, "learned": learned_weights(view, order)}
    seeds = np.flatnonzero([kind == "seed" for kind in view.pool.kinds]).tolist()
    for name in ("uniform", "learned") if seeds else ():
        matching = seeds[: int(np.count_nonzero(options[name]))]
        options[f"seeds for {name}"] = uniform_weights(matching, pool_size)
    return options


def _out_of_fold(view: View, *, members: int, seed: int) -> dict[str, np.ndarray]:
    losses: dict[str, np.ndarray] = {}
    own = view.prob_true("calibrated")
    rng = numpy_generator(seed, "select", "inner folds")
    fold_of = assign_folds(view.labels, FOLDS, rng)
    for fold in range(FOLDS):
        rest, rows = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        seen = View(
            pool=view.pool, rows=view.rows[rest], temperatures=view.temperatures,
            nlls=-np.log(own[rest]).mean(axis=0),
        )  # fmt: skip
        for name, weights in _options(seen, members=members, seed=seed).items():
            log_probs = Mixture.fit(seen, weights).log_probs(view.pool, view.rows[rows])
            option = losses.setdefault(name, np.empty(len(view.rows)))
            option[rows] = nll_per_example(log_probs, view.labels[rows])
    return losses
