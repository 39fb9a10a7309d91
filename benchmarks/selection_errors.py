"""Measure the error rates of the rule that chooses an ensemble, on pools whose truth is known.

`python benchmarks/selection_errors.py --draws 150 --out results/selection/errors.json`

Axes: M members, N examples, K classes. A draw is a new pool: its holdout is chosen on, and 10,000
new examples of the same members say how good every candidate, fitted to that holdout, really is.
The oracle is the candidate with the lowest mean test NLL over the other half of a scenario's draws;
the regret of a rule is the test NLL of its ensemble minus the oracle's on the same draw. (The best
candidate of the same draws would be a luckier oracle: the best of fifty by the noise of the test
examples, too.)
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax
from selection_before import choose_before

from common.statistics.intervals import proportion_interval
from common.statistics.metrics import nll
from ensemble.selection.candidates import Candidate, Fit, Request
from ensemble.selection.choice import Losses, choose, score_candidates
from ensemble.selection.fitting import CrossFit
from ensemble.selection.mixture import View
from ensemble.selection.orders import Likeness
from ensemble.selection.pool import Pool

TEST = 10_000
MEMBERS = 5
CLASSES = 10
SEARCHED, SEEDS = 16, 5
COMMON = 0.6
"""Share of the noise's variance that all members have in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A kind of pool; `skills` and `sharpness` draw one value per member, seeds last."""

    name: str
    examples: int = 400
    skills: Callable[[np.random.Generator], Sequence[float]]
    sharpness: Callable[[np.random.Generator], Sequence[float]] | None = None
    copies: int = 0
    """Searched members that are near-copies of the first."""

    def draw(self, rng: np.random.Generator) -> Pool:
        """Return a pool of holdout and test examples, in this order."""
        skills = self.skills(rng)
        pool = synthetic_pool(
            np.random.default_rng(int(rng.integers(1 << 31))),
            skills,
            [1.0] * len(skills) if self.sharpness is None else self.sharpness(rng),
            examples=self.examples + TEST,
        )
        for member in range(1, self.copies + 1):
            logits = pool.log_probs[0] + rng.normal(0, 0.15, pool.log_probs[0].shape)
            logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
            pool.log_probs[member][:] = logits
        return pool


def synthetic_pool(
    rng: np.random.Generator, skills: Sequence[float], sharpness: Sequence[float], *, examples: int
) -> Pool:
    """Return members whose logits are skill on the true class plus noise, 60% of it shared."""
    labels = rng.permutation(np.arange(examples) % CLASSES)
    shared = rng.normal(size=(examples, CLASSES)) * np.sqrt(COMMON)
    log_probs = np.empty((len(skills), examples, CLASSES), np.float32)
    for member, skill in enumerate(skills):
        logits = shared + rng.normal(size=shared.shape) * np.sqrt(1 - COMMON)
        logits[np.arange(examples), labels] += skill
        log_probs[member] = log_softmax(logits * sharpness[member], axis=1)
    kinds = ("search",) * (len(skills) - SEEDS) + ("seed",) * SEEDS
    return Pool(
        names=tuple(f"m{member}" for member in range(len(skills))),
        log_probs=log_probs,
        labels=labels,
        split_id="synthetic",
        seconds=np.full(len(skills), np.nan),
        kinds=kinds,
    )


def levels(searched: float, seeds: float) -> Callable[[np.random.Generator], Sequence[float]]:
    """Return equally good trials and equally good seeds."""
    return lambda _: [searched] * SEARCHED + [seeds] * SEEDS


SCENARIOS = (
    Scenario(name="all equal", skills=levels(3.0, 3.0)),
    Scenario(name="all equal, N = 100", examples=100, skills=levels(3.0, 3.0)),
    Scenario(name="all equal, N = 2,000", examples=2000, skills=levels(3.0, 3.0)),
    Scenario(name="search better by 0.1", skills=levels(3.1, 3.0)),
    Scenario(name="search better by 0.4", skills=levels(3.4, 3.0)),
    Scenario(name="seeds better by 0.1", skills=levels(2.9, 3.0)),
    Scenario(name="seeds better by 0.4", skills=levels(2.6, 3.0)),
    Scenario(
        name="searched trials vary",
        skills=lambda rng: [*rng.normal(2.8, 0.3, SEARCHED), *[3.0] * SEEDS],
    ),
    Scenario(name="one member dominates", skills=lambda _: [5.0] + [2.5] * (SEARCHED + SEEDS - 1)),
    Scenario(
        name="miscalibrated",
        skills=levels(3.0, 3.0),
        sharpness=lambda rng: np.exp(rng.uniform(-1.2, 1.2, SEARCHED + SEEDS)).tolist(),
    ),
    Scenario(name="near-duplicates of the best", skills=levels(2.8, 2.8), copies=6),
    Scenario(
        name="searched trials vary, N = 2,000",
        examples=2000,
        skills=lambda rng: [*rng.normal(2.8, 0.3, SEARCHED), *[3.0] * SEEDS],
    ),
)


def bare_mean(losses: Losses) -> Candidate:
    """Choose the lowest mean out of fold."""
    return min(losses, key=lambda candidate: float(losses[candidate].mean()))


