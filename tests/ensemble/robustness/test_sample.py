"""Samples hold every corruption at every severity, and every class, as evenly as can be."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.robustness.corruptions import FAMILIES
from ensemble.robustness.sample import CELLS, draw_sample, stratified


@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=8),
    most=st.integers(1, 400),
    seed=st.integers(0, 99),
)
def test_every_class_has_its_share(sizes: list[int], most: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    chosen = stratified(labels, most)
    assert len(chosen) == len(set(chosen.tolist())) == min(most, len(labels))
    counts = np.bincount(labels[chosen], minlength=len(sizes))
    share = len(chosen) / len(labels)
    assert np.abs(counts - share * np.array(sizes)).max() <= 1.5


@given(images=st.integers(CELLS, 700), classes=st.integers(2, 30))
def test_cells_are_as_even_as_can_be(images: int, classes: int) -> None:
    labels = np.arange(images) % classes
    sample = draw_sample(np.arange(1000, 1000 + images), labels, images)
    cells = Counter(zip(sample.corruptions, sample.severities, strict=True))
    assert len(cells) == CELLS
    assert max(cells.values()) - min(cells.values()) <= 1
    families = Counter(sample.families.tolist())
    assert set(families) == set(FAMILIES)
    assert max(families.values()) - min(families.values()) <= 1


def test_no_class_has_a_corruption_or_a_severity_of_its_own() -> None:
    labels = np.arange(600) % 10
    sample = draw_sample(np.arange(600), labels, 600)
    for label in range(10):
        chosen = np.flatnonzero(labels[sample.rows] == label)
        assert len({sample.corruptions[i] for i in chosen}) == 12
        assert len({sample.severities[i] for i in chosen}) == 5


def test_positions_are_those_of_the_split_and_rows_those_within_it() -> None:
    positions = np.array([5, 9, 2, 7, 30, 31])
    sample = draw_sample(positions, np.array([0, 1, 0, 1, 0, 1]), 4)
    assert sample.positions.tolist() == positions[sample.rows].tolist()
    assert len(sample) == 4


def test_a_photograph_has_the_same_corruption_in_a_larger_data_set() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (80, 16, 16, 3), np.uint8)
    sample = draw_sample(np.arange(10, 70), np.arange(60) % 3, 60)
    pixels = sample.pixels(images, seed=1)
    assert pixels.shape == (60, 16, 16, 3)
    assert np.array_equal(pixels, sample.pixels(np.concatenate([images, images]), seed=1))
    with pytest.raises(IndexError):
        sample.pixels(images[:20], seed=1)
