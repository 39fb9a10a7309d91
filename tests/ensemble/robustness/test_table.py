"""Rows on corrupted images are the metrics of their images; differences are paired."""

from dataclasses import replace

import numpy as np
import pytest

from common.errors import PoolError
from common.statistics.metrics import accuracy, ece, nll
from ensemble.ledger.predictions import FILES, STAGES, Predictions
from ensemble.robustness.corruptions import FAMILIES
from ensemble.robustness.table import corrupted_differences, corrupted_rows
from tests.pools import stage_predictions

CORRUPTED, CLEAN = stage_predictions(0), stage_predictions(1)
NAMES = np.array([FAMILIES[i % 4] for i in range(150)])


def test_there_is_a_row_for_every_stage_and_family_with_its_metrics() -> None:
    rows = corrupted_rows(CORRUPTED, CLEAN, NAMES, seed=0)
    assert [row.stage for row in rows[::6]] == list(STAGES)
    for row in rows:
        made = CLEAN if row.family == "clean" else CORRUPTED
        chosen = np.isin(NAMES, row.family) | (row.family in ("clean", "all"))
        log_probs, labels = made.stages[row.stage][chosen], made.labels[chosen]
        assert row.images == chosen.sum()
        assert row.accuracy == accuracy(log_probs, labels)
        assert (row.nll, row.ece) == (nll(log_probs, labels), ece(log_probs, labels))
        low, high = row.accuracy_interval
        assert low < row.accuracy <= high


def test_a_family_without_images_has_no_row() -> None:
    rows = corrupted_rows(CORRUPTED, CLEAN, np.full(150, "blur"), seed=0)
    assert {row.family for row in rows} == {"clean", "blur", "all"}


def test_every_file_is_compared_with_the_ensemble() -> None:
    found = corrupted_differences(CORRUPTED, seed=0)
    pairs = {(item.a, item.b) for item in found}
    assert ("ensemble", "best_single") in pairs
    assert {a for a, b in pairs if b == "ensemble"} == set(FILES) - {"best_single"}
    for item in found:
        if item.metric == "accuracy":
            a, b = (accuracy(CORRUPTED.stages[s], CORRUPTED.labels) for s in (item.a, item.b))
            assert item.value == pytest.approx(a - b)
    without = replace(CORRUPTED, stages={"best_single": CORRUPTED.stages["best_single"]})
    assert corrupted_differences(without, seed=0) == ()


def test_predictions_that_do_not_fit_are_refused() -> None:
    wrong = Predictions(labels=CORRUPTED.labels[:9], stages=CORRUPTED.stages)
    with pytest.raises(PoolError, match="expected log-probabilities"):
        corrupted_rows(wrong, CLEAN, NAMES, seed=0)
