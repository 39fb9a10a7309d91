"""The student's network: budgets, the short sweep, and what a sweep may cost."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DivergedError, SpecError
from ensemble.deployment.gates import GateMargins
from ensemble.deployment.network_cost import NetworkCost, exact_cost, measured_cost
from ensemble.ledger.predictions import StageCost
from ensemble.student.design import (
    SWEEP_SHARE,
    Candidate,
    Design,
    Entrant,
    Judged,
    affordable,
    competing,
    read_design,
    short_sweep,
    write_design,
)
from tests.ensemble.student.test_distillation import IMAGES, SPLITS
from trainables.recipe import Recipe

PLAIN = Recipe(block="plain", activation="relu", whitening=False, epochs=60)


def widths(*values: int) -> list[Candidate]:
    return [Candidate(name=f"w{v}", recipe=PLAIN.with_values(width=v)) for v in values]


def ms(fp32: float, int8: float) -> NetworkCost:
    return NetworkCost(
        fp32=StageCost(bytes=400, latency_ms_batch1=fp32, params=1, gflops=1.0),
        int8=StageCost(bytes=100, latency_ms_batch1=int8, params=1, gflops=1.0),
    )


def judge(margins: GateMargins, most: int = 4) -> tuple[list[Candidate], list[Judged]]:
    """Judge three networks, of which a call takes a millisecond for four channels."""
    return affordable(
        widths(16, 8, 4),
        margins,
        most=most,
        images=IMAGES,
        splits=SPLITS,
        measure=lambda recipe: ms(recipe.architecture.width / 4, recipe.architecture.width / 8),
    )


def names(candidates: list[Candidate]) -> list[str]:
    return [candidate.name for candidate in candidates]


def test_without_budgets_the_preferred_candidates_compete_unmeasured() -> None:
    chosen, judged = judge(GateMargins(), most=2)
    assert names(chosen) == ["w16", "w8"]
    assert [each.params for each in judged] == [None, None]


def test_candidates_over_a_budget_are_left_out() -> None:
    chosen, judged = judge(GateMargins(max_latency_ms=1.5))
    assert names(chosen) == ["w8", "w4"]
    assert [each.over for each in judged] == [("latency_ms",), (), ()]
    assert [each.latency_ms for each in judged] == [2.0, 1.0, 0.5]
    few, judged = judge(GateMargins(max_latency_ms=1.5), most=1)
    assert (names(few), len(judged)) == (["w8"], 2)
    counts = [exact_cost(each.recipe, classes=3, image_size=8).fp32 for each in widths(16, 8, 4)]
    assert counts[1].params is not None
    assert names(judge(GateMargins(max_params=counts[1].params))[0]) == ["w8", "w4"]
    assert names(judge(GateMargins(max_gflops=counts[2].gflops))[0]) == ["w4"]


def test_a_lucky_measurement_does_not_decide() -> None:
    """The first time is half of the others."""
    times: dict[int, list[float]] = {16: [0.9, 1.8], 8: [0.5, 1.0], 4: [0.2, 0.4]}

    def measure(recipe: Recipe) -> NetworkCost:
        time = times[recipe.architecture.width].pop(0)
        return ms(2 * time, time)

    chosen, judged = affordable(
        widths(16, 8, 4),
        GateMargins(max_latency_ms=1.1),
        most=4,
        images=IMAGES,
        splits=SPLITS,
        measure=measure,
    )
    assert names(chosen) == ["w8", "w4"]
    assert [each.latency_ms for each in judged] == [1.8, 1.0, 0.4]


def test_a_budget_that_nothing_keeps_names_the_cheapest_candidate() -> None:
    with pytest.raises(SpecError, match=r"max_latency_ms 0\.1.*w4.*0\.5 ms"):
        judge(GateMargins(max_latency_ms=0.1))
    with pytest.raises(SpecError, match=r"max_params 3.*w4"):
        judge(GateMargins(max_params=3))


def test_one_of_the_two_files_has_to_keep_all_budgets() -> None:
    """The small file is the slow one: neither alone keeps both budgets."""
    cost = ms(fp32=1.0, int8=2.0)
    assert not cost.over(GateMargins(max_latency_ms=1.5))
    assert not cost.over(GateMargins(max_bytes=200))
    assert cost.over(GateMargins(max_bytes=200, max_latency_ms=1.5))


def test_costs_do_not_depend_on_training(tmp_path: Path) -> None:
    images = np.zeros((32, 8, 8, 3), np.uint8)
    small, large = (measured_cost(each.recipe, images, classes=3) for each in widths(4, 32))
    for cost in (small, large):
        assert cost.fp32.bytes is not None
        assert cost.int8.bytes is not None
        assert cost.int8.latency_ms_batch1 is not None
        assert cost.fp32.params == cost.int8.params
    assert large.fp32.bytes > small.fp32.bytes  # type: ignore[operator]
    assert large.int8.bytes < large.fp32.bytes  # type: ignore[operator]


def test_arithmetic_counts_two_operations_for_each_multiplication() -> None:
    """A wide residual net of timm's size would hide an error: one linear layer cannot."""
    architecture = PLAIN.with_values(width=4, depth=1)
    cost = exact_cost(architecture, classes=3, image_size=8).fp32
    # Blocks of 3×3 convolutions at 8, 4 and 2 px with 4, 8 and 16 channels; then 16 → 3.
    multiplications = 9 * (64 * 3 * 4 + 16 * 4 * 8 + 4 * 8 * 16) + 16 * 3
    assert cost.gflops == pytest.approx(2 * multiplications / 1e9)


