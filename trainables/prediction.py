"""Run a network over images: batches of pixels in, log-probabilities out.

Axes: N images, S×S pixels, K classes, B images of a batch.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from common.cpu_runtime import keep_freed_memory
from common.failures import says_out_of_memory
from trainables.recipe import Numerics
from trainables.resident_pixels import (
    SHARE_OF_FREE_MEMORY,
    free_memory,
    pinned,
    read_ahead,
    reads_ahead,
    resident_copy,
)

log = logging.getLogger(__name__)

MEMORY_FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}

_LARGEST_BATCH = 1024
"""Images of 32 px."""
_MOST_FILLING = 16
"""Largest batch on a GPU, as a multiple of that on a CPU."""
_BYTES_PER_PIXEL = 2 << 10
"""Memory for each pixel of an image on a GPU: three float32 maps of 160 channels at full size, as
in a wide residual network."""


def predict_log_probs(
    model: nn.Module,
    images: npt.NDArray[np.uint8],
    numerics: Numerics,
    *,
    indices: npt.NDArray[np.int64] | None = None,
    batch: int | None = None,
) -> npt.NDArray[np.float32]:
    """Return log-probabilities float32 [N, K] of a network, computed batch by batch.

    `images` is uint8 [N, S, S, 3] and may be memory-mapped: only `indices` (all by default)
    are read. The network is moved to the device and memory format in `numerics` and put in eval
    mode. `batch` is the largest batch size; the default depends on the image size.
    """
    place_model(model, numerics).eval()
    chosen = np.arange(len(images)) if indices is None else indices
    return log_probs_of(model, PixelSource(images, chosen, numerics), numerics, batch=batch)


class PixelSource:
    """A subset of images, returned in float batches on the training device.

    On a GPU the whole set is copied to the device, once for all subsets and trainings of this
    process, if it takes at most half of the free memory; otherwise batches are read ahead. On the
    CPU nothing is copied: batches are read from the shared or memory-mapped array.
    """

    def __init__(
        self, images: npt.NDArray[np.uint8], indices: npt.NDArray[np.int64], numerics: Numerics
    ) -> None:
        """`indices` are positions in `images`, uint8 [N, S, S, 3]."""
        self._images = images
        self._indices = np.asarray(indices, dtype=np.int64)
        self._device = torch.device(numerics.device)
        self._channels_last = numerics.layout == "channels_last"
        self._resident = resident_copy(images, self._device)
        self._rows: Tensor | None = None
        """The indices on the device, if the images are there."""
        if self._resident is not None:
            self._rows = torch.from_numpy(self._indices).to(self._device)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._indices)

    @property
    def image_size(self) -> int:
        """Pixels a side, S."""
        return int(self._images.shape[1])

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Positions of the images in the whole set."""
        return self._indices

    @property
    def device(self) -> torch.device:
        """The device of the batches."""
        return self._device

    def batch(self, positions: Tensor) -> Tensor:
        """Return images float [B, 3, S, S] in [0, 1] at `positions`, int64 [B]."""
        return next(self.batches(positions, size=max(1, len(positions))))

    def batches(
        self, positions: Tensor | None = None, *, size: int | None = None
    ) -> Iterator[Tensor]:
        """Yield the images at `positions` (all by default) in batches of nearly equal sizes.

        `positions` are copied to the device at most once. `size` is the largest batch size; the
        default is 1,024 images of 32 px or less, and the same number of pixels for larger images.
        """
        if positions is None:
            positions = torch.arange(len(self))
        size = size or largest_batch(self.image_size)
        if self._resident is not None and self._rows is not None:
            for part in nearly_equal_parts(positions.to(self._device), size):
                yield self._floats(self._resident[self._rows[part]])
            return
        parts = nearly_equal_parts(positions.cpu(), size)
        read = read_ahead if reads_ahead(self._device) else map
        for pixels in read(self._read, parts):
            yield self._floats(pixels.to(self._device, non_blocking=True))

    def _read(self, positions: Tensor) -> Tensor:
        chosen = np.asarray(self._images[self._indices[positions.numpy()]])
        return pinned(chosen, self._device)

    def _floats(self, pixels: Tensor) -> Tensor:
        # Interleaved RGB, viewed as [B, 3, S, S], is already channels_last.
        floats = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)
        return floats if self._channels_last else floats.contiguous()


