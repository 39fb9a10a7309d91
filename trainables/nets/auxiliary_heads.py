"""Further questions about the same features, so that they hold more than the labels ask for.

Axes: B images of a batch, R of them shown turned as well, C features, K classes, G groups
of classes.

`rotation`: by how many quarter turns an image was turned (Gidaris et al., 2018; as an
auxiliary beside labels, Hendrycks et al., arXiv 1906.12340). Every fourth image of a batch
is shown once more, turned; that costs a quarter of a step. `superclass`: to which of the
groups that the recipe names the image's class belongs. The heads are linear, learn with the
net and are not asked when it predicts.
"""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from common.errors import SpecError
from trainables.data.image_set import clean_class_name
from trainables.hyperparameters import Loss

TURNS = 4
EVERY = 4
"""One image in so many is shown turned."""


class Answers(NamedTuple):
    """What the heads say; None where a question is not asked."""

    superclass: Tensor | None
    """Logits [B, G]."""
    rotation: Tensor | None
    """Logits [R, 4]."""


class Auxiliary(nn.Module):
    """The heads of a recipe's auxiliary tasks."""

    def __init__(self, loss: Loss, features: int) -> None:
        """`features` is C, the inputs of the net's own head."""
        super().__init__()
        self.rotation = nn.Linear(features, TURNS) if loss.rotation_weight else None
        # One more than there are groups: whether classes are left over depends on the data.
        groups = len(loss.superclasses) + 1
        self.superclass = nn.Linear(features, groups) if loss.superclass_weight else None

    def forward(self, features: Tensor, turned: Tensor) -> Answers:
        """Answers to features [B, C] of images and [R, C] of turned ones."""
        return Answers(
            superclass=None if self.superclass is None else self.superclass(features),
            rotation=None if self.rotation is None else self.rotation(turned),
        )


def group_matrix(groups: Sequence[Sequence[str]], class_names: Sequence[str]) -> Tensor:
    """Which class (row) belongs to which group (column), float32 [K, G + 1].

    The last column is that of the classes that no group names.

    Raises:
        SpecError: there is no group, or one names a class that the data have not, or that
            another group has.
    """
    if not groups:
        raise SpecError("superclass_weight needs `superclasses`: lists of names of classes")
    owner: dict[str, int] = {}
    for column, members in enumerate(groups):
        for name in map(clean_class_name, members):
            if name not in class_names:
                near = difflib.get_close_matches(name, class_names, n=1, cutoff=0.0)
                raise SpecError(
                    f"superclasses: {name!r} is no class of the data; the nearest is {near[0]!r}"
                )
            if name in owner:
                raise SpecError(f"superclasses: {name!r} is in two groups; leave it in one")
            owner[name] = column
    columns = torch.tensor([owner.get(name, len(groups)) for name in class_names])
    return functional.one_hot(columns, len(groups) + 1).float()


def draw_turns(labels: Tensor, generator: Generator) -> Tensor:
    """Quarter turns int64 [B] of every fourth image, uniform from 0 to 3; −1 for the others."""
    turns = torch.randint(0, TURNS, labels.shape, generator=generator, device=labels.device)
    asked = torch.arange(len(labels), device=labels.device) % EVERY == 0
    return torch.where(asked, turns, -1)


def turn(images: Tensor, turns: Tensor) -> Tensor:
    """Those of images [B, 3, S, S] that are to be turned, turned anticlockwise: [R, 3, S, S]."""
    asked = turns >= 0
    chosen, by = images[asked], turns[asked]
    ways = torch.stack([torch.rot90(chosen, k, (2, 3)) for k in range(TURNS)])
    return ways[by, torch.arange(len(by), device=by.device)]
