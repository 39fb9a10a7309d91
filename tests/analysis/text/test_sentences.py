from collections.abc import Sequence

import pytest

from analysis.text.cells import difference_value
from analysis.text.labels import NOT_DISTINGUISHABLE, metric_label
from analysis.text.ledger import verdict
from analysis.text.sentences import accuracy_text, comparison, comparisons, source_sizes_text
from tests.synthetic.ledger_values import made_comparison
from trainables.data.source_sizes import SourceSizes


@pytest.mark.parametrize(
    ("source_sizes", "expected"),
    [
        (SourceSizes.from_counts({(32, 32, "RGB"): 9}), "32×32 pixels, RGB"),
        (
            SourceSizes.from_counts({(8, 9, "L"): 2, (8, 9, "XY"): 1000}),
            "8×9 pixels; 1,000 XY, 2 grey",
        ),
        (
            SourceSizes.from_counts({(640, 480, "RGB"): 3, (96, 64, "L"): 1}),
            "from 96×64 to 640×480 pixels, median 640×480, 2 different sizes; 3 RGB, 1 grey",
        ),
    ],
)
def test_source_images_are_described_by_size_and_colour(
    source_sizes: SourceSizes, expected: str
) -> None:
    assert source_sizes_text(source_sizes) == expected


def test_an_accuracy_has_its_interval() -> None:
    assert accuracy_text(0.9543, (0.939, 0.966)) == "95.4% (95% interval 93.9–96.6%)"
    assert accuracy_text(0.9543, (0.939, 0.966), 2) == "95.43% (95% interval 93.90–96.60%)"


def test_every_metric_of_a_comparison_has_its_own_verdict() -> None:
    better = made_comparison("A", "B", "accuracy", 0.012, (0.002, 0.025))
    open_ = made_comparison("A", "B", "nll", -0.1, (-0.2, 0.05))
    for item, judged_as in ((better, "better"), (open_, NOT_DISTINGUISHABLE)):
        assert verdict(item) == judged_as
        parts = (judged_as, "B", metric_label(item.metric), *difference_value(item))
        assert in_order(comparison(item, "B"), parts)
    both = comparisons([better, open_], "B")
    assert in_order(
        both,
        ("better", "accuracy", *difference_value(better),
         NOT_DISTINGUISHABLE, "NLL", *difference_value(open_)),
    )  # fmt: skip
    assert difference_value(better) == ("+1.2 points", "+0.2 to +2.5")
    assert difference_value(open_) == ("−0.1000", "−0.2000 to +0.0500")
    assert comparisons([], "B") == ""


def in_order(text: str, parts: Sequence[str]) -> bool:
    """Return whether all parts occur in a text, one after the other."""
    start = 0
    for part in parts:
        start = text.find(part, start) + len(part)
        if start < len(part):
            return False
    return True
