"""Two workers do what one process does, die and come back, and tell whose fault it was."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch
from torch import Tensor

from ensemble.distributed import distil_distributed
from ensemble.student import StudentResult, distil
from search.session import ray_session
from tests.test_student import HALF, IMAGES, NUMERICS, RECIPE, SPLITS, Colourist
from trainables.errors import DivergedError, RunError
from trainables.imageset import ImageSet
from trainables.recipe import Recipe
from trainables.training import EpochReport

pytestmark = [
    pytest.mark.slow,
    # Ray Train's own use of Ray Data.
    pytest.mark.filterwarnings(r"ignore:`use_\w+` is deprecated"),
]

# Layer normalization looks at one image at a time, so a divided batch changes nothing.
WITHOUT_BATCH_NORM = Recipe(
    model="timm:test_convnext", epochs=2, batch_size=15, adamw_lr=1e-3, optimizer="adamw"
)


@pytest.fixture(scope="module", autouse=True)
def _ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ray_session(cpus=2, folder=tmp_path_factory.mktemp("driver")):
        yield


LARGER = replace(IMAGES, images=IMAGES.images.repeat(4, axis=1).repeat(4, axis=2))


def common(recipe: Recipe, images: ImageSet = IMAGES) -> dict[str, object]:
    return {"recipe": recipe, "images": images, "splits": SPLITS, "seed": 1, "numerics": NUMERICS}


def weights(student: StudentResult) -> list[Tensor]:
    return list(student.model.state_dict().values())


def assert_close(found: StudentResult, wanted: StudentResult) -> None:
    for a, b in zip(weights(found), weights(wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_two_workers_take_the_steps_of_one(tmp_path: Path) -> None:
    """Parameters agree within what another order of float sums does; 3 × 2 steps, AdamW.

    With batch normalization they would not: each worker normalizes by its own half.
    """
    seen: list[int] = []

    def on_report(report: EpochReport) -> None:
        seen.append(report.step)

    taught = {"teacher": Colourist(), "distillation": HALF}
    one = distil(**common(WITHOUT_BATCH_NORM, LARGER), **taught)  # type: ignore[arg-type]
    two = distil_distributed(
        **common(WITHOUT_BATCH_NORM, LARGER),  # type: ignore[arg-type]
        **taught,  # type: ignore[arg-type]
        workers=2,
        folder=tmp_path / "work",
        on_report=on_report,
    )
    assert seen == [1, 2]
    assert (two.steps, two.params) == (one.steps, one.params) == (6, one.params)
    assert_close(two, one)
    start = distil(**common(WITHOUT_BATCH_NORM.with_values(adamw_lr=0.0), LARGER))  # type: ignore[arg-type]
    moved = [
        (value - before).abs().max()
        for value, before in zip(weights(one), weights(start), strict=True)
    ]
    assert float(max(moved)) > 1e-3, "the steps are ten times larger than what is tolerated"
    for a, b in zip(one.reports, two.reports, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-4)
        assert a.val_nll == pytest.approx(b.val_nll, rel=1e-3)


class Mortal(Colourist):
    """Kills its process on the way through the second epoch, once."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def __call__(self, images: Tensor) -> Tensor:
        if len(self.seen) == 4 and not self.mark.exists():
            self.mark.touch()
            os._exit(1)
        return super().__call__(images)


def test_a_worker_that_dies_is_replaced_and_no_saved_epoch_is_lost(tmp_path: Path) -> None:
    mark = tmp_path / "died"
    result = distil_distributed(
        **common(WITHOUT_BATCH_NORM, LARGER),  # type: ignore[arg-type]
        workers=2,
        folder=tmp_path / "work",
        teacher=Mortal(mark),
        distillation=HALF,
        load_images=lambda: LARGER,
    )
    assert mark.exists()
    assert [report.step for report in result.reports] == [1, 2]
    whole = distil(
        **common(WITHOUT_BATCH_NORM, LARGER),  # type: ignore[arg-type]
        teacher=Colourist(),
        distillation=HALF,
    )
    assert_close(result, whole)


def test_a_workers_own_error_comes_through(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="the training loss became"):
        distil_distributed(
            **common(RECIPE.with_values(adamw_lr=10.0, epochs=40, warmup_epochs=0)),  # type: ignore[arg-type]
            workers=2,
            folder=tmp_path / "work",
            teacher=NotANumber(),
            distillation=HALF,
        )


class NotANumber(Colourist):
    """Has no answer."""

    def __call__(self, images: Tensor) -> Tensor:
        return super().__call__(images) * float("nan")


def test_without_ray_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RunError, match="needs a running Ray; start one first"):
        distil_distributed(
            **common(RECIPE),  # type: ignore[arg-type]
            workers=2,
            folder=tmp_path,
        )
