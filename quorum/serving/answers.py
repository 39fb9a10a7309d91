"""Answer requests about one classifier: plain values in and out, without HTTP.

Every refusal is a `RefusedError` with its HTTP status, a short kind for programs and a sentence for
people.
"""

import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from common.cpu_runtime import usable_cores
from common.errors import DataError
from common.formats import file_size, plural
from common.printable import printable
from ensemble.deployment.metadata import ConformalThreshold
from ensemble.deployment.onnx_model import OnnxClassifier, probabilities_of
from trainables.data.image_formats import (
    BY_SUFFIX_ONLY,
    WITHOUT_SUFFIX,
    formats_of,
    quiet_pillow,
)
from trainables.data.pixels import resize_image


class RefusedError(Exception):
    """A request that is not answered."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        """Refuse with an HTTP status, a kind such as `too_many_bytes`, and a sentence."""
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest image that is decoded."""

    max_bytes: int = 20_000_000
    """Bytes of a file."""
    max_pixels: int = 50_000_000
    """Pixels that its header claims: a small file may become a huge image."""


class Answers:
    """One classifier, shared by all threads of a server."""

    def __init__(self, classifier: OnnxClassifier, limits: Limits) -> None:
        """Read the classifier's description.

        Raises:
            RunError: nothing describes the classifier.
        """
        self.limits = limits
        self._classifier = classifier
        self._metadata = classifier.describe()
        # Decoding takes memory, so at most one image per core is decoded at a time.
        self._slots = threading.BoundedSemaphore(usable_cores())

    def model(self) -> dict[str, Any]:
        """Return what the page shows about the model."""
        about = self._metadata
        conformal = about.conformal
        return {
            "file": printable(self._classifier.path.name),
            "dataset": printable(about.dataset),
            "classes": [printable(name) for name in about.class_names],
            "image_size": about.image_size,
            "license": printable(about.license),
            "coverage": None if conformal is None else conformal.coverage,
            "max_bytes": self.limits.max_bytes,
            "max_pixels": self.limits.max_pixels,
        }

    def predict(self, image: bytes, *, suffix: str | None = None) -> dict[str, Any]:
        """Return the classes of an image file's bytes, most probable first.

        `suffix` is that of the file's name; without it (None), formats that are recognised by the
        suffix only are refused.

        `class` is the exact name, `label` the same without control characters. With a conformal
        threshold, `set` holds the classes that are probable enough.

        Raises:
            RefusedError: the bytes are not a readable image, or one with too many pixels.
        """
        name = None if suffix is None else Path(f"image.{suffix.removeprefix('.')}")
        format = self._checked_format(image, name)
        with self._slots:
            if format in (*BY_SUFFIX_ONLY, *WITHOUT_SUFFIX):
                image = self._as_png(image, name)
            try:
                shares = probabilities_of(self._classifier, self._metadata, image)
            except DataError:
                raise unreadable() from None
        names, conformal = self._metadata.class_names, self._metadata.conformal
        ranked = sorted(zip(names, shares, strict=True), key=lambda pair: -pair[1])
        return {
            "prediction": ranked[0][0],
            "probabilities": [
                {"class": name, "label": printable(name), "probability": share}
                for name, share in ranked
            ],
            "set": conformal_set(ranked, conformal),
            "coverage": None if conformal is None else conformal.coverage,
        }

    def _checked_format(self, image: bytes, name: Path | None) -> str | None:
        """Return an image's format, after its number of pixels has been checked."""
        most = self.limits.max_pixels
        try:
            with quiet_pillow(), _opened(image, name) as opened:
                format, pixels = opened.format, opened.width * opened.height
        except Image.DecompressionBombError:
            format, pixels = None, most + 1
        except MemoryError:
            raise
        except Exception:  # a damaged file can make a plugin fail in any way
            raise unreadable() from None
        if pixels > most:
            raise RefusedError(
                413, "too_many_pixels", f"the image has more than {plural(most, 'pixel')}"
            )
        return format

    def _as_png(self, image: bytes, name: Path | None) -> bytes:
        """Return the pixels that the model sees as a PNG, which is recognised without a name."""
        about = self._metadata
        try:
            with quiet_pillow(), _opened(image, name) as opened:
                pixels = resize_image(
                    opened, about.image_size, about.resize_rule, about.grey_levels
                )
        except MemoryError:
            raise
        except Exception:  # as in _checked_format
            raise unreadable() from None
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def conformal_set(
    ranked: list[tuple[str, float]], threshold: ConformalThreshold | None
) -> list[str] | None:
    """Return the classes that are probable enough, at least one; None without a threshold."""
    if threshold is None:
        return None
    return [name for name, share in ranked if share >= threshold.min_probability] or [ranked[0][0]]


def too_large(limits: Limits) -> RefusedError:
    """Return the refusal of a file with too many bytes."""
    return RefusedError(
        413, "too_many_bytes", f"the file is larger than {file_size(limits.max_bytes)}"
    )


def unreadable() -> RefusedError:
    """Return the refusal of a file that is not a readable image.

    It is a new one each time: the traceback of a raised exception keeps the frames that it passed,
    and with them the image, alive.
    """
    return RefusedError(
        422, "unreadable_image", "the file is damaged, or not an image in a supported format"
    )


def _opened(image: bytes, name: Path | None) -> Image.Image:
    return Image.open(io.BytesIO(image), formats=formats_of(name))
