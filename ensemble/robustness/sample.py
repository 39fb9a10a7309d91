"""Choose a few images of a split, and give each its own corruption and severity.

Axes: N images, n of them chosen. An ensemble of pretrained networks predicts 100 to 1,000 images a
second on a CPU, so each image is corrupted once: 60 images hold every corruption at every severity,
and a family's figure is a mean over its corruptions and all severities.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Int, Int64, UInt8

from common.sampling import evenly_spaced
from ensemble.robustness.corruptions import CORRUPTIONS, corrupt
from ensemble.robustness.severities import SEVERITIES

CELLS = len(CORRUPTIONS) * len(SEVERITIES)
"""Number of pairs of a corruption and a severity: the fewest images that cover all of them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Images of a split that are corrupted."""

    rows: Int64[np.ndarray, " n"]
    """Positions of the images in the split."""
    positions: Int64[np.ndarray, " n"]
    """Positions of the images in the data set."""
    corruptions: tuple[str, ...]
    """The corruption of each image."""
    severities: tuple[int, ...]
    """Its severity."""

    def __len__(self) -> int:
        """Return the number of images, n."""
        return len(self.positions)

    @property
    def families(self) -> npt.NDArray[np.str_]:
        """The family of each image's corruption."""
        return np.array([CORRUPTIONS[name].family for name in self.corruptions])

    def pixels(self, images: UInt8[np.ndarray, "N S S 3"], *, seed: int) -> npt.NDArray[np.uint8]:
        """Return the corrupted images, uint8 [n, S, S, 3]."""
        chosen = np.asarray(images[self.positions])
        ids = self.positions.tolist()
        return corrupt(chosen, self.corruptions, self.severities, ids=ids, seed=seed)


def draw_sample(
    positions: Int64[np.ndarray, " N"], labels: Int[np.ndarray, " N"], most: int
) -> Sample:
    """Choose at most `most` of the images at `positions`, evenly spaced within each class.

    `labels` are the labels of these images. Every class has its share, to within one image. In the
    order of the classes, corruptions are assigned in rotation, and so are severities. Their numbers
    (12 and 5) have no common divisor, so any 60 images in a row hold all pairs, whatever their
    classes.
    """
    chosen = stratified(labels, most)
    names = tuple(CORRUPTIONS)
    return Sample(
        rows=chosen,
        positions=np.asarray(positions)[chosen],
        corruptions=tuple(names[i % len(names)] for i in range(len(chosen))),
        severities=tuple(SEVERITIES[i % len(SEVERITIES)] for i in range(len(chosen))),
    )


def stratified(labels: Int[np.ndarray, " N"], most: int) -> Int64[np.ndarray, " n"]:
    """Return at most `most` indices into `labels`, class by class, evenly spaced in each.

    The indices are evenly spaced over the sorted labels: a class of size s gets ⌊s·most/N⌋ or one
    more or less.
    """
    order = np.argsort(labels, kind="stable")
    return order[evenly_spaced(len(order), most)].astype(np.int64)
