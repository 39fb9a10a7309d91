"""Named seed streams: every random draw comes from a generator with a name.

A stream depends on its names alone, never on what was drawn before it. The draws of
epoch 7 are therefore the same whether epochs 1 to 6 ran in this process or before a
kill, and no generator's state has to be saved.
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
    """A 63-bit seed for the stream `names` under `root`, e.g. `derive_seed(0, "trial", 17)`.

    SHA-256 of the unambiguous text of all names, so streams are independent in practice
    and stable across machines, processes and versions of NumPy. A whole number of NumPy is
    the same name as Python's.

    Raises:
        TypeError: the root is not a whole number, or a name is neither that nor a text.
    """
    text = "\x1f".join([str(operator.index(root)), *map(_spelled, names)])
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_generator(root: int, *names: Name) -> np.random.Generator:
    """A NumPy generator at the start of the stream `names` under `root`."""
    return np.random.default_rng(derive_seed(root, *names))


def torch_generator(root: int, *names: Name, device: str = "cpu") -> "torch.Generator":
    """A torch generator on `device` at the start of the stream `names` under `root`."""
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(derive_seed(root, *names))
    return generator


@contextmanager
def global_torch_stream(root: int, *names: Name, device: str = "cpu") -> Iterator[None]:
    """Lend torch's global generators the stream `names` for code that can use no other.

    Dropout and layer initialization draw from the global generator alone. The caller's
    state is put back at the end, so nothing outside the block notices.
    """
    import torch

    cuda = [torch.device(device)] if device.startswith("cuda") else []
    seed = derive_seed(root, *names)
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed would seed the generators of all devices, also those not forked.
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield


def _spelled(name: Name) -> str:
    """A name's kind and text, in which the separator of names cannot occur."""
    if isinstance(name, str):
        return "str:" + name.replace("\x1e", "\x1e0").replace("\x1f", "\x1e1")
    return f"int:{operator.index(name)}"
