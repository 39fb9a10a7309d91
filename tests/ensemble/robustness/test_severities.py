"""Published parameters at their own sizes, and the rule for other sizes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.robustness.corruptions import CORRUPTIONS
from ensemble.robustness.severities import PARAMETERS, SEVERITIES, Published, settings


def test_every_corruption_has_five_severities_of_each_parameter() -> None:
    assert PARAMETERS.keys() == CORRUPTIONS.keys()
    for values in PARAMETERS.values():
        for value in values.values():
            assert len(value.small) == len(value.large) == len(SEVERITIES)


def test_the_published_sizes_have_the_published_parameters() -> None:
    assert settings("gaussian_noise", 5, 32) == {"deviation": pytest.approx(0.1)}
    assert settings("gaussian_noise", 5, 224) == {"deviation": pytest.approx(0.38)}
    assert settings("motion_blur", 1, 32) == pytest.approx({"reach": 6, "deviation": 1})
    assert settings("motion_blur", 5, 224) == pytest.approx({"reach": 20, "deviation": 15})


def test_between_them_a_parameter_is_a_power_of_the_side() -> None:
    middle = round(math.sqrt(32 * 224))
    assert settings("shot_noise", 1, middle)["photons"] == pytest.approx(
        math.sqrt(500 * 60), rel=0.01
    )


def test_only_lengths_grow_beyond_the_largest_size_and_nothing_shrinks_below_the_smallest() -> None:
    assert settings("motion_blur", 1, 448)["reach"] == pytest.approx(20)
    assert settings("contrast", 1, 448) == settings("contrast", 1, 224)
    assert settings("motion_blur", 1, 16) == settings("motion_blur", 1, 32)


@given(side=st.integers(8, 1024), severity=st.sampled_from(SEVERITIES))
def test_a_length_that_is_the_same_share_of_both_sizes_is_that_share_of_all_above(
    side: int, severity: int
) -> None:
    share = Published(small=(3.2,) * 5, large=(22.4,) * 5, length=True)
    assert share.at(severity, side) == pytest.approx(0.1 * max(side, 32))


@pytest.mark.parametrize(("name", "severity"), [("rain", 1), ("fog", 0), ("fog", 6)])
def test_unknown_corruptions_and_severities_are_refused(name: str, severity: int) -> None:
    with pytest.raises(ValueError, match=r"unknown corruption 'rain'|severity must be"):
        settings(name, severity, 32)
