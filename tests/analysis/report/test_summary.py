"""The head of the report: what ships, and no claim without evidence."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.facts.run_facts import RunFacts, load_facts
from analysis.report.evidence import evidence_of
from analysis.report.summary import EFFECTS, key_figures, summary, untaught_sentence
from analysis.text.cells import difference_value
from analysis.text.labels import NOT_DISTINGUISHABLE, gate_label, reason_text, stage_label
from analysis.text.ledger import metrics_by_verdict, row_of
from analysis.text.ledger import rows as ledger_rows
from ensemble.deployment.card import DIVERGED
from ensemble.selection.comparison import Comparison
from search.space.sections import TargetSpec
from search.space.sweep_files import load_spec
from tests.analysis.report.reading import with_ledger
from tests.synthetic.ledger_values import made_comparison, made_gate
from trainables.records import RunFolder


@pytest.mark.parametrize("verdicts", [["pass", "pass"], ["pass", "undecided"], ["undecided"] * 2])
def test_the_released_file_is_named_with_the_gates_it_missed(
    facts: RunFacts, verdicts: list[str]
) -> None:
    gates = tuple(made_gate(verdict) for verdict in verdicts)
    changed = with_ledger(facts, gates=gates)
    assert facts.ledger is not None
    assert facts.release is not None
    row = row_of(facts.ledger, facts.ledger.released)
    assert row is not None
    ships, accuracy, *_ = key_figures(changed)
    assert ships.value == stage_label(row.stage)
    assert ships.note == f"student/{facts.release.file}"
    assert accuracy.value == f"{100 * row.accuracy:.1f}%"
    assert ships.note in summary(changed)[0]
    evidence = evidence_of(changed)
    assert evidence is not None
    assert evidence.stage == row.stage
    assert evidence.held_by == tuple(gate for gate in gates if gate.verdict != "pass")
    assert all(gate_label(gate.name) in summary(changed)[0] for gate in evidence.held_by)


def test_where_no_file_kept_its_gates_nothing_ships(facts: RunFacts) -> None:
    changed = with_ledger(facts, released="none")
    assert facts.ledger is not None
    assert facts.ledger.candidates
    ships, *_ = key_figures(changed)
    assert ships.note == "nothing ships"
    named = summary(changed)[0]
    assert all(stage_label(item.stage) in named for item in facts.ledger.candidates)


def test_a_student_that_does_not_ship_is_accounted_for(facts: RunFacts) -> None:
    changed = with_ledger(facts, released="best_single_int8")
    sentences = " ".join(summary(changed))
    assert facts.ledger is not None
    outcomes = {item.stage: item.outcome for item in facts.ledger.candidates}
    for stage in ("student_int8", "student_fp32"):
        assert f"{stage_label(stage)} does not ship: {reason_text(outcomes[stage])}" in sentences


def test_a_second_reading_of_test_is_reported(facts: RunFacts) -> None:
    once, twice = summary(facts), summary(with_ledger(facts, test_reads=2))
    (added,) = [sentence for sentence in twice if sentence not in once]
    assert "2" in added
    assert len(twice) == len(once) + 1


def test_an_ensemble_of_seeds_is_not_compared_with_itself(facts: RunFacts) -> None:
    assert facts.selection is not None
    chosen = replace(facts, selection=replace(facts.selection, source="seeds"))
    searched = replace(facts, selection=replace(facts.selection, source="search"))
    of_seeds, of_search = evidence_of(chosen), evidence_of(searched)
    assert of_seeds is not None
    assert of_search is not None
    assert (of_seeds.consists_of_seeds, of_seeds.against_seeds) == (True, ())
    assert (of_search.consists_of_seeds, of_search.equal_compute) == (False, True)
    assert len(summary(chosen)) == len(summary(searched))
    numbers = numbers_of(of_search.against_seeds)
    assert numbers
    assert all(number in " ".join(summary(searched)) for number in numbers)
    assert not all(number in " ".join(summary(chosen)) for number in numbers)


def numbers_of(differences: Iterable[Comparison]) -> list[str]:
    """Return the values and intervals of some differences as the report prints them."""
    return [text for item in differences for text in difference_value(item)]


def test_a_difference_around_zero_is_no_gain(facts: RunFacts) -> None:
    differences = (
        made_comparison("ensemble", "best_single", "accuracy", 0.01, (-0.01, 0.03)),
        made_comparison("student_fp32", "student_plain", "accuracy", 0.01, (-0.01, 0.03)),
    )
    changed = with_ledger(facts, differences=differences)
    evidence = evidence_of(changed)
    assert evidence is not None
    for compared in (evidence.against_single, evidence.distillation):
        assert metrics_by_verdict(compared) == {NOT_DISTINGUISHABLE: ("accuracy",)}
    text = " ".join(summary(changed))
    assert all(number in text for number in numbers_of(differences))
    assert NOT_DISTINGUISHABLE in text
    assert EFFECTS[NOT_DISTINGUISHABLE] in text
    assert "better" not in text
    assert EFFECTS["better"] not in text


def test_distillation_is_judged_metric_by_metric(facts: RunFacts) -> None:
    pair = ("student_fp32", "student_plain")
    differences = (
        made_comparison(*pair, "accuracy", 0.0, (-0.01, 0.01)),
        made_comparison(*pair, "nll", -0.1, (-0.2, -0.05)),
    )
    changed = with_ledger(facts, differences=differences)
    evidence = evidence_of(changed)
    assert evidence is not None
    assert metrics_by_verdict(evidence.distillation) == {
        NOT_DISTINGUISHABLE: ("accuracy",), "better": ("nll",),
    }  # fmt: skip
    (sentence,) = [part for part in summary(changed) if EFFECTS["better"] in part]
    effects, numbers = sentence.split(":")
    assert effects.index(EFFECTS["better"]) < effects.index("NLL")
    assert effects.index(EFFECTS[NOT_DISTINGUISHABLE]) < effects.index("accuracy")
    assert all(number in numbers for number in numbers_of(differences))


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_student_that_was_not_taught_is_not_said_to_be(facts: RunFacts, seconds: float) -> None:
    """It may have been trained for a time, and the best single trial kept."""
    assert facts.card is not None
    card = replace(facts.card, steps=0, train_seconds=seconds)
    changed = replace(
        with_ledger(
            facts,
            differences=(made_comparison("student_fp32", "student_plain", "nll", 1, (0.5, 2)),),
        ),
        card=card,
    )
    evidence = evidence_of(changed)
    assert evidence is not None
    assert (evidence.untaught, evidence.distillation) == (True, ())
    told = untaught_sentence(changed)
    assert told in summary(changed)
    reason = replace(changed, card=replace(card, untaught_because="a reason"))
    assert "a reason" in untaught_sentence(reason)
    assert told not in summary(facts)
    assert told != untaught_sentence(
        replace(changed, card=replace(card, train_seconds=60 - seconds))
    )


def test_distillation_is_not_measured_against_a_twin_that_diverged(facts: RunFacts) -> None:
    evidence, card = evidence_of(facts), facts.plain_card
    assert card is not None
    assert evidence is not None
    assert evidence.distillation
    diverged = evidence_of(replace(facts, plain_card=replace(card, untaught_because=DIVERGED)))
    assert diverged is not None
    assert diverged.distillation == ()


def test_a_twin_that_is_a_trial_as_it_was_is_called_so(facts: RunFacts) -> None:
    assert facts.plain_card is not None
    kept = replace(facts.plain_card, untaught_because="training it further made it worse on val")
    evidence = evidence_of(replace(facts, plain_card=kept))
    assert evidence is not None
    assert evidence.distillation
    assert "the trial it starts from" in " ".join(summary(replace(facts, plain_card=kept)))


@pytest.mark.parametrize(
    ("margin", "verdict"),
    [(-0.001, "not reached"), (0.001, "reached, within error"), (0.5, "reached")],
)
def test_a_target_is_judged_by_the_interval(facts: RunFacts, margin: float, verdict: str) -> None:
    row = row_of(facts.ledger, "ensemble")
    assert row is not None
    target = TargetSpec(row="ensemble", accuracy=row.accuracy - margin)
    changed = replace(facts, spec=facts.spec.with_values(target=target))
    evidence = evidence_of(changed)
    assert evidence is not None
    assert evidence.target == verdict
    assert len(summary(changed)) == len(summary(facts)) + 1


def test_fp32_is_compared_with_its_teacher_from_saved_predictions(facts: RunFacts) -> None:
    """The ledger compares only the int8 student."""
    labels = facts.test_labels
    assert labels is not None
    gain = np.mean(facts.test_log_probs["student_fp32"].argmax(1) == labels) - np.mean(
        facts.test_log_probs["ensemble"].argmax(1) == labels
    )
    about_teacher = summary(with_ledger(facts, gates=()))[1]
    assert f"{100 * abs(gain):.1f} points" in about_teacher


def test_an_unfinished_run_claims_nothing(facts: RunFacts, tmp_path: Path) -> None:
    unfinished, best = replace(facts, ledger=None), facts.best
    assert best is not None
    assert evidence_of(unfinished) is None
    (sentence,) = summary(unfinished)
    assert best.trial in sentence
    assert f"{best.scores[best.rung or 0]:.4f}" in sentence
    assert "%" not in sentence, "test has not been read, so no accuracy is known"
    assert key_figures(unfinished) == []
    folder = RunFolder(tmp_path / "bare")
    folder.root.mkdir()
    folder.sweep.write_text(load_spec("digits").to_yaml())
    bare = load_facts(folder)
    assert (bare.best, evidence_of(bare)) == (None, None)
    (sentence,) = summary(bare)
    assert not any(character.isdigit() for character in sentence)


def test_without_a_student_nothing_ships(facts: RunFacts) -> None:
    rows = tuple(r for r in ledger_rows(facts.ledger) if not r.stage.startswith("student"))
    changed = with_ledger(facts, rows=rows, gates=(), differences=())
    evidence = evidence_of(changed)
    assert evidence is not None
    assert (evidence.stage, evidence.gates_verdict) == (None, "none")
    assert ".onnx" not in " ".join(summary(changed))
    ensemble = next(row for row in rows if row.stage == "ensemble")
    assert key_figures(changed)[0].value == "ensemble"
    assert key_figures(changed)[1].value == f"{100 * ensemble.accuracy:.1f}%"
