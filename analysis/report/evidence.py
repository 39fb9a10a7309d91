"""The evidence behind the report's recommendation, as values that the summary puts into words."""

from dataclasses import dataclass
from typing import Literal

from analysis.facts.ladder import judged
from analysis.facts.run_facts import RunFacts
from analysis.report.forecast_section import unequal_compute_note
from analysis.text.ledger import differences_of, gates_verdict, shipped_stage
from ensemble.deployment.card import DIVERGED
from ensemble.ledger.ledger import Gate
from ensemble.selection.comparison import Comparison, compare

TargetVerdict = Literal["reached", "reached, within error", "not reached"]
"""`reached` requires that even the low end of the 95% interval meets the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The judgements that a ledger supports; a comparison is missing where the ledger has none."""

    stage: str | None
    """The stage of the file that ships; None if nothing does."""
    gates: tuple[Gate, ...]
    """Release gates of that file."""
    gates_verdict: str
    """`pass`, `fail`, `undecided`, or `none` without gates."""
    target: TargetVerdict | None
    """None if the sweep has no target accuracy, or the ledger lacks its row."""
    against_teacher: tuple[Comparison, ...]
    """The file that ships minus the ensemble."""
    distillation: tuple[Comparison, ...]
    """The fp32 student minus the same network trained without a teacher; empty if `untaught`."""
    twin_is_trial: bool
    """True if the plain student, too, is a trial without further training."""
    untaught: bool
    """True if the student is a trial of the search without further training."""
    against_single: tuple[Comparison, ...]
    """The ensemble minus the best single trial."""
    against_seeds: tuple[Comparison, ...]
    """The ensemble minus the seed ensemble; empty if it consists of these seeds."""
    equal_compute: bool
    """True if the seed ensemble had as much compute as the ensemble."""
    consists_of_seeds: bool
    """True if the ensemble consists of seeds of the best configuration."""
    test_reads: int

    @property
    def held_by(self) -> tuple[Gate, ...]:
        """The gates that the file did not pass."""
        return tuple(gate for gate in self.gates if gate.verdict != "pass")


def evidence_of(facts: RunFacts) -> Evidence | None:
    """Collect a run's evidence; None before the ledger is written."""
    ledger = facts.ledger
    if ledger is None:
        return None
    stage = shipped_stage(ledger)
    consists_of_seeds = facts.selection is not None and facts.selection.source == "seeds"
    untaught = facts.card is not None and facts.card.steps == 0
    twin = "" if facts.plain_card is None else facts.plain_card.untaught_because
    # If the plain student diverged, a trial has replaced it, which is no baseline for distillation.
    taught = facts.card is not None and not untaught and twin != DIVERGED
    plain = differences_of(ledger, "student_fp32", "student_plain") if taught else []
    seeds = [] if consists_of_seeds else differences_of(ledger, "ensemble", "seeds_ensemble")
    return Evidence(
        stage=stage,
        gates=ledger.gates,
        gates_verdict=gates_verdict(ledger),
        target=_target_verdict(facts),
        against_teacher=tuple(_against_teacher(facts, stage)) if stage else (),
        distillation=tuple(plain),
        twin_is_trial=bool(twin),
        untaught=untaught,
        against_single=tuple(differences_of(ledger, "ensemble", "best_single")),
        against_seeds=tuple(seeds),
        equal_compute=not unequal_compute_note(facts),
        consists_of_seeds=consists_of_seeds,
        test_reads=ledger.test_reads,
    )


def _target_verdict(facts: RunFacts) -> TargetVerdict | None:
    """Compare the judged row with the sweep's target accuracy."""
    target = facts.spec.target
    if target is None or target.accuracy is None or facts.ledger is None:
        return None
    row = judged(facts.ledger, target)
    if row is None:
        return None
    if row.accuracy < target.accuracy:
        return "not reached"
    return "reached" if row.accuracy_interval[0] >= target.accuracy else "reached, within error"


def _against_teacher(facts: RunFacts, stage: str) -> list[Comparison]:
    """Return the differences of the file that ships from the ensemble.

    The ledger compares only int8 files; for fp32, saved predictions are compared.
    """
    written = differences_of(facts.ledger, stage, "ensemble")
    if written or facts.test_labels is None or not {stage, "ensemble"} <= set(facts.test_log_probs):
        return written
    return [
        compare(
            stage, "ensemble", metric, facts.test_log_probs, facts.test_labels,
            seed=facts.spec.seed,
        )
        for metric in ("accuracy", "nll")
    ]  # fmt: skip
