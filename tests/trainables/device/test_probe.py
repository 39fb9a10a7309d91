"""The probe chooses the fastest numerics with parity, and survives broken kernels."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from common.errors import SpecError
from trainables.device.probe import Measurement, choose, measure, probe
from trainables.prediction import autocast
from trainables.recipe import Numerics, Recipe

TINY = Recipe(width=4, batch_size=16, dropout=0.5)
Dtype = Literal["float32", "bfloat16"]


def measurement(
    seconds: float, *, dtype: Dtype = "float32", error: float = 0.0, cosine: float = 1.0
) -> Measurement:
    numerics = Numerics(dtype=dtype, threads=int(seconds * 1000))
    return Measurement(
        numerics=numerics, batch=4, seconds=seconds, logit_error=error, gradient_cosine=cosine
    )


class Clock:
    """A clock that advances by the same time whenever it is read, and by more at some reads."""

    def __init__(self, tick: float, more: Mapping[int, float] | None = None) -> None:
        """`more` maps the number of a read, from 1, to further seconds before it."""
        self._tick, self._more = tick, more or {}
        self._now, self._reads = 0.0, 0

    def __call__(self) -> float:
        self._reads += 1
        self._now += self._tick + self._more.get(self._reads, 0.0)
        return self._now


def run(recipe: Recipe = TINY, **changes: Any) -> tuple[Measurement, ...]:
    options: dict[str, Any] = {
        "classes": 3, "image_size": 8, "device": "cpu", "threads": 1, "budget_seconds": 1.0,
        "clock": Clock(1e-3), **changes,
    }  # fmt: skip
    return measure(recipe, **options)


@pytest.fixture(autouse=True)
def _threads_restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_fastest_with_parity_is_chosen() -> None:
    reference, better = measurement(0.5), measurement(0.3)
    rough = measurement(0.1, dtype="bfloat16", error=0.2)
    crooked = measurement(0.1, dtype="bfloat16", cosine=0.5)
    broken = measurement(0.1, dtype="bfloat16", error=float("nan"))
    assert choose([reference, better, rough, crooked, broken]) == better.numerics
    assert choose([reference, rough]) == reference.numerics


@pytest.mark.parametrize(("seconds", "chosen"), [(0.290, "float32"), (0.280, "bfloat16")])
def test_bfloat16_needs_a_gain_of_five_percent(seconds: float, chosen: str) -> None:
    half = measurement(seconds, dtype="bfloat16", error=0.02, cosine=0.99)
    assert choose([measurement(0.3), half]).dtype == chosen


@given(
    others=st.lists(
        st.builds(
            measurement,
            st.floats(0.001, 1),
            dtype=st.sampled_from(["float32", "bfloat16"]),
            error=st.floats(0, 1) | st.just(float("nan")),
            cosine=st.floats(-1, 1),
        )
    )
)
def test_no_candidate_without_parity_is_ever_chosen(others: list[Measurement]) -> None:
    measurements = [measurement(0.5), *others]
    chosen = choose(measurements)
    assert any(each.parity and each.numerics == chosen for each in measurements)


def test_four_candidates_are_measured_against_the_reference() -> None:
    measurements = run()
    assert [(m.numerics.dtype, m.numerics.layout) for m in measurements] == [
        ("float32", "contiguous"), ("float32", "channels_last"),
        ("bfloat16", "channels_last"), ("bfloat16", "contiguous"),
    ]  # fmt: skip
    assert measurements[0].logit_error == 0
    assert all(m.parity and m.seconds == pytest.approx(1e-3) for m in measurements)
    assert measurements[1].logit_error < 1e-4
    assert measurements[2].logit_error > 1e-4


class BrokenMean(TorchFunctionMode):
    """Multiplies every mean that torch computes."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return self._factor * result if func is torch.Tensor.mean else result


@pytest.mark.parametrize("fault", ["raises", "wrong", "nan"])
def test_a_broken_kernel_is_not_chosen(fault: str) -> None:
    @contextlib.contextmanager
    def broken(numerics: Numerics) -> Iterator[None]:
        if numerics.dtype == "float32":
            yield
            return
        if fault == "raises":
            raise RuntimeError("could not create a primitive")
        with BrokenMean(float("nan") if fault == "nan" else -1.0), autocast(numerics):
            yield

    measurements = run(autocast=broken)
    assert len(measurements) == (2 if fault == "raises" else 4)
    parity = [m.numerics.dtype for m in measurements if m.parity]
    assert parity == ["float32", "float32"]
    assert choose(measurements).dtype == "float32"


def test_without_time_the_reference_is_chosen() -> None:
    measurements = run(budget_seconds=0.0)
    assert len(measurements) == 1
    assert choose(measurements) == Numerics(layout="contiguous")


@pytest.mark.parametrize(
    ("step_seconds", "batch"),
    [(1e-6, 16), (0.039, 10), (0.5, 4)],
    ids=["fast", "slower", "too slow for more than four images"],
)
def test_a_heavy_network_is_probed_at_a_smaller_batch(step_seconds: float, batch: int) -> None:
    """One step may take a sixteenth of the budget of 1.6 s; the small batch has four images."""
    clock = Clock(step_seconds)
    measurements = run(budget_seconds=1.6, clock=clock)
    assert {m.batch for m in measurements} == {batch}


@pytest.mark.parametrize(("tick", "measured"), [(1e-3, 4), (0.15, 3), (10.0, 1)])
def test_candidates_without_time_left_are_skipped(tick: float, measured: int) -> None:
    assert len(run(budget_seconds=1.0, clock=Clock(tick))) == measured


FIRST_STEPS = (7, 10, 13, 16)
"""Reads of the clock at the end of each candidate's first step, after two steps of few images."""


@pytest.mark.parametrize("start_up", [0.0, 0.2, 5.0, 60.0])
@pytest.mark.parametrize("kernels", [0.0, 0.3])
def test_start_up_changes_neither_batch_nor_candidates_nor_times(
    start_up: float, kernels: float
) -> None:
    """The first step of all starts the device; each candidate's first step loads its kernels.

    Both took the whole budget on a GPU, which was then probed with four images and one candidate.
    """
    slow = dict.fromkeys(FIRST_STEPS, kernels) | {2: start_up}
    measurements = run(budget_seconds=1.6, clock=Clock(0.039, slow))
    assert [m.batch for m in measurements] == [10] * 4
    assert [m.seconds for m in measurements] == pytest.approx([0.039] * 4)


def test_first_steps_without_end_are_cut_short() -> None:
    """Emulated bfloat16 may take 25 times as long as float32: its second layout is not tried."""
    slow = dict.fromkeys(FIRST_STEPS[2:], 2.0)
    assert len(run(budget_seconds=1.6, clock=Clock(0.039, slow))) == 3


def test_the_thread_count_is_restored() -> None:
    torch.set_num_threads(2)
    assert probe(TINY, classes=3, image_size=8, threads=1, budget_seconds=0.1).threads == 1
    assert torch.get_num_threads() == 2


def test_a_network_that_cannot_be_built_raises_a_spec_error() -> None:
    with pytest.raises(SpecError, match="at least 8 px, got 7"):
        run(image_size=7)