class Race:
    """Entrants whose NLL falls with every epoch, at known rates; a rate of 0 diverges."""

    def __init__(self, rates: list[float], epochs: int = 60) -> None:
        self.trained: dict[str, int] = {}
        self.rates = rates
        self.recipe = PLAIN.with_values(epochs=epochs)

    def entrants(self) -> list[Entrant]:
        def until(index: int) -> Entrant:
            name = f"n{index}"

            def train_until(epochs: int) -> float:
                if not self.rates[index]:
                    raise DivergedError("the loss became nan")
                self.trained[name] = max(epochs, self.trained.get(name, 0))
                return math.exp(-self.rates[index] * epochs)

            return Entrant(name=name, recipe=self.recipe, train_until=train_until)

        return [until(index) for index in range(len(self.rates))]

    def run(self) -> Design:
        judged = [Judged(name=f"n{i}", start=None) for i in range(len(self.rates))]
        return short_sweep(self.entrants(), judged)


def test_the_better_half_goes_on_until_one_is_left() -> None:
    race = Race([0.1, 0.4, 0.2, 0.3])
    design = race.run()
    assert design.chosen == "n1"
    rungs = {each.name: each.epochs for each in design.candidates}
    assert rungs == {"n0": (3,), "n1": (3, 6), "n2": (3,), "n3": (3, 6)}


def test_a_candidate_that_diverges_leaves_the_others_in_the_sweep(tmp_path: Path) -> None:
    design = Race([0, 0.2, 0.3, 0]).run()
    assert design.chosen == "n2"
    diverged = {each.name for each in design.candidates if each.diverged}
    assert diverged == {"n0", "n3"}
    write_design(tmp_path, design)
    assert read_design(tmp_path) == design
    none_left = Race([0, 0]).run()
    assert none_left.chosen == "n0"
    assert "diverged" in none_left.because


def test_a_single_candidate_trains_nothing_in_advance() -> None:
    race = Race([0.1])
    assert (race.run().chosen, race.trained) == ("n0", {})


def test_short_schedules_let_fewer_candidates_compete() -> None:
    assert [competing([PLAIN.with_values(epochs=e)] * 4) for e in (60, 18, 8, 3)] == [4, 3, 2, 1]
    short = Race([0.1, 0.9], epochs=3)
    assert short.run().chosen == "n0", "the preferred one"


@given(rates=st.lists(st.floats(0.01, 1), min_size=1, max_size=7), epochs=st.integers(1, 200))
def test_a_sweep_keeps_its_share_and_ends_before_the_cooldown(
    rates: list[float], epochs: int
) -> None:
    race = Race(rates, epochs)
    design = race.run()
    assert sum(race.trained.values()) <= SWEEP_SHARE * epochs
    assert race.trained.get(design.chosen, 0) <= epochs - math.floor(0.34 * epochs + 0.5)


def test_a_design_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_design(tmp_path) is None
    design = Race([0.1, 0.2]).run()
    write_design(tmp_path, design)
    assert read_design(tmp_path) == design
