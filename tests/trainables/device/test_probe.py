"""The probe chooses the fastest numerics with parity, and survives broken kernels."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.overrides import TorchFunctionMode

from common.errors import SpecError
from tests.trainables.training.rerun_graph import RerunGraph, Uncapturable
from trainables.device import candidates
from trainables.device.candidates import half_precision
from trainables.device.probe import Measurement, choose, measure, probe
from trainables.prediction import autocast
from trainables.recipe import Dtype, Numerics, Recipe

TINY = Recipe(width=4, batch_size=16, dropout=0.5)


def measurement(
    seconds: float,
    *,
    dtype: Dtype = "float32",
    error: float = 0.0,
    cosine: float = 1.0,
    captured: bool = False,
) -> Measurement:
    numerics = Numerics(dtype=dtype, threads=int(seconds * 1000), captured=captured)
    return Measurement(
        numerics=numerics, batch=4, seconds=seconds, logit_error=error, gradient_cosine=cosine
    )


class Clock:
    """A clock that advances by the same time whenever it is read."""

    def __init__(self, tick: float) -> None:
        self._tick, self._now = tick, 0.0

    def __call__(self) -> float:
        self._now += self._tick
        return self._now


def linear(*, classes: int, image_size: int, recipe: object) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, classes))


def run(recipe: Recipe = TINY, **changes: Any) -> tuple[Measurement, ...]:
    options: dict[str, Any] = {
        "classes": 3, "image_size": 8, "device": "cpu", "threads": 1, "budget_seconds": 1.0,
        "clock": Clock(1e-3), "half": "bfloat16", **changes,
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


@pytest.mark.parametrize(("seconds", "chosen"), [(0.290, False), (0.280, True)])
def test_a_captured_step_needs_a_gain_of_five_percent(seconds: float, chosen: bool) -> None:
    captured = measurement(seconds, captured=True)
    assert choose([measurement(0.3), captured]).captured == chosen
    half = measurement(0.280, dtype="bfloat16")
    both = measurement(0.260, dtype="bfloat16", captured=True)
    assert choose([measurement(0.3), half, both]) == both.numerics


def test_the_fastest_candidate_is_measured_as_a_graph_too() -> None:
    *usual, captured = run(graph=RerunGraph)
    assert not any(each.numerics.captured for each in usual)
    assert captured.numerics == replace(choose(usual), captured=True)
    same = next(each for each in usual if each.numerics == choose(usual))
    assert captured.parity
    assert (captured.logit_error, captured.gradient_cosine) == (
        same.logit_error,
        same.gradient_cosine,
    )


def test_a_step_that_cannot_be_captured_is_no_candidate() -> None:
    assert not any(each.numerics.captured for each in run())
    own = TINY.with_values(model="tests.trainables.device.test_probe:linear")
    assert not any(each.numerics.captured for each in run(own, graph=RerunGraph))
    broken = run(graph=Uncapturable)
    assert len(broken) == len(run())
    assert not any(each.numerics.captured for each in broken)


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


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "expected"),
    [("cuda", True, "bfloat16"), ("cuda:1", False, "float16")],
)
def test_gpus_without_bfloat16_compute_in_float16(
    device: str, has_bfloat16: bool, expected: str
) -> None:
    assert half_precision(device, has_bfloat16=lambda _: has_bfloat16) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"sse2", "avx2", "fma"}, None),
        ({"avx2", "avx_vnni"}, None),
        ({"avx2", "avx512f", "avx512_vnni"}, "bfloat16"),
        ({"avx2", "avx512f", "avx512_bf16", "amx_bf16"}, "bfloat16"),
        ({"fp", "asimd", "asimddp"}, None),
        ({"fp", "asimd", "bf16", "i8mm"}, "bfloat16"),
        (set(), "bfloat16"),
    ],
)
def test_a_cpu_that_emulates_bfloat16_never_computes_in_it(
    flags: set[str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if it is measured as faster, as was seen once on a busy machine."""
    assert half_precision("cpu", flags=frozenset(flags)) == expected
    monkeypatch.setattr(candidates, "cpu_flags", lambda: frozenset(flags))
    dtypes = {each.numerics.dtype for each in run(half=None)}
    assert dtypes == {"float32"} | ({expected} if expected else set())


