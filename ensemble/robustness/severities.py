"""The published parameters of the corruptions, at five severities and for any image size.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (2019), published two sets: CIFAR-10-C for 32 pixels a side and ImageNet-C for 224.

The rule for other sizes: between 32 and 224 pixels a parameter is interpolated, as a power of the
side. Below 32 it is that of CIFAR-10-C, since a blur of 0.4 pixels, scaled down further, would be
invisible. Above 224 it is that of ImageNet-C, except for lengths in pixels, which grow with the
side.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

SEVERITIES = (1, 2, 3, 4, 5)

SMALL_SIDE, LARGE_SIDE = 32, 224
"""Sides in pixels of the images of CIFAR-10-C and ImageNet-C."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One parameter at the five severities."""

    small: tuple[float, ...]
    """For images of 32 pixels a side."""
    large: tuple[float, ...]
    """For images of 224 pixels a side."""
    length: bool = False
    """True if the unit is pixels."""

    def at(self, severity: int, side: int) -> float:
        """Return the parameter for images of `side` pixels a side."""
        small, large = self.small[severity - 1], self.large[severity - 1]
        nearest = min(max(side, SMALL_SIDE), LARGE_SIDE)
        exponent = math.log(nearest / SMALL_SIDE) / math.log(LARGE_SIDE / SMALL_SIDE)
        value: float = small * (large / small) ** exponent
        return value * max(side, nearest) / nearest if self.length else value


def _published(
    small: tuple[float, ...], large: tuple[float, ...], *, length: bool = False
) -> Published:
    return Published(small=small, large=large, length=length)


PARAMETERS: Mapping[str, Mapping[str, Published]] = {
    "gaussian_noise": {
        "deviation": _published((0.04, 0.06, 0.08, 0.09, 0.1), (0.08, 0.12, 0.18, 0.26, 0.38)),
    },
    "shot_noise": {
        "photons": _published((500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    },
    "impulse_noise": {
        "share": _published((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    },
    "defocus_blur": {
        "radius": _published((0.3, 0.4, 0.5, 1, 1.5), (3, 4, 6, 8, 10), length=True),
        "softness": _published((0.4, 0.5, 0.6, 0.2, 0.1), (0.1, 0.5, 0.5, 0.5, 0.5), length=True),
    },
    "motion_blur": {
        "reach": _published((6, 6, 6, 8, 9), (10, 15, 15, 15, 20), length=True),
        "deviation": _published((1, 1.5, 2, 2, 2.5), (3, 5, 8, 12, 15), length=True),
    },
    "zoom_blur": {
        "most": _published((0.05, 0.1, 0.15, 0.2, 0.25), (0.1, 0.15, 0.2, 0.24, 0.3)),
        "step": _published((0.01,) * 5, (0.01, 0.01, 0.02, 0.02, 0.03)),
    },
    "snow": {
        "mean": _published((0.1, 0.1, 0.15, 0.25, 0.3), (0.1, 0.2, 0.55, 0.55, 0.55)),
        "deviation": _published((0.2, 0.2, 0.3, 0.3, 0.3), (0.3,) * 5),
        "flake": _published((1, 1, 1.75, 2.25, 1.25), (3, 2, 4, 4.5, 2.5), length=True),
        "threshold": _published((0.6, 0.5, 0.55, 0.6, 0.65), (0.5, 0.5, 0.9, 0.85, 0.85)),
        "reach": _published((8, 10, 10, 12, 14), (10, 12, 12, 12, 12), length=True),
        "streak": _published((3, 4, 4, 6, 12), (4, 4, 8, 8, 12), length=True),
        "kept": _published((0.95, 0.9, 0.9, 0.85, 0.8), (0.8, 0.7, 0.7, 0.65, 0.55)),
    },
    "fog": {
        "density": _published((0.2, 0.5, 0.75, 1, 1.5), (1.5, 2, 2.5, 2.5, 3)),
        "smoothness": _published((3, 3, 2.5, 2, 1.75), (2, 2, 1.7, 1.5, 1.4)),
    },
    "brightness": {
        "added": _published((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    },
    "contrast": {
        "factor": _published((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    },
    "pixelate": {
        "scale": _published((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    },
    "jpeg_compression": {
        "quality": _published((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    },
}  # fmt: skip
"""Parameters by corruption and name, from make_cifar_c.py and make_imagenet_c.py."""


def settings(corruption: str, severity: int, side: int) -> dict[str, float]:
    """Return a corruption's parameters for images of `side` pixels a side.

    Raises:
        ValueError: an unknown corruption, or a severity outside 1 … 5.
    """
    if corruption not in PARAMETERS:
        raise ValueError(f"unknown corruption {corruption!r}; choose from {', '.join(PARAMETERS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be 1, 2, 3, 4 or 5, got {severity!r}")
    return {name: value.at(severity, side) for name, value in PARAMETERS[corruption].items()}
