"""The release decision: the rule's cases, and what holds for every set of candidates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.deployment.card import Speedup
from ensemble.deployment.decision import NETWORKS, Decision, decide
from ensemble.deployment.gates import GateMargins
from ensemble.ledger.ledger import NOTHING
from ensemble.ledger.predictions import FILES, Predictions, StageCost

Array = np.ndarray[Any, Any]

MARGINS = GateMargins(max_accuracy_loss=0.02)
SPEEDUPS = {network: Speedup(value=2.0, bound=1.8, level=0.95, repeats=50) for network in NETWORKS}
SMALL, LARGE = (1000.0, 0.1), (4000.0, 0.4)
"""Bytes, and milliseconds for one image."""


def predictions(correct: Mapping[str, Array], confidence: float = 0.9) -> Predictions:
    """Return predictions of two classes, given where each stage is right, bool [N]."""
    examples = len(next(iter(correct.values())))
    right, wrong = np.log([confidence, 1 - confidence]), np.log([1 - confidence, confidence])
    return Predictions(
        labels=np.zeros(examples, dtype=np.int64),
        stages={
            stage: np.where(hits[:, None], right, wrong).astype(np.float32)
            for stage, hits in correct.items()
        },
    )


def errors(counts: Mapping[str, int], examples: int = 2000) -> Predictions:
    """Return predictions in which each stage is wrong on the first `counts[stage]` examples."""
    index = np.arange(examples)
    return predictions({stage: index >= count for stage, count in counts.items()})


def costs(sizes: Mapping[str, tuple[float, float]]) -> dict[str, StageCost]:
    """Return costs from bytes and milliseconds; int8 is a third of the size and half as slow."""
    return {
        stage: StageCost(
            params=1000,
            bytes=round(size / (3 if FILES[stage][1] == "int8" else 1)),
            latency_ms_batch1=latency / (2 if FILES[stage][1] == "int8" else 1),
        )
        for stage, (size, latency) in sizes.items()
    }


def decided(
    counts: Mapping[str, int],
    *,
    single: tuple[float, float] = SMALL,
    student: tuple[float, float] = SMALL,
    **options: Any,
) -> Decision:
    """Decide between the files in `counts`, which also has the ensemble's errors."""
    sizes = {
        stage: single if FILES[stage][0] == "best_single" else student
        for stage in counts
        if stage in FILES
    }
    options = {"margins": MARGINS, "speedups": SPEEDUPS, **options}
    return decide(errors(counts), costs(sizes), **options)


def test_the_int8_file_ships_if_it_keeps_its_gates() -> None:
    release = decided({"ensemble": 100, "student_fp32": 102, "student_int8": 104})
    assert (release.released, release.passed) == ("student_int8", True)
    assert {gate.verdict for gate in release.gates} == {"pass"}


def test_fp32_ships_instead_of_an_int8_file_that_lost_too_much() -> None:
    release = decided({"ensemble": 100, "student_fp32": 101, "student_int8": 125})
    assert release.released == "student_fp32"
    assert "nll_gain fail" in release.because
    assert [gate.name for gate in release.gates] == ["accuracy_loss"]
    assert release.passed


def test_a_slow_int8_file_does_not_ship() -> None:
    slow = Speedup(value=0.7, bound=0.65, level=0.95, repeats=50)
    counts = {"ensemble": 100, "student_fp32": 101, "student_int8": 102}
    assert decided(counts, speedups={"student": slow}).released == "student_fp32"


def test_nothing_ships_if_every_file_is_far_from_the_ensemble() -> None:
    files = dict.fromkeys(FILES, 600)
    release = decided({"ensemble": 200, **files})
    assert (release.released, release.passed) == (NOTHING, False)
    assert {gate.stage for gate in release.gates} == set(FILES)


def test_without_files_nothing_ships() -> None:
    release = decide(errors({"ensemble": 5}), {}, MARGINS, speedups={})
    assert (release.released, release.candidates, release.passed) == (NOTHING, (), False)