def test_times_are_those_of_the_quietest_step() -> None:
    """Another process delays two of three steps: load only adds to a step's time."""

    class Busy(Device):
        loads = cycle([0.0, 0.05, 0.05])

        def _step(self, size: int, numerics: Numerics) -> None:
            super()._step(size, numerics)
            self.now += next(self.loads)

    measurements = on(Busy(launch=0.03), batch_size=16)
    assert [m.seconds for m in measurements] == pytest.approx([0.03] * 4)


def test_float16_has_parity_and_needs_a_gain_too() -> None:
    halves = [each for each in run(half="float16") if each.numerics.dtype == "float16"]
    assert [each.numerics.layout for each in halves] == ["channels_last", "contiguous"]
    assert all(each.parity for each in halves)
    assert all(each.gradient_cosine > 0.99 for each in halves)
    barely = measurement(0.290, dtype="float16", error=0.02, cosine=0.99)
    assert choose([measurement(0.3), barely]).dtype == "float32"


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


@pytest.mark.parametrize(("tick", "measured"), [(1e-3, 4), (0.15, 3), (10.0, 1)])
def test_candidates_without_time_left_are_skipped(tick: float, measured: int) -> None:
    assert len(run(budget_seconds=1.0, clock=Clock(tick))) == measured


class Device(TorchFunctionMode):
    """A device with its own time: a step costs its launches and its images.

    Its clock advances, and its memory runs out, at the first convolution of a step.
    """

    def __init__(
        self,
        *,
        launch: float = 0.0,
        image: float = 0.0,
        start_up: float = 0.0,
        kernels: float = 0.0,
        slow_dtype: str = "",
        memory: int = 10**9,
        error: Exception | None = None,
    ) -> None:
        """All are in seconds, except `memory`, in images.

        `start_up` precedes the first step of all, and `kernels` the first step of each size, dtype
        and layout; with `slow_dtype`, only of those with this one. `error` is raised where the
        memory is full.
        """
        super().__init__()
        self.now, self.sizes = 0.0, set[int]()
        self._launch, self._image, self._start_up = launch, image, start_up
        self._kernels, self._slow_dtype = kernels, slow_dtype
        self._memory = memory
        self._error = error or torch.OutOfMemoryError("CUDA out of memory")
        self._seen = set[object]()
        self._numerics: Numerics | None = None

    def clock(self) -> float:
        return self.now

    @contextlib.contextmanager
    def autocast(self, numerics: Numerics) -> Iterator[None]:
        self._numerics = numerics
        with self, autocast(numerics):
            yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and self._numerics is not None:
            self._step(len(args[0]), self._numerics)
            self._numerics = None
        return func(*args, **(kwargs or {}))

    def _step(self, size: int, numerics: Numerics) -> None:
        if size > self._memory:
            raise self._error
        self.sizes.add(size)
        self.now += 0.0 if self._seen else self._start_up
        if (size, numerics) not in self._seen and self._slow_dtype in numerics.dtype:
            self.now += self._kernels
        self._seen.add((size, numerics))
        self.now += self._launch + size * self._image


def on(device: Device, *, batch_size: int = 512) -> tuple[Measurement, ...]:
    """Probe on a simulated device; one step may take a sixteenth of the budget of 1.6 s."""
    return run(
        TINY.with_values(batch_size=batch_size),
        budget_seconds=1.6,
        clock=device.clock,
        autocast=device.autocast,
    )


@pytest.mark.parametrize(
    ("image", "batch"),
    [(1e-6, 512), (0.00975, 10), (0.001, 100), (0.5, 4), (50.0, 4)],
    ids=["fast", "slower", "moderate", "too slow for more than four images", "far too slow"],
)
def test_a_heavy_network_is_probed_at_a_smaller_batch(image: float, batch: int) -> None:
    device = Device(image=image)
    assert {m.batch for m in on(device)} == {batch}
    assert max(device.sizes) <= max(4, batch)


