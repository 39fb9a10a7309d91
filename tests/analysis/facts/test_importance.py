"""Importance: a planted effect is detected, noise is not."""

from typing import Any

import numpy as np
import pytest

from analysis.facts.importance import FEWEST, importances
from analysis.facts.trials import EpochFacts, TrialFacts
from search.space.space import Space
from trainables.recipe import Recipe

SPACE = Space.from_mapping(
    {
        "lr_per_1024": {"type": "float", "low": 1.0, "high": 10.0, "log": True},
        "activation": {"type": "categorical", "choices": ["gelu", "relu"]},
        "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    },
    base=Recipe(),
)


def trial(number: int, recipe: dict[str, Any], scores: dict[int, float]) -> TrialFacts:
    epochs = tuple(
        EpochFacts(step=rung, epoch=rung, phase="cooldown", rung=rung, train_loss=None,
                   val_nll=score, val_accuracy=0.5, seconds=1.0)
        for rung, score in scores.items()
    )  # fmt: skip
    return TrialFacts(
        trial=f"t{number:04d}", number=number, kind="search", recipe=recipe, epochs=epochs,
        status="pruned", reason="", seconds=1.0, whole_schedule=False, retries=0, params=None,
    )  # fmt: skip


def trials(count: int, seed: int, *, effect: float) -> list[TrialFacts]:
    """Trials whose score grows with the learning rate by `effect`, plus noise."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        recipe: dict[str, Any] = {
            "lr_per_1024": float(np.exp(rng.uniform(0.0, np.log(10.0)))),
            "activation": str(rng.choice(["gelu", "relu"])),
            "dropout": float(rng.uniform(0.0, 0.5)),
        }
        score = effect * np.log(recipe["lr_per_1024"]) + rng.standard_normal()
        made.append(trial(number, recipe, {3: float(np.exp(score))}))
    return made


def test_a_planted_effect_is_detected_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    result = importances(trials(60, 1, effect=10.0), SPACE, rng=rng, draws=40)
    assert result is not None
    assert result.values[0].name == "lr_per_1024"
    assert [item.name for item in result.values if item.distinguishable] == ["lr_per_1024"]
    assert result.explained[1] > 0
    assert (result.trials, result.rung) == (60, 3)


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_not_distinguishable(seed: int) -> None:
    rng = np.random.default_rng(seed)
    result = importances(trials(24, seed, effect=0.0), SPACE, rng=rng, draws=30)
    assert result is not None
    assert not any(item.distinguishable for item in result.values)
    assert all(item.low <= item.value <= item.high for item in result.values)


def test_only_the_lowest_rung_counts() -> None:
    """Scores at later rungs, which depend on the scheduler's choice, are ignored."""
    plain = trials(12, 2, effect=3.0)
    further = [
        trial(t.number, dict(t.recipe), {**t.scores, 9: 1e-3 * t.number}) if t.number % 3 else t
        for t in plain
    ]
    first, second = (
        importances(group, SPACE, rng=np.random.default_rng(5), draws=5)
        for group in (plain, further)
    )
    assert first == second


def test_too_few_trials_or_constant_values_have_no_importance() -> None:
    rng = np.random.default_rng(0)
    assert importances(trials(FEWEST - 1, 0, effect=1.0), SPACE, rng=rng) is None
    same = [trial(i, {"dropout": 0.1}, {3: float(i)}) for i in range(FEWEST)]
    fixed = Space.from_mapping(
        {"dropout": {"type": "float", "low": 0.0, "high": 0.5}}, base=Recipe()
    )
    assert importances(same, fixed, rng=rng) is None
