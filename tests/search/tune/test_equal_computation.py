"""Within a family, every drawn network gets equal computation, between two bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.space.sweep_files import spec_from_mapping
from search.timetable.compute import MOST_HEAD_PASSES, MOST_PASSES
from search.tune.sweep import _equal_computation
from trainables.data.image_set import ImageSet
from trainables.nets.operations import operations_per_image
from trainables.recipe import Recipe

IMAGES = ImageSet(
    name="black",
    images=np.zeros((6, 16, 16, 3), np.uint8),
    labels=np.arange(6) % 2,
    class_names=("even", "odd"),
)
SPEC = spec_from_mapping(
    {
        "resource": "compute",
        "families": {
            "wide": {"space": {"width": {"type": "int", "low": 4, "high": 64, "start": 16},
                               "depth": {"type": "int", "low": 2, "high": 3, "start": 2}}},
            "head": {"recipe": {"stages": [{"train": "head"}]},
                     "space": {"width": {"type": "int", "low": 4, "high": 64, "start": 16}}},
        },
    }
)  # fmt: skip
MOST = {"wide": MOST_PASSES, "head": MOST_HEAD_PASSES}

families = st.sampled_from(["wide", "head"])
widths = st.sampled_from([4, 8, 16, 32, 64])
own_passes = st.floats(1e-3, 60.0)


def operations(recipe: Recipe) -> int:
    return operations_per_image(recipe.architecture, classes=2, image_size=16)


def drawn(family: str, **values: object) -> Recipe:
    return SPEC.first_recipes()[family].with_values(**values)


@given(
    families, widths, own_passes, st.integers(1, 2000), st.integers(1, 2000), st.floats(0.02, 1.0)
)
def test_computation_is_equal_between_the_bounds(
    family: str, width: int, passes: float, batch: int, train: int, share: float
) -> None:
    batch = min(batch, max(1, int(share * train)))
    recipe = drawn(family, width=width, passes=passes, batch_size=batch, train_share=share)
    adjusted = _equal_computation(SPEC, IMAGES, train=train)(recipe)
    assert adjusted == recipe.with_values(passes=adjusted.schedule.passes)
    seen, most = adjusted.schedule.passes, max(MOST[family], passes)
    fewest = min(1.0, batch / (share * train))
    assert fewest <= seen <= most
    if fewest < seen < most:
        usual = operations(SPEC.first_recipes()[family]) * passes
        assert operations(recipe) * seen == pytest.approx(usual, rel=1e-9)
    else:
        equal = passes * operations(SPEC.first_recipes()[family]) / operations(recipe)
        assert (equal <= fewest * (1 + 1e-9)) if seen == fewest else (equal >= most * (1 - 1e-9))


@pytest.mark.parametrize("passes", [0.01, 1.0, 19.0, 50.0])
def test_the_usual_network_keeps_the_passes_of_its_family(passes: float) -> None:
    recipe = drawn("wide", passes=passes, batch_size=8)
    assert _equal_computation(SPEC, IMAGES, train=10_000)(recipe) == recipe


def test_a_far_cheaper_network_has_the_most_passes() -> None:
    """Two hundred passes would overfit before the first rung."""
    cheap = drawn("wide", width=4, passes=15.0)
    assert operations(SPEC.first_recipes()["wide"]) > 2 * operations(cheap)
    adjusted = _equal_computation(SPEC, IMAGES, train=1000)(cheap)
    assert adjusted.schedule.passes == MOST_PASSES


def test_a_far_more_expensive_network_still_sees_a_batch() -> None:
    costly = drawn("wide", width=64, passes=0.05, batch_size=50)
    adjusted = _equal_computation(SPEC, IMAGES, train=1000)(costly)
    assert adjusted.schedule.passes == 0.05
