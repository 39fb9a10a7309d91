"""Distillation on several workers: same steps as one process, worker deaths, errors."""

import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer
from torch import Tensor

from common.errors import DivergedError, QuorumError, RunError
from ensemble.student.distillation import StudentResult, distill
from ensemble.student.distributed import GroupTrainer, _Fit, _follow, _work, distill_distributed
from search.tune.served_folder import served
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

# Layer normalization works on one image at a time, so a divided batch changes nothing.
WITHOUT_BATCH_NORM = Recipe(
    model="timm:test_convnext", epochs=2, batch_size=15, adamw_lr=1e-3, optimizer="adamw"
)


@pytest.fixture(scope="module", autouse=True)
def _ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # By default Ray Train checks its workers every two seconds.
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
        with ray_session(cpus=2, folder=tmp_path_factory.mktemp("driver")):
            yield


LARGER = replace(IMAGES, images=IMAGES.images.repeat(4, axis=1).repeat(4, axis=2))


def common(recipe: Recipe, images: ImageSet = IMAGES) -> dict[str, object]:
    return {"recipe": recipe, "images": images, "splits": SPLITS, "seed": 1, "numerics": NUMERICS}


def weights(student: StudentResult) -> list[Tensor]:
    return list(student.model.state_dict().values())


class Mortal(Colourist):
    """A teacher that kills its process once, during the second epoch."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def __call__(self, images: Tensor) -> Tensor:
        if len(self.seen) == 4 and not self.mark.exists():
            self.mark.touch()
            os._exit(1)
        return super().__call__(images)


def test_two_workers_take_the_steps_of_one_even_if_one_dies(tmp_path: Path) -> None:
    """Compare parameters up to the order of float sums, after 3 × 2 steps of AdamW.

    The workers reach the folder through Ray, as on a cluster.
    With batch normalization they would differ: each worker normalizes by its own half.
    """
    seen: list[EpochReport] = []
    alone = distill(
        **common(WITHOUT_BATCH_NORM, LARGER),  # type: ignore[arg-type]
        teacher=Colourist(),
        distillation=HALF,
    )
    with served(tmp_path / "shared") as filesystem:
        group = GroupTrainer(workers=2, filesystem=filesystem, path="/group")
        shared = group(
            **common(WITHOUT_BATCH_NORM, LARGER),  # type: ignore[arg-type]
            folder=tmp_path / "work",
            teacher=Mortal(tmp_path / "died"),
            distillation=HALF,
            on_report=seen.append,
            load_images=lambda: LARGER,
        )
    assert (tmp_path / "died").exists()
    assert [report.step for report in seen] == [1, 2], "no saved epoch is lost or repeated"
    assert (shared.steps, shared.params) == (alone.steps, alone.params) == (6, alone.params)
    for a, b in zip(weights(shared), weights(alone), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    start = distill(**common(WITHOUT_BATCH_NORM.with_values(adamw_lr=0.0), LARGER))  # type: ignore[arg-type]
    moved = [(a - b).abs().max() for a, b in zip(weights(alone), weights(start), strict=True)]
    assert float(max(moved)) > 1e-3, "the steps are ten times the tolerance"
    for report, expected in zip(seen, alone.reports, strict=True):
        assert report.train_loss == pytest.approx(expected.train_loss, rel=1e-4)
        assert report.val_nll == pytest.approx(expected.val_nll, rel=1e-3)


@pytest.fixture
def _one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
def test_a_worker_returns_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not raise it, because Ray Train would restart the workers."""
    alone = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: alone)
    monkeypatch.setattr(ray, "get", lambda value: value)
    arguments = common(RECIPE.with_values(epochs=1, warmup_epochs=0))
    images = arguments.pop("images")
    arguments |= {"teacher": NotANumber(), "distillation": HALF}
    config = {
        "arguments": arguments,
        "images": images,
        "load": False,
        "shared": None,
        "modules": str(Path.cwd()),
    }
    error = pickle.loads(pickle.dumps(_work(config)))
    assert isinstance(error, DivergedError)
    assert "loss" in str(error)


@pytest.mark.parametrize(
    ("returned", "raised"), [(DivergedError("the loss is nan"), None), (None, OSError("a\nlost"))]
)
def test_an_error_in_a_worker_is_raised_in_the_driver(
    tmp_path: Path, returned: DivergedError | None, raised: Exception | None
) -> None:
    def fit() -> SimpleNamespace:
        if raised is not None:
            raise raised
        return SimpleNamespace(return_value=returned)

    run = _Fit(cast(TorchTrainer, SimpleNamespace(fit=fit)))
    _follow(run, tmp_path, lambda _: None)
    assert isinstance(run.error, QuorumError)
    assert run.error is returned or "lost" in str(run.error)


class NotANumber(Colourist):
    """A teacher whose answers are NaN."""

    def __call__(self, images: Tensor) -> Tensor:
        return super().__call__(images) * float("nan")


def test_a_ray_that_is_too_small_is_refused() -> None:
    """Ray itself would wait forever."""
    with pytest.raises(RunError, match="3 workers need 3 CPU, Ray has 2"):
        distill_distributed(**common(RECIPE), workers=3)  # type: ignore[arg-type]
