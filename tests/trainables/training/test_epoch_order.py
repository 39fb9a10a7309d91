"""Epochs of any length visit every image once before any is visited twice."""

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.training.epoch_order import EpochOrder


@given(
    count=st.integers(4, 60),
    batch=st.integers(1, 12),
    passes=st.sampled_from([0.05, 0.25, 0.4, 1.5, 3.0]),
    epochs=st.integers(1, 8),
    seed=st.integers(0, 3),
)
def test_no_image_is_seen_twice_before_all_were_seen(
    count: int, batch: int, passes: float, epochs: int, seed: int
) -> None:
    order = EpochOrder(count, min(batch, count), passes=passes, seed=seed)
    seen = Counter[int]()
    for epoch in range(1, epochs + 1):
        positions, numbers = order.epoch(epoch, step=epoch)
        assert len(positions) == order.batches * order.batch_size
        for position, number in zip(positions.tolist(), numbers.tolist(), strict=True):
            seen[position] += 1
            assert number == seen[position]
    times = [seen[position] for position in range(count)]
    assert max(times) - min(times) <= 1


@given(count=st.integers(4, 60), batch=st.integers(1, 12), epoch=st.integers(1, 5))
def test_an_epoch_of_one_pass_is_a_permutation_of_its_own(
    count: int, batch: int, epoch: int
) -> None:
    batch = min(batch, count)
    order = EpochOrder(count, batch, passes=1.0, seed=1)
    positions, numbers = order.epoch(epoch, step=7)
    assert order.batches == count // batch
    assert len(set(positions.tolist())) == len(positions) == order.batches * batch
    assert set(numbers.tolist()) == {epoch}
    assert not torch.equal(positions, order.epoch(epoch, step=8)[0]) or count < 6


def test_the_number_of_steps_is_that_of_the_passes_and_at_least_one() -> None:
    assert EpochOrder(1000, 100, passes=0.25, seed=0).batches == 2
    assert EpochOrder(1000, 100, passes=2.5, seed=0).batches == 25
    assert EpochOrder(1000, 100, passes=0.001, seed=0).batches == 1
