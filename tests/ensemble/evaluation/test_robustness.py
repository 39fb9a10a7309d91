"""Coverage by class, and reasons to measure nothing on corrupted images."""

from pathlib import Path

import numpy as np
import pytest

from common.statistics.conformal import ConformalSet
from ensemble.evaluation.robustness import (
    RobustnessOptions,
    coverage_row,
    on_holdout,
    on_test,
)
from ensemble.ledger.predictions import Predictions
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics
from trainables.records import RunFolder

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


class TestLeftOut:
    """Nothing of the run's folder is read where nothing is measured."""

    @pytest.mark.parametrize(
        ("options", "count", "reason"),
        [
            (RobustnessOptions(enabled=False), 100, "enabled is false"),
            (RobustnessOptions(seconds=0.0), 100, "leaves time for 0 images"),
            (RobustnessOptions(seconds=-5.0), 100, "leaves time for 0 images"),
            (RobustnessOptions(), 40, "test has 40 images"),
        ],
    )
    def test_the_ledger_says_why(
        self, options: RobustnessOptions, count: int, reason: str, tmp_path: Path
    ) -> None:
        images, splits = data(holdout=80, test=count)
        made = Predictions(labels=images.labels[splits.test], stages={})
        result = on_test(
            RunFolder(tmp_path / "none"),
            made,
            images=images,
            splits=splits,
            predict_with=Numerics(),
            options=options,
            holdout_images=0,
            progress=lambda *_: None,
        )
        assert reason in result.left_out
        assert (result.images, result.rows, result.other_data) == (0, (), ())

    @pytest.mark.parametrize(
        ("options", "count"),
        [
            (RobustnessOptions(enabled=False), 100),
            (RobustnessOptions(seconds=0.0), 100),
            (RobustnessOptions(), 40),
        ],
    )
    def test_there_is_no_gate(self, options: RobustnessOptions, count: int, tmp_path: Path) -> None:
        images, splits = data(holdout=count, test=80)
        result = on_holdout(
            RunFolder(tmp_path / "none"),
            images=images,
            splits=splits,
            predict_with=Numerics(),
            options=options,
            progress=lambda *_: None,
        )
        assert result is None


def data(*, holdout: int, test: int) -> tuple[ImageSet, Splits]:
    """Return grey images without a split for training."""
    count = holdout + test
    images = ImageSet(
        name="grey",
        images=np.arange(count, dtype=np.uint8).repeat(8 * 8 * 3).reshape(count, 8, 8, 3),
        labels=np.arange(count) % 2,
        class_names=("a", "b"),
    )
    none, every = np.arange(0), np.arange(count)
    return images, Splits(
        train=none, val=none, holdout=every[:holdout], test=every[holdout:], split_id="s"
    )
