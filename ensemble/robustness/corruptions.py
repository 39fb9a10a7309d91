"""Corrupt images as CIFAR-10-C and ImageNet-C do: noise, blur, weather and digital artefacts.

Axes: N images, S×S pixels, 3 channels (RGB). Images are uint8 [N, S, S, 3]; the corruptions
themselves work on one image, float64 [S, S, 3] in [0, 1], because each image has its own draws.

The definitions are those of Hendrycks & Dietterich (2019), see `ensemble.robustness.severities`.
Three of their fifteen corruptions are missing: frost needs their photographs, glass blur swaps
pixels one after the other, and elastic deformation, as published, displaces less at severity 5 than
at 1. Two details differ: the edge of the defocused disc is antialiased, and results are rounded,
not cut off.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.signal import fftconvolve

from common.seeds import numpy_generator
from ensemble.robustness.severities import settings

Pixels = Float64[np.ndarray, "S S 3"]
Layer = Float64[np.ndarray, "S S"]
Settings = Mapping[str, float]
Family = Literal["noise", "blur", "weather", "digital"]

FAMILIES: tuple[Family, ...] = ("noise", "blur", "weather", "digital")

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """A corruption, its family, and the function that applies it to one image."""

    name: str
    family: Family
    apply: Callable[[Pixels, Settings, np.random.Generator], Pixels]


def corrupt(
    images: UInt8[np.ndarray, "N S S 3"],
    corruptions: Sequence[str],
    severities: Sequence[int],
    *,
    ids: Sequence[int],
    seed: int,
) -> UInt8[np.ndarray, "N S S 3"]:
    """Return each image with its own corruption at its own severity, 1 to 5.

    The draws of an image depend on `seed`, the corruption and its `id`, so it is corrupted
    identically in every batch. They do not depend on the severity: the same noise gets stronger.

    Raises:
        ValueError: an unknown corruption, a severity outside 1 … 5, or lists of different lengths.
    """
    corrupted = np.empty_like(images)
    for row, (pixels, name, severity, key) in enumerate(
        zip(images, corruptions, severities, ids, strict=True)
    ):
        values = settings(name, severity, images.shape[1])
        rng = numpy_generator(seed, "corruption", name, int(key))
        changed = CORRUPTIONS[name].apply(pixels / 255.0, values, rng)
        corrupted[row] = np.rint(np.clip(changed, 0.0, 1.0) * 255.0)
    return corrupted


def plasma(side: int, smoothness: float, rng: np.random.Generator) -> Layer:
    """Return a plasma fractal in [0, 1], by the diamond-square algorithm on a torus.

    Each halving of the grid divides the random displacements by the square of `smoothness`.
    """
    field, spread = np.zeros((1, 1)), 1.0
    while len(field) < side:
        n = len(field)
        below, right = np.roll(field, -1, axis=0), np.roll(field, -1, axis=1)
        displaced = rng.uniform(-spread, spread, size=(3, n, n))
        centre = (field + below + right + np.roll(below, -1, axis=1)) / 4 + displaced[0]
        across = (field + right + centre + np.roll(centre, 1, axis=0)) / 4 + displaced[1]
        down = (field + below + centre + np.roll(centre, 1, axis=1)) / 4 + displaced[2]
        finer = np.empty((2 * n, 2 * n))
        finer[::2, ::2], finer[::2, 1::2] = field, across
        finer[1::2, ::2], finer[1::2, 1::2] = down, centre
        field, spread = finer, spread / smoothness**2
    field -= field.min()
    return field[:side, :side] / max(float(field.max()), 1e-12)


def streak(layer: np.ndarray, reach: float, deviation: float, degrees: float) -> np.ndarray:
    """Smear an image [S, S, …] along a direction: the one-sided Gaussian of a moving camera.

    Weights fall off over 2·reach + 1 pixels on one side; the border is repeated outwards.
    """
    steps = np.arange(2 * round(reach) + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    weights /= weights.sum()
    rows = np.rint(steps * np.sin(np.radians(degrees))).astype(int)
    columns = np.rint(steps * np.cos(np.radians(degrees))).astype(int)
    margin, side = int(steps[-1]), len(layer)
    padded = np.pad(layer, [(margin, margin)] * 2 + [(0, 0)] * (layer.ndim - 2), mode="edge")
    smeared = np.zeros_like(layer)
    for weight, row, column in zip(weights, rows, columns, strict=True):
        top, left = margin + row, margin + column
        smeared += weight * padded[top : top + side, left : left + side]
    return smeared


def _gaussian_noise(pixels: Pixels, values: Settings, rng: np.random.Generator) -> Pixels:
    return pixels + values["deviation"] * rng.standard_normal(pixels.shape)


def _shot_noise(pixels: Pixels, values: Settings, rng: np.random.Generator) -> Pixels:
    return rng.poisson(pixels * values["photons"]) / values["photons"]


def _impulse_noise(pixels: Pixels, values: Settings, rng: np.random.Generator) -> Pixels:
    """Set a share of all values to 0 or 1, half of them to each."""
    drawn, white = rng.random(pixels.shape), rng.random(pixels.shape) < 0.5
    return np.where(drawn < values["share"], white.astype(np.float64), pixels)


def _defocus_blur(pixels: Pixels, values: Settings, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Average over a disc, whose edge is softened by a Gaussian."""
    radius, softness = values["radius"], values["softness"]
    margin = max(1, int(np.ceil(radius + 2 * softness)))
    offsets = np.arange(-margin, margin + 1)
    distances = np.hypot(offsets[:, None], offsets[None, :])
    disc = np.clip(radius + 0.5 - distances, 0.0, 1.0)
    kernel = gaussian_filter(disc, softness, mode="constant", truncate=2.0)
    kernel /= kernel.sum()
    margin = min(margin, len(pixels) - 1)
    padded = np.pad(pixels, [(margin, margin), (margin, margin), (0, 0)], mode="reflect")
    channels = [fftconvolve(padded[..., channel], kernel, mode="valid") for channel in range(3)]
    blurred: Pixels = np.stack(channels, axis=2)
    return blurred


