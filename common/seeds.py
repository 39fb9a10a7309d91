"""Named random streams: every draw comes from a generator that is seeded by names.

A stream depends on its names alone, never on earlier draws. The draws of epoch 7 are
therefore the same whether epochs 1 to 6 ran in this process or in one that was killed, and
no generator's state has to be saved.
"""

import hashlib
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Name = str | int


def derive_seed(root: int, *names: Name) -> int:
    """Return a 63-bit seed for the stream `names` under `root`.

    For example, `derive_seed(0, "trial", 17)`.

    The seed is the SHA-256 of an unambiguous text of all names, so streams are independent in
    practice and the same on all machines, in all processes and with all versions of NumPy.
    NumPy integers count as Python integers.

    Raises:
        TypeError: the root is not an integer, or a name is neither an integer nor a string.
    """
    text = "\x1f".join([str(operator.index(root)), *map(_encoded, names)])
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_generator(root: int, *names: Name) -> np.random.Generator:
    """Return a NumPy generator at the start of the stream `names` under `root`."""
    return np.random.default_rng(derive_seed(root, *names))


def torch_generator(root: int, *names: Name, device: str = "cpu") -> "torch.Generator":
    """Return a torch generator on `device` at the start of the stream `names` under `root`."""
    import torch

    # The meta device, which has shapes but no values, draws with the CPU's generators.
    generator = torch.Generator(device="cpu" if device == "meta" else device)
    generator.manual_seed(derive_seed(root, *names))
    return generator


@contextmanager
def global_torch_stream(root: int, *names: Name, device: str = "cpu") -> Iterator[None]:
    """Seed torch's global generators with the stream `names` within the block.

    Dropout and layer initialization can only draw from the global generators. Their former
    state is restored at the end, so code outside the block is unaffected.
    """
    import torch

    cuda = [torch.device(device)] if device.startswith("cuda") else []
    seed = derive_seed(root, *names)
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed would seed the generators of all devices, even those not forked.
        torch.default_generator.manual_seed(seed)
        for cuda_device in cuda:
            with torch.cuda.device(cuda_device):
                torch.cuda.manual_seed(seed)
        yield


def _encoded(name: Name) -> str:
    """Return a name's type and text, escaped so that the separator cannot occur in it."""
    if isinstance(name, str):
        return "str:" + name.replace("\x1e", "\x1e0").replace("\x1f", "\x1e1")
    return f"int:{operator.index(name)}"
