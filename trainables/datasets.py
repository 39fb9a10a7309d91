"""Data sets as decoded uint8 arrays."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """Which images."""

    name: str = "digits"
    """`digits`, `cifar10`, `parquet` or `imagefolder`."""
    path: str | None = None
    """Folder of the data; `--data` overrides it."""
    image_size: int | None = None
    """Side in pixels that images are resized to; null keeps the data set's own."""
