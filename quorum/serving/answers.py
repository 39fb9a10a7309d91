"""Answer requests about one classifier: plain values in and out, without HTTP.

Every refusal is a `RefusedError` with its HTTP status, a short kind for programs and a sentence for
people.
"""

import io
import threading
from dataclasses import dataclass
from typing import Any

from PIL import Image

from common.cpu_runtime import usable_cores
from common.errors import DataError
from common.formats import file_size, plural
from common.printable import printable
from ensemble.deployment.metadata import ConformalThreshold
from ensemble.deployment.onnx_model import OnnxClassifier, probabilities_of
from trainables.data.image_formats import formats_of, quiet_pillow


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

    def predict(self, image: bytes) -> dict[str, Any]:
        """Return the classes of an image file's bytes, most probable first.

        `class` is the exact name, `label` the same without control characters. With a conformal
        threshold, `set` holds the classes that are probable enough.

        Raises:
            RefusedError: the bytes are not a readable image, or one with too many pixels.
        """
        self._check_pixels(image)
        with self._slots:
            try:
                shares = probabilities_of(self._classifier, self._metadata, image)
            except DataError:
                raise _UNREADABLE from None
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

    def _check_pixels(self, image: bytes) -> None:
        most = self.limits.max_pixels
        try:
            with quiet_pillow(), Image.open(io.BytesIO(image), formats=formats_of(None)) as opened:
                pixels = opened.width * opened.height
        except Image.DecompressionBombError:
            pixels = most + 1
        except MemoryError:
            raise
        except Exception:  # a damaged file can make a plugin fail in any way
            raise _UNREADABLE from None
        if pixels > most:
            raise RefusedError(
                413, "too_many_pixels", f"the image has more than {plural(most, 'pixel')}"
            )


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


_UNREADABLE = RefusedError(
    422, "unreadable_image", "the file is damaged, or not an image in a supported format"
)
