"""An epoch is as much computation for every family: a cheap network is not favoured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.timetable.compute import MOST_PASSES, FamilyPace, allot

EXPENSIVE = FamilyPace(starts=(0,), passes=(40.0,), scores=(2.0,), entries=(0.0,))
seconds = st.floats(0.05, 200.0)


def family(passes: float, score: float, entry: float = 0.0) -> FamilyPace:
    return FamilyPace(starts=(0,), passes=(passes,), scores=(score,), entries=(entry,))


@given(passes=seconds, score=st.floats(0.0, 1.0), share=st.floats(0.05, 2.0))
def test_an_epoch_of_a_cheap_network_takes_as_long_unless_it_has_the_most_passes(
    passes: float, score: float, share: float
) -> None:
    cheap = family(passes, score)
    allotments = allot(
        {"expensive": EXPENSIVE, "cheap": cheap}, passes=share, epochs=9, fewest=1e-3
    )
    assert allotments["expensive"].passes == share
    unit = EXPENSIVE.epoch_seconds(share)
    cost = cheap.costs(allotments["cheap"], unit=unit).epochs[-1]
    if allotments["cheap"].passes == MOST_PASSES:
        assert cost <= 1 + 1e-9
    else:
        assert cost == pytest.approx(1.0, abs=1e-6)


@given(entry=st.floats(1.0, 5000.0), share=st.floats(0.05, 1.0))
def test_a_schedule_with_features_takes_no_longer_than_the_first_family(
    entry: float, share: float
) -> None:
    frozen = family(0.5, 0.2, entry)
    allotments = allot(
        {"expensive": EXPENSIVE, "head": frozen}, passes=share, epochs=9, fewest=1e-3
    )
    costs = frozen.costs(allotments["head"], unit=EXPENSIVE.epoch_seconds(share))
    whole = costs.entries[0] + 9 * costs.epochs[-1]
    least_share = allotments["head"].train_share <= 0.02
    assert whole <= 9 * (1 + 1e-6) or least_share
    assert 0 < allotments["head"].train_share <= 1


def test_features_that_would_take_most_of_a_schedule_are_computed_for_a_part_of_the_images() -> (
    None
):
    slow = family(0.5, 0.1, entry=1000.0)
    allotment = allot({"expensive": EXPENSIVE, "head": slow}, passes=0.5, epochs=9, fewest=0.01)
    assert allotment["head"].train_share == pytest.approx(0.5 * 9 * 22 / 1000)


def test_stages_and_features_are_costs_in_epochs_of_the_first_family() -> None:
    gradual = FamilyPace(starts=(0, 2), passes=(10.0, 40.0), scores=(1.0, 2.0), entries=(8.0, 0.0))
    allotments = allot({"expensive": EXPENSIVE, "gradual": gradual}, passes=0.5, epochs=9, fewest=0)
    costs = gradual.costs(allotments["gradual"], unit=22.0)
    passes = allotments["gradual"].passes
    assert costs.starts == (0, 2)
    assert costs.epochs == pytest.approx(((10 * passes + 1) / 22, (40 * passes + 2) / 22))
    assert costs.entries == pytest.approx((8 / 22, 0.0))
