"""Named streams: stable, distinct, and without effect on torch's global generators."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.seeds import derive_seed, global_torch_stream, numpy_generator, torch_generator

names = st.lists(st.text(max_size=5) | st.integers(-99, 99), max_size=4).map(tuple)


def test_seeds_never_change() -> None:
    """Golden values: recorded runs are replayed from these seeds."""
    assert derive_seed(0) == 3_456_079_177_858_693_020
    assert derive_seed(0, "trial", 17) == 7_900_046_088_838_089_375
    assert derive_seed(-1, "splits", "test") == 1_961_826_480_847_009_935


def test_another_process_has_the_same_seed() -> None:
    code = "from common.seeds import derive_seed; print(derive_seed(3, 'a', 1))"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert int(process.stdout) == derive_seed(3, "a", 1)


@given(st.integers(), names, st.integers(), names)
def test_different_names_have_different_seeds(
    root: int, names: tuple[str | int, ...], other_root: int, others: tuple[str | int, ...]
) -> None:
    same = (root, names) == (other_root, others)
    assert (derive_seed(root, *names) == derive_seed(other_root, *others)) == same
    assert 0 <= derive_seed(root, *names) < 2**63


def test_names_cannot_be_confused() -> None:
    lookalikes: list[tuple[str | int, ...]] = [
        ("a", "b"), ("a\x1fstr:b",), ("ab",), ("a", "", "b"), ("b", "a"),
        (1,), ("1",), (1, 1), (11,), ("\x1f",), ("\x1e1",), ("\x1e", "1"),
    ]  # fmt: skip
    assert len({derive_seed(0, *names) for names in lookalikes}) == len(lookalikes)


def test_numpy_integers_count_as_python_integers() -> None:
    assert derive_seed(0, "trial", np.int64(17)) == derive_seed(0, "trial", 17)  # type: ignore[arg-type]
    assert derive_seed(np.int32(4), "x") == derive_seed(4, "x")  # type: ignore[arg-type]


def test_names_of_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        derive_seed(0, 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        derive_seed(0.5, "x")  # type: ignore[arg-type]


def test_a_stream_starts_from_its_beginning_each_time() -> None:
    first, again = numpy_generator(1, "draw", 3), numpy_generator(1, "draw", 3)
    assert first.integers(0, 2**60, 9).tolist() == again.integers(0, 2**60, 9).tolist()
    assert torch.equal(
        torch.rand(9, generator=torch_generator(1, "draw", 3)),
        torch.rand(9, generator=torch_generator(1, "draw", 3)),
    )


def test_streams_are_uncorrelated() -> None:
    """Correlate first draws of 2,000 neighbours. False alarm: below 1e-4 (4 standard errors)."""
    first = np.array([numpy_generator(0, "epoch", i).random() for i in range(2001)])
    pairs = np.corrcoef(first[:-1], first[1:])[0, 1]
    assert abs(pairs) < 4 / np.sqrt(2000)
    assert abs(first.mean() - 0.5) < 4 / np.sqrt(12 * 2001)


def test_the_global_generator_follows_the_named_stream_and_is_restored() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    with global_torch_stream(1, "dropout"):
        inside = torch.rand(4)
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(inside, torch.rand(4, generator=torch_generator(1, "dropout")))


def test_the_global_generator_is_restored_after_an_error() -> None:
    before = torch.get_rng_state()

    def fail() -> None:
        with global_torch_stream(1, "dropout"):
            torch.rand(4)
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0"])
def test_global_generators_are_restored_on_cuda(device: str) -> None:
    torch.cuda.manual_seed(5)
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    with global_torch_stream(1, "dropout", device=device):
        inside = torch.rand(4, device=device)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(torch.cuda.get_rng_state(), before[1])
    named = torch.rand(4, device=device, generator=torch_generator(1, "dropout", device=device))
    assert torch.equal(inside, named)
