"""Decide which of a run's files ships, on holdout.

Candidates are the fp32 and int8 files of three networks: the best single trial, the student, and
the student's twin that had no teacher. The rule, step by step:

1. A file that fails a quality gate, or is over a budget, is excluded. If none is left, nothing
   ships.
2. Of a network's two files, int8 ships, unless a precision gate fails. If the fp32 file was
   excluded, precision gates do not hold back the int8 file.
3. The best single trial ships, unless a student replaces it. A student that is distinguishably
   less accurate never does. Otherwise it does if it is distinguishably more accurate, or smaller
   and faster; or if it is not both larger and slower, and its NLL is distinguishably lower or it is
   the only one of the two that passes its gates.
4. If another file within the budgets is at least as accurate as the chosen one, smaller and faster,
   it ships instead, even if it failed on corrupted images. But if that other file failed
   `accuracy_loss`, the chosen file, which is no more accurate, is excluded, too, and the choice is
   repeated.

So a larger and slower file ships only if holdout shows that it is more accurate. A verdict of
`undecided` does not keep a small file from shipping; it only keeps it from becoming the champion.
If a large file shipped wherever it alone passes, another file would beat it on test in accuracy,
size and latency at once in 10% of simulated releases, against 2% with this rule
(tests/ensemble/deployment/test_decision.py).

Axes: N examples, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.seeds import numpy_generator
from common.statistics.intervals import Difference, draws_at, paired_difference
from common.statistics.metrics import accuracy
from ensemble.deployment.card import Speedup
from ensemble.deployment.gates import (
    PRECISION_GATES,
    QUALITY_GATES,
    GateMargins,
    decide_gates,
    level_of,
)
from ensemble.ledger.ledger import NOTHING, Candidate, Gate
from ensemble.ledger.predictions import FILES, Network, Predictions, StageCost
from ensemble.selection.comparison import SCORES

NETWORKS: tuple[Network, ...] = ("best_single", "student", "student_plain")
"""In order of preference: the first needed no further training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The file that ships, and the outcome for each of the others."""

    released: str
    """Its stage, or `none`."""
    because: str
    """The reason in one line."""
    candidates: tuple[Candidate, ...]
    """In the order of FILES."""
    decisions: int = 1
    """Number of releases decided on this holdout so far, including this one."""
    corrupted_images: int = 0
    """Corrupted holdout images that `corruption_loss` was decided on; 0 if it was left out."""

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates of the released file, or those of every candidate if there is none."""
        return tuple(
            gate
            for candidate in self.candidates
            if self.released in (candidate.stage, NOTHING)
            for gate in candidate.gates
        )

    @property
    def passed(self) -> bool:
        """The released file has passed all of its gates."""
        verdicts = {gate.verdict for gate in self.gates}
        return self.released != NOTHING and verdicts == {"pass"}


def decide(
    holdout: Predictions,
    costs: Mapping[str, StageCost],
    margins: GateMargins,
    *,
    speedups: Mapping[Network, Speedup],
    corrupted: Predictions | None = None,
    decisions: int = 1,
    seed: int = 0,
) -> Decision:
    """Decide which file ships; candidates are the stages of FILES that have predictions and costs.

    `corrupted` holds the predictions for corrupted holdout images, if there was time for them.
    `speedups` are int8 against fp32, by network. `decisions` counts the decisions on this holdout,
    including this one; it sets the level of the bounds and of the intervals of differences between
    files (`gates.level_of`). `seed` roots the bootstrap's draws.
    """
    level = level_of(decisions)
    gates = {
        stage: decide_gates(
            stage,
            holdout,
            costs,
            margins,
            corrupted=corrupted,
            speedup=speedups.get(network) if precision == "int8" else None,
            level=level,
            seed=seed,
        )
        for stage, (network, precision) in FILES.items()
        if stage in holdout.stages and stage in costs
    }
    files = _Files(holdout, costs, gates, level=level, seed=seed)
    released = files.choose()
    if not gates:
        because = "there is no file to release"
    elif released == NOTHING:
        because = "no file is good enough: " + "; ".join(
            f"{stage} {files.outcomes[stage]}" for stage in gates
        )
    else:
        because = _listed(gates[released], "undecided", "fail") or "every gate passed"
        because += "".join(f"; {reason}" for reason in files.reasons)
    candidates = tuple(
        Candidate(stage=stage, gates=gates[stage], outcome=files.outcomes[stage]) for stage in gates
    )
    return Decision(
        released=released,
        because=because,
        candidates=candidates,
        decisions=decisions,
        corrupted_images=0 if corrupted is None else len(corrupted.labels),
    )