def nearly_equal_parts(values: Tensor, size: int) -> tuple[Tensor, ...]:
    """Return consecutive parts of at most `size` rows, all but the last of the same number."""
    return values.chunk(max(1, -(-len(values) // size)))


def log_probs_of(
    model: nn.Module, source: PixelSource, numerics: Numerics, *, batch: int | None = None
) -> npt.NDArray[np.float32]:
    """Return log-probabilities float32 [N, K]; `model` is on its device and in eval mode."""
    with torch.inference_mode():
        logits = logits_of(model, source, numerics, batch=batch)
        result: npt.NDArray[np.float32] = torch.log_softmax(logits.float(), dim=1).cpu().numpy()
    return result


def logits_of(
    model: nn.Module, source: PixelSource, numerics: Numerics, *, batch: int | None = None
) -> Tensor:
    """Return logits float32 [N, K] on the device; `model` is there and in eval mode."""
    size = batch or filling_batch(model, source)
    with torch.inference_mode(), autocast(numerics):
        return in_batches(lambda images: model(images).float(), source, size=size)


def in_batches(function: Callable[[Tensor], Tensor], source: PixelSource, *, size: int) -> Tensor:
    """Return `function` of all images, computed for at most `size` at a time.

    If memory runs out, all batches are computed again at half the size.
    """
    while True:
        try:
            return torch.cat([function(images) for images in source.batches(size=size)])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or size == 1:
                raise
        # After the handler, because the exception keeps the activations in memory.
        log.warning("memory ran out for %d images at a time: halved", size)
        size = max(1, size // 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out, on the GPU or on the CPU.

    torch raises a plain RuntimeError for the CPU, known by its message only.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return says_out_of_memory(str(error))


def largest_batch(side: int) -> int:
    """Return the size of a batch of images of `side` pixels, if it is not given."""
    return max(1, min(_LARGEST_BATCH, _LARGEST_BATCH * 32**2 // side**2))


def model_batch(model: nn.Module, source: PixelSource) -> int:
    """Return the size of a batch for a network, which may enlarge its images."""
    return largest_batch(_side(model, source))


def filling_batch(model: nn.Module, source: PixelSource) -> int:
    """Return the size of a batch that keeps the device busy: `model_batch` on the CPU.

    Use it with `in_batches`: the network may need more memory than is assumed.
    """
    size = model_batch(model, source)
    if source.device.type != "cuda":
        return size
    return filling_size(size, side=_side(model, source), free_bytes=free_memory(source.device))


def filling_size(size: int, *, side: int, free_bytes: int) -> int:
    """Return the batch size that fills half of a GPU's free memory, from `size` to 16 times `size`.

    `side` is that of the images, in pixels.
    """
    fits = int(SHARE_OF_FREE_MEMORY * free_bytes) // (_BYTES_PER_PIXEL * side**2)
    return max(size, min(_MOST_FILLING * size, fits))


def _side(model: nn.Module, source: PixelSource) -> int:
    return max(source.image_size, getattr(model, "input_size", 0))


def apply_numerics(numerics: Numerics) -> None:
    """Set torch's thread count, and how the process chooses kernels and keeps memory.

    On the CPU it keeps freed memory for reuse. On CUDA cuDNN times its algorithms for every new
    shape and chooses the fastest: batches of a training all have the same shape.
    """
    if numerics.device == "cpu":
        keep_freed_memory()
    elif numerics.device.startswith("cuda"):
        torch.backends.cudnn.benchmark = True
    if torch.get_num_threads() != numerics.threads:
        torch.set_num_threads(numerics.threads)


def place_model(model: nn.Module, numerics: Numerics) -> nn.Module:
    """Move a network to the device and memory format in `numerics`."""
    layout = MEMORY_FORMATS[numerics.layout]
    return model.to(device=numerics.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def autocast(numerics: Numerics) -> AbstractContextManager[object]:
    """Return the autocast context for a forward pass; it does nothing if dtype is float32."""
    if numerics.dtype == "float32":
        return nullcontext()
    return torch.autocast(torch.device(numerics.device).type, dtype=getattr(torch, numerics.dtype))
