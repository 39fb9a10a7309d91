"""Random crops agree with Pillow and with a loop over attempts, and follow their distributions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torch import Tensor

from common.seeds import numpy_generator, torch_generator
from trainables.augmentation.batch import augment, count_views
from trainables.augmentation.random_crops import ATTEMPTS, draw_crops, filter_weights, resample
from trainables.hyperparameters import Augmentation
from trainables.recipe import Recipe

FALSE_ALARM = 1e-3
"""Probability that a test of a distribution fails for a correct program and a new seed."""

MANY = 20_000


def crops(scale: float, ratio: float = 4 / 3) -> Augmentation:
    return Recipe(crop_scale=scale, crop_ratio=ratio).augmentation


def drawn(scale: float, ratio: float, aspect: float, seed: int = 0) -> Tensor:
    """Return MANY boxes of pictures with one aspect ratio."""
    blank = torch.zeros(1, 3, 1, 1).expand(MANY, -1, -1, -1)
    aspects = torch.full((MANY,), aspect)
    return draw_crops(blank, crops(scale, ratio), torch_generator(seed, "c"), aspects=aspects)


def test_boxes_equal_a_loop_over_images_and_attempts() -> None:
    """Compare with torchvision's rule, in a loop and without rounding to whole pixels."""
    count, scale, ratio = 200, 0.6, 2.0
    aspects = torch.linspace(0.25, 4, count)
    blank = torch.zeros(count, 3, 1, 1)
    boxes = draw_crops(blank, crops(scale, ratio), torch_generator(1, "c"), aspects=aspects)
    draws = torch.rand(2 * ATTEMPTS + 2, count, generator=torch_generator(1, "c")).double().numpy()
    fallbacks = 0
    for i, aspect in enumerate(aspects.double().tolist()):
        for attempt in range(ATTEMPTS):
            area = (scale + (1 - scale) * draws[attempt, i]) * aspect  # a picture of height 1
            shape = math.exp((2 * draws[ATTEMPTS + attempt, i] - 1) * math.log(ratio))
            width, height = math.sqrt(area * shape), math.sqrt(area / shape)
            if width <= aspect and height <= 1:
                left, top = draws[-2, i] * (aspect - width), draws[-1, i] * (1 - height)
                break
        else:
            fallbacks += 1
            width, height = min(aspect, ratio), min(1.0, aspect * ratio)
            left, top = (aspect - width) / 2, (1 - height) / 2
        expected = [left / aspect, top, width / aspect, height]
        np.testing.assert_allclose(boxes[i], expected, atol=1e-5)
    assert 20 < fallbacks < 180


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("source", "size"), [(40, 8), (24, 24), (9, 32), (30, 21)])
def test_resampling_equals_pillow(
    source: int, size: int, memory_format: torch.memory_format
) -> None:
    """Grey levels 64 to 191, so that the cubic filter's overshoot is not clipped in between."""
    pixels = numpy_generator(size, "noise").integers(64, 192, (12, source, source, 3), np.uint8)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).contiguous(
        memory_format=memory_format
    )
    boxes = draw_crops(images, crops(0.1, 2.0), torch_generator(0, "c"))
    result = resample(images, boxes, size)
    assert result.shape == (12, 3, size, size)
    assert result.is_contiguous(memory_format=memory_format)
    for image, box, crop in zip(pixels, boxes.double() * source, result, strict=True):
        left, top, width, height = box.tolist()
        edges = left, top, min(left + width, source), min(top + height, source)
        expected = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, edges)
        levels = (crop.permute(1, 2, 0) * 255).round().numpy()
        assert np.abs(levels - np.asarray(expected).astype(float)).max() <= 1


@given(
    start=st.floats(0, 10),
    length=st.floats(0.5, 30),
    size=st.integers(1, 24),
)
def test_weights_equal_a_loop_over_pixels(start: float, length: float, size: int) -> None:
    source = 40
    weights = filter_weights(torch.tensor([start]), torch.tensor([length]), source, size)[0]
    step = length / size
    for i in range(size):
        row = []
        for j in range(source):
            x = abs(j + 0.5 - start - (i + 0.5) * step) / max(step, 1)
            near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
            row.append(near if x < 1 else far if x < 2 else 0.0)
        np.testing.assert_allclose(weights[i], np.array(row) / sum(row), atol=2e-5)


def test_the_whole_image_at_its_own_size_is_unchanged() -> None:
    images = torch.rand(4, 3, 12, 12, generator=torch_generator(0, "i"))
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(4, 4)
    torch.testing.assert_close(resample(images, whole, 12), images, atol=1e-6, rtol=0)


def test_a_crop_of_fine_stripes_is_grey_and_not_aliased() -> None:
    """Stripes of one pixel, reduced fourfold: nearest sampling would keep black and white."""
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::2] = 1
    inner = resample(stripes, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 16)[..., 1:-1]
    assert float((inner - 0.5).abs().max()) < 0.02