class _Files:
    """The candidates, their figures, and the outcome for each."""

    def __init__(
        self,
        holdout: Predictions,
        costs: Mapping[str, StageCost],
        gates: Mapping[str, Sequence[Gate]],
        *,
        level: float,
        seed: int,
    ) -> None:
        self._holdout, self._costs, self._gates = holdout, costs, gates
        self._level, self._seed = level, seed
        self.outcomes: dict[str, str] = {}
        self.reasons: list[str] = []

    def choose(self) -> str:
        """Return the stage that ships, or `none`."""
        eligible = []
        for stage in self._gates:
            failed = [gate for gate in self._required(stage) if gate.verdict == "fail"]
            if failed:
                self.outcomes[stage] = _listed(failed, "fail")
            else:
                eligible.append(stage)
        within = [stage for stage in self._gates if self._fails(stage) <= QUALITY_GATES]
        chosen = self._preferred(eligible)
        while chosen != NOTHING and (better := self._dominating(chosen, within)):
            poor = [each for each in better if "accuracy_loss" in self._fails(each)]
            if poor:
                self.outcomes[chosen] = (
                    f"{poor[0]}, which failed accuracy_loss, is as accurate, smaller and faster"
                )
                eligible.remove(chosen)
                chosen = self._preferred(eligible)
            else:
                # Doing better on corrupted images alone does not justify a larger, slower, less
                # accurate file.
                best = max(better, key=self._accuracy)
                self.outcomes[chosen] = f"{best} is as accurate, smaller and faster"
                self.reasons.append(f"as accurate as {chosen}, smaller and faster")
                chosen = best
        if chosen != NOTHING:
            self.outcomes[chosen] = "released"
        return chosen

    def _preferred(self, eligible: Sequence[str]) -> str:
        """Return the file that the first three steps choose, or `none`."""
        chosen = NOTHING
        self.reasons = []
        for network in NETWORKS:
            file = self._precision([s for s in eligible if FILES[s][0] == network])
            if file is not None:
                chosen = file if chosen == NOTHING else self._winner(chosen, file)
        return chosen

    def _fails(self, stage: str) -> set[str]:
        """Return the names of the quality gates and budgets that a file fails."""
        return {gate.name for gate in self._required(stage) if gate.verdict == "fail"}

    def _precision(self, files: Sequence[str]) -> str | None:
        """Return the one of a network's eligible files that would ship."""
        if len(files) < 2:
            return files[0] if files else None
        int8, fp32 = sorted(files, key=lambda stage: FILES[stage][1] == "fp32")
        held = [
            gate
            for gate in self._gates[int8]
            if gate.name in PRECISION_GATES and gate.verdict == "fail"
        ]
        if held:
            self.outcomes[int8] = _listed(held, "fail")
            self.reasons.append(f"{int8}: {_listed(held, 'fail')}")
            return fp32
        self.outcomes[fp32] = f"{int8} is the same network, smaller"
        return int8

    def _winner(self, incumbent: str, challenger: str) -> str:
        """Return the challenger if it earns its place, else the incumbent."""
        why_not = self._why_not(incumbent, challenger)
        if why_not:
            self.outcomes[challenger] = why_not
            return incumbent
        self.outcomes[incumbent] = f"{challenger} is better"
        return challenger

    def _why_not(self, incumbent: str, challenger: str) -> str:
        """Return why the challenger does not earn its place; empty if it does."""
        more_accurate = self._difference(challenger, incumbent, "accuracy")
        if more_accurate.distinguishable and more_accurate.value < 0:
            return f"less accurate than {incumbent}"
        if more_accurate.distinguishable or self._cheaper(challenger, incumbent):
            return ""
        nll = self._difference(challenger, incumbent, "nll")
        lower_nll = nll.distinguishable and nll.value < 0
        only = self._passes(challenger) and not self._passes(incumbent)
        if (lower_nll or only) and not self._cheaper(incumbent, challenger):
            return ""
        return f"not distinguishably better than {incumbent}, nor smaller and faster"

    def _dominating(self, chosen: str, files: Sequence[str]) -> list[str]:
        """Return the files that are at least as accurate as the chosen one, smaller and faster."""
        return [
            stage
            for stage in files
            if self._cheaper(stage, chosen) and self._accuracy(stage) >= self._accuracy(chosen)
        ]

    def _required(self, stage: str) -> list[Gate]:
        return [gate for gate in self._gates[stage] if gate.name not in PRECISION_GATES]

    def _passes(self, stage: str) -> bool:
        return all(gate.verdict == "pass" for gate in self._gates[stage])

    def _cheaper(self, a: str, b: str) -> bool:
        """Return whether `a` is known to be smaller and faster than `b`."""
        first, second = self._costs[a], self._costs[b]
        pairs = (
            (first.bytes, second.bytes),
            (first.latency_ms_batch1, second.latency_ms_batch1),
        )
        return all(x is not None and y is not None and x < y for x, y in pairs)

    def _accuracy(self, stage: str) -> float:
        return accuracy(self._holdout.stages[stage], self._holdout.labels)

    def _difference(self, a: str, b: str, metric: str) -> Difference:
        score, labels = SCORES[metric], self._holdout.labels
        return paired_difference(
            np.asarray(score(self._holdout.stages[a], labels)),
            np.asarray(score(self._holdout.stages[b], labels)),
            rng=numpy_generator(self._seed, "release", a, b, metric),
            level=self._level,
            draws=draws_at(self._level),
        )


def _listed(gates: Sequence[Gate], *verdicts: str) -> str:
    """Name the gates with one of these verdicts: `accuracy_loss fail, speedup fail`."""
    return ", ".join(f"{gate.name} {gate.verdict}" for gate in gates if gate.verdict in verdicts)
