"""Gradients of depthwise convolutions, against torch's own."""

import pytest
import torch
from torch import Tensor, nn

from common.seeds import torch_generator
from trainables.recipe import Numerics
from trainables.training import depthwise_gradients
from trainables.training.depthwise_gradients import DepthwiseGradients

CASES = [
    # channels, side, kernel, stride, padding
    (8, 3, 5, 1, 2),
    (8, 12, 5, 1, 2),
    (6, 27, 5, 2, 0),
    (8, 9, (5, 4), (2, 1), (0, 2)),
    (5, 11, 7, 1, 3),
    (4, 10, (1, 9), 1, (0, 4)),
    (3, 8, 6, (3, 2), 1),
    # Kernels of which some columns see no image.
    (4, 1, 7, 1, 3),
    (4, 2, 7, 1, 3),
    (4, 1, 9, 1, 4),
    (4, 3, 9, 2, 4),
    (4, 2, 11, 1, 5),
]


@pytest.fixture
def avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def gradients(net: nn.Module, images: Tensor, *, ours: bool) -> list[Tensor]:
    """Return the gradients of images and parameters under a loss that weighs every result."""
    images = images.detach().requires_grad_()
    net.zero_grad()
    with DepthwiseGradients() if ours else torch.enable_grad():
        result = net(images)
    weights = torch.linspace(-1, 2, result.numel()).reshape(result.shape)
    (result * weights).sum().backward()
    assert images.grad is not None
    return [result.detach(), images.grad, *(p.grad for p in net.parameters() if p.grad is not None)]


@pytest.mark.parametrize(("channels", "side", "kernel", "stride", "padding"), CASES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_equal_those_of_torch(
    channels: int,
    side: int,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int],
    bias: bool,
    layout: torch.memory_format,
) -> None:
    generator = torch_generator(0, "depthwise")
    net = nn.Conv2d(
        channels, channels, kernel, stride, padding, groups=channels, bias=bias
    ).to(memory_format=layout)  # fmt: skip
    images = torch.randn(4, channels, side, side + 1, generator=generator)
    images = images.to(memory_format=layout)
    theirs = gradients(net, images, ours=False)
    ours = gradients(net, images, ours=True)
    assert len(ours) == 3 + bias
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_gradient_is_computed_for_few_columns_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    widths = []
    real = depthwise_gradients._gradients

    def watched(*arguments: Tensor, which: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
        if which[1]:
            widths.append(arguments[2].shape[-1])
        return real(*arguments, which=which)  # type: ignore[arg-type]

    monkeypatch.setattr(depthwise_gradients, "_gradients", watched)
    gradients(nn.Conv2d(8, 8, 7, padding=3, groups=8), torch.ones(2, 8, 9, 9), ours=True)
    assert widths == [3, 3, 1]


@pytest.mark.parametrize(
    "net",
    [
        nn.Conv2d(8, 8, 5, padding=2),
        nn.Conv2d(8, 16, 5, padding=2, groups=8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.Conv2d(8, 8, 5, dilation=2, groups=8),
        nn.Conv2d(8, 8, 5, padding=2, groups=8).requires_grad_(False),
    ],
)
def test_other_convolutions_are_left_alone(net: nn.Module) -> None:
    images = torch.ones(2, 8, 9, 9)
    with DepthwiseGradients():
        result = net(images)
    if result.requires_grad:
        assert result.grad_fn is not None
        assert "Depthwise" not in result.grad_fn.name()
    assert torch.equal(result, net(images))


def test_a_nets_own_autocast_is_left_alone() -> None:
    net, images = nn.Conv2d(8, 8, 5, padding=2, groups=8), torch.ones(2, 8, 9, 9)
    with DepthwiseGradients(), torch.autocast("cpu", torch.bfloat16):
        net(images).float().sum().backward()
    assert net.weight.grad is not None


def test_nothing_is_recorded_without_gradients() -> None:
    net = nn.Conv2d(8, 8, 5, padding=2, groups=8)
    with DepthwiseGradients(), torch.no_grad():
        assert not net(torch.ones(2, 8, 9, 9)).requires_grad


@pytest.mark.usefixtures("avx2")
@pytest.mark.parametrize(
    ("numerics", "helps"),
    [
        (Numerics(dtype="float32"), True),
        (Numerics(dtype="bfloat16"), False),
        (Numerics(dtype="float32", device="cuda"), False),
    ],
)
def test_the_gradients_are_ours_where_they_help(numerics: Numerics, helps: bool) -> None:
    context = depthwise_gradients.depthwise_gradients(numerics)
    assert isinstance(context, DepthwiseGradients) == helps


def test_processors_with_more_than_avx2_use_torchs_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    context = depthwise_gradients.depthwise_gradients(Numerics(dtype="float32"))
    assert not isinstance(context, DepthwiseGradients)