@pytest.mark.parametrize("launch", [1e-3, 0.03, 0.09, 0.11, 0.5, 3.0])
@pytest.mark.parametrize("batch_size", [2, 3, 16, 500])
def test_a_network_bound_by_launches_is_probed_at_its_full_batch(
    launch: float, batch_size: int
) -> None:
    """Its steps take as long for any batch, so a smaller one would gain nothing."""
    measurements = on(Device(launch=launch), batch_size=batch_size)
    assert {m.batch for m in measurements} == {batch_size}
    assert all(m.seconds == pytest.approx(launch) for m in measurements)


@given(st.floats(0.0, 0.2), st.floats(1e-5, 0.02), st.integers(4, 600))
def test_a_step_takes_its_share_of_the_budget_or_hardly_longer_than_two_images(
    launch: float, image: float, batch_size: int
) -> None:
    batch = on(Device(launch=launch, image=image), batch_size=batch_size)[0].batch
    limit = max(0.1, 1.25 * (launch + 2 * image))
    assert launch + batch * image <= limit * (1 + 1e-9) or batch == 4
    full = batch == batch_size
    assert full or batch == 4 or launch + 1.3 * (batch + 1) * image >= limit


@pytest.mark.parametrize("start_up", [0.0, 0.2, 5.0, 60.0])
@pytest.mark.parametrize("kernels", [0.0, 0.3])
def test_start_up_changes_neither_batch_nor_candidates_nor_times(
    start_up: float, kernels: float
) -> None:
    """The first step of all starts the device; each candidate's first step loads its kernels.

    Both took the whole budget on a GPU, which was then probed with four images and one candidate.
    """
    measurements = on(Device(image=0.00975, start_up=start_up, kernels=kernels))
    assert [m.batch for m in measurements] == [10] * 4
    assert [m.seconds for m in measurements] == pytest.approx([0.0975] * 4)


def test_first_steps_without_end_are_cut_short() -> None:
    """Emulated bfloat16 may take 25 times as long as float32: its second layout is not tried."""
    assert len(on(Device(image=0.00975, kernels=2.0, slow_dtype="bfloat16"))) == 3


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=["cuda", "cpu"],
)
@pytest.mark.parametrize(("memory", "least"), [(600, 500), (200, 100), (33, 17), (3, 2), (2, 2)])
@pytest.mark.parametrize("launch", [0.0, 0.05])
def test_a_batch_that_does_not_fit_into_memory_is_halved(
    launch: float, memory: int, least: int, error: Exception
) -> None:
    measurements = on(Device(launch=launch, memory=memory, error=error), batch_size=500)
    assert len(measurements) == 4
    assert all(least <= m.batch <= min(500, memory) for m in measurements)


def test_memory_that_shrinks_after_the_batch_was_chosen_halves_it() -> None:
    """Another process may take memory before the first candidate."""

    class Shrinking(Device):
        """Lose memory after the three steps that time the full batch."""

        full = 0

        def _step(self, size: int, numerics: Numerics) -> None:
            super()._step(size, numerics)
            self.full += size == 512
            if self.full == 3:
                self._memory = 200

    assert {m.batch for m in on(Shrinking())} == {128}


@pytest.mark.parametrize("memory", [0, 1])
def test_a_network_that_fits_no_batch_raises(memory: int) -> None:
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        on(Device(memory=memory))


def test_other_errors_of_the_reference_are_raised_at_once() -> None:
    device = Device(memory=5, error=RuntimeError("could not create a primitive"))
    with pytest.raises(RuntimeError, match="primitive"):
        on(device)
    assert max(device.sizes) == 4


def test_the_thread_count_is_restored() -> None:
    torch.set_num_threads(2)
    assert probe(TINY, classes=3, image_size=8, threads=1, budget_seconds=0.1).threads == 1
    assert torch.get_num_threads() == 2


def test_a_network_that_cannot_be_built_raises_a_spec_error() -> None:
    with pytest.raises(SpecError, match="at least 8 px, got 7"):
        run(image_size=7)
