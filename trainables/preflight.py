"""Check recipes against the images before anything is trained.

Otherwise a sweep may train for minutes before it draws a value that does not suit its images. So
the recipe and every bound and choice of the search space are checked first: networks are built
but not trained, and pretrained weights are compared with them.
"""

from collections.abc import Iterable, Sequence

import torch

from common.errors import SpecError
from common.seeds import global_torch_stream
from trainables.augmentation.batch import check_augmentation
from trainables.hyperparameters import HUB
from trainables.nets.auxiliary_heads import group_matrix
from trainables.nets.build import empty_model
from trainables.nets.classifier import Classifier
from trainables.nets.head import linear_head
from trainables.nets.hub import check_hub
from trainables.nets.pretrained import adapted, check_backbone, read_backbone
from trainables.recipe import Recipe
from trainables.training.optimizers import check_optimizer
from trainables.training.parameter_groups import parameter_groups


def check_recipes(
    recipes: Iterable[tuple[str, Recipe]],
    *,
    image_size: int,
    class_names: Sequence[str],
    channels: int = 3,
) -> None:
    """Refuse recipes that do not suit images of `image_size` pixels, `channels` and these classes.

    Each recipe comes with its place in the sweep's specification, which the error names, or with
    an empty string.

    Raises:
        SpecError: a cutout square or a shift is as large as the image, a superclass names an
            unknown class, the network does not exist or cannot take the images, or the pretrained
            weights do not fit.
    """
    checked: set[str] = set()
    for place, recipe in recipes:
        try:
            for index in range(max(1, len(recipe.schedule.stages))):
                check_augmentation(recipe.in_stage(index).augmentation, image_size)
            if recipe.loss.superclass_weight:
                group_matrix(recipe.loss.superclasses, class_names)
            check_optimizer(recipe.optimizer)
            decayed = recipe.optimizer.layer_decay < 1
            key = repr((recipe.architecture, recipe.schedule.stages, decayed))
            if key not in checked:
                _check_net(
                    recipe,
                    classes=len(class_names),
                    image_size=image_size,
                    channels=channels,
                )
            checked.add(key)
        except SpecError as error:
            raise SpecError(f"{place}: {error}" if place else str(error)) from None


def _check_net(recipe: Recipe, *, classes: int, image_size: int, channels: int) -> None:
    model = _build(recipe, classes=classes, image_size=image_size, channels=channels)
    if any(stage.train == "head" for stage in recipe.schedule.stages):
        linear_head(model.net, recipe.architecture.model)
    for index in range(len(recipe.schedule.stages) or 1):
        parameter_groups(model, recipe.in_stage(index).optimizer)
    architecture = recipe.architecture
    if architecture.pretrained == HUB:
        check_hub(architecture)
    elif architecture.pretrained:
        backbone = adapted(read_backbone(architecture), model.net)
        check_backbone(model.net, backbone, model=architecture.model)


def _build(recipe: Recipe, *, classes: int, image_size: int, channels: int) -> Classifier:
    """Return the network; Quorum's own are built without memory for the weights.

    A mistyped width could otherwise fill the memory.
    """
    ours = recipe.architecture.model == "convnet" or recipe.architecture.model.startswith("wrn-")
    with global_torch_stream(0, "suitability"), torch.device("meta" if ours else "cpu"):
        return empty_model(recipe, classes=classes, image_size=image_size, channels=channels)
