"""The stage that is being trained: its trainable parameters, its optimizer and its batches.

Axes: N training images, B images of a batch, S×S pixels, K classes, V views, C features.

Every stage has its own optimizer over the parameters that it trains. If a stage trains only the
head and shows images unchanged or mirrored, the layers below the head give the same features in
every epoch, so these are computed once. So are those of the images that are scored.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from trainables.augmentation.batch import Batch, augment, count_views, draw_flips
from trainables.nets.auxiliary_heads import (
    AuxiliaryLogits,
    draw_rotations,
    rotate,
    rotated_part,
)
from trainables.nets.classifier import Classifier
from trainables.nets.head import linear_head
from trainables.prediction import PixelSource, autocast, filling_batch, in_batches
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage
from trainables.trainer import FeatureCache
from trainables.training.crop_source import CropSource
from trainables.training.depthwise_gradients import depthwise_gradients
from trainables.training.optimizers import make_optimizer


class ActiveStage:
    """A network, the optimizer of its current stage, and the batches of that stage."""

    def __init__(
        self,
        model: Classifier,
        recipe: Recipe,
        source: PixelSource,
        numerics: Numerics,
        *,
        crop_source: CropSource | None = None,
        reuse_features: bool = True,
        cache: FeatureCache | None = None,
        data: str = "",
    ) -> None:
        """Enter the recipe's first stage; `source` holds the training images.

        `crop_source` holds their larger copies, from which random crops are cut; without one, they
        are cut from the images.
        Without `reuse_features`, batches hold images in every stage, because a teacher needs them.
        `cache` keeps features between trainings; `data` identifies the image set.

        Raises:
            SpecError: a stage trains only the head, and the network has no `get_classifier`.
        """
        self.model = model
        self._whole_recipe = recipe
        self._source = source
        self._crop_source = crop_source
        self._numerics = numerics
        self._learnable = [p for p in model.parameters() if p.requires_grad]
        self._reuse_features = reuse_features
        self._cache = FeatureCache() if cache is None else cache
        self._data = data
        self._features: Tensor | None = None
        self._scored: dict[bytes, Tensor] = {}
        """Features [n, C] of scored images by a digest of their positions."""
        self._views = 0
        """Number of views of each image whose features are cached; 0 if batches hold images."""
        self._index = -1
        if any(stage.train == "head" for stage in recipe.schedule.stages):
            linear_head(model.net, recipe.architecture.model)
        self.enter(0)

    def enter(self, index: int) -> None:
        """Start a stage with a new optimizer; do nothing if it is already the current stage."""
        if index == self._index:
            return
        self._index, self._features, self._scored = index, None, {}
        stages = self._whole_recipe.schedule.stages
        stage = stages[index] if stages else Stage()
        self.recipe = self._whole_recipe.in_stage(index)
        """The recipe with this stage's values."""
        self._head: nn.Module | None = None
        if stage.train == "head":
            self._head = linear_head(self.model.net, self._whole_recipe.architecture.model)
        reuse = self._reuse_features and self._head is not None
        self._views = count_views(self.recipe.augmentation) if reuse else 0
        chosen = self._learnable if self._head is None else [*self._head.parameters()]
        learns = {id(parameter) for parameter in chosen}
        for parameter in self._learnable:
            parameter.requires_grad_(id(parameter) in learns)
        self.optimizer = make_optimizer(self.model, self.recipe.optimizer)

    @property
    def head_only(self) -> bool:
        """True if only the head is trained."""
        return self._head is not None

    def start_epoch(self, epoch: int) -> None:
        """Put trained layers in training mode, others in eval mode; freeze the whitening's bias.

        The bias is trained only in the first `whitening_epochs` of the schedule.
        """
        self._set_modes()
        whitening = getattr(self.model.net, "whitening", None)
        if isinstance(whitening, nn.Conv2d) and whitening.bias is not None and not self.head_only:
            learns = epoch <= self._whole_recipe.architecture.whitening_epochs
            whitening.bias.requires_grad_(learns)

    def batches(
        self,
        positions: Tensor,
        labels: Tensor,
        generator: Generator,
        *,
        flips: Tensor | None,
        size: int,
    ) -> Iterator[Batch]:
        """Yield the augmented training images at `positions`, or their cached features, by step.

        `positions` and `labels` are int64 [steps × B] with B = `size`; `flips`, described in
        `augment`, is bool of that length. All are copied to the device once, not at every step.
        """
        device = self._source.device
        parts = torch.split(labels.to(device), size)
        flipped = [None] * len(parts) if flips is None else torch.split(flips.to(device), size)
        if self._views:
            placed = torch.split(positions.to(device), size)
            for rows, part, mirrored in zip(placed, parts, flipped, strict=True):
                yield self._feature_batch(rows, part, generator, mirrored)
            return
        images = self._images(positions, size)
        for part, mirrored in zip(parts, flipped, strict=True):
            # No name refers to the images: they are freed before the training step.
            yield self._augmented(next(images), part, generator, mirrored)

    def outputs(self, batch: Batch) -> tuple[Tensor, AuxiliaryLogits | None]:
        """Return logits [B, K] for a batch, and the auxiliary heads' logits if they are trained."""
        with autocast(self._numerics), depthwise_gradients(self._numerics):
            if self._head is not None:
                features = batch.images if self._views else self.model.features(batch.images)
                if self.recipe.architecture.dropout:
                    # The network's own dropout is in eval mode, as all else below the head.
                    features = functional.dropout(features, self.recipe.architecture.dropout)
                return self._head(features), None
            auxiliary = self.model.auxiliary
            if auxiliary is None:
                return self.model(batch.images), None
            images, count = batch.images, len(batch.images)
            if batch.rotations is not None:
                parts = (rotated_part(x, batch.first_rotated) for x in (images, batch.rotations))
                images = torch.cat([images, rotate(*parts)])
            features = self.model.features(images)
            head = linear_head(self.model.net, self._whole_recipe.architecture.model)
            return head(features[:count]), auxiliary(features[:count], features[count:])

    def _images(self, positions: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Return the images to augment, and the aspect ratios of the originals."""
        if self._crop_source is not None and self.recipe.augmentation.crops:
            return self._crop_source.batches(positions, size=size)
        return map(_without_aspects, self._source.batches(positions, size=size))

    def _augmented(
        self,
        images: tuple[Tensor, Tensor | None],
        labels: Tensor,
        generator: Generator,
        flips: Tensor | None,
    ) -> Batch:
        pixels, aspects = images
        batch = augment(
            pixels,
            labels,
            self.recipe.augmentation,
            mean=self.model.mean,
            generator=generator,
            flips=flips,
            aspects=aspects,
            size=self._source.image_size,
        )
        if not self.recipe.loss.rotation_weight or self.head_only:
            return batch
        return replace(batch, rotations=draw_rotations(labels, generator))

    def head_logits(self, scored: Classifier, source: PixelSource) -> Tensor:
        """Return the logits [n, K] of images by the head of `scored`, from cached features.

        All layers of `scored` below the head must equal the network's, and only the head learns.
        """
        name = hashlib.sha256(source.indices.tobytes()).digest()
        if name not in self._scored:
            key = self._features_key(f"scored {self.model.tta} {name.hex()}")
            self._scored[name] = self._cache.get(key, lambda: self._scored_features(source, scored))
        head = linear_head(scored.net, self._whole_recipe.architecture.model)
        with torch.no_grad(), autocast(self._numerics):
            logits: Tensor = head(self._scored[name])
        return logits

    def _set_modes(self) -> None:
        self.model.train()
        if self._head is not None:
            self.model.net.eval()
            self._head.train()

    def _feature_batch(
        self, positions: Tensor, labels: Tensor, generator: Generator, flips: Tensor | None
    ) -> Batch:
        if self._features is None:
            key = self._features_key(f"trained {self._views} {self._training_images()}")
            self._features = self._cache.get(key, self._compute_features)
        view = torch.zeros_like(labels)
        if self._views == 2:
            view = (draw_flips(labels, True, generator) if flips is None else flips).long()
        features = self._features[view, positions]
        share = torch.ones(len(labels), device=labels.device)
        return Batch(images=features, labels_a=labels, labels_b=labels, share=share)

    def _features_key(self, images: str) -> str:
        """Return a digest of all that features depend on; `images` names the images and views."""
        architecture = replace(
            self.recipe.architecture, pretrained="", dropout=0.0, tta="none", family=""
        )
        digest = hashlib.sha256(f"{self._data} {images} {self._numerics} {architecture}".encode())
        head = {id(value) for value in self._head.parameters()} if self._head else set()
        for name, value in self.model.state_dict(keep_vars=True).items():
            if id(value) not in head:
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _training_images(self) -> str:
        return hashlib.sha256(self._source.indices.tobytes()).hexdigest()

    def _compute_features(self) -> Tensor:
        """Return features [V, N, C] of all training images and, if V = 2, their mirror images."""
        model = self.model.eval()
        views = [_features_of(model, self._source, self._numerics, model.features)]
        if self._views == 2:
            views.append(
                _features_of(
                    model, self._source, self._numerics, lambda part: model.features(part.flip(3))
                )
            )
        self._set_modes()
        return torch.stack(views)

    def _scored_features(self, source: PixelSource, scored: Classifier) -> Tensor:
        return _features_of(scored, source, self._numerics, scored.eval().mean_features)


def _without_aspects(images: Tensor) -> tuple[Tensor, None]:
    return images, None


def _features_of(
    model: Classifier,
    source: PixelSource,
    numerics: Numerics,
    function: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return `function` of all images, [N, C], batch by batch."""
    with torch.no_grad(), autocast(numerics):
        return in_batches(function, source, size=filling_batch(model, source))
