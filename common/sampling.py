"""Evenly spaced picks from a sequence."""

import numpy as np
import numpy.typing as npt


def evenly_spaced(size: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most `most` rising positions in 0 … size − 1, both ends among them.

    The upper half is counted from the end, as torch.linspace does. Positions therefore do not
    depend on how a sum of steps rounds; np.linspace gives other positions for 1 size in 100.
    """
    count = min(size, most)
    index = np.arange(count)
    if count < 2:
        return index
    step = (size - 1) / (count - 1)
    spaced = np.where(index < count // 2, step * index, size - 1 - step * (count - 1 - index))
    return spaced.astype(np.int64)
