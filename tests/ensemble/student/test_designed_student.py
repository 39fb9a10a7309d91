"""A student chosen in a short sweep: its training is continued, and a kill loses no epoch."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import SpecError
from ensemble.deployment.card import read_card
from ensemble.deployment.gates import GateMargins
from ensemble.student.design import Candidate, read_design
from ensemble.student.distillation import StudentResult, distill
from ensemble.student.students import NO_MARGINS, train_students
from quorum import Outcome
from search.space.sweep_files import spec_of_run
from trainables.data.dataset import load_dataset
from trainables.data.splits import make_splits
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder
from trainables.training.losses import Distillation

pytestmark = pytest.mark.slow

RECIPE = Recipe(
    block="plain", activation="relu", whitening=False, batch_size=200, optimizer="adamw",
    adamw_lr=1e-2, epochs=8, width=4,
)  # fmt: skip
WIDTHS = (4, 8)
WHOLE, AT_THE_SWEEP = 8, 1


class Laboratory:
    """Trains students of a copied run; a training is killed when `lives` epochs are done."""

    def __init__(self, run: Outcome, to: Path) -> None:
        self.folder = RunFolder(to)
        student = shutil.ignore_patterns("student", "ledger*", "report.pdf", "mlflow*")
        shutil.copytree(run.folder.root, to, ignore=student)
        self.spec = spec_of_run(self.folder)
        self.images = load_dataset(self.spec.dataset)
        self.epochs: list[tuple[str, int]] = []
        self.students: dict[str, StudentResult] = {}
        self.lives = 1000

    def train(
        self, recipe: Recipe, *, on_report: Any = None, folder: Any = None, **options: Any
    ) -> Any:
        def watch(report: Any) -> None:
            self.epochs.append((folder.name, report.step))
            self.lives -= 1
            if self.lives < 0:
                raise KeyboardInterrupt("killed")
            on_report(report)

        result = distill(recipe, on_report=watch, folder=folder, **options)
        self.students[folder.name] = result
        return result

    def run(self, margins: GateMargins = NO_MARGINS, widths: tuple[int, ...] = WIDTHS) -> None:
        train_students(
            self.folder,
            [Candidate(name=f"w{w}", recipe=RECIPE.with_values(width=w)) for w in widths],
            distillation=Distillation(alpha=0.9, tau=2.0),
            images=self.images,
            splits=make_splits(self.images, self.spec.splits),
            seed=5,
            train_with=Numerics(),
            deadline=None,
            progress=lambda fraction, detail: None,
            train=self.train,
            margins=margins,
            most=len(widths),
        )


def weights(student: StudentResult) -> dict[str, torch.Tensor]:
    return student.model.state_dict()


def same(a: StudentResult, b: StudentResult) -> bool:
    others = weights(b)
    return all(torch.equal(value, others[name]) for name, value in weights(a).items())


def test_the_winner_is_trained_on_and_a_kill_loses_no_epoch(
    finished_run: Outcome, tmp_path: Path
) -> None:
    whole = Laboratory(finished_run, tmp_path / "whole")
    whole.run()
    design = read_design(whole.folder.student)
    assert design is not None
    assert [each.epochs for each in design.candidates] == [(AT_THE_SWEEP,)] * 2
    best = min(design.candidates, key=lambda each: each.val_nll[-1]).name
    assert design.chosen == best
    winner = f"taught{[f'w{w}' for w in WIDTHS].index(best) or ''}"
    assert whole.epochs.count((winner, AT_THE_SWEEP)) == 1, "its first epoch is not paid twice"
    assert [step for name, step in whole.epochs if name == winner] == list(range(1, WHOLE + 1))
    assert read_card(whole.folder.student).recipe["width"] == int(best[1:])

    killed = Laboratory(finished_run, tmp_path / "killed")
    for lives in (0, 1, 1, 3):
        killed.lives = lives
        with pytest.raises(KeyboardInterrupt, match="killed"):
            killed.run()
    killed.lives = 1000
    killed.run()
    assert read_design(killed.folder.student) == design
    assert same(killed.students[winner], whole.students[winner])

    alone = Laboratory(finished_run, tmp_path / "alone")
    alone.run(widths=(int(best[1:]),))
    assert same(alone.students["taught"], whole.students[winner]), "as without a sweep"


def test_a_budget_keeps_the_larger_network_out(finished_run: Outcome, tmp_path: Path) -> None:
    lab = Laboratory(finished_run, tmp_path / "run")
    with pytest.raises(SpecError, match=r"max_params 10\b.*w4"):
        lab.run(margins=GateMargins(max_params=10))
    assert not lab.epochs, "nothing was trained"
    lab.run(margins=GateMargins(max_latency_ms=1000.0, max_params=5000))
    design = read_design(lab.folder.student)
    assert design is not None
    assert design.chosen == "w4"
    assert [each.over for each in design.candidates] == [(), ("params",)]
    assert {name for name, _ in lab.epochs} == {"taught", "plain"}
    card = read_card(lab.folder.student)
    assert card.gflops is not None
    assert card.params <= 5000
