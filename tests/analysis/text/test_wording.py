import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.text import wording
from trainables.data.source_sizes import SourceSizes

finite = st.floats(-1e12, 1e12)


@pytest.mark.parametrize(
    ("source_sizes", "expected"),
    [
        (SourceSizes.from_counts({(32, 32, "RGB"): 9}), "32×32 pixels, RGB"),
        (
            SourceSizes.from_counts({(8, 9, "L"): 2, (8, 9, "XY"): 1000}),
            "8×9 pixels; 1,000 XY, 2 grey",
        ),
    ],
)
def test_source_sizes_are_described(source_sizes: SourceSizes, expected: str) -> None:
    assert wording.source_sizes_text(source_sizes) == expected


@given(finite, finite, st.sampled_from(["accuracy", "balanced_accuracy", "nll", "brier"]))
def test_verdict_turns_round_with_the_difference(a: float, b: float, metric: str) -> None:
    low, high = sorted((a, b))
    item = {
        "a": "x",
        "b": "y",
        "metric": metric,
        "value": (low + high) / 2,
        "interval": [low, high],
    }
    turned = wording.difference_of({"differences": [item]}, "y", "x", metric)
    assert turned is not None
    opposite = {"better": "worse", "worse": "better"}
    found = wording.verdict(item)
    assert wording.verdict(turned) == opposite.get(found, found)
    assert (found == "not distinguishable") == (low <= 0 <= high)


def test_an_exact_test_in_the_ledger_overrules_the_interval() -> None:
    item = {"metric": "accuracy", "interval": [0.001, 0.02], "verdict": "not distinguishable"}
    assert wording.verdict(item) == "not distinguishable"
    assert wording.verdict({**item, "verdict": "distinguishable"}) == "better"
    assert wording.verdict({**item, "verdict": "distinguishable", "metric": "nll"}) == "worse"
