"""A rehearsal takes the steps of a training and leaves no trace."""

import torch

from tests.tiny import tiny_spec
from trainables.datasets import load_dataset
from trainables.recipe import Numerics
from trainables.rehearsal import rehearse
from trainables.splits import make_splits


def test_a_rehearsal_times_an_epoch_and_leaves_no_trace() -> None:
    spec = tiny_spec()
    images = load_dataset(spec.dataset)
    splits = make_splits(images, spec.splits)
    recipe = spec.base_recipe().with_values(dropout=0.2)
    before = (torch.get_num_threads(), torch.get_rng_state())
    found = rehearse(
        recipe, images=images, splits=splits, numerics=Numerics(), workers=2, seconds=0.05
    )
    assert 0 < found.forward_seconds < found.train_seconds < 60
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_longer_epoch_takes_longer() -> None:
    spec = tiny_spec()
    images = load_dataset(spec.dataset)
    splits = make_splits(images, spec.splits)
    small, large = (
        rehearse(
            spec.base_recipe().with_values(width=width),
            images=images,
            splits=splits,
            numerics=Numerics(),
            seconds=0.3,
        ).train_seconds
        for width in (4, 64)
    )
    assert large > 2 * small
