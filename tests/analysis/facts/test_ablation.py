"""The result of an ablation: effects over paired seeds, corrected for the number of factors."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis.facts.ablation import AblationResult, compare_variants, write_ablation
from analysis.figures.ablation import ablation_figure, save_ablation_figure
from analysis.figures.style import drawing
from analysis.terminal.ablation_tables import ablation_table
from common.errors import RunError
from common.files import write_array, write_arrays
from common.parsing import to_mapping
from common.statistics.metrics import accuracy, log_probs_from_probs, nll
from common.statistics.paired_differences import holm
from journal.events import Status
from search.ablation.ablation import ALL, Ablation, ablation_of, trial_name
from tests.analysis.figures.made import faults, points, row_names
from tests.rendering import shown
from trainables.recipe import Recipe
from trainables.records import RunFolder, TrialRecord, write_record

RECIPE = Recipe(epochs=4, flip=False)

LABELS = np.arange(40) % 4


def ablation(seeds: int = 5) -> Ablation:
    return ablation_of(RECIPE, names=("ema", "whitening"), seeds=seeds)


def write_trial(
    folder: RunFolder, name: str, wrong: Sequence[int], *, status: Status = "completed"
) -> np.ndarray:
    """Write a training whose confident predictions are wrong for the images `wrong`."""
    predictions = LABELS.copy()
    predictions[list(wrong)] += 1
    probs = np.full((40, 4), 0.05) + 0.8 * np.eye(4)[predictions % 4]
    log_probs: np.ndarray = log_probs_from_probs(probs)
    trial = folder.trial(name)
    trial.mkdir(parents=True)
    write_array(trial / "holdout.npy", log_probs)
    record = TrialRecord(
        trial=name, kind="search", status=status, split_id="a", steps=4, rung=4,
        whole_schedule=status == "completed", seconds=2.0, peak_memory_bytes=1, params=1,
        metrics={"temperature": 1.0},
    )  # fmt: skip
    write_record(trial, record)
    return log_probs


MISTAKES = {"full": (4, 5, 6, 4), "no-ema": (8, 8, 9, 9), "no-whitening": (4, 6, 5, 4),
            "bare": (9, 12, 0, 10)}  # fmt: skip
"""Images that each of the first four seeds gets wrong, by variant."""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run of five seeds: the last is incomplete, the third has a variant that failed."""
    run = RunFolder(tmp_path / "runs" / "digits-ablation")
    for variant, counts in MISTAKES.items():
        for seed, count in enumerate(counts):
            failed: Status = "failed" if count == 0 else "completed"
            write_trial(run, trial_name(variant, seed), range(count), status=failed)
    write_trial(run, "full-4", range(30))
    write_arrays(run.labels, {"holdout": LABELS, "val": LABELS})
    return run


def test_an_effect_is_the_mean_difference_over_complete_seeds(folder: RunFolder) -> None:
    result = compare_variants(folder, ablation(), RECIPE)
    assert (result.seeds, result.seeds_planned, result.examples) == (4, 5, 40)
    full, ema = result.variants[:2]
    assert full.accuracy == pytest.approx(1 - np.mean(MISTAKES["full"]) / 40)
    assert (ema.changes, ema.failed, ema.train_seconds) == ({"ema_decay": 0.0}, 0, 2.0)
    effects = result.by_factor
    assert list(effects) == ["ema", "whitening", ALL]
    worth = (np.array(MISTAKES["no-ema"]) - MISTAKES["full"]) / 40
    accuracy_of_ema = effects["ema"]["accuracy"]
    assert accuracy_of_ema.by_seed == pytest.approx(worth.tolist())
    assert accuracy_of_ema.value == pytest.approx(worth.mean())
    test = stats.ttest_1samp(worth, 0)
    assert accuracy_of_ema.p_value == pytest.approx(test.pvalue)
    assert accuracy_of_ema.interval == pytest.approx(tuple(test.confidence_interval(0.95)))
    for metric in ("accuracy", "nll"):
        items = [metrics[metric] for metrics in effects.values()]
        assert [item.p_holm for item in items] == holm([item.p_value or 0 for item in items])
    assert accuracy_of_ema.direction == effects["ema"]["nll"].direction == "helps"
    assert effects["whitening"]["accuracy"].direction == "not distinguishable"


