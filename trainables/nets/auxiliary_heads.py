"""Auxiliary tasks (rotation, superclasses) trained on the shared features.

Axes: B images of a batch, R rotated copies, C features, K classes, G groups of classes.

`rotation` predicts the number of quarter turns by which an image was rotated (Gidaris et al.,
2018; as an auxiliary task to labels, Hendrycks et al., arXiv 1906.12340). Every fourth image of
a batch is also shown rotated, which costs a quarter of a step. `superclass` predicts the group
of the image's class. The heads are linear, are trained with the network and are not used for
predictions.
"""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from common.errors import SpecError
from trainables.data.class_names import clean_class_name
from trainables.hyperparameters import Loss

QUARTER_TURNS = 4
ROTATED_EVERY = 4
"""One in this many images of a batch is also shown rotated."""


class AuxiliaryLogits(NamedTuple):
    """The logits of the auxiliary heads; None for a task that is off."""

    superclass: Tensor | None
    """Logits [B, G + 1]."""
    rotation: Tensor | None
    """Logits [R, 4]."""


class AuxiliaryHeads(nn.Module):
    """The linear heads of a recipe's auxiliary tasks."""

    def __init__(self, loss: Loss, features: int) -> None:
        """Build a head for each task whose weight is not 0; `features` is C, its input size."""
        super().__init__()
        self.rotation = nn.Linear(features, QUARTER_TURNS) if loss.rotation_weight else None
        # The extra group holds the classes that are in no group.
        groups = len(loss.superclasses) + 1
        self.superclass = nn.Linear(features, groups) if loss.superclass_weight else None

    def forward(self, features: Tensor, rotated: Tensor) -> AuxiliaryLogits:
        """Return the logits for features [B, C] of images and [R, C] of rotated copies."""
        return AuxiliaryLogits(
            superclass=None if self.superclass is None else self.superclass(features),
            rotation=None if self.rotation is None else self.rotation(rotated),
        )


def group_matrix(groups: Sequence[Sequence[str]], class_names: Sequence[str]) -> Tensor:
    """Return the membership of classes (rows) in groups (columns), 0 or 1, float32 [K, G + 1].

    The last column is for classes that are in no group.

    Raises:
        SpecError: there is no group, or a class in a group does not exist or is in two groups.
    """
    if not groups:
        raise SpecError("superclass_weight needs `superclasses`: lists of class names")
    group_of: dict[str, int] = {}
    for column, members in enumerate(groups):
        for name in map(clean_class_name, members):
            if name not in class_names:
                near = difflib.get_close_matches(name, class_names, n=1, cutoff=0.0)
                raise SpecError(
                    f"superclasses: {name!r} is not a class of the data; did you mean {near[0]!r}?"
                )
            if name in group_of:
                raise SpecError(f"superclasses: {name!r} is in two groups; keep it in one")
            group_of[name] = column
    columns = torch.tensor([group_of.get(name, len(groups)) for name in class_names])
    return functional.one_hot(columns, len(groups) + 1).float()


def draw_rotations(labels: Tensor, generator: Generator) -> Tensor:
    """Draw quarter turns, int64 [B]: 0 to 3 for every fourth image, −1 for the others."""
    rotations = torch.randint(
        0, QUARTER_TURNS, labels.shape, generator=generator, device=labels.device
    )
    chosen = torch.arange(len(labels), device=labels.device) % ROTATED_EVERY == 0
    return torch.where(chosen, rotations, -1)


def rotated_part(values: Tensor, first: int) -> Tensor:
    """Return the rows [R, …] of values [B, …] whose images have a rotated copy.

    `first` is the row of the first such image. A mask would have to be counted, which waits for
    the device.
    """
    return values[first::ROTATED_EVERY]


def rotate(images: Tensor, rotations: Tensor) -> Tensor:
    """Return copies of images [R, 3, S, S], rotated anticlockwise by quarter turns, int64 [R]."""
    versions = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(QUARTER_TURNS)])
    return versions[rotations, torch.arange(len(rotations), device=rotations.device)]
