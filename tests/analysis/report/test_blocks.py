import json

import pytest

from analysis.report.blocks import (
    Bullets,
    Cell,
    Code,
    Figure,
    KeyFigure,
    Pairs,
    Report,
    Section,
    Table,
    Text,
    pairs,
    report_json,
    section,
    table,
    text,
    verdict_cell,
)


def test_empty_blocks_are_left_out() -> None:
    assert text("", "One.", "", "Two.") == Text(text="One. Two.")
    assert text("", "") is None
    assert table(("a",), [], "l") is None
    assert pairs([("a", "1"), ("b", "")]) == Pairs(rows=(("a", "1"),))
    assert pairs([("b", "")]) is None
    assert section("t", None, Text(text="x"), None).blocks == (Text(text="x"),)


def test_a_row_must_have_the_columns_of_its_header() -> None:
    with pytest.raises(ValueError, match="has 3 columns, the header has 2"):
        table(("a", "b"), [("1", "2", "3")], "lr")
    with pytest.raises(ValueError, match="has 1 columns, the header has 2"):
        table(("a", "b"), [("1", "2")], "l")


def test_a_column_is_found_by_its_name() -> None:
    made = table(("a", "b"), [("1", verdict_cell("pass")), ("2", "x")], "ll")
    assert made is not None
    assert made.column("b") == ("pass", "x")


@pytest.mark.parametrize(
    ("verdict", "tone"),
    [("pass", "good"), ("worse", "bad"), ("not distinguishable", "open"), ("other", "plain")],
)
def test_verdicts_are_coloured(verdict: str, tone: str) -> None:
    assert verdict_cell(verdict) == Cell(text=verdict, tone=tone)  # type: ignore[arg-type]


def test_every_block_has_its_json() -> None:
    blocks = (
        Text(text="t"),
        Bullets(items=("a", "b")),
        Code(lines=("a", "b")),
        Figure(name="cost", caption="c"),
        Table(header=("a",), rows=((Cell(text="pass", tone="good"),), ("x",)), align="r"),
        Pairs(rows=(("a", "1"),), caption="p"),
    )
    report = Report(
        title="run", description="d", date="", fonts=("F",), summary=("Ship it.",),
        key_figures=(KeyFigure(title="size", value="1 kB", note="n"),),
        sections=(Section(title="s", blocks=blocks),),
    )  # fmt: skip
    values = json.loads(json.dumps(report_json(report)))
    assert values["key_figures"] == [{"title": "size", "value": "1 kB", "note": "n"}]
    assert values["sections"][0]["blocks"] == [
        {"kind": "text", "text": "t"},
        {"kind": "bullets", "items": ["a", "b"]},
        {"kind": "code", "text": "a\nb"},
        {"kind": "figure", "path": "/figures/cost.png", "caption": "c"},
        {"kind": "table", "header": ["a"], "rows": [[{"text": "pass", "tone": "good"}], ["x"]],
         "align": ["r"], "caption": ""},
        {"kind": "pairs", "rows": [["a", "1"]], "caption": "p"},
    ]  # fmt: skip
