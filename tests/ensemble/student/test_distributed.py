"""Two workers do what one process does, die and come back, and tell whose fault it was."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch
from torch import Tensor

from common.errors import DivergedError, RunError
from ensemble.student.distillation import StudentResult, distill
from ensemble.student.distributed import distill_distributed
from search.tune.session import ray_session
from tests.ensemble.student.test_distillation import (
    HALF,
    IMAGES,
    NUMERICS,
    RECIPE,
    SPLITS,
    Colourist,
)
from trainables.data.image_set import ImageSet
from trainables.recipe import Recipe
from trainables.trainer import EpochReport

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
    with pytest.MonkeyPatch.context() as patch:
        # Ray Train looks for what its workers have come to every two seconds.
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
        with ray_session(cpus=2, folder=tmp_path_factory.mktemp("driver")):
            yield


LARGER = replace(IMAGES, images=IMAGES.images.repeat(4, axis=1).repeat(4, axis=2))


def common(recipe: Recipe, images: ImageSet = IMAGES) -> dict[str, object]:
    return {"recipe": recipe, "images": images, "splits": SPLITS, "seed": 1, "numerics": NUMERICS}


def weights(student: StudentResult) -> list[Tensor]:
    return list(student.model.state_dict().values())


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


def test_two_workers_one_of_which_dies_take_the_steps_of_one(tmp_path: Path) -> None:
    """Parameters agree within what another order of float sums does; 3 × 2 steps, AdamW.

    With batch normalization they would not: each worker normalizes by its own half.
    """
    seen: list[EpochReport] = []
    one = distill(
        **common(WITHOUT_BATCH_NORM, LARGER),  # type: ignore[arg-type]
        teacher=Colourist(),
        distillation=HALF,
    )
    two = distill_distributed(
        **common(WITHOUT_BATCH_NORM, LARGER),  # type: ignore[arg-type]
        workers=2,
        folder=tmp_path / "work",
        teacher=Mortal(tmp_path / "died"),
        distillation=HALF,
        on_report=seen.append,
        load_images=lambda: LARGER,
    )
    assert (tmp_path / "died").exists()
    assert [report.step for report in seen] == [1, 2], "no saved epoch is lost or repeated"
    assert (two.steps, two.params) == (one.steps, one.params) == (6, one.params)
    for a, b in zip(weights(two), weights(one), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    start = distill(**common(WITHOUT_BATCH_NORM.with_values(adamw_lr=0.0), LARGER))  # type: ignore[arg-type]
    moved = [(a - b).abs().max() for a, b in zip(weights(one), weights(start), strict=True)]
    assert float(max(moved)) > 1e-3, "the steps are ten times larger than what is tolerated"
    for report, alone in zip(seen, one.reports, strict=True):
        assert report.train_loss == pytest.approx(alone.train_loss, rel=1e-4)
        assert report.val_nll == pytest.approx(alone.val_nll, rel=1e-3)


def test_a_workers_own_error_comes_through() -> None:
    with pytest.raises(DivergedError, match="the training loss became"):
        distill_distributed(
            **common(RECIPE.with_values(adamw_lr=10.0, epochs=40, warmup_epochs=0)),  # type: ignore[arg-type]
            workers=1,
            teacher=NotANumber(),
            distillation=HALF,
        )


class NotANumber(Colourist):
    """Has no answer."""

    def __call__(self, images: Tensor) -> Tensor:
        return super().__call__(images) * float("nan")


def test_without_enough_of_ray_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would wait without end."""
    with pytest.raises(RunError, match="3 workers need 3 CPU, Ray has 2; use fewer workers"):
        distill_distributed(**common(RECIPE), workers=3)  # type: ignore[arg-type]
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RunError, match="needs a running Ray"):
        distill_distributed(**common(RECIPE), workers=2)  # type: ignore[arg-type]
