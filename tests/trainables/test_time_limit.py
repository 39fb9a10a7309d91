"""A trial that is late begins its cooldown early."""

from typing import Literal

import pytest

from trainables.recipe import Recipe
from trainables.stages import Stage
from trainables.time_limit import TimeLimit
from trainables.trainer import EpochReport

Phase = Literal["trunk", "cooldown"]


def report_of(epoch: int, *, phase: Phase = "trunk", seconds: float = 10.0) -> EpochReport:
    return EpochReport(
        step=epoch, epoch=epoch, phase=phase, rung=None, train_loss=1.0, val_nll=1.0,
        val_accuracy=0.5, temperature=1.0, lr=0.1, seconds=seconds, images_per_second=1.0,
        peak_memory_bytes=1,
    )  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def rungs_after(
    stop_by: float | None,
    *,
    epochs: int = 6,
    seconds: float = 10.0,
    rungs: tuple[int, ...] = (9,),
    recipe: Recipe | None = None,
) -> tuple[int, tuple[int, ...]] | None:
    """Return the epoch after which the schedule is shortened, and the new rungs."""
    clock = Clock()
    recipe = recipe or Recipe(epochs=rungs[-1])
    limit = TimeLimit(recipe, rungs, stop_by=stop_by, clock=clock)
    for epoch in range(1, epochs + 1):
        clock.now += seconds
        shorter = limit.shorter(report_of(epoch, seconds=seconds))
        if shorter is not None:
            return epoch, shorter
    return None


@pytest.mark.parametrize("stop_by", [None, 1095.0, 2000.0])
def test_in_time_the_schedule_stays(stop_by: float | None) -> None:
    assert rungs_after(stop_by) is None


@pytest.mark.parametrize(
    ("stop_by", "expected"), [(1094.0, (5, (8,))), (1084.0, (5, (7,))), (1074.0, (4, (6,)))]
)
def test_late_trials_end_half_an_epoch_before_they_would_be_stopped(
    stop_by: float, expected: tuple[int, tuple[int, ...]]
) -> None:
    assert rungs_after(stop_by) == expected


def test_lower_rungs_stay() -> None:
    clock = Clock()
    limit = TimeLimit(Recipe(epochs=9), (3, 9), stop_by=1084.0, clock=clock)
    phases: list[tuple[int, Phase]] = [
        (1, "trunk"),
        (2, "trunk"),
        (3, "cooldown"),
        (3, "trunk"),
        (4, "trunk"),
    ]
    answers = []
    for epoch, phase in phases:
        clock.now += 10.0
        answers.append(limit.shorter(report_of(epoch, phase=phase)))
    assert answers == [None, None, None, None, (3, 6)]


def test_before_the_last_stage_the_pace_is_unknown() -> None:
    recipe = Recipe(epochs=9, stages=(Stage(train="head", epochs=4), Stage()))
    assert rungs_after(1060.0, epochs=4, recipe=recipe) is None
    assert rungs_after(1084.0, recipe=recipe) == (5, (7,))


def test_the_pace_is_that_of_the_last_epochs() -> None:
    clock = Clock()
    limit = TimeLimit(Recipe(epochs=9), (9,), stop_by=1163.0, clock=clock)
    answers = []
    for epoch, seconds in enumerate([10.0, 10.0, 10.0, 30.0, 30.0], start=1):
        clock.now += seconds
        answers.append(limit.shorter(report_of(epoch, seconds=seconds)))
    assert answers == [None, None, None, None, (7,)]
