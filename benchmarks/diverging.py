"""Simulate how often TPE draws recipes that diverge, for two ways to tell it of failures.

No network is trained: a simulated trial diverges above a learning rate, and otherwise its val NLL
has its lowest point at another. In `half`, half of the searched learning rates diverge, and the
best is far below. In `cliff`, the best lies just below the rate at which training diverges.

    python benchmarks/diverging.py --seeds 20

prints, for each case and each way, the share of trials 9 to 60 that diverged, with a 95% interval
over the seeds, and the lowest val NLL found.
"""

import argparse
import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from common.seeds import derive_seed
from journal.events import Cause, EpochEnded, RunStarted, Status, TrialEnded, TrialStarted
from journal.state import RunState
from search.samplers.optuna_sampler import OptunaSampler
from search.space.space import Space
from trainables.recipe import Recipe

TRIALS, STARTUP = 60, 8
RUNGS = (1, 3, 9)
FACTOR = 3
"""About one trial in this many continues after each rung."""
WAYS: dict[str, Cause] = {"FAIL": "machine", "worst pruned": "recipe"}
"""Causes of the failures, by how Optuna is told of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A simulated landscape over log10 of the learning rate, from -4 to 0."""

    limit: float
    """Training diverges above it."""
    best: float
    """The rate with the lowest val NLL."""

    def val_nll(self, rate: float, epochs: int) -> float | None:
        """Return the score of a learning rate after some epochs; None if training diverged."""
        log = math.log10(rate)
        if log > self.limit:
            return None
        return 0.3 + 0.2 * (log - self.best) ** 2 + 0.5 / epochs


CASES = {"half": Case(limit=-2.0, best=-3.0), "cliff": Case(limit=-2.0, best=-2.05)}


def sweep(case: Case, cause: Cause, *, seed: int) -> tuple[float, float]:
    """Run a sweep one trial at a time; return the share that diverged and the best val NLL."""
    space = Space.from_mapping(
        {
            "adamw_lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
            "weight_decay": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.5},
        },
        base=Recipe(optimizer="adamw", epochs=RUNGS[-1]),
    )
    state = RunState.from_events([RunStarted(run="simulated", spec={}, time=0.0)])
    sampler = OptunaSampler(
        space, state, trials=TRIALS, startup_trials=STARTUP, seed=seed, study="s", path=None
    )
    clock = itertools.count(1.0)
    diverged, best = [], math.inf
    arrived: dict[int, list[float]] = {rung: [] for rung in RUNGS}

    def emit(event: TrialStarted | EpochEnded | TrialEnded) -> None:
        state.apply(event)
        sampler.observe(event)

    while (trial := sampler.next()) is not None:
        recipe = trial.recipe.to_mapping()
        emit(
            TrialStarted(
                trial=trial.trial, number=trial.number, kind="search", recipe=recipe,
                seed=trial.seed, attempt=1, time=next(clock),
            )
        )  # fmt: skip
        status: Status = "completed"
        for step, rung in enumerate(RUNGS, start=1):
            score = case.val_nll(recipe["adamw_lr"], rung)
            if score is None:
                status = "failed"
                break
            score += 0.01 * float(np.random.default_rng(trial.seed + rung).normal())
            emit(
                EpochEnded(
                    trial=trial.trial, step=step, epoch=rung, rung=rung, val_nll=score,
                    time=next(clock),
                )
            )  # fmt: skip
            scores = arrived[rung]
            scores.append(score)
            if rung == RUNGS[-1]:
                best = min(best, score)
            elif score > sorted(scores)[max(1, len(scores) // FACTOR) - 1]:
                status = "pruned"
                break
        diverged.append(status == "failed")
        emit(
            TrialEnded(
                trial=trial.trial, status=status, cause=cause if status == "failed" else None,
                time=next(clock),
            )
        )  # fmt: skip
    return float(np.mean(diverged[STARTUP:])), best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    print(f"share of trials {STARTUP + 1} to {TRIALS} that diverged, and best val NLL; n = {seeds}")
    for name, case in CASES.items():
        for way, cause in WAYS.items():
            runs = [
                sweep(case, cause, seed=derive_seed(0, "diverging", seed)) for seed in range(seeds)
            ]
            shares, best = np.array(runs).T
            half = stats.t.ppf(0.975, seeds - 1) * shares.std(ddof=1) / math.sqrt(seeds)
            print(
                f"{name:6} told as {way:13} {100 * shares.mean():5.1f}% ± {100 * half:.1f}   "
                f"best {best.mean():.3f}"
            )


if __name__ == "__main__":
    main()
