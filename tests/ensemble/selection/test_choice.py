"""The rule that chooses: its definition, and how often it is wrong on pools of known truth.

The rates of `benchmarks/selection_errors.py`, with fewer draws: a bound is the 0.1% quantile of a
binomial with the rate named in the test.
"""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from ensemble.selection.candidates import Candidate, Request
from ensemble.selection.choice import NEGLIGIBLE, choose, score_candidates
from ensemble.selection.fitting import CrossFit
from tests.pools import synthetic_pool

DRAWS = 30
CHANCE = 1e-3

SIMPLE, COMPLEX = Candidate(way="seeds", size=5), Candidate(way="greedy", size=5)


@given(seed=st.integers(0, 10_000), gain=st.floats(-0.3, 0.3))
def test_the_simpler_wins_unless_it_is_more_than_one_error_worse(seed: int, gain: float) -> None:
    rng = np.random.default_rng(seed)
    simple = rng.exponential(size=50)
    challenger = simple - gain + rng.normal(0, 1, 50)
    excess = simple - challenger
    worse = excess.mean() > max(excess.std(ddof=1) / np.sqrt(50), NEGLIGIBLE)
    chosen = choose(score_candidates({COMPLEX: challenger, SIMPLE: simple}))
    assert chosen == (COMPLEX if worse else SIMPLE)


@pytest.mark.parametrize(("gain", "chosen"), [(0.5 * NEGLIGIBLE, SIMPLE), (0.01, COMPLEX)])
def test_a_negligible_gain_is_a_tie_even_without_error(gain: float, chosen: Candidate) -> None:
    losses = np.linspace(0.1, 1.0, 20)
    assert choose(score_candidates({COMPLEX: losses - gain, SIMPLE: losses})) == chosen


def test_equal_losses_tie_and_the_best_is_always_tied() -> None:
    losses = np.linspace(0.1, 1.0, 20)
    scores = score_candidates({COMPLEX: losses, SIMPLE: losses.copy()})
    assert [score.tied for score in scores] == [True, True]
    assert choose(scores) == SIMPLE
    assert {score.excess for score in scores} == {0.0}


@cache
def chosen_on(
    skills: tuple[float, ...], sharpness: tuple[float, ...] | None = None, common: float = 0.6
) -> tuple[Candidate, ...]:
    """Return the candidate chosen on each of DRAWS new pools, whose last 3 members are seeds."""
    return tuple(
        CrossFit(
            synthetic_pool(
                draw, skills=skills, sharpness=sharpness, common=common, examples=120, seeds=3
            ),
            Request(members=3),
            draw,
        )
        .ensemble()
        .candidate
        for draw in range(DRAWS)
    )


def at_least(rate: float) -> int:
    return int(binom.ppf(CHANCE, DRAWS, rate))


def at_most(rate: float) -> int:
    return int(binom.ppf(1 - CHANCE, DRAWS, rate))


def test_where_all_are_equally_good_seeds_lead_and_nothing_is_fitted() -> None:
    chosen = chosen_on((1.5,) * 11)
    fitted = [c for c in chosen if c.weighting == "learned" or c.pooling == "calibrated"]
    assert len(fitted) <= at_most(0.05)
    # 38% before, when a bare mean decided.
    assert sum(c.way == "seeds" for c in chosen) >= at_least(0.6)


def test_seeds_ship_where_they_are_better() -> None:
    chosen = chosen_on((1.2,) * 8 + (1.5,) * 3)
    assert sum(c.way == "seeds" for c in chosen) >= at_least(0.9)


def test_searched_members_ship_where_they_are_better() -> None:
    chosen = chosen_on((2.2,) * 8 + (1.5,) * 3)
    assert sum(c.way != "seeds" for c in chosen) >= at_least(0.95)


def test_members_of_different_sharpness_are_pooled_at_their_own_temperatures() -> None:
    chosen = chosen_on((1.5,) * 11, (0.2, 5.0) * 5 + (1.0,))
    assert sum(c.pooling == "calibrated" for c in chosen) >= at_least(0.6)


def test_a_dominant_member_is_not_diluted() -> None:
    chosen = chosen_on((6.0,) + (1.0,) * 10, None, 0.2)
    diluted = [c for c in chosen if c.weighting == "uniform" and c.way == "top" and c.size > 1]
    assert len(diluted) <= at_most(0.02)
