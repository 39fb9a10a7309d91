"""Compare TPE over a window of its trials with TPE over all of them.

No network is trained: a trial's val NLL is a known function of five parameters, one of them a
choice that has parameters of its own, plus noise, and ASHA stops trials at rungs. Both ways start
from the same seeds, and the window is far smaller than the one in use, so that it matters early.

    python benchmarks/window.py --trials 1000 --window 250 --seeds 20

prints the difference in the best noiseless val NLL, and in the mean over the last half of the
trials, with 95% intervals over the seeds, and the time of a suggestion at the end.
"""

import argparse
import itertools
import math
import statistics
import time
from typing import NamedTuple

import numpy as np
from scipy import stats

from common.seeds import derive_seed
from journal.events import EpochEnded, RunStarted, Status, TrialEnded, TrialStarted
from journal.state import RunState
from search.samplers.optuna_sampler import OptunaSampler
from search.schedulers.asha import Asha
from search.space.space import Space
from trainables.recipe import Recipe

RUNGS, FACTOR, STARTUP = (1, 3, 9), 3, 10
SPACE = {
    "optimizer": {"type": "categorical", "choices": ["sgd", "adamw"]},
    "lr_per_1024": {
        "type": "float", "low": 0.1, "high": 30.0, "log": True, "when": {"optimizer": "sgd"},
    },
    "adamw_lr": {
        "type": "float", "low": 1e-5, "high": 1e-1, "log": True, "when": {"optimizer": "adamw"},
    },
    "weight_decay": {"type": "float", "low": 1e-6, "high": 1e-1, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.9},
    "label_smoothing": {"type": "float", "low": 0.0, "high": 0.3},
}  # fmt: skip


class Result(NamedTuple):
    """A simulated sweep."""

    best: float
    """Lowest noiseless val NLL of a trial that completed."""
    late: float
    """Median noiseless val NLL of the last half of the trials."""
    milliseconds: float
    """CPU time of a suggestion, the median over the last 50."""


def val_nll(recipe: Recipe) -> float:
    """Return the noiseless score after the whole schedule: narrow, rotated and with two modes."""
    sgd = recipe.optimizer.name == "sgd"
    rate = math.log10(recipe.optimizer.lr_per_1024 if sgd else recipe.optimizer.adamw_lr)
    rate = rate - 0.7 if sgd else rate + 2.5
    decay = math.log10(recipe.optimizer.weight_decay) + 3 + rate
    dropout = recipe.architecture.dropout - 0.2 - 0.1 * decay
    smoothing = recipe.loss.label_smoothing - 0.08
    bowl = rate**2 + 0.3 * decay**2 + 4 * dropout**2 + 20 * smoothing**2
    return 0.3 + 0.25 * math.log1p(4 * bowl) + (0.0 if sgd else 0.01)


def sweep(*, trials: int, window: int, seed: int) -> Result:
    """Run a sweep one trial at a time."""
    space = Space.from_mapping(SPACE, base=Recipe(epochs=RUNGS[-1]))
    state = RunState.from_events([RunStarted(run="simulated", spec={}, time=0.0)])
    sampler = OptunaSampler(
        space, state, trials=trials, startup_trials=STARTUP, seed=seed, study="s", path=None,
        window=window,
    )  # fmt: skip
    asha, clock = Asha(RUNGS, FACTOR), itertools.count(1.0)
    scores, completed, seconds = [], [], []

    def emit(event: TrialStarted | EpochEnded | TrialEnded) -> None:
        state.apply(event)
        sampler.observe(event)

    while True:
        began = time.process_time()
        trial = sampler.next()
        seconds.append(time.process_time() - began)
        if trial is None:
            break
        emit(
            TrialStarted(
                trial=trial.trial, number=trial.number, kind="search",
                recipe=trial.recipe.to_mapping(), seed=trial.seed, attempt=1, time=next(clock),
            )
        )  # fmt: skip
        scores.append(val_nll(trial.recipe))
        noise = np.random.default_rng(trial.seed).normal(size=len(RUNGS))
        status: Status = "pruned"
        for step, rung in enumerate(RUNGS, start=1):
            score = scores[-1] + 0.5 / rung + 0.01 * float(noise[step - 1])
            emit(
                EpochEnded(
                    trial=trial.trial, step=step, epoch=rung, rung=rung, val_nll=score,
                    time=next(clock),
                )
            )  # fmt: skip
            decision = asha.decide(rung, score)
            if decision.reason == "last_rung":
                status = "completed"
                completed.append(scores[-1])
            if decision.action == "stop":
                break
        emit(TrialEnded(trial=trial.trial, status=status, time=next(clock)))
    late = statistics.median(scores[len(scores) // 2 :])
    return Result(min(completed), late, 1e3 * statistics.median(seconds[-50:-1]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--window", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    results: dict[str, list[Result]] = {"window": [], "all": []}
    for number in range(options.seeds):
        seed = derive_seed(0, "window", number)
        for way, window in (("window", options.window), ("all", options.trials)):
            results[way].append(sweep(trials=options.trials, window=window, seed=seed))
    window, everything = (np.array(results[way]) for way in ("window", "all"))
    print(
        f"{options.trials} trials, a window of {options.window}; n = {options.seeds} seeds, paired"
    )
    print("| | window | all | difference, 95% interval |")
    print("|---|--:|--:|--:|")
    names = ("best val NLL", "median val NLL of the last half", "ms CPU a suggestion, at the end")
    for column, name in enumerate(names):
        gap = window[:, column] - everything[:, column]
        half = stats.t.ppf(0.975, options.seeds - 1) * gap.std(ddof=1) / math.sqrt(options.seeds)
        print(
            f"| {name} | {window[:, column].mean():.4f} | {everything[:, column].mean():.4f} "
            f"| {gap.mean():+.4f} ± {half:.4f} |"
        )


if __name__ == "__main__":
    main()
