"""The head of the report: what ships, and no claim without evidence."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.facts.run_facts import RunFacts, load_facts
from analysis.report.summary import key_figures, summary
from analysis.text.ledger import row_of
from analysis.text.ledger import rows as ledger_rows
from search.space.spec import load_spec
from tests.analysis.report.reading import with_ledger
from tests.synthetic.ledger_values import made_comparison, made_gate
from trainables.records import RunFolder


@pytest.mark.parametrize(
    ("verdicts", "stage"),
    [
        (["pass", "pass"], "int8"),
        (["pass", "undecided"], "fp32"),
        (["fail", "pass"], "fp32"),
        ([], "fp32"),
    ],
)
def test_int8_ships_only_if_every_gate_passes(
    facts: RunFacts, verdicts: list[str], stage: str
) -> None:
    gates = tuple(made_gate(verdict) for verdict in verdicts)
    changed = with_ledger(facts, gates=gates)
    row = row_of(facts.ledger, f"student_{stage}")
    assert row is not None
    ships, accuracy, *_ = key_figures(changed)
    assert ships.value == f"{stage} student"
    assert ships.note == ("model.int8.onnx" if stage == "int8" else "model.onnx")
    assert accuracy.value == f"{100 * row.accuracy:.1f}%"
    assert summary(changed)[0].startswith(f"Ship student/{ships.note}.")


def test_a_second_reading_of_test_is_reported(facts: RunFacts) -> None:
    assert "2 times" in summary(with_ledger(facts, test_reads=2))[-1]
    assert not any("times" in sentence for sentence in summary(facts)[1:])


def test_an_ensemble_of_seeds_is_not_compared_with_itself(facts: RunFacts) -> None:
    assert facts.selection is not None
    chosen = replace(facts, selection=replace(facts.selection, source="seeds"))
    searched = replace(facts, selection=replace(facts.selection, source="search"))
    assert len(summary(chosen)) == len(summary(searched))
    assert "consists of seeds" in summary(chosen)[-1]
    assert "equal compute" not in " ".join(summary(chosen))
    assert "equal compute" in " ".join(summary(searched))


def test_a_difference_around_zero_is_no_gain(facts: RunFacts) -> None:
    differences = (
        made_comparison("ensemble", "best_single", "accuracy", 0.01, (-0.01, 0.03)),
        made_comparison("student_fp32", "student_plain", "accuracy", 0.01, (-0.01, 0.03)),
    )
    text = " ".join(summary(with_ledger(facts, differences=differences)))
    assert "no measurable difference in accuracy" in text
    assert "not distinguishable from the best single trial" in text
    assert "better" not in text
    assert "improved" not in text


def test_distillation_is_judged_metric_by_metric(facts: RunFacts) -> None:
    pair = ("student_fp32", "student_plain")
    differences = (
        made_comparison(*pair, "accuracy", 0.0, (-0.01, 0.01)),
        made_comparison(*pair, "nll", -0.1, (-0.2, -0.05)),
    )
    text = " ".join(summary(with_ledger(facts, differences=differences)))
    assert "improved NLL, and made no measurable difference in accuracy" in text
    assert "better in NLL (−0.1000, 95% interval −0.2000 to −0.0500)" in text


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
    (sentence,) = summary(replace(facts, ledger=None))
    assert facts.best is not None
    assert facts.best.trial in sentence
    assert "Test has not been read" in sentence
    assert key_figures(replace(facts, ledger=None)) == []
    folder = RunFolder(tmp_path / "bare")
    folder.root.mkdir()
    folder.sweep.write_text(load_spec("digits").to_yaml())
    (sentence,) = summary(load_facts(folder))
    assert "No trial" in sentence


def test_without_a_student_nothing_ships(facts: RunFacts) -> None:
    rows = tuple(r for r in ledger_rows(facts.ledger) if not r.stage.startswith("student"))
    changed = with_ledger(facts, rows=rows, gates=(), differences=())
    assert "nothing to ship" in summary(changed)[0]
    ensemble = next(row for row in rows if row.stage == "ensemble")
    assert key_figures(changed)[0].value == "ensemble"
    assert key_figures(changed)[1].value == f"{100 * ensemble.accuracy:.1f}%"
