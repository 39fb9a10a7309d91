"""Load a data set from a user function, named by its import path.

Axes: N images of H×W pixels, S pixels a side once they are square, 3 channels (RGB).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from common.errors import DataError, QuorumError
from common.plugins import describe_user_error, load_object
from trainables.data.class_names import clean_class_name, name_notes
from trainables.data.digests import pixel_digests
from trainables.data.duplicate_notes import duplicate_notes
from trainables.data.image_set import ImageSet, LargeCopies, unresized
from trainables.data.pixels import choose_image_size
from trainables.data.resizing import ResizeRequest, Resizing, large_copy, to_square


def images_from_function(name: str, path: str | None, asked: ResizeRequest) -> ImageSet:
    """Call the function at the import path `name` as f(path=…, image_size=…); check its result.

    The function returns an ImageSet, or a tuple (images, labels, class_names[, is_test[,
    groups]]): images uint8 [N, H, W, 3], integer labels [N], names of classes, is_test bool [N]
    or None, and group names [N]. The images become squares of the size and by the rule that are
    `asked` for, or of the size that `choose_image_size` returns.

    The function runs once per command, in the process that the user started; workers map its
    result from the cache.

    Raises:
        SpecError: the module or function does not exist or cannot be imported.
        DataError: the function fails, or returns neither of these.
    """
    function = load_object(name, where="dataset: name")
    if not callable(function):
        raise DataError(f"dataset {name!r} must be a function, got {function!r}")
    try:
        returned = function(path=path, image_size=asked.size)
    except QuorumError:
        raise
    except Exception as error:
        raise DataError(f"dataset {name!r} failed: {describe_user_error(error)}") from error
    if isinstance(returned, ImageSet):
        if asked.size not in (None, returned.image_size):
            raise DataError(
                f"dataset {name!r} returned an ImageSet of {returned.image_size} px, not of the "
                f"requested image_size {asked.size}"
            )
        return returned
    try:
        return _image_set(name, returned, asked)
    except DataError as error:
        raise DataError(f"dataset {name!r}: {error}") from None


def _image_set(name: str, returned: Any, asked: ResizeRequest) -> ImageSet:
    if not isinstance(returned, tuple) or not 3 <= len(returned) <= 5:
        raise DataError(
            "expected an ImageSet or a tuple (images, labels, class_names[, is_test[, groups]]), "
            f"got {_type_of(returned)}"
        )
    images, labels, class_names, is_test, groups = (*returned, None, None)[:5]
    images, labels = np.asanyarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise DataError(
            f"images must be uint8 [N, H, W, 3], got {images.dtype} {list(images.shape)}"
        )
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels must be integers, got {labels.dtype}")
    resizing = asked.at(asked.size or choose_image_size([min(images.shape[1:3])]))
    own = ImageSet(
        name=name.partition(":")[0].rpartition(".")[2],
        images=_squares(images, resizing),
        labels=labels.astype(np.int64),
        class_names=tuple(clean_class_name(name) for name in _strings(class_names)),
        is_test=None if is_test is None else np.asarray(is_test),
        groups=None if groups is None else _strings(groups),
        digests=pixel_digests(images),
        resized_from=unresized(images),
        resize=resizing.rule,
        large=_large_copies(images, resizing) if resizing.crop_size else None,
    )
    notes = duplicate_notes(own.pixel_keys, own.labels, own.is_test, lambda i: f"image {i}")
    return replace(own, notes=(*name_notes(_strings(class_names)), *notes))


def _squares(images: np.ndarray, resizing: Resizing) -> np.ndarray:
    size = resizing.size
    if images.shape[1:3] == (size, size):
        return images
    squares = np.empty((len(images), size, size, 3), np.uint8)
    for i, image in enumerate(images):
        squares[i] = to_square(Image.fromarray(image), size, resizing.rule)
    return squares


def _large_copies(images: np.ndarray, resizing: Resizing) -> LargeCopies:
    side = resizing.crop_size
    pixels, aspects = np.empty((len(images), side, side, 3), np.uint8), np.ones(len(images))
    for i, image in enumerate(images):
        pixels[i], aspects[i] = large_copy(Image.fromarray(image), resizing)
    return LargeCopies(pixels=pixels, aspects=aspects.astype(np.float32))


def _strings(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


def _type_of(value: object) -> str:
    kind = type(value).__name__
    return f"{kind} of {len(value)}" if isinstance(value, tuple | list | dict) else kind