def test_scores_are_taken_on_holdout_and_a_negated_effect_harms(folder: RunFolder) -> None:
    log_probs = write_trial(folder, "elsewhere", range(9))
    result = compare_variants(folder, ablation(), RECIPE)
    seed = 2  # without ema it is wrong nine times
    full = np.load(folder.trial(trial_name("full", seed)) / "holdout.npy")
    for metric, score in (("accuracy", accuracy), ("nll", nll)):
        item = result.by_factor["ema"][metric]
        assert item.by_seed[seed] == pytest.approx(score(full, LABELS) - score(log_probs, LABELS))
        assert item.value is not None
        assert replace(item, value=-item.value).direction == "harms"


def test_a_failed_training_is_left_out_with_its_pair_and_counted(folder: RunFolder) -> None:
    result = compare_variants(folder, ablation(), RECIPE)
    bare, item = result.variants[3], result.by_factor[ALL]["accuracy"]
    assert (bare.failed, item.seeds) == (1, 3)
    assert item.by_seed == pytest.approx((5 / 40, 7 / 40, 6 / 40))


def test_without_a_complete_seed_nothing_is_compared(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_trial(folder, "full-0", range(3))
    with pytest.raises(RunError, match=r"4 trainings.*--resume"):
        compare_variants(folder, ablation(), RECIPE)


def test_a_single_seed_has_no_interval(folder: RunFolder) -> None:
    result = compare_variants(folder, ablation(seeds=1), RECIPE)
    item = result.by_factor["ema"]["accuracy"]
    assert (item.interval, item.p_holm, item.direction) == (None, None, "not distinguishable")


def test_the_result_is_written_as_json_and_csv(folder: RunFolder) -> None:
    result = write_ablation(folder, ablation(), RECIPE)
    assert json.loads((folder.root / "ablation.json").read_text()) == to_mapping(result)
    header, *rows = (folder.root / "ablation.csv").read_text().splitlines()
    assert header == (
        "factor,metric,full,without,worth,worth_interval_low,worth_interval_high,p_value,p_holm,"
        "effect,seeds,failed"
    )
    assert [row.split(",")[:2] for row in rows[:3]] == [
        ["ema", "accuracy"], ["ema", "nll"], ["whitening", "accuracy"],
    ]  # fmt: skip


@pytest.fixture
def result(folder: RunFolder) -> AblationResult:
    return compare_variants(folder, ablation(), RECIPE)


def test_the_table_shows_effects_failures_and_incomplete_seeds(result: AblationResult) -> None:
    table = ablation_table(result)
    lines = shown(table, 80)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert (result.seeds, result.epochs, result.examples, result.seeds_planned) == (4, 4, 40, 5)
    assert re.findall(r"\d+", str(table.title)) == ["4", "4", "40"]
    assert re.findall(r"\d+", str(table.caption).splitlines()[-1]) == ["1", "5"]
    assert [variant.failed for variant in result.variants].count(1) == text.count("1 failed") == 1
    assert all(word in text for word in ("helps", "not distinguishable", "all of them"))


def test_a_single_seed_is_shown_without_an_interval(folder: RunFolder) -> None:
    result = compare_variants(folder, ablation(seeds=1), RECIPE)
    lines = shown(ablation_table(result), 80)
    assert any("+10.0" in line and "–" in line for line in lines)
    with drawing():
        assert faults(ablation_figure(result)) == []


def test_the_figure_sorts_effects_and_fills_the_distinguishable(
    result: AblationResult, tmp_path: Path
) -> None:
    with drawing():
        figure = ablation_figure(result)
        assert faults(figure) == []
    by_accuracy, by_nll = figure.axes
    assert row_names(by_accuracy) == ["ema", "whitening", "all of them"]
    for axes, metric, scale in ((by_accuracy, "accuracy", 100), (by_nll, "nll", 1)):
        effects = [result.by_factor[factor][metric] for factor in ("ema", "whitening", ALL)]
        marks = [point for point in points(axes) if point.y in (0, 1, 2)]
        assert [p.x for p in marks] == pytest.approx([scale * (e.value or 0) for e in effects])
        assert [p.filled for p in marks] == [e.direction == "helps" for e in effects]
    save_ablation_figure(result, tmp_path / "ablation.png")
    assert (tmp_path / "ablation.png").read_bytes()[:4] == b"\x89PNG"
