"""Build custom networks, named by import path in a recipe.

    # mynet.py, in the folder that the command is started in
    def build(*, classes: int, image_size: int, recipe: Architecture) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, classes))

    # my.yaml
    recipe: {model: "mynet:build"}

Axes: B images, S×S pixels (`image_size`), K classes. The network takes normalized images,
float [B, 3, S, S], and returns logits [B, K]. Its initial weights may be drawn from torch's
global generator, which is seeded for the trial. Values that it reads from `recipe` (`width`,
`depth`, `dropout` …) can be searched. Take the dropout probability from `recipe.dropout`, because
the probe that chooses a trial's numerics sets it to 0; the same holds for `recipe.drop_path`.
Images that are not RGB come with their number of channels, as a further argument `channels`.
"""

import torch
from torch import Tensor, nn

from common.errors import SpecError
from common.plugins import describe_user_error, is_import_path, load_object
from trainables.hyperparameters import Architecture

_IMAGES = 2
_RGB = 3


def is_custom(model: str) -> bool:
    """Return whether the name of a network is an import path, and not that of one of ours."""
    return is_import_path(model) and not model.startswith("timm:")


def custom_model(
    architecture: Architecture, *, classes: int, image_size: int, channels: int = 3
) -> nn.Module:
    """Build the network at the import path `architecture.model`; run it on two black images.

    Raises:
        SpecError: the network cannot be imported, built or run, or does not return logits
            [B, classes].
    """
    path = architecture.model
    build = load_object(path, where="recipe: model")
    if not callable(build):
        raise SpecError(f"model {path!r} must be a function or a class, got {build!r}")
    options = {} if channels == _RGB else {"channels": channels}
    try:
        net = build(classes=classes, image_size=image_size, recipe=architecture, **options)
    except Exception as error:
        raise SpecError(
            f"model {path!r} failed on (classes={classes}, image_size={image_size}, "
            f"{''.join(f'{k}={v}, ' for k, v in options.items())}recipe=…): "
            f"{describe_user_error(error)}"
        ) from error
    if not isinstance(net, nn.Module):
        raise SpecError(f"model {path!r} must build a torch.nn.Module, got {type(net).__name__}")
    _check_logits(net, path, classes=classes, shape=(_IMAGES, channels, image_size, image_size))
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise SpecError(f"model {path!r} has no parameter to train; set requires_grad on some")
    return net.train()


def _check_logits(
    net: nn.Module, path: str, *, classes: int, shape: tuple[int, int, int, int]
) -> None:
    images = torch.zeros(shape)
    try:
        with torch.no_grad():
            logits = net.eval()(images)
    except Exception as error:
        raise SpecError(
            f"model {path!r} cannot take images {list(images.shape)}: {describe_user_error(error)}"
        ) from error
    returned = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if returned != [_IMAGES, classes]:
        raise SpecError(
            f"model {path!r} must return logits [{_IMAGES}, {classes}] for {_IMAGES} images and "
            f"{classes} classes, got {returned}"
        )