@pytest.mark.parametrize(("scale", "ratio"), [(0.08, 4 / 3), (0.2, 2.0), (0.35, 1.0)])
def test_areas_are_uniform_and_log_ratios_uniform_where_crops_fit(
    scale: float, ratio: float
) -> None:
    """Crops up to 1/ratio of a square always fit, so below that the first attempt is taken."""
    boxes = drawn(scale, ratio, 1.0)
    area = (boxes[:, 2] * boxes[:, 3]).double().numpy()
    small = area[area < 1 / ratio]
    uniform = stats.uniform(scale, 1 / ratio - scale)
    assert stats.kstest(small, uniform.cdf).pvalue > FALSE_ALARM
    if ratio > 1:
        log_ratio = (boxes[:, 2] / boxes[:, 3]).log().double().numpy()[area < 1 / ratio]
        log_uniform = stats.uniform(-math.log(ratio), 2 * math.log(ratio))
        assert stats.kstest(log_ratio, log_uniform.cdf).pvalue > FALSE_ALARM


def test_mean_area_and_ratio_equal_torchvisions() -> None:
    """torchvision rounds to whole pixels: its picture here has 3,000 × 2,000 of them."""
    from torchvision.transforms.v2 import RandomResizedCrop

    boxes = drawn(0.3, 4 / 3, 1.5)
    area = (boxes[:, 2] * boxes[:, 3]).double().numpy()
    log_ratio = (1.5 * boxes[:, 2] / boxes[:, 3]).log().double().numpy()
    transform = RandomResizedCrop(8, scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3))
    picture = torch.zeros(1, 2000, 3000)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        params = [transform.make_params([picture]) for _ in range(4000)]
    theirs = np.array([(p["height"], p["width"]) for p in params], np.float64)
    for ours, other in (
        (area, theirs.prod(axis=1) / 6e6),
        (log_ratio, np.log(theirs[:, 1] / theirs[:, 0])),
    ):
        assert stats.ks_2samp(ours, other).pvalue > FALSE_ALARM
        error = math.hypot(ours.std() / MANY**0.5, other.std() / len(other) ** 0.5)
        assert abs(ours.mean() - other.mean()) < 4 * error


@pytest.mark.parametrize("aspect", [0.2, 1.0, 3.0])
def test_boxes_lie_inside_the_image_and_reach_its_borders(aspect: float) -> None:
    left, top, width, height = drawn(0.2, 4 / 3, aspect).T
    assert float(left.min()) >= 0
    assert float(top.min()) >= 0
    assert float((left + width).max()) <= 1 + 1e-6
    assert float((top + height).max()) <= 1 + 1e-6
    shape = aspect * width / height
    assert float(shape.max()) <= 4 / 3 + 1e-4
    assert float(shape.min()) >= 3 / 4 - 1e-4
    # Positions are uniform, so left/(1 − width) has the mean ½.
    places = left[width < 0.99] / (1 - width[width < 0.99])
    assert abs(float(places.mean()) - 0.5) < 4 * 0.289 / len(places) ** 0.5 or aspect < 1


def test_crops_depend_on_the_seed_alone_and_differ_between_images() -> None:
    images = torch.rand(1, 3, 20, 20, generator=torch_generator(0, "i")).expand(6, -1, -1, -1)
    recipe = Recipe(crop_scale=0.3, flip=False, translate=0)

    def batch(seed: int) -> Tensor:
        return augment(
            images,
            torch.arange(6),
            recipe.augmentation,
            mean=torch.zeros(3),
            generator=torch_generator(seed, "draws"),
            size=16,
        ).images

    assert batch(0).shape == (6, 3, 16, 16)
    assert torch.equal(batch(0), batch(0))
    assert not torch.equal(batch(0), batch(1))
    assert len(torch.unique(batch(0).flatten(1), dim=0)) == 6


def test_a_crop_of_a_squashed_picture_has_its_own_shape() -> None:
    """A disc in a picture of 2:1, squashed to a square, is round again in every crop of 1:1."""
    y, x = np.mgrid[0:100, 0:200] + 0.5
    picture = np.where((x - 100) ** 2 + (y - 50) ** 2 < 30**2, 255, 0).astype(np.uint8)
    squashed = Image.fromarray(picture).resize((100, 100), Image.Resampling.BICUBIC)
    image = torch.from_numpy(np.asarray(squashed) / 255).float().expand(1, 3, 100, 100)
    # The centred square of the picture: the middle half of its width and all of its height.
    crop = resample(image, torch.tensor([[0.25, 0.0, 0.5, 1.0]]), 100)[0, 0] > 0.5
    width, height = int(crop.any(dim=0).sum()), int(crop.any(dim=1).sum())
    assert abs(width - 60) <= 1
    assert abs(height - 60) <= 1


def test_random_crops_give_unlimited_views_and_are_off_without_augmentation() -> None:
    cropped = Recipe(crop_scale=0.5, translate=0).augmentation
    assert count_views(cropped) == 0
    assert not Recipe(crop_scale=0.5, augment="none").augmentation.crops
    assert count_views(Recipe(crop_scale=1.0, translate=0).augmentation) == 2
