"""The model card in Markdown: its figures, and names that are no markup."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from markdown_it import MarkdownIt
from markdown_it.token import Token

from common.printable import printable
from common.statistics.intervals import proportion_interval
from ensemble.deployment.card import Card, read_card
from ensemble.deployment.model_card import (
    Section,
    TestFigures,
    model_card,
    read_test_figures,
    write_model_card,
)
from ensemble.deployment.student_folder import network_folders
from quorum import Outcome
from tests.ensemble.deployment.test_card import card
from tests.names import ODD_NAMES, controls_in
from tests.synthetic.ledger_values import made_ledger, made_row

PARSER = MarkdownIt("commonmark").enable("table")


def figures(labels: list[int], predicted: list[int]) -> TestFigures:
    row = made_row("student_fp32")
    return TestFigures(
        ledger=made_ledger(row), row=row, labels=np.array(labels), predicted=np.array(predicted)
    )


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
    more = [Section(title="Corrupted images", text="| a |\n| --- |\n| 1 |")]
    assert headings(model_card(card(), figures([0], [0]), more=more))[-2] == "Corrupted images"


def test_a_model_that_no_gate_released_says_so() -> None:
    test = figures([0, 1], [0, 1])
    none = card(released="none", released_because="accuracy fail")
    assert "accuracy fail" in model_card(none, test)
    assert "accuracy fail" not in model_card(replace(none, released="fp32"), test)


@given(ODD_NAMES)
def test_no_name_is_markup(name: str) -> None:
    about = card(class_names=(name, "dog"), dataset={"name": name}, license=name)
    plain = card(class_names=("cat", "dog"), dataset={"name": "cat"}, license="cat")
    text = model_card(about, figures([0, 1], [0, 1]))
    assert not controls_in(text)
    assert headings(text)[1:] == headings(model_card(plain))[1:]
    kinds = [token.type for token in PARSER.parse(text)]
    assert kinds == [t.type for t in PARSER.parse(model_card(plain, figures([0, 1], [0, 1])))]
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
