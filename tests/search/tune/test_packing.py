"""Trials are packed by the memory that earlier ones needed."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.timetable.capacity import Capacity, Node
from search.tune.packing import (
    CONTEXT_BYTES,
    HEADROOM,
    MOST_PER_GPU,
    Packing,
    requested_bytes,
    trials_per_gpu,
)
from trainables.recipe import Numerics, Recipe

GB = 1e9
NODES = Capacity(
    nodes=(Node(cores=8, memory_bytes=16 * GB), Node(cores=2, gpus=1, memory_bytes=4 * GB))
)


def state_of(*trials: tuple[Recipe, float]) -> Any:
    """Return a run whose trials have these recipes and peaks."""
    known = {
        str(number): SimpleNamespace(
            recipe=recipe.to_mapping(), peak_memory_bytes=int(peak), end=None
        )
        for number, (recipe, peak) in enumerate(trials)
    }
    return SimpleNamespace(trials=known, count=len(known))


def packing(*peaks: float, device: str = "cpu", shared: int = 0) -> Packing:
    state = state_of(*((Recipe(), peak) for peak in peaks))
    numerics = Numerics(device=device)
    return Packing(numerics, state, capacity=lambda: NODES, shared_bytes=shared)


def test_first_trials_get_a_core_each_and_later_ones_the_memory_that_was_needed() -> None:
    assert packing().share.resources == {"CPU": 1.0}
    assert NODES.trials_at_a_time(packing().share) == 10
    share = packing(1 * GB, 3 * GB).share
    assert 3 * GB * HEADROOM <= share.memory_bytes < 3 * GB * HEADROOM + GB
    assert NODES.trials_at_a_time(share) == 4 + 1


def test_images_that_all_trials_share_are_not_counted_for_each() -> None:
    assert packing(5 * GB, shared=int(4 * GB)).share.memory_bytes < 2 * GB


def test_a_trial_that_needs_more_than_the_largest_node_has_still_fits_there_alone() -> None:
    share = packing(90 * GB).share
    assert share.memory_bytes == 0.9 * 16 * GB
    assert NODES.trials_at_a_time(share) == 1
    alone = packing().alone
    assert alone.resources == {"CPU": 8.0, "memory": 0.9 * 16 * GB}
    assert NODES.trials_at_a_time(alone) == 1
    assert packing(device="cuda").alone.resources == {"CPU": 1.0, "GPU": 1.0}


def test_trials_share_a_gpu_once_its_memory_and_their_peak_are_known() -> None:
    on_gpu = packing(2 * GB, device="cuda")
    assert on_gpu.share.gpus == 1.0
    on_gpu.observe({"device_memory_bytes": int(80 * GB)})
    assert on_gpu.share.gpus == 1 / MOST_PER_GPU
    on_gpu.observe({"device_memory_bytes": int(8 * GB)})  # the smallest GPU decides
    assert on_gpu.share.gpus == pytest.approx(1 / 2, abs=1e-3)


@given(peak=st.floats(1e6, 1e11), shared=st.floats(0, 1e11))
def test_requests_cover_what_a_trial_does_not_share(peak: float, shared: float) -> None:
    assert requested_bytes(peak, shared=shared) >= HEADROOM * (peak - shared)
    assert requested_bytes(peak, shared=shared) > 0


@given(gpu=st.floats(1e9, 2e11), peak=st.floats(1e6, 1e11))
def test_trials_on_one_gpu_fit_into_its_memory(gpu: float, peak: float) -> None:
    count = trials_per_gpu(gpu, peak)
    assert 1 <= count <= MOST_PER_GPU
    assert count == 1 or count * (peak + CONTEXT_BYTES) <= gpu


def packing_on(*nodes: Node, peak: float) -> Packing:
    state = state_of((Recipe(), peak))
    return Packing(Numerics(), state, capacity=lambda: Capacity(nodes=nodes))


def test_a_head_without_cores_does_not_count() -> None:
    nodes = (Node(cores=0, memory_bytes=40 * GB), Node(cores=4, memory_bytes=2.8 * GB))
    share = packing_on(*nodes, peak=2.5 * GB).share
    assert Capacity(nodes=nodes).trials_at_a_time(share) == 1


@pytest.mark.parametrize("peak", [4.2 * GB, 7 * GB])
def test_small_differences_between_nodes_of_one_type_cost_no_place(peak: float) -> None:
    nodes = tuple(Node(cores=4, memory_bytes=5 * GB - 3e6 * number) for number in range(20))
    fitting = packing_on(*nodes, peak=peak)
    assert Capacity(nodes=nodes).trials_at_a_time(fitting.share) == 20
    assert Capacity(nodes=nodes).trials_at_a_time(fitting.alone) == 20
