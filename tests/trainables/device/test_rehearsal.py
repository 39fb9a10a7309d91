"""A rehearsal takes the steps of a training and leaves no trace."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.tiny import tiny_spec
from trainables.data.dataset import load_dataset
from trainables.data.splits import make_splits
from trainables.device import rehearsal
from trainables.device.rehearsal import rehearse
from trainables.recipe import Numerics
from trainables.stages import Stage
from trainables.training.loop import Training


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


def test_stages_are_timed_one_by_one() -> None:
    """The head of images as they are, the head of augmented ones, then everything."""
    spec = tiny_spec()
    images = load_dataset(spec.dataset)
    splits = make_splits(images, spec.splits)
    stages = (
        Stage(epochs=1, train="head", values={"augment": "none"}),
        Stage(epochs=1, train="head", values={"translate": 1}),
        Stage(),
    )
    found = rehearse(
        spec.base_recipe().with_values(width=48, epochs=3, stages=stages),
        images=images,
        splits=splits,
        numerics=Numerics(),
        seconds=0.6,
    )
    known, shown, whole = found.stage_seconds
    assert known < shown < whole == found.train_seconds
    assert found.entry_seconds == (found.forward_seconds, 0.0, 0.0)


def test_a_rehearsal_of_heads_computes_features_of_few_images() -> None:
    spec = tiny_spec()
    images = load_dataset(spec.dataset)
    splits = make_splits(images, replace(spec.splits, counts=(900, 300, 300)))
    recipe = spec.base_recipe().with_values(translate=0, stages=(Stage(train="head"),))
    looked_at: list[int] = []

    class Counting(Training):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            looked_at.append(len(named["splits"].train))
            super().__init__(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "Training", Counting)
        found = rehearse(recipe, images=images, splits=splits, numerics=Numerics(), seconds=0.01)
    assert looked_at == [512]
    assert found.stage_seconds == (found.train_seconds,)
    assert found.entry_seconds == (found.forward_seconds,)
