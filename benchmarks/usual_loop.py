"""The usual PyTorch training loop, beside which ours is measured.

A torchvision `Dataset` of PIL images with `RandomCrop`, `RandomHorizontalFlip`, `Resize` where the
network wants larger images, and `ToTensor`; a `DataLoader` with one worker per core, which stays
alive between epochs; an eager network in torch's own memory layout; the loss read after every
step. In bfloat16, the forward pass runs under autocast. Networks, optimizers, learning rates and
label smoothing come from our recipes; augmentation is crops and mirror images only, and there is no
average of the weights.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from common.cpu_runtime import usable_cores
from common.seeds import torch_generator
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.hyperparameters import length_in_pixels
from trainables.nets.build import build_model
from trainables.nets.classifier import Classifier, resized
from trainables.nets.head import linear_head
from trainables.recipe import Dtype, Recipe
from trainables.training.optimizers import make_optimizer

Images = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[np.int64]]


@dataclass
class PilImages(Dataset[tuple[Tensor, int]]):
    """A data set that loads each image as `torchvision.datasets.CIFAR10` does."""

    images: Images
    labels: Labels
    transform: Callable[[Image.Image], Tensor]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a transformed image and its label."""
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class UsualLoop:
    """One training by the usual loop; `batches` and `step` are its two halves.

    Axes: N images, S×S pixels, C channels, B images of a batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: Images,
        labels: Labels,
        *,
        classes: int,
        seed: int,
        dtype: Dtype = "float32",
        compiled: bool = False,
    ) -> None:
        """Build the network and the loader for `images`, uint8 [N, S, S, C], and their `labels`.

        If the recipe's first stage trains only the head, so does the loop: its backbone is frozen
        and in eval mode, and computes its features anew in every step. `compiled` passes the
        network to `torch.compile`.
        """
        self.recipe, self.dtype = recipe, dtype
        self.batch_size = min(recipe.optimizer.batch_size, len(images))
        self.model = build_model(
            recipe, classes=classes, image_size=images.shape[1], train_images=images, seed=seed
        )
        stages = recipe.schedule.stages
        self.head: nn.Module | None = None
        if stages and stages[0].train == "head":
            self.model.requires_grad_(False)
            self.head = linear_head(self.model.net, recipe.architecture.model).requires_grad_(True)
        self.optimizer = make_optimizer(self.model, recipe.in_stage(0).optimizer)
        self.network: Callable[[Tensor], Tensor] = (
            torch.compile(self.model) if compiled else self.model
        )
        # The loader resizes the images, so the network leaves them as they are.
        self.loader = _loader(
            recipe,
            images,
            labels,
            side=self.model.input_size,
            batch=self.batch_size,
            seed=seed,
        )
        self.train()

    @classmethod
    def on(
        cls, recipe: Recipe, images: ImageSet, splits: Splits, *, seed: int, dtype: Dtype
    ) -> "UsualLoop":
        """Return the loop over the training images of a data set, on all cores."""
        torch.set_num_threads(usable_cores())
        return cls(
            recipe,
            images.images[splits.train],
            images.labels[splits.train],
            classes=len(images.class_names),
            seed=seed,
            dtype=dtype,
        )

    def train(self) -> None:
        """Put the layers that learn in training mode."""
        self.model.train()
        if self.head is not None:
            self.model.net.eval()
            self.head.train()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float images [B, C, S, S] in [0, 1] and labels [B], epoch after epoch."""
        return itertools.chain.from_iterable(itertools.repeat(self.loader))

    def step(self, pixels: Tensor, labels: Tensor) -> float:
        """Take one training step and return the loss, as for a progress bar."""
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bfloat16"):
            loss = functional.cross_entropy(
                self.network(pixels), labels, label_smoothing=self.recipe.loss.label_smoothing
            )
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()

    def accuracy(self, images: Images, labels: Labels, *, batch: int = 250) -> float:
        """Return the accuracy of the present weights on images as in `__init__`.

        Predictions average the recipe's views (`tta`).
        """
        loader = DataLoader(
            PilImages(images, labels, _resized(self.model)),
            batch_size=batch,
            num_workers=usable_cores(),
        )
        right = 0
        self.model.eval()
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bfloat16"),
        ):
            for pixels, truth in loader:
                right += int((self.model(pixels).argmax(1) == truth).sum())
        self.train()
        return right / len(images)


def eager_batches(
    images: Images, labels: Labels, *, side: int, batch: int, count: int = 16
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the first `count` batches again and again: what is left if data were free.

    They lie in memory, resized to `side` pixels and not augmented.
    """
    pixels = torch.from_numpy(images[: count * batch]).permute(0, 3, 1, 2).float().div_(255)
    pixels = resized(pixels, side).contiguous()
    truth = torch.from_numpy(labels[: count * batch])
    parts = zip(torch.split(pixels, batch), torch.split(truth, batch), strict=True)
    return itertools.cycle(part for part in parts if len(part[1]) == batch)


def _loader(
    recipe: Recipe, images: Images, labels: Labels, *, side: int, batch: int, seed: int
) -> "DataLoader[Any]":
    """Return shuffled batches, augmented image by image in worker processes."""
    size, augmentation = images.shape[1], recipe.in_stage(0).augmentation
    steps: list[Any] = []
    if augmentation.translate:
        padding = length_in_pixels(augmentation.translate, size)
        steps.append(transforms.RandomCrop(size, padding=padding, padding_mode="reflect"))
    if augmentation.flip:
        steps.append(transforms.RandomHorizontalFlip())
    if side != size:
        steps.append(transforms.Resize(side, antialias=True))
    return DataLoader(
        PilImages(images, labels, transforms.Compose([*steps, transforms.ToTensor()])),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=usable_cores(),
        persistent_workers=True,
        generator=torch_generator(seed, "loader"),
    )


def _resized(model: Classifier) -> Callable[[Image.Image], Tensor]:
    resize = transforms.Resize(model.input_size, antialias=True)
    result: Callable[[Image.Image], Tensor] = transforms.Compose([resize, transforms.ToTensor()])
    return result
