"""The model card in Markdown: its figures, and names that are no markup."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from markdown_it import MarkdownIt
from markdown_it.token import Token

from common.printable import printable
from common.statistics.intervals import proportion_interval
from ensemble.deployment.card import Card, read_card
from ensemble.deployment.model_card import (
    TestFigures,
    model_card,
    read_test_figures,
    write_model_card,
)
from ensemble.deployment.student_folder import network_folders
from ensemble.ledger.robustness import (
    ClassCoverage,
    CorruptedRow,
    CoverageRow,
    OtherDataRow,
    Robustness,
)
from quorum import Outcome
from tests.ensemble.deployment.test_card import card
from tests.names import ODD_NAMES, controls_in
from tests.synthetic.ledger_values import made_ledger, made_row

PARSER = MarkdownIt("commonmark").enable("table")


def figures(labels: list[int], predicted: list[int], **values: Any) -> TestFigures:
    row = made_row("student_fp32")
    ledger = made_ledger(row, **values)
    return TestFigures(
        ledger=ledger, row=row, labels=np.array(labels), predicted=np.array(predicted)
    )


def measured(stage: str) -> TestFigures:
    """Return figures of the fp32 student, with robustness and prediction sets of `stage`."""
    rows = tuple(
        CorruptedRow(
            stage=stage, family=family, images=60, accuracy=accuracy, accuracy_interval=(0.5, 0.8),
            nll=1.0, ece=0.1, ece_null=0.1,
        )
        for family, accuracy in {"clean": 0.9, "noise": 0.61, "all": 0.72}.items()
    )  # fmt: skip
    other = OtherDataRow(stage=stage, data="x", images=60, auroc=0.87, interval=(0.8, 0.9))
    by_class = (
        ClassCoverage(images=50, coverage=0.93, interval=(0.8, 0.98)),
        ClassCoverage(images=0, coverage=0.0, interval=(0.0, 1.0)),
    )
    sets = CoverageRow(
        stage=stage, level=0.95, threshold=0.1, calibration_images=400, images=50, coverage=0.93,
        interval=(0.8, 0.98), mean_size=1.2, single=0.8, by_class=by_class,
    )  # fmt: skip
    robustness = Robustness(images=60, rows=rows, other_data=(other,))
    return figures([0] * 50, [0] * 50, robustness=robustness, conformal=(sets,))


def cells(text: str) -> list[list[str]]:
    """Return the texts of all table rows."""
    rows: list[list[str]] = []
    for before, token in zip(
        [Token("", "", 0), *PARSER.parse(text)], PARSER.parse(text), strict=False
    ):
        if token.type == "tr_open":
            rows.append([])
        if before.type in ("td_open", "th_open"):
            rows[-1].append("".join(child.content for child in token.children or ()))
    return rows


def headings(text: str) -> list[str]:
    tokens = PARSER.parse(text)
    return [b.content for a, b in itertools.pairwise(tokens) if a.type == "heading_open"]


def test_a_class_has_its_recall_and_precision_with_intervals() -> None:
    labels = [0] * 10 + [1] * 5
    predicted = [0] * 8 + [1] * 2 + [1] * 5
    rows = {row[0]: row[1:] for row in cells(model_card(card(), figures(labels, predicted)))}
    count, recall, precision = rows["cat"]
    assert count == "10"
    assert recall.startswith("80.0%")
    assert precision.startswith("100.0%")
    low = proportion_interval(8, 10).low
    assert f"{100 * low:.1f}" in recall
    assert [cell.split()[0] for cell in rows["dog"]] == ["5", "100.0%", "71.4%"]


def test_a_class_without_images_has_no_share() -> None:
    rows = {row[0]: row[1:] for row in cells(model_card(card(), figures([0, 0], [0, 0])))}
    assert rows["dog"] == ["0", "–", "–"]


def test_classes_that_are_measurably_worse_are_named() -> None:
    labels = [0] * 200 + [1] * 200
    predicted = [0] * 200 + [1] * 100 + [0] * 100
    text = model_card(card(), figures(labels, predicted))
    limits = text.partition("## Limits")[2].partition("##")[0]
    assert "dog" in limits
    assert "cat" not in limits
    even = model_card(card(), figures(labels, labels))
    assert "dog" not in even.partition("## Limits")[2].partition("##")[0]


def test_sections_are_the_same_with_and_without_figures() -> None:
    plain = headings(model_card(card()))
    assert plain[1:] == ["Use", "Limits", "Data", "Figures", "Origin"]
    assert headings(model_card(card(), figures([0], [0])))[1:] == plain[1:]


def test_what_the_ledger_measured_is_in_the_card() -> None:
    text = model_card(card(), measured("student_fp32"))
    assert {"Corrupted images and other data", "Prediction sets"} <= set(headings(text))
    rows = {row[0]: row[1:] for row in cells(text)}
    assert rows["noise"][1].startswith("61.0%")
    assert rows["all corruptions"][1].startswith("72.0%")
    assert "0.870" in text
    coverage = [row for row in cells(text) if len(row) == 3]
    assert [row[0] for row in coverage] == ["class", "cat", "dog"]
    assert coverage[1][2].startswith("93.0%")
    assert coverage[2][2] == "–"


def limits_of(test: TestFigures | None) -> str:
    return model_card(card(), test).partition("## Limits")[2].partition("##")[0]


def test_only_what_was_not_measured_is_called_so() -> None:
    missing = "not measured"
    assert missing not in limits_of(measured("student_fp32"))
    assert missing in limits_of(None)
    assert missing in limits_of(figures([0], [0]))
    assert missing in limits_of(measured("best_single")), (
        "another file's figures are not this one's"
    )
    left_out = Robustness(left_out="no time for it")
    assert "no time for it" in limits_of(figures([0], [0], robustness=left_out))


def test_a_model_that_no_gate_released_says_so() -> None:
    test = figures([0, 1], [0, 1])
    none = card(released="none", released_because="accuracy fail")
    assert "accuracy fail" in model_card(none, test)
    assert "accuracy fail" not in model_card(replace(none, released="fp32"), test)


@given(ODD_NAMES)
def test_no_name_is_markup(name: str) -> None:
    about = card(class_names=(name, "dog"), dataset={"name": name}, license=name)
    plain = card(class_names=("cat", "dog"), dataset={"name": "cat"}, license="cat")
    text = model_card(about, measured("student_fp32"))
    assert not controls_in(text)
    assert headings(text)[1:] == headings(model_card(plain, measured("student_fp32")))[1:]
    kinds = [token.type for token in PARSER.parse(text)]
    assert kinds == [t.type for t in PARSER.parse(model_card(plain, measured("student_fp32")))]
    shown = [row[0].split() for row in cells(text)]
    assert printable(name).split() in shown


@pytest.mark.slow
def test_a_run_writes_the_card_of_what_ships(finished_run: Outcome) -> None:
    for network, folder in network_folders(finished_run.folder.student).items():
        about: Card = read_card(folder)
        test = read_test_figures(finished_run.folder.ledger, about, network)
        assert test is not None
        text = (folder / "card.md").read_text()
        assert text == model_card(about, test)
        correct = (test.labels == test.predicted).mean()
        assert test.row.accuracy == pytest.approx(correct)
        assert {row[0] for row in cells(text)} >= {*about.class_names, about.fp32.file}


def test_writing_replaces_an_earlier_card(tmp_path: Path) -> None:
    write_model_card(tmp_path, card())
    path = write_model_card(tmp_path, card(), figures([0], [0]))
    assert path == tmp_path / "card.md"
    assert path.read_text() == model_card(card(), figures([0], [0]))
