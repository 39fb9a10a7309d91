"""Training steps never wait for the device: on the meta device, only epochs copy values to it."""

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.training.test_loop import AUXILIARY, DISTILLATION, EVERYTHING, IMAGES, start
from tests.waits import META, counted_copies
from trainables.data.image_set import LargeCopies
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage

HEAD = Stage(train="head", values={"augment": "none", "cutout": 0})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "lookahead": 3, "alternating_flip": True, **AUXILIARY},
        {"optimizer": "muon", "augment": "randaugment", "class_weights": "balanced"},
        {"optimizer": "muon_sgd", "lookahead": 2, "lookahead_decay": 0.95, "translate": 2},
        {"accumulation": 3, "clip_grad_norm": 0.5, "augment": "colour", **AUXILIARY},
        {"sam_rho": 0.05, "augment": "affine", "crop_scale": 0.5},
        {"ema_decay": 0.0, "augment": "trivialaugment", "erase_probability": 0.5},
        {"stages": (HEAD,)},
        {"stages": (replace(HEAD, values={"flip": True, "translate": 0, "mixup_alpha": 0.0,
                                          "cutmix_alpha": 0.0, "cutout": 0}),)},
        {"model": "wrn-10-1", "drop_path": 0.1},
    ],
    ids=["sgd", "adamw", "muon", "muon_sgd", "micro", "sam", "erasing", "head", "flipped head",
         "wrn"],
)  # fmt: skip
@pytest.mark.parametrize("taught", [False, True])
def test_steps_neither_read_nor_copy_values(changes: dict[str, Any], taught: bool) -> None:
    """The number of copies does not grow with that of steps; a read is an error."""
    side = IMAGES.image_size + 4
    copies = LargeCopies(
        pixels=np.zeros((len(IMAGES), side, side, 3), np.uint8),
        aspects=np.ones(len(IMAGES), np.float32),
    )
    teaching: dict[str, Any] = {
        "teacher": lambda images: torch.log_softmax(images.mean(dim=(2, 3)), dim=1),
        "distillation": DISTILLATION,
    }
    training = start(
        Recipe(**{**EVERYTHING, **changes}),
        numerics=Numerics(device=META),
        images=replace(IMAGES, large=copies),
        **(teaching if taught else {}),
    )
    counts = []
    for steps in (1, 2, 7):
        with counted_copies() as counted:
            training.rehearse(steps)
        counts.append(counted.count)
    assert counts[1] == counts[2] <= counts[0]


def test_a_second_training_does_not_copy_the_images_again() -> None:
    images = replace(IMAGES, images=IMAGES.images.copy())
    counts = []
    for seed in (1, 2):
        with counted_copies() as copied:
            training = start(seed=seed, numerics=Numerics(device=META), images=images)
            training.rehearse(2)
        counts.append(copied.bytes)
    assert counts[0] - counts[1] == images.images.nbytes


def test_a_training_is_freed_at_once() -> None:
    """Its memory on a GPU is then free for the next trial of the process."""
    training = start()
    next(training.reports())
    gc.disable()
    try:
        alive = [weakref.ref(value) for value in (training, training.model)]
        del training
        assert [each() for each in alive] == [None, None]
    finally:
        gc.enable()
