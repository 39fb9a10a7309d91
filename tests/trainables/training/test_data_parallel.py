"""Data-parallel processes, simulated in one: shards make up the batch, gradients add up."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from common.errors import SpecError
from tests.ensemble.student.test_distillation import IMAGES, NUMERICS, RECIPE, SPLITS
from trainables.augmentation.batch import Batch
from trainables.training.data_parallel import DataParallel
from trainables.training.loop import Training
from trainables.training.losses import cross_entropy, soft_targets


def some_batch(size: int) -> Batch:
    generator = torch.Generator().manual_seed(size)
    return Batch(
        images=torch.rand(size, 3, 4, 4, generator=generator),
        labels_a=torch.randint(0, 3, (size,), generator=generator),
        labels_b=torch.randint(0, 3, (size,), generator=generator),
        share=torch.rand(size, generator=generator),
    )


@given(size=st.integers(1, 50), world=st.integers(1, 9))
def test_shards_make_up_the_batch(size: int, world: int) -> None:
    batch = some_batch(size)
    parts = [DataParallel(rank=rank, world_size=world).shard(batch) for rank in range(world)]
    for name in ("images", "labels_a", "labels_b", "share"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(batch, name))
    sizes = [len(part.images) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def mean_loss(net: nn.Module, batch: Batch) -> Tensor:
    targets = soft_targets(batch.labels_a, batch.labels_b, batch.share, classes=3, smoothing=0.1)
    loss = cross_entropy(net(batch.images), targets)
    net.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


@pytest.mark.parametrize(("size", "world"), [(8, 2), (7, 2), (11, 3)])
def test_averaged_gradients_are_those_of_the_whole_batch(size: int, world: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3))
    net = net.to(memory_format=torch.channels_last)
    batch = some_batch(size)
    whole = mean_loss(net, batch)
    expected = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    sent: list[Tensor] = []

    def exchange(flat: Tensor) -> None:
        sent.append(flat.clone())
        flat.copy_(torch.stack(sent).sum(dim=0))

    for rank in range(world):  # the last one receives the sum of all
        parallel = DataParallel(rank=rank, world_size=world)
        shard = parallel.shard(batch)
        share = len(shard.images) / size
        loss = parallel.average_gradients(mean_loss(net, shard), net, share, all_reduce=exchange)
    torch.testing.assert_close(loss, whole)
    gradients = [p.grad for p in net.parameters()]
    for gradient, whole_gradient in zip(gradients, expected, strict=True):
        assert gradient is not None
        torch.testing.assert_close(gradient, whole_gradient)
        assert gradient.stride() == whole_gradient.stride()


def test_a_shard_too_small_to_normalize_is_refused() -> None:
    recipe = RECIPE.with_values(batch_size=5)
    options = {"rungs": (3,), "seed": 0, "numerics": NUMERICS, "images": IMAGES, "splits": SPLITS}
    Training(recipe, parallel=DataParallel(rank=0, world_size=2), **options)  # type: ignore[arg-type]
    with pytest.raises(
        SpecError, match=r"batch_size must be at least 2 per process.* got a batch of 5"
    ):
        Training(recipe, parallel=DataParallel(rank=0, world_size=3), **options)  # type: ignore[arg-type]
