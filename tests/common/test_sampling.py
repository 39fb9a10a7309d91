"""Evenly spaced picks."""

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from common.sampling import evenly_spaced


@given(size=st.integers(1, 200_000), most=st.integers(1, 5000))
@example(size=2899, most=2048)
def test_picks_are_those_of_torch_linspace(size: int, most: int) -> None:
    """Trainings recorded with torch's picks are replayed bitwise."""
    expected = torch.linspace(0, size - 1, min(size, most), dtype=torch.float64).long()
    assert evenly_spaced(size, most).tolist() == expected.tolist()


def test_picks_include_both_ends_and_never_repeat() -> None:
    assert evenly_spaced(9, 3).tolist() == [0, 4, 8]
    assert evenly_spaced(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spaced(7, 1).tolist() == [0]
    assert evenly_spaced(0, 3).tolist() == []
