"""Calibration images of a student's int8 file."""

import pytest

from ensemble.deployment.packaging import calibration_images


@pytest.mark.parametrize(("side", "count"), [(8, 512), (32, 512), (48, 227), (96, 128), (224, 128)])
def test_larger_images_need_fewer_for_calibration(side: int, count: int) -> None:
    """They show as many activations, down to 128 images, which differ enough from each other."""
    assert calibration_images(side) == count
