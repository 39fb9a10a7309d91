"""Run a network over images: batches of pixels in, log-probabilities out.

Axes: N images, S×S pixels, K classes, B images of a batch.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from common.cpu_runtime import keep_freed_memory
from trainables.recipe import Numerics

MEMORY_FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}

_LARGEST_BATCH = 1024
"""Images of 32 px."""

_SHARE_OF_FREE_MEMORY = 0.5


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
    are read. The network is moved to the numerics' device and memory format and put in eval
    mode. `batch` bounds a batch; by default it follows the image's size.
    """
    place_model(model, numerics).eval()
    chosen = np.arange(len(images)) if indices is None else indices
    return log_probs_of(model, PixelSource(images, chosen, numerics), numerics, batch=batch)


class PixelSource:
    """Some images of a set, served in float batches on the training device.

    On CUDA they are copied there as uint8 if they take at most half of the free memory. On the
    CPU nothing is copied: batches are read from the shared or memory-mapped array itself.
    """

    def __init__(
        self, images: npt.NDArray[np.uint8], indices: npt.NDArray[np.int64], numerics: Numerics
    ) -> None:
        """`indices` are positions in `images`, uint8 [N, S, S, 3]."""
        self._images = images
        self._indices = np.asarray(indices, dtype=np.int64)
        self._device = torch.device(numerics.device)
        self._channels_last = numerics.layout == "channels_last"
        self._resident = self._copy_to_device()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._indices)

    @property
    def image_size(self) -> int:
        """S, in pixels."""
        return int(self._images.shape[1])

    def batch(self, positions: Tensor) -> Tensor:
        """Return images float [B, 3, S, S] in [0, 1] at `positions`, int64 [B] on the CPU."""
        if self._resident is not None:
            pixels = self._resident[positions.to(self._device)]
        else:
            chosen = np.asarray(self._images[self._indices[positions.numpy()]])
            pixels = torch.from_numpy(chosen).to(self._device)
        # Rows of interleaved RGB, viewed as [B, 3, S, S], are already channels_last.
        floats = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)
        return floats if self._channels_last else floats.contiguous()

    def batches(
        self, positions: Tensor | None = None, *, size: int | None = None
    ) -> Iterator[Tensor]:
        """Yield the images at `positions` (all by default) in batches of nearly equal sizes.

        `size` bounds a batch; by default it is 1,024 images of 32 px, fewer of larger ones.
        """
        if positions is None:
            positions = torch.arange(len(self))
        size = size or max(1, min(_LARGEST_BATCH, _LARGEST_BATCH * 32**2 // self.image_size**2))
        for part in positions.chunk(max(1, -(-len(positions) // size))):
            yield self.batch(part)

    def _copy_to_device(self) -> Tensor | None:
        if self._device.type != "cuda":
            return None
        needed = len(self._indices) * int(np.prod(self._images.shape[1:]))
        free, _ = torch.cuda.mem_get_info(self._device)
        if needed > _SHARE_OF_FREE_MEMORY * free:
            return None
        return torch.from_numpy(np.asarray(self._images[self._indices])).to(self._device)


def log_probs_of(
    model: nn.Module, source: PixelSource, numerics: Numerics, *, batch: int | None = None
) -> npt.NDArray[np.float32]:
    """Return log-probabilities float32 [N, K] of a network that is in place and in eval mode."""
    with torch.inference_mode(), autocast(numerics):
        pieces = [
            torch.log_softmax(model(images).float(), dim=1).cpu()
            for images in source.batches(size=batch)
        ]
    result: npt.NDArray[np.float32] = torch.cat(pieces).numpy()
    return result


def apply_numerics(numerics: Numerics) -> None:
    """Set the process's thread count for torch and, on the CPU, how freed memory is kept."""
    if numerics.device == "cpu":
        keep_freed_memory()
    if torch.get_num_threads() != numerics.threads:
        torch.set_num_threads(numerics.threads)


def place_model(model: nn.Module, numerics: Numerics) -> nn.Module:
    """Move a network to the numerics' device and memory format."""
    layout = MEMORY_FORMATS[numerics.layout]
    return model.to(device=numerics.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def autocast(numerics: Numerics) -> AbstractContextManager[object]:
    """Return the context in which a network runs: bfloat16 autocast, or none."""
    device = torch.device(numerics.device).type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=numerics.dtype == "bfloat16")
