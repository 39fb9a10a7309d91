"""Coverage by class."""

import numpy as np
import pytest

from common.statistics.conformal import ConformalSet
from ensemble.evaluation.robustness import coverage_row

FITTED = ConformalSet(threshold=0.3, level=0.9, images=50)


def test_coverage_and_size_are_counted_by_class() -> None:
    probabilities = np.array(
        [[0.6, 0.4, 0.0], [0.6, 0.31, 0.09], [0.2, 0.2, 0.6], [0.34, 0.33, 0.33]], np.float32
    )
    labels = np.array([0, 0, 1, 1])
    with np.errstate(divide="ignore"):
        row = coverage_row("ensemble", FITTED, np.log(probabilities), labels, classes=3)
    assert row.coverage == 0.75
    assert row.mean_size == pytest.approx((2 + 2 + 1 + 3) / 4)
    assert row.single == 0.25
    assert [item.images for item in row.by_class] == [2, 2, 0]
    assert [item.coverage for item in row.by_class] == [1.0, 0.5, 0.0]
    for item in row.by_class:
        assert item.interval[0] <= item.coverage <= item.interval[1]
    assert (row.level, row.threshold, row.calibration_images) == (0.9, 0.3, 50)
