"""A network's buffers and torch's random state, kept so that a step can be taken again."""

import torch
from torch import Tensor, nn


class KeptState:
    """The buffers of a network, e.g. statistics of batch normalization, and the random state.

    The memory for the copies is kept, and buffers of a dtype are copied in one call: a copy of each
    would start hundreds of kernels at every step of a deep network.
    """

    def __init__(self, model: nn.Module) -> None:
        """Make memory for the buffers of `model`; nothing is remembered yet."""
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            by_dtype.setdefault(buffer.dtype, []).append(buffer)
        self._groups = [
            (buffers, [torch.empty_like(buffer) for buffer in buffers])
            for buffers in by_dtype.values()
        ]
        device = next(model.parameters()).device
        self._cuda = device if device.type == "cuda" else None
        self._cuda_random: Tensor | None = None

    def save(self) -> None:
        """Remember the present values, in place of earlier ones."""
        # Not documented by torch: tests of steps that run out of memory would notice a change.
        with torch.no_grad():
            for buffers, copies in self._groups:
                torch._foreach_copy_(copies, buffers)
        # Memory can run out in any step. No state is on a GPU, which is therefore not waited for:
        # torch keeps the seed and the offset of a CUDA generator, 16 bytes, on the host.
        self._random = torch.get_rng_state()
        if self._cuda is not None:
            self._cuda_random = torch.cuda.get_rng_state(self._cuda)

    def restore(self) -> None:
        """Restore buffers and random state."""
        with torch.no_grad():
            for buffers, copies in self._groups:
                torch._foreach_copy_(buffers, copies)
        self.restore_random()

    def restore_random(self) -> None:
        """Restore the state of torch's global generators."""
        torch.set_rng_state(self._random)
        if self._cuda is not None and self._cuda_random is not None:
            torch.cuda.set_rng_state(self._cuda_random, self._cuda)
