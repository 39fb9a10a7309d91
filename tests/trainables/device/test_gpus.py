"""A GPU that torch has no kernels for is refused in one line, and any other is accepted."""

import pytest
import torch

from common.errors import SpecError
from trainables.device.gpus import require_gpu

LOCKED = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
"""Architectures of torch 2.15.0+cu132 on x86-64, as it lists them."""


def cards(
    monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int], built: list[str]
) -> None:
    """Let torch see GPUs of these capabilities, and have been built for these architectures."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Card {index}")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        ((7, 5), LOCKED),
        ((8, 0), LOCKED),
        ((8, 9), LOCKED),
        ((9, 0), LOCKED),
        ((12, 1), LOCKED),
        ((9, 0), ["sm_80", "sm_90a"]),
        ((7, 0), ["sm_50", "sm_60", "sm_70", "sm_75"]),
        ((13, 0), [*LOCKED, "compute_120"]),
        ((9, 4), ["gfx90a", "gfx942"]),
        ((7, 0), []),
    ],
)
def test_a_gpu_with_kernels_is_accepted(
    capability: tuple[int, int], built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(monkeypatch, capability, built=built)
    require_gpu()


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        ((7, 0), LOCKED),
        ((6, 1), LOCKED),
        ((8, 0), ["sm_75", "sm_86"]),
        ((13, 0), LOCKED),
        ((10, 0), ["sm_90", "compute_120"]),
    ],
)
def test_a_gpu_without_kernels_is_refused(
    capability: tuple[int, int], built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(monkeypatch, (8, 6), capability, built=[*built, "sm_86"])
    with pytest.raises(SpecError, match=r"Card 1 has compute capability") as raised:
        require_gpu()
    line = str(raised.value)
    assert f"capability {capability[0]}.{capability[1]}," in line
    assert f"torch {torch.__version__} supports " in line
    assert "8.6" in line
    assert "install a torch build" in line
    assert "\n" not in line
