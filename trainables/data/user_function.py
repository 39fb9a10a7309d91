"""A data set from a function of the user's own, named by its import path.

Axes: N images of H×W pixels, S pixels a side once they are square, 3 channels (RGB).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from common.errors import DataError, QuorumError
from common.plugins import blame, load_object
from trainables.data.class_names import class_name
from trainables.data.image_set import ImageSet, as_they_are
from trainables.data.pixels import choose_image_size, resize_image


def own_images(name: str, path: str | None, image_size: int | None) -> ImageSet:
    """Call the function that `name` says, as f(path=…, image_size=…), and check its result.

    It returns an ImageSet, or a tuple of images (uint8 [N, H, W, 3]), labels (whole numbers
    [N]) and class names (texts), and, if it likes, of is_test (bools [N], or None) and
    groups (texts [N]). Images that are not squares of `image_size` (or, where that is None,
    of the size that `choose_image_size` gives) are resized by the rule of `resize_image`.

    The function runs in the process that the user started, once for each command; workers
    map what it returned from the cache.

    Raises:
        SpecError: there is no such module or function, or it cannot be imported.
        DataError: it fails, or returns something else.
    """
    function = load_object(name, where="dataset: name")
    if not callable(function):
        raise DataError(f"dataset {name!r} must be a function, it is {function!r}")
    try:
        returned = function(path=path, image_size=image_size)
    except QuorumError:
        raise
    except Exception as error:
        raise DataError(f"dataset {name!r} failed: {blame(error)}") from error
    if isinstance(returned, ImageSet):
        if image_size is not None and returned.image_size != image_size:
            raise DataError(
                f"dataset {name!r} was asked for images of {image_size} px and returned an "
                f"ImageSet of {returned.image_size} px"
            )
        return returned
    try:
        return _image_set(name, returned, image_size)
    except DataError as error:
        raise DataError(f"dataset {name!r}: {error}") from None


def _image_set(name: str, returned: Any, image_size: int | None) -> ImageSet:
    if not isinstance(returned, tuple) or not 3 <= len(returned) <= 5:
        raise DataError(
            "expected an ImageSet or a tuple (images, labels, class_names[, is_test[, groups]]), "
            f"got {_described(returned)}"
        )
    images, labels, class_names, is_test, groups = (*returned, None, None)[:5]
    images, labels = np.asanyarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise DataError(
            f"images must be uint8 [N, H, W, 3], got {images.dtype} {list(images.shape)}"
        )
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels must be whole numbers, got {labels.dtype}")
    return ImageSet(
        name=name.partition(":")[0].rpartition(".")[2],
        images=_squares(images, image_size),
        labels=labels.astype(np.int64),
        class_names=tuple(class_name(name) for name in _texts(class_names)),
        is_test=None if is_test is None else np.asarray(is_test),
        groups=None if groups is None else _texts(groups),
        resized_from=as_they_are(images),
    )


def _squares(images: np.ndarray, image_size: int | None) -> np.ndarray:
    height, width = images.shape[1:3]
    size = image_size or choose_image_size([min(height, width)])
    if (height, width) == (size, size):
        return images
    squares = np.empty((len(images), size, size, 3), np.uint8)
    for i, image in enumerate(images):
        squares[i] = resize_image(Image.fromarray(image), size)
    return squares


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


def _described(value: object) -> str:
    kind = type(value).__name__
    return f"{kind} of {len(value)}" if isinstance(value, tuple | list | dict) else kind
