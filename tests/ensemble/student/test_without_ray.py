"""Distillation on several workers, in a process that has not started Ray."""

import pytest
import ray

from common.errors import RunError
from ensemble.student.distributed import distill_distributed
from tests.ensemble.student.test_distillation import IMAGES, NUMERICS, RECIPE, SPLITS


def test_distillation_on_several_workers_needs_ray() -> None:
    assert not ray.is_initialized()
    with pytest.raises(RunError, match="needs a running Ray"):
        distill_distributed(
            RECIPE, workers=2, images=IMAGES, splits=SPLITS, seed=1, numerics=NUMERICS
        )