def tied(losses: Losses) -> list[Candidate]:
    """Return the candidates within one standard error of the lowest mean."""
    return [score.candidate for score in score_candidates(losses) if score.tied]


def quorum_rule(losses: Losses) -> Candidate:
    """Choose as Quorum does."""
    return choose(score_candidates(losses))


def smaller(losses: Losses) -> Candidate:
    """Choose as Quorum does, but prefer smaller ensembles of a kind."""
    return min(tied(losses), key=lambda c: (*c.place[:3], c.size))


def cheapest(losses: Losses) -> Candidate:
    """Choose the smallest ensemble that is tied, then as Quorum does."""
    return min(tied(losses), key=lambda c: (c.size, *c.place))


def fixed(**values: Any) -> Callable[[Losses], Candidate]:
    """Return a rule that does not look at the losses."""
    return lambda _: Candidate(**values)


RULES: dict[str, Callable[[Losses], Candidate]] = {
    "after": quorum_rule,
    "after, smaller first": smaller,
    "after, cheapest first": cheapest,
    "lowest mean": bare_mean,
    "always best single": fixed(way="top", size=1),
    "always top 5": fixed(way="top", size=MEMBERS),
    "always seeds 5": fixed(way="seeds", size=MEMBERS),
    "always greedy 5": fixed(way="greedy", size=MEMBERS),
}


def measure(scenario: Scenario, *, draws: int, seed: int) -> dict[str, Any]:
    """Return every rule's regrets and choices over new pools."""
    losses: dict[str, list[float]] = {}
    choices: dict[str, Counter[str]] = {}
    truths: list[dict[Candidate, float]] = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        both = scenario.draw(rng)
        holdout, test = np.arange(scenario.examples), np.arange(scenario.examples, len(both.labels))
        pool = replace(both, log_probs=both.stack()[:, holdout], labels=both.labels[holdout])
        crossed = CrossFit(pool, Request(members=MEMBERS), draw)
        out_of_fold = crossed.ensemble().losses
        fit = Fit(
            view=View.of(both, holdout), request=crossed.request, likeness=Likeness(pool), seed=draw
        )
        truth = {c: float(v.mean()) for c, v in fit.losses(crossed.candidates, test).items()}
        truths.append(truth)
        name, mixture = choose_before(pool, members=MEMBERS, seed=draw)
        before = nll(mixture.log_probs(both, test), both.labels[test])
        found = {"before": (name, before)}
        found |= {rule: (_kind(c := act(out_of_fold)), truth[c]) for rule, act in RULES.items()}
        for rule, (kind, value) in found.items():
            losses.setdefault(rule, []).append(value)
            choices.setdefault(rule, Counter())[kind] += 1
    halves = [_best(truths[1::2]), _best(truths[::2])]
    lowest = np.array([truth[halves[draw % 2]] for draw, truth in enumerate(truths)])
    return {
        "scenario": scenario.name,
        "draws": draws,
        "oracle": " or ".join(dict.fromkeys(half.name for half in halves)),
        "oracle_nll": float(lowest.mean()),
        "rules": {
            rule: {**_mean(np.array(values) - lowest), "chosen": _rates(choices[rule], draws)}
            for rule, values in losses.items()
        },
    }


def _best(truths: Sequence[dict[Candidate, float]]) -> Candidate:
    """Return the candidate with the lowest mean loss."""
    return min(truths[0], key=lambda c: float(np.mean([truth[c] for truth in truths])))


def _kind(candidate: Candidate) -> str:
    """Return a candidate's kind: its way, and whether weights or temperatures are fitted."""
    kind = "best single" if candidate == Candidate(way="top", size=1) else candidate.way
    parts = [kind, candidate.weighting if candidate.weighting == "learned" else ""]
    parts.append("calibrated" if candidate.pooling == "calibrated" else "")
    return ", ".join(filter(None, parts))


def _rates(counts: Counter[str], draws: int) -> dict[str, list[float]]:
    rates = {}
    for kind, count in counts.most_common():
        interval = proportion_interval(count, draws)
        rates[kind] = [count / draws, round(interval.low, 3), round(interval.high, 3)]
    return rates


def _mean(values: np.ndarray) -> dict[str, float]:
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return {"regret": float(np.mean(values)), "interval": 1.96 * error}


def main() -> None:
    """Print one table per scenario, and write everything to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a scenario's name")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = []
    for scenario in SCENARIOS:
        if arguments.only not in scenario.name:
            continue
        began = time.perf_counter()
        result = measure(scenario, draws=arguments.draws, seed=arguments.seed)
        results.append(result)
        print(f"\n{scenario.name} ({arguments.draws} draws, {time.perf_counter() - began:.0f} s)")
        print(f"  oracle: {result['oracle']}, NLL {result['oracle_nll']:.4f}")
        for rule, row in result["rules"].items():
            regret = f"{1000 * row['regret']:7.2f} ± {1000 * row['interval']:.2f}"
            print(f"  {rule:26} {regret} mnats  {_text(row['chosen'])}", flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")


def _text(rates: dict[str, list[float]]) -> str:
    return ", ".join(f"{kind} {100 * rate[0]:.0f}%" for kind, rate in list(rates.items())[:6])


if __name__ == "__main__":
    main()