class TestTheStudentEarnsItsPlace:
    def release(self, wrong: int, **options: Any) -> str:
        counts = {"ensemble": 100, "student_fp32": wrong, "student_int8": wrong}
        return decided(
            {**counts, **dict.fromkeys(("best_single", "best_single_int8"), 105)}, **options
        ).released

    def test_by_accuracy(self) -> None:
        assert self.release(80, student=LARGE, single=SMALL) == "student_int8"

    def test_by_size_and_speed(self) -> None:
        assert self.release(107, student=SMALL, single=LARGE) == "student_int8"

    def test_not_by_the_same_accuracy(self) -> None:
        assert self.release(105) == "best_single_int8"
        assert self.release(104, student=LARGE) == "best_single_int8"

    def test_not_where_it_is_less_accurate(self) -> None:
        assert self.release(130, student=SMALL, single=LARGE) == "best_single_int8"

    def test_not_where_it_lost_what_the_search_found(self) -> None:
        assert self.release(600, student=SMALL, single=LARGE) == "best_single_int8"


def test_a_better_twin_ships_instead_of_the_student() -> None:
    counts = {"ensemble": 100, "student_fp32": 125, "student_int8": 126, "student_plain": 102}
    assert decided(counts).released == "student_plain"
    assert decided({**counts, "student_plain_int8": 103}).released == "student_plain_int8"


def test_files_over_a_budget_do_not_ship() -> None:
    counts = {"ensemble": 100, **dict.fromkeys(FILES, 101)}
    for margins in (
        GateMargins(max_accuracy_loss=0.02, max_bytes=1000),
        GateMargins(max_accuracy_loss=0.02, max_latency_ms=0.1),
    ):
        release = decided(counts, single=LARGE, margins=margins)
        assert release.released == "student_int8"
        assert any("fail" in item.outcome for item in release.candidates)


def test_corrupted_images_alone_do_not_let_a_dominated_file_ship() -> None:
    counts = {"ensemble": 100, "best_single": 104, "student_fp32": 102}
    corrupted = errors({"ensemble": 100, "best_single": 110, "student_fp32": 600})
    sizes = {"best_single": LARGE, "student_fp32": SMALL}
    release = decide(errors(counts), costs(sizes), MARGINS, speedups=SPEEDUPS, corrupted=corrupted)
    assert release.released == "student_fp32"
    assert not release.passed
    larger = {"best_single": SMALL, "student_fp32": LARGE}
    release = decide(errors(counts), costs(larger), MARGINS, speedups=SPEEDUPS, corrupted=corrupted)
    assert release.released == "best_single"


def test_a_file_that_is_no_better_than_one_that_failed_does_not_ship() -> None:
    """The small file makes the ensemble's errors and more; those of the large one are others."""
    index = np.arange(2000)
    small = index >= 258
    large = (index >= 200) & (index < 1840) | (index < 100)
    assert small.sum() > large.sum()
    ensemble = {"ensemble": index >= 200}
    sizes = {"best_single": LARGE, "student_fp32": SMALL}
    both = predictions({**ensemble, "best_single": large, "student_fp32": small})
    alone = predictions({**ensemble, "best_single": large})
    assert decide(alone, costs(sizes), MARGINS, speedups={}).released == "best_single"
    release = decide(both, costs(sizes), MARGINS, speedups={})
    assert release.released == NOTHING
    outcomes = {item.stage: item.outcome for item in release.candidates}
    assert outcomes["student_fp32"] == "accuracy_loss fail"
    assert "student_fp32, which failed accuracy_loss" in outcomes["best_single"]
    # Another file that is better than both still ships.
    third = {"student_plain": index >= 210}
    sizes["student_plain"] = (8000.0, 0.8)
    release = decide(
        predictions({**ensemble, "best_single": large, "student_fp32": small, **third}),
        costs(sizes), MARGINS, speedups={},
    )  # fmt: skip
    assert release.released == "student_plain"


