"""Auxiliary tasks: rotations and groups equal loops, and a network learns both."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from common.errors import SpecError
from common.seeds import torch_generator
from tests.trainables.training.test_loop import CLASSES, IMAGES, SIZE, SPLITS, start
from trainables.augmentation.batch import Batch
from trainables.nets.auxiliary_heads import (
    AuxiliaryLogits,
    draw_rotations,
    group_matrix,
    rotate,
    rotated_part,
)
from trainables.nets.build import build_model
from trainables.recipe import Recipe
from trainables.training.data_parallel import DataParallel, part_of_batch
from trainables.training.losses import auxiliary_loss

NAMES = ("cat", "ship", "dog", "truck")
GROUPS = (("dog", "cat"), ("truck",))
BOTH = Recipe(
    width=3, epochs=4, batch_size=16, rotation_weight=0.5, superclass_weight=0.3,
    superclasses=(("a",), ("b", "c")),
)  # fmt: skip


def test_classes_without_a_group_form_one_more_group() -> None:
    expected = [[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert group_matrix(GROUPS, NAMES).tolist() == expected


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([["dog", "horse"]], "'horse' is not a class of the data; did you mean 'dog'"),
        ([["dog"], ["cat", "dog"]], "'dog' is in two groups"),
        ([], "superclass_weight needs `superclasses`"),
    ],
)
def test_impossible_groups_are_refused(groups: list[list[str]], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        group_matrix(groups, NAMES)


@given(count=st.integers(0, 40))
def test_every_fourth_image_is_rotated(count: int) -> None:
    labels = torch.zeros(count, dtype=torch.int64)
    rotations = draw_rotations(labels, torch_generator(0, "rotations"))
    assert [bool(turned >= 0) for turned in rotations] == [i % 4 == 0 for i in range(count)]
    assert all(-1 <= turned <= 3 for turned in rotations.tolist())


def test_rotating_a_batch_equals_rotating_each_image() -> None:
    images = torch.rand(6, 3, 5, 5, generator=torch_generator(0, "images"))
    rotations = torch.tensor([2, 0, 1, 3, 3, 1])
    expected = [torch.rot90(image, k, (1, 2)) for image, k in zip(images, rotations, strict=True)]
    assert torch.equal(rotate(images, rotations), torch.stack(expected))


def test_the_auxiliary_loss_is_the_weighted_sum_and_shards_add_up() -> None:
    draw = torch_generator(0, "logits")
    targets = torch.rand(8, 4, generator=draw).softmax(1)
    rotations = torch.tensor([1, -1, -1, -1, 3, -1, -1, -1])
    superclass, rotation = torch.randn(8, 3, generator=draw), torch.randn(2, 4, generator=draw)
    recipe = Recipe(rotation_weight=0.5, superclass_weight=2.0, superclasses=GROUPS)
    groups = group_matrix(GROUPS, NAMES)

    def loss(rows: slice, turned: slice) -> torch.Tensor:
        answers = AuxiliaryLogits(superclass=superclass[rows], rotation=rotation[turned])
        return auxiliary_loss(
            answers, recipe.loss, targets=targets[rows], groups=groups, rotations=rotations[rows]
        )

    whole = loss(slice(None), slice(None))
    by_group = torch.stack([targets[:, [0, 2]].sum(1), targets[:, 3], targets[:, 1]], dim=1)
    expected = -2.0 * (by_group * superclass.log_softmax(1)).sum(1).mean()
    expected += 0.5 * functional.cross_entropy(rotation, torch.tensor([1, 3]))
    torch.testing.assert_close(whole, expected)
    halves = (loss(slice(0, 4), slice(0, 1)) + loss(slice(4, 8), slice(1, 2))) / 2
    torch.testing.assert_close(halves, whole)


@given(count=st.integers(1, 40), shards=st.integers(1, 9), micro=st.integers(1, 5))
def test_parts_of_a_batch_find_their_rotated_images(count: int, shards: int, micro: int) -> None:
    """They are those that a mask marks, wherever a shard and its micro-batches start."""
    rotations = draw_rotations(torch.zeros(count, dtype=torch.int64), torch_generator(0, "turns"))
    batch = Batch(
        images=torch.zeros(count, 3, 4, 4), labels_a=torch.arange(count),
        labels_b=torch.arange(count), share=torch.ones(count), rotations=rotations,
    )  # fmt: skip
    for rank in range(shards):
        shard = DataParallel(rank=rank, world_size=shards).shard(batch)
        for part in (part_of_batch(shard, index, micro) for index in range(micro)):
            turned = rotations[part.labels_a] >= 0
            for values in (part.rotations, part.labels_a):
                assert values is not None
                assert torch.equal(rotated_part(values, part.first_rotated), values[turned])


def test_auxiliary_heads_learn_and_do_not_change_the_prediction() -> None:
    training = start(BOTH)
    auxiliary = training.model.auxiliary
    assert auxiliary is not None
    before = [parameter.clone() for parameter in auxiliary.parameters()]
    reports = list(training.reports())
    assert len(before) == 4
    assert not any(torch.equal(a, b) for a, b in zip(before, auxiliary.parameters(), strict=True))
    assert training.log_probs(SPLITS.val).shape == (len(SPLITS.val), CLASSES)
    plain = list(start(BOTH.with_values(rotation_weight=0.0, superclass_weight=0.0)).reports())
    assert reports[0].train_loss > plain[0].train_loss


def test_auxiliary_heads_do_not_change_the_networks_initial_weights() -> None:
    """The heads draw their weights after the network, so its predictions are the same."""
    without = BOTH.with_values(rotation_weight=0.0, superclass_weight=0.0)
    shape = {"classes": CLASSES, "image_size": SIZE, "train_images": IMAGES.images, "seed": 3}
    models = [build_model(recipe, **shape).eval() for recipe in (BOTH, without)]  # type: ignore[arg-type]
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch_generator(0, "images"))
    assert torch.equal(models[0](images), models[1](images))
