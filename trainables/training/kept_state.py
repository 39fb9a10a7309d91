"""Save and restore a network's buffers and torch's random state, so that a step can be repeated."""

import torch
from torch import Tensor, nn


class KeptState:
    """The buffers of a network, e.g. statistics of batch normalization, and the random state.

    The copies are allocated once, and all buffers of one dtype are copied in one call: separate
    copies would launch hundreds of kernels at every step of a deep network.
    """

    def __init__(self, model: nn.Module) -> None:
        """Allocate copies of the buffers of `model`; nothing is saved yet."""
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
        """Save the present values in place of earlier ones."""
        # `_foreach_copy_` is not documented: tests of steps that run out of memory would notice a
        # change.
        with torch.no_grad():
            for buffers, copies in self._groups:
                torch._foreach_copy_(copies, buffers)
        # Saved at every step, because any may run out of memory. This does not wait for a GPU:
        # torch keeps the state of a CUDA generator, 16 bytes, on the host.
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
