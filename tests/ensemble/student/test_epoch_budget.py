"""The student's epochs: planned, fitted to a deadline, and changed while they can still be."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.student.schedule import LONGER, SAFETY, EpochSeconds, Timetable
from ensemble.student.student import StudentResult
from trainables.recipe import Recipe
from trainables.training.loop import EpochReport
from trainables.training.optimizers import plan_epochs

RECIPE = Recipe(epochs=20)


class Machine:
    """Trains nothing, at a pace that may change; keeps the epochs done as a checkpoint does."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.now, self.done, self.schedules = 0.0, 0, list[int]()
        self._seconds = seconds

    def train(self, recipe: Recipe, on_report: Callable[[EpochReport], None]) -> StudentResult:
        self.schedules.append(recipe.schedule.epochs)
        # What was trained must be the trunk of the new schedule too.
        assert all(
            p.phase == "trunk" for p in plan_epochs((recipe.schedule.epochs,), recipe)[: self.done]
        )
        while self.done < recipe.schedule.epochs:
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


def timetable(machine: Machine, path: Path, deadline: float | None) -> Timetable:
    return Timetable(
        RECIPE,
        path,
        deadline=deadline,
        rehearsed=lambda: EpochSeconds(taught=3.0, plain=1.0),
        clock=lambda: machine.now,
    )


@pytest.mark.parametrize(
    ("deadline", "epochs"),
    [(None, 20), (40.0, 9), (80 / SAFETY + 0.1, 20), (1e6, LONGER * 20), (-5.0, 1)],
)
def test_the_schedule_fits_the_deadline(
    deadline: float | None, epochs: int, tmp_path: Path
) -> None:
    found = timetable(Machine(lambda _: 3.0), tmp_path / "plan.json", deadline)
    assert found.recipe.schedule.epochs == epochs


def test_a_pace_as_rehearsed_keeps_the_schedule(tmp_path: Path) -> None:
    machine = Machine(lambda _: 3.0)
    found = timetable(machine, tmp_path / "plan.json", 80.0)
    found.teach(machine.train, lambda _: None)
    assert machine.schedules == [18]


def test_a_slower_machine_gets_fewer_epochs_and_a_resume_keeps_them(tmp_path: Path) -> None:
    machine = Machine(lambda step: 3.0 if step <= 4 else 6.0)
    found = timetable(machine, tmp_path / "plan.json", 80.0)
    found.teach(machine.train, lambda _: None)
    assert machine.schedules == [18, 11]
    assert machine.done == found.recipe.schedule.epochs == 11
    # 4 epochs at 3 s, 7 at 6 s, and the twin's 11 at 2 s
    assert machine.now + 11 * 2.0 <= 80.0
    again = timetable(machine, tmp_path / "plan.json", 1e6)
    assert again.recipe.schedule.epochs == 11


def test_a_faster_machine_gets_more_epochs_up_to_a_bound(tmp_path: Path) -> None:
    """As where something else was at work while it was rehearsed."""
    machine = Machine(lambda _: 0.3)
    found = timetable(machine, tmp_path / "plan.json", 14.0)
    assert found.recipe.schedule.epochs == 3
    found.teach(machine.train, lambda _: None)
    assert machine.schedules == [3, 32]
    assert machine.done == found.recipe.schedule.epochs == 32
    assert machine.now + 32 * 0.1 <= 14.0
    idle = Machine(lambda _: 0.001)
    found = timetable(idle, tmp_path / "idle.json", 14.0)
    found.teach(idle.train, lambda _: None)
    assert idle.schedules == [3, LONGER * RECIPE.schedule.epochs]


@given(slow=st.floats(0.1, 20), from_step=st.integers(1, 20), deadline=st.floats(1, 300))
def test_it_ends_whatever_happens(
    slow: float, from_step: int, deadline: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    machine = Machine(lambda step: 3.0 if step < from_step else 3.0 * slow)
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    found = timetable(machine, path, deadline)
    found.teach(machine.train, lambda _: None)
    assert len(machine.schedules) <= 1 + machine.done
    assert max(machine.schedules) <= LONGER * RECIPE.schedule.epochs
    assert machine.done == found.recipe.schedule.epochs >= 1