def _motion_blur(pixels: Pixels, values: Settings, rng: np.random.Generator) -> Pixels:
    return streak(pixels, values["reach"], values["deviation"], rng.uniform(-45, 45))


def _zoom_blur(pixels: Pixels, values: Settings, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Average the image with copies that are enlarged step by step; the first is not enlarged."""
    steps = int(values["most"] / values["step"] + 1e-9)
    copies = [_enlarged(pixels, 1 + values["step"] * step) for step in range(steps + 1)]
    averaged: Pixels = np.mean([pixels, *copies], axis=0)
    return averaged


def _enlarged(layer: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge an image [S, S] or [S, S, 3] about its centre by linear interpolation."""
    if factor == 1:
        return layer
    if layer.ndim == 3:
        return np.stack([_enlarged(layer[..., channel], factor) for channel in range(3)], axis=2)
    shift = (len(layer) - 1) / 2 * (1 - 1 / factor)
    enlarged: np.ndarray = affine_transform(
        layer, np.full(2, 1 / factor), offset=shift, order=1, mode="nearest"
    )
    return enlarged


def _snow(pixels: Pixels, values: Settings, rng: np.random.Generator) -> Pixels:
    """Whiten the image, and add flakes that fall in one direction and a copy turned by 180°."""
    flakes = values["mean"] + values["deviation"] * rng.standard_normal(pixels.shape[:2])
    flakes = _enlarged(flakes, max(1.0, values["flake"]))
    flakes = np.clip(np.where(flakes < values["threshold"], 0.0, flakes), 0.0, 1.0)
    flakes = streak(flakes, values["reach"], values["streak"], rng.uniform(-135, -45))[..., None]
    grey = (pixels @ np.array(LUMA))[..., None]
    kept = values["kept"]
    whitened = kept * pixels + (1 - kept) * np.maximum(pixels, 1.5 * grey + 0.5)
    changed: Pixels = whitened + flakes + flakes[::-1, ::-1]
    return changed


def _fog(pixels: Pixels, values: Settings, rng: np.random.Generator) -> Pixels:
    """Add a plasma fractal, and scale the sum back to the image's brightest value."""
    density, brightest = values["density"], pixels.max()
    clouds = plasma(len(pixels), values["smoothness"], rng)[..., None]
    changed: Pixels = (pixels + density * clouds) * brightest / (brightest + density)
    return changed


def _brightness(pixels: Pixels, values: Settings, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Raise the value of HSV, which scales all channels and keeps hue and saturation."""
    value = pixels.max(axis=2, keepdims=True)
    raised = np.minimum(value + values["added"], 1.0)
    scaled = pixels * (raised / np.where(value > 0, value, 1.0))
    changed: Pixels = np.where(value > 0, scaled, raised)
    return changed


def _contrast(pixels: Pixels, values: Settings, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    means = pixels.mean(axis=(0, 1), keepdims=True)
    changed: Pixels = means + values["factor"] * (pixels - means)
    return changed


def _pixelate(pixels: Pixels, values: Settings, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Shrink the image by averaging over boxes, and enlarge it again."""
    side = len(pixels)
    image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    shrunk = image.resize((max(1, int(side * values["scale"])),) * 2, Image.Resampling.BOX)
    return np.asarray(shrunk.resize((side, side), Image.Resampling.BOX)) / 255.0


def _jpeg_compression(
    pixels: Pixels,
    values: Settings,
    rng: np.random.Generator,  # noqa: ARG001
) -> Pixels:
    file = io.BytesIO()
    image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    image.save(file, "JPEG", quality=round(values["quality"]))
    with Image.open(file) as decoded:
        return np.asarray(decoded) / 255.0


CORRUPTIONS: Mapping[str, Corruption] = {
    item.name: item
    for item in (
        Corruption(name="gaussian_noise", family="noise", apply=_gaussian_noise),
        Corruption(name="defocus_blur", family="blur", apply=_defocus_blur),
        Corruption(name="snow", family="weather", apply=_snow),
        Corruption(name="contrast", family="digital", apply=_contrast),
        Corruption(name="shot_noise", family="noise", apply=_shot_noise),
        Corruption(name="motion_blur", family="blur", apply=_motion_blur),
        Corruption(name="fog", family="weather", apply=_fog),
        Corruption(name="pixelate", family="digital", apply=_pixelate),
        Corruption(name="impulse_noise", family="noise", apply=_impulse_noise),
        Corruption(name="zoom_blur", family="blur", apply=_zoom_blur),
        Corruption(name="brightness", family="weather", apply=_brightness),
        Corruption(name="jpeg_compression", family="digital", apply=_jpeg_compression),
    )
}
"""The corruptions by name; any four in a row belong to four different families."""
