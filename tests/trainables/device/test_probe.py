"""The probe: it chooses by speed among what computes the same, and survives broken kernels."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SpecError
from trainables.device import probe as probe_module
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
        numerics=numerics, seconds=seconds, logit_error=error, gradient_cosine=cosine
    )


def run(recipe: Recipe = TINY, **changes: Any) -> tuple[Measurement, ...]:
    options: dict[str, Any] = {
        "classes": 3, "image_size": 8, "device": "cpu", "threads": 1, "budget_seconds": 30.0,
        **changes,
    }  # fmt: skip
    return measure(recipe, **options)


@pytest.fixture(autouse=True)
def _threads_put_back() -> Iterator[None]:
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
def test_nothing_without_parity_is_ever_chosen(others: list[Measurement]) -> None:
    measurements = [measurement(0.5), *others]
    chosen = choose(measurements)
    assert any(one.parity and one.numerics == chosen for one in measurements)


def test_four_ways_are_measured_against_the_reference() -> None:
    measurements = run()
    assert [(m.numerics.dtype, m.numerics.layout) for m in measurements] == [
        ("float32", "contiguous"), ("float32", "channels_last"),
        ("bfloat16", "channels_last"), ("bfloat16", "contiguous"),
    ]  # fmt: skip
    assert measurements[0].logit_error == 0
    assert all(m.parity and m.seconds > 0 for m in measurements)
    assert measurements[1].logit_error < 1e-4
    assert measurements[2].logit_error > 1e-4


@pytest.mark.parametrize("fault", ["raises", "wrong", "nan"])
def test_a_broken_kernel_is_not_chosen(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    @contextlib.contextmanager
    def broken(numerics: Numerics) -> Iterator[None]:
        if numerics.dtype == "float32":
            yield
            return
        if fault == "raises":
            raise RuntimeError("could not create a primitive")
        with monkeypatch.context() as patch:
            factor = float("nan") if fault == "nan" else -1.0
            real = torch.Tensor.mean

            def mean(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
                return factor * real(tensor, *args, **kwargs)

            patch.setattr(torch.Tensor, "mean", mean)
            with autocast(numerics):
                yield

    monkeypatch.setattr(probe_module, "autocast", broken)
    measurements = run()
    parity = [m.numerics.dtype for m in measurements if m.parity]
    assert parity == ["float32", "float32"]
    assert choose(measurements).dtype == "float32"


def test_without_time_the_reference_is_chosen() -> None:
    measurements = run(budget_seconds=0.0)
    assert len(measurements) == 1
    assert choose(measurements) == Numerics(layout="contiguous")


def test_a_heavy_net_is_probed_at_a_smaller_batch() -> None:
    started = time.process_time()
    chosen = probe(
        Recipe(width=64, depth=3, batch_size=4096), classes=10, image_size=32, budget_seconds=0.5
    )
    assert chosen.threads == 1
    # 4,096 images would take half a minute a step; the factor allows for building four nets.
    assert time.process_time() - started < 5


def test_the_thread_count_is_put_back() -> None:
    torch.set_num_threads(2)
    assert probe(TINY, classes=3, image_size=8, threads=1, budget_seconds=0.1).threads == 1
    assert torch.get_num_threads() == 2


def test_a_net_that_cannot_be_built_is_the_users_error() -> None:
    with pytest.raises(SpecError, match="at least 8 px, got 7"):
        run(image_size=7)
