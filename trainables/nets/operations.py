"""Count the operations of a network's forward pass, without running it."""

from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.seeds import global_torch_stream
from trainables.hyperparameters import Architecture
from trainables.nets.build import empty_model
from trainables.recipe import Recipe


@lru_cache(maxsize=1024)
def operations_per_image(architecture: Architecture, *, classes: int, image_size: int) -> int:
    """Return the multiplications and additions of convolutions and matrix products for one image.

    `image_size` is the side of the data set's images. The network is built on torch's meta device,
    which holds no values.

    Raises:
        SpecError: the model does not exist, or cannot take images of this size.
    """
    recipe = Recipe().with_values(
        **{name: getattr(architecture, name) for name in architecture.__slots__ if name != "tta"}
    )
    with global_torch_stream(0, "operations"), torch.device("meta"):
        model = empty_model(recipe, classes=classes, image_size=image_size).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model(torch.zeros(1, 3, image_size, image_size))
    return int(counter.get_total_flops())