def test_repeated_decisions_make_it_harder_for_a_student_to_earn_its_place() -> None:
    """Eight disagreements, all in its favour, are clear at first, and chance at the 20th try."""
    counts = {"ensemble": 100, "best_single": 112, "student_fp32": 104}
    assert decided(counts).released == "student_fp32"
    assert decided(counts, decisions=20).released == "best_single"


def test_every_further_decision_on_the_same_images_raises_the_bar() -> None:
    counts = {"ensemble": 100, "student_fp32": 120, "student_int8": 121}
    first, tenth = decided(counts), decided(counts, decisions=10)
    early, late = first.gates[0].bound, tenth.gates[0].bound
    assert early is not None
    assert late is not None
    assert late > early
    assert tenth.decisions == 10


def some_ledger(rng: np.random.Generator, examples: int) -> tuple[Predictions, Predictions, Any]:
    """Return holdout, test and costs of files with related errors, drawn at random."""
    accuracies = {"ensemble": rng.uniform(0.75, 0.99)}
    sizes = {}
    for network in NETWORKS:
        of_network = accuracies["ensemble"] - abs(rng.normal(0, 0.015))
        size = (float(rng.integers(500, 5000)), float(rng.uniform(0.05, 1.0)))
        for stage in (stage for stage, file in FILES.items() if file[0] == network):
            if rng.random() < 0.85:
                drop = abs(rng.normal(0, 0.004)) if FILES[stage][1] == "int8" else 0.0
                accuracies[stage] = of_network - drop
                sizes[stage] = size
    drawn = []
    for _ in range(2):
        hard = rng.random(examples)
        noise = {stage: rng.random(examples) for stage in accuracies}
        drawn.append(
            predictions(
                {
                    stage: np.where(rng.random(examples) < 0.15, noise[stage], hard) < share
                    for stage, share in accuracies.items()
                }
            )
        )
    return drawn[0], drawn[1], costs(sizes)


def beaten(released: str, split: Predictions, costs: Mapping[str, StageCost]) -> list[str]:
    """Return the files that are more accurate than the released one, smaller and faster."""

    def figures(stage: str) -> tuple[float, float, float]:
        cost, hits = costs[stage], split.stages[stage].argmax(axis=1) == split.labels
        assert cost.bytes is not None
        assert cost.latency_ms_batch1 is not None
        return (-float(hits.mean()), cost.bytes, cost.latency_ms_batch1)

    ours = figures(released)
    return [
        stage for stage in costs if all(a < b for a, b in zip(figures(stage), ours, strict=True))
    ]


@given(seed=st.integers(0, 2**32 - 1), examples=st.sampled_from([60, 400, 3000]))
def test_no_released_file_is_beaten_by_another_of_its_ledger(seed: int, examples: int) -> None:
    holdout, _, files = some_ledger(np.random.default_rng(seed), examples)
    release = decide(holdout, files, MARGINS, speedups=SPEEDUPS)
    if release.released == NOTHING:
        return
    assert beaten(release.released, holdout, files) == []
    assert not any(gate.verdict == "fail" for gate in release.gates)
    outcomes = [item.outcome for item in release.candidates]
    assert outcomes.count("released") == 1
    assert all(outcomes)


def test_on_unseen_images_a_released_file_is_hardly_ever_beaten() -> None:
    # The decision sees holdout only. Each of 400 releases chooses from files of random accuracies
    # and sizes. With this seed, 7 are beaten on test in accuracy, size and latency at once; if a
    # large file shipped wherever it alone passes its gates, 40 would be.
    rng = np.random.default_rng(0)
    losses = 0
    for _ in range(400):
        holdout, test, files = some_ledger(rng, 1000)
        release = decide(holdout, files, MARGINS, speedups=SPEEDUPS)
        losses += release.released != NOTHING and bool(beaten(release.released, test, files))
    assert losses <= 12


@pytest.mark.parametrize("network", NETWORKS)
def test_a_single_file_ships_if_it_is_good_enough(network: str) -> None:
    fp32 = next(stage for stage, kind in FILES.items() if kind == (network, "fp32"))
    assert decided({"ensemble": 100, fp32: 101}).released == fp32
