"""Every operation agrees with Pillow or torchvision, one image at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from common.seeds import torch_generator
from trainables.augmentation.operations import (
    affine_maps,
    autocontrast,
    colour_matrices,
    equalize,
    hue_matrices,
    posterize,
    recolour,
    sharpen,
    solarize,
    warp,
)
from trainables.augmentation.policies import (
    LEVELS,
    OPERATIONS,
    RANDAUGMENT,
    STANDARD,
    WIDE,
    Ranges,
    apply_operations,
    draw_operations,
)

LEVEL = 1 / 255
ROUNDED = 1.5 * LEVEL
"""Largest difference from Pillow, which rounds to integer grey levels, sometimes twice."""


def some_images(count: int = 8, size: int = 24, seed: int = 0) -> Tensor:
    """Return smooth 8-bit images [B, 3, S, S] in channels_last, with some noise."""
    generator = torch_generator(seed, "images")
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    noisy = smooth + 0.1 * torch.rand(smooth.shape, generator=generator)
    levels = (noisy * 230).floor().clamp(0, 255)
    return (levels / 255).contiguous(memory_format=torch.channels_last)


def to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> npt.NDArray[np.float32]:
    return np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)


def in_a_loop(images: Tensor, operation: Callable[[Image.Image, int], Image.Image]) -> Any:
    return np.stack([from_pil(operation(to_pil(image), i)) for i, image in enumerate(images)])


def in_both_layouts(operation: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    result, contiguous = operation(images), operation(images.contiguous())
    np.testing.assert_allclose(result, contiguous, atol=1e-6)
    assert result.stride() == images.stride()
    assert contiguous.is_contiguous()
    return result


@given(seed=st.integers(0, 50))
def test_operations_on_grey_levels_equal_pillows_exactly(seed: int) -> None:
    images = some_images(seed=seed)
    bits = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8])
    thresholds = torch.tensor([0.0, 1, 40, 99, 128, 200, 255, 256])
    cuts = [int(threshold) for threshold in thresholds]
    cases = (
        (posterize(images, bits), lambda image, i: ImageOps.posterize(image, int(bits[i]))),
        (
            solarize(images, thresholds),
            lambda image, i: ImageOps.solarize(image, cuts[i]),
        ),
        (in_both_layouts(equalize, images), lambda image, _: ImageOps.equalize(image)),
    )
    for result, pillows in cases:
        levels = (result * 255).numpy()
        np.testing.assert_allclose(levels, in_a_loop(images, pillows) * 255, atol=1e-3)


def test_equalize_does_not_change_constant_and_small_images() -> None:
    constant = torch.full((2, 3, 24, 24), 100 / 255)
    assert torch.equal(equalize(constant), constant)
    small = some_images(size=12)
    assert torch.equal(equalize(small), small)
    np.testing.assert_array_equal(
        in_a_loop(small, lambda image, _: ImageOps.equalize(image)), small
    )


@given(seed=st.integers(0, 50))
def test_autocontrast_and_sharpen_equal_torchvisions(seed: int) -> None:
    images = some_images(seed=seed)
    images[0] = 0.25
    stretched = in_both_layouts(autocontrast, images)
    np.testing.assert_allclose(stretched, tv.autocontrast(images), atol=1e-6)
    factors = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0, 1.3, 1.9, 2.0])
    sharpened = in_both_layouts(lambda x: sharpen(x, factors), images)
    for result, image, factor in zip(sharpened, images, factors.tolist(), strict=True):
        np.testing.assert_allclose(result, tv.adjust_sharpness(image, factor), atol=1e-6)
    tiny = some_images(size=2)
    assert torch.equal(sharpen(tiny, factors), tiny)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_enhancements_equal_pillows_before_rounding(name: str) -> None:
    images = some_images()
    factors = torch.tensor([0.01, 0.1, 0.5, 0.9, 1.0, 1.3, 1.9, 2.0])
    change = {key: torch.ones(8) for key in ("brightness", "contrast", "saturation")}
    change[name] = factors
    result = in_both_layouts(lambda x: recolour(x, colour_matrices(x, **change)), images)
    enhancer = {"saturation": ImageEnhance.Color}.get(
        name, getattr(ImageEnhance, name.title(), None)
    )
    assert enhancer is not None
    expected = in_a_loop(images, lambda image, i: enhancer(image).enhance(float(factors[i])))
    np.testing.assert_allclose(result, expected, atol=ROUNDED)


def test_three_enhancements_in_one_matrix_equal_three_in_sequence() -> None:
    images = 0.4 + 0.2 * some_images()  # values are not clipped in between
    b, c, s = (0.8 + 0.4 * torch.rand(8, generator=torch_generator(i, "f")) for i in range(3))
    combined = recolour(images, colour_matrices(images, brightness=b, contrast=c, saturation=s))
    for i, image in enumerate(images):
        expected = tv.adjust_brightness(image, float(b[i]))
        expected = tv.adjust_contrast(expected, float(c[i]))
        expected = tv.adjust_saturation(expected, float(s[i]))
        np.testing.assert_allclose(
            combined[i], expected, atol=2e-4
        )  # torchvision's luma has 0.2989


@given(degrees=st.floats(-180, 180))
def test_hue_rotation_keeps_luma_and_greys_and_is_invertible(degrees: float) -> None:
    turn = hue_matrices(torch.tensor([degrees, -degrees]))
    luma = torch.tensor([0.299, 0.587, 0.114])
    np.testing.assert_allclose(turn.sum(dim=2), 1, atol=2e-5)
    np.testing.assert_allclose(luma @ turn, luma.expand(2, 3), atol=2e-5)
    np.testing.assert_allclose(turn[0] @ turn[1], torch.eye(3), atol=2e-5)


def test_a_third_of_a_turn_permutes_red_green_and_blue() -> None:
    turn = hue_matrices(torch.tensor([120.0]))[0]
    assert [int((turn @ colour).argmax()) for colour in torch.eye(3)] in ([1, 2, 0], [2, 0, 1])


@given(seed=st.integers(0, 20), border=st.sampled_from(["zeros", "reflection"]))
def test_warping_a_batch_equals_warping_each_image(seed: int, border: Any) -> None:
    images = some_images(seed=seed)
    thetas = torch.eye(2, 3) + 0.3 * torch.randn(8, 2, 3, generator=torch_generator(seed, "t"))
    result = in_both_layouts(lambda x: warp(x, thetas, border=border), images)
    for i, image in enumerate(images):
        assert_allclose = np.testing.assert_allclose
        assert_allclose(
            result[i], warp(image[None], thetas[i : i + 1], border=border)[0], atol=1e-6
        )
    identity = torch.eye(2, 3).expand(8, 2, 3)
    np.testing.assert_allclose(warp(images, identity, border=border), images, atol=1e-6)


def test_affine_maps_equal_torchvisions() -> None:
    image = some_images(1)[0]
    for degrees, scale, shear in (
        (30.0, 1.0, 0.0),
        (0.0, 1.4, 0.0),
        (0.0, 1.0, 0.2),
        (-20, 0.8, 0),
    ):
        thetas = affine_maps(
            degrees=torch.tensor([degrees]),
            scales=torch.tensor([scale]),
            shears=torch.tensor([[shear, 0.0]]),
        )
        expected = tv.affine(
            image,
            angle=-degrees,
            translate=[0, 0],
            scale=scale,
            shear=[float(np.degrees(np.arctan(shear))), 0.0],
            interpolation=tv.InterpolationMode.BILINEAR,
        )
        result = warp(image[None], thetas, border="zeros")[0]
        np.testing.assert_allclose(result, expected, atol=1e-5)


def pillows(name: str, level: int, sign: int, ranges: Ranges, image: Image.Image) -> Image.Image:
    """Apply an operation as automl/trivialaugment does, at `level` of 30."""
    size = image.width
    low, high = ranges.enhance
    factor = low + (high - low) * level / 30
    if ranges.mirrored:
        factor = 1 + sign * (high - 1) * level / 30
    shear = sign * ranges.shear * level / 30
    shift = sign * int(level * ranges.translate * size / 30 + 1e-4)
    affine = Image.Transform.AFFINE
    match name:
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "rotate":
            return image.rotate(sign * int(level * ranges.rotate / 30 + 1e-4))
        case "solarize":
            return ImageOps.solarize(image, 256 - int(level * 256 / 30 + 1e-4))
        case "posterize":
            return ImageOps.posterize(image, 8 - int(level * ranges.lost_bits / 30 + 1e-4))
        case "colour":
            return ImageEnhance.Color(image).enhance(factor)
        case "contrast" | "brightness" | "sharpness":
            return getattr(ImageEnhance, name.title())(image).enhance(factor)  # type: ignore[no-any-return]
        case "shear_x":
            return image.transform(image.size, affine, (1, shear, 0, 0, 1, 0))
        case "shear_y":
            return image.transform(image.size, affine, (1, 0, 0, shear, 1, 0))
        case "translate_x":
            return image.transform(image.size, affine, (1, 0, shift, 0, 1, 0))
        case "translate_y":
            return image.transform(image.size, affine, (1, 0, 0, 0, 1, shift))
    return image


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("ranges", [STANDARD, WIDE, RANDAUGMENT], ids=["standard", "wide", "rand"])
def test_every_operation_equals_the_published_one_at_every_level(name: str, ranges: Ranges) -> None:
    levels = torch.arange(LEVELS).repeat(2)
    signs = torch.tensor([-1.0] * LEVELS + [1.0] * LEVELS)
    images = some_images(2 * LEVELS, size=32)
    operations = torch.full((2 * LEVELS,), OPERATIONS.index(name))
    result = apply_operations(images, operations, signs, levels / (LEVELS - 1), ranges)
    expected = in_a_loop(
        images, lambda image, i: pillows(name, int(levels[i]), int(signs[i]), ranges, image)
    )
    close = np.abs(result.numpy() - expected) <= ROUNDED
    # A position halfway between two pixels may be rounded either way.
    assert close.mean() >= (0.995 if name in ("rotate", "shear_x", "shear_y") else 1.0)


def test_an_images_operation_does_not_depend_on_the_rest_of_the_batch() -> None:
    images = some_images(300, size=16)
    operations, signs = draw_operations(images, torch_generator(0, "ops"))
    levels = torch.rand(300, generator=torch_generator(1, "ops"))
    together = apply_operations(images, operations, signs, levels, WIDE)
    for i in range(0, 300, 7):
        row = slice(i, i + 1)
        alone = apply_operations(images[row], operations[row], signs[row], levels[row], WIDE)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-6)
    untouched = operations == OPERATIONS.index("identity")
    assert torch.equal(together[untouched], images[untouched])
    assert set(operations.tolist()) == set(range(len(OPERATIONS)))
    assert bool(((together >= 0) & (together <= 1)).all())
