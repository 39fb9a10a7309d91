"""The number of epochs of both students: planned, fitted to a deadline, changed in time."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.student.distillation import StudentResult
from ensemble.student.epoch_budget import MAX_LENGTHENING, SAFETY, EpochBudget, EpochSeconds
from trainables.recipe import Recipe
from trainables.trainer import EpochReport
from trainables.training.schedule import plan_epochs

RECIPE = Recipe.from_mapping({"epochs": 20})
LONGEST = MAX_LENGTHENING * 20


class Machine:
    """Train nothing, at a pace that may change; keep the epochs done as a checkpoint does."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.now, self.done, self.schedules = 0.0, 0, list[int]()
        self._seconds = seconds

    def train(self, recipe: Recipe, on_report: Callable[[EpochReport], None]) -> StudentResult:
        epochs = recipe.schedule.epochs
        self.schedules.append(epochs)
        # The epochs done so far must belong to the trunk of the new schedule too.
        assert all(p.phase == "trunk" for p in plan_epochs((epochs,), recipe)[: self.done])
        while self.done < epochs:
            self.done += 1
            seconds = self._seconds(self.done)
            self.now += seconds
            on_report(report(self.done, seconds))
        return StudentResult(model=None, seconds=0.0, steps=0, params=0, reports=())  # type: ignore[arg-type]


def report(step: int, seconds: float) -> EpochReport:
    return EpochReport(
        step=step, epoch=step, phase="trunk", rung=None, train_loss=0.0, val_nll=0.0,
        val_accuracy=0.0, temperature=1.0, lr=0.0, seconds=seconds, images_per_second=0.0,
        peak_memory_bytes=0,
    )  # fmt: skip


def budget_of(
    machine: Machine, path: Path, deadline: float | None, recipe: Recipe = RECIPE
) -> EpochBudget:
    return EpochBudget(
        recipe,
        path,
        deadline=deadline,
        rehearse=lambda: EpochSeconds(taught=3.0, plain=1.0),
        clock=lambda: machine.now,
    )


@pytest.mark.parametrize(
    ("deadline", "epochs"),
    [(None, 20), (40.0, 9), (80 / SAFETY + 0.1, 20), (1e6, LONGEST), (-5.0, 1)],
)
def test_the_planned_epochs_fit_the_deadline(
    deadline: float | None, epochs: int, tmp_path: Path
) -> None:
    budget = budget_of(Machine(lambda _: 3.0), tmp_path / "plan.json", deadline)
    assert budget.recipe.schedule.epochs == epochs


def test_a_student_of_one_planned_epoch_may_train_as_long_as_its_trial(tmp_path: Path) -> None:
    """The plan before the sweep was short of time; less of it was needed."""
    machine = Machine(lambda _: 3.0)
    budget = EpochBudget(
        RECIPE.with_values(epochs=1),
        tmp_path / "plan.json",
        deadline=40.0,
        rehearse=lambda: EpochSeconds(taught=3.0, plain=1.0),
        fewest=0,
        trial_epochs=9,
        clock=lambda: machine.now,
    )
    assert budget.epochs == 9
    budget.train(machine.train, lambda _: None)
    assert machine.now + 9 * 1.0 <= 40.0


@pytest.mark.parametrize(
    ("fitting", "fewest", "epochs", "passes"),
    [
        (1.9, 0, 1, 1.9),
        (3.5, 1, 3, 3.5 / 3),
        (4.5, 1, 4, 1.0),
        (0.7, 0, 1, 0.7),
        (0.3, 0, 0, 1.0),
        (0.3, 1, 1, 0.5),
    ],
)
def test_a_few_epochs_are_as_long_as_the_time_allows(
    fitting: float, fewest: int, epochs: int, passes: float, tmp_path: Path
) -> None:
    """An epoch of both students takes 4 s; a resume has the same schedule at any time left."""
    budgets = [
        EpochBudget(
            RECIPE,
            tmp_path / "plan.json",
            deadline=deadline,
            rehearse=lambda: EpochSeconds(taught=3.0, plain=1.0),
            fewest=fewest,
            clock=lambda: 0.0,
        )
        for deadline in (4.0 * fitting / SAFETY, 1e6)
    ]
    for budget in budgets:
        assert budget.epochs == epochs
        assert budget.recipe.schedule.passes == pytest.approx(passes)


def test_a_pace_as_rehearsed_keeps_the_plan(tmp_path: Path) -> None:
    machine = Machine(lambda _: 3.0)
    budget = budget_of(machine, tmp_path / "plan.json", 80.0)
    budget.train(machine.train, lambda _: None)
    assert machine.schedules == [18]


def test_a_slower_machine_gets_fewer_epochs_and_a_resume_keeps_them(tmp_path: Path) -> None:
    machine = Machine(lambda step: 3.0 if step <= 4 else 6.0)
    budget = budget_of(machine, tmp_path / "plan.json", 80.0)
    budget.train(machine.train, lambda _: None)
    assert machine.schedules == [18, 11]
    assert machine.done == budget.recipe.schedule.epochs == 11
    # 4 epochs at 3 s, 7 at 6 s, and 11 epochs of the plain student at 2 s.
    assert machine.now + 11 * 2.0 <= 80.0
    resumed = budget_of(machine, tmp_path / "plan.json", 1e6)
    assert resumed.recipe.schedule.epochs == 11


def test_a_faster_machine_gets_more_epochs_up_to_a_bound(tmp_path: Path) -> None:
    """Simulate a rehearsal that other work on the machine slowed down."""
    machine = Machine(lambda _: 0.3)
    budget = budget_of(machine, tmp_path / "plan.json", 14.0)
    assert budget.recipe.schedule.epochs == 3
    budget.train(machine.train, lambda _: None)
    assert machine.schedules == [3, 32]
    assert machine.done == budget.recipe.schedule.epochs == 32
    assert machine.now + 32 * 0.1 <= 14.0
    idle = Machine(lambda _: 0.001)
    budget = budget_of(idle, tmp_path / "idle.json", 14.0)
    budget.train(idle.train, lambda _: None)
    assert idle.schedules == [3, LONGEST]


def test_a_schedule_that_cools_from_the_start_is_not_changed(tmp_path: Path) -> None:
    """No epoch of it would belong to another schedule."""
    machine = Machine(lambda _: 30.0)
    cooling = RECIPE.with_values(cooldown_fraction=1.0)
    budget = budget_of(machine, tmp_path / "plan.json", 40.0, cooling)
    budget.train(machine.train, lambda _: None)
    assert machine.schedules == [9]


@given(slow=st.floats(0.1, 20), from_step=st.integers(1, 20), deadline=st.floats(1, 300))
def test_training_ends_at_any_pace(
    slow: float, from_step: int, deadline: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    machine = Machine(lambda step: 3.0 if step < from_step else 3.0 * slow)
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    budget = budget_of(machine, path, deadline)
    budget.train(machine.train, lambda _: None)
    assert len(machine.schedules) <= 1 + machine.done
    assert max(machine.schedules) <= LONGEST
    assert machine.done == budget.recipe.schedule.epochs >= 1
