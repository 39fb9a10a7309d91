"""What learns, and how, in the stage of a training that is under way.

Axes: N training images, B images of a batch, S×S pixels, K classes, V views, C features.

Every stage has an optimizer of its own, over what learns in it. Where only the head learns
and images are shown as they are or mirrored, what lies before the head gives the same
features in every epoch: they are computed once.
"""

import hashlib
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from trainables.augmentation.batch import Batch, augment, draw_flips, views_of
from trainables.nets.auxiliary_heads import Answers, draw_turns, turn
from trainables.nets.build import Classifier
from trainables.nets.pretrained import classifier_of
from trainables.prediction import PixelSource, autocast
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage
from trainables.training.feature_cache import FeatureCache
from trainables.training.optimizers import make_optimizer


class Learner:
    """A net, the optimizer of its present stage, and the batches that it is shown."""

    def __init__(
        self,
        model: Classifier,
        recipe: Recipe,
        source: PixelSource,
        numerics: Numerics,
        *,
        reuse: bool = True,
        cache: FeatureCache | None = None,
        data: str = "",
    ) -> None:
        """Begin with the recipe's first stage; `source` has the training images.

        Without `reuse`, batches are of images in every stage: a teacher wants to see them.
        A `cache` saves computing features that are in it; `data` names the training images.

        Raises:
            SpecError: a stage trains the head alone, and the net does not say which it is.
        """
        self.model = model
        self._whole = recipe
        self._source = source
        self._numerics = numerics
        self._learnable = [p for p in model.parameters() if p.requires_grad]
        self._reuse = reuse
        self._cache = FeatureCache() if cache is None else cache
        self._data = data
        self._features: Tensor | None = None
        self._views = 0
        """Views of each image whose features are computed once; 0 where images are shown."""
        self._index = -1
        if any(stage.train == "head" for stage in recipe.schedule.stages):
            classifier_of(model.net, recipe.architecture.model)
        self.enter(0)

    def enter(self, index: int) -> None:
        """Go to a stage of the recipe, with a fresh optimizer; no change where it is there."""
        if index == self._index:
            return
        self._index, self._features = index, None
        stages = self._whole.schedule.stages
        stage = stages[index] if stages else Stage()
        self.recipe = self._whole.in_stage(index)
        """What holds in this stage."""
        self._head: nn.Module | None = None
        if stage.train == "head":
            self._head = classifier_of(self.model.net, self._whole.architecture.model)
        chosen = self._learnable if self._head is None else [*self._head.parameters()]
        self._views = (
            views_of(self.recipe.augmentation) if self._reuse and self._head is not None else 0
        )
        kept = {id(parameter) for parameter in chosen}
        for parameter in self._learnable:
            parameter.requires_grad_(id(parameter) in kept)
        self.optimizer = make_optimizer(
            self.model, self.recipe.optimizer, layer_decay=stage.layer_decay
        )

    def begin(self, epoch: int) -> None:
        """What learns in this epoch of the schedule: the whitening's bias in the first ones."""
        whitening = getattr(self.model.net, "whitening", None)
        if isinstance(whitening, nn.Conv2d) and whitening.bias is not None and not self.head_only:
            whitening.bias.requires_grad_(epoch <= self._whole.architecture.whitening_epochs)

    @property
    def head_only(self) -> bool:
        """Whether what lies before the head stays as it is."""
        return self._head is not None

    def train(self) -> None:
        """Put what learns in training mode, and all else in eval mode."""
        self.model.train()
        if self._head is not None:
            self.model.net.eval()
            self._head.train()

    def batch(
        self, positions: Tensor, labels: Tensor, generator: Generator, *, flips: Tensor | None
    ) -> Batch:
        """The training images at `positions`, int64 [B], augmented; or their features.

        `labels` is int64 [B]; `flips` as in `augment`.
        """
        if self._views:
            return self._known(positions, labels, generator, flips)
        batch = augment(
            self._source.batch(positions),
            labels,
            self.recipe.augmentation,
            mean=self.model.mean,
            generator=generator,
            flips=flips,
        )
        if not self.recipe.loss.rotation_weight or self.head_only:
            return batch
        return replace(batch, turns=draw_turns(labels, generator))

    def outputs(self, batch: Batch) -> tuple[Tensor, Answers | None]:
        """Logits [B, K] of what `batch` gave, and the auxiliary heads' answers if they learn."""
        with autocast(self._numerics):
            if self._head is not None and self._views:
                return self._head(batch.images), None
            auxiliary = self.model.auxiliary
            if auxiliary is None or self.head_only:
                return self.model(batch.images), None
            images, count = batch.images, len(batch.images)
            if batch.turns is not None:
                images = torch.cat([images, turn(images, batch.turns)])
            features = self.model.features(images)
            head = classifier_of(self.model.net, self._whole.architecture.model)
            return head(features[:count]), auxiliary(features[:count], features[count:])

    def _known(
        self, positions: Tensor, labels: Tensor, generator: Generator, flips: Tensor | None
    ) -> Batch:
        if self._features is None:
            self._features = self._cache.get(self._key(), self._compute_features)
        shown = torch.zeros_like(labels)
        if self._views == 2:
            shown = (draw_flips(labels, True, generator) if flips is None else flips).long()
        features = self._features[shown, positions.to(shown.device)]
        share = torch.ones(len(labels), device=labels.device)
        return Batch(images=features, labels_a=labels, labels_b=labels, share=share)

    def _key(self) -> str:
        """Of all that decides the features: images, views, numerics, what lies before the head."""
        digest = hashlib.sha256(f"{self._data} {self._views} {self._numerics}".encode())
        head = {id(value) for value in self._head.parameters()} if self._head else set()
        for name, value in self.model.state_dict(keep_vars=True).items():
            if id(value) not in head:
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _compute_features(self) -> Tensor:
        """Features [V, N, C] of all training images, and of their mirror images if V is 2."""
        model = self.model.eval()
        views = []
        with torch.no_grad(), autocast(self._numerics):
            for turned in range(self._views):
                parts = (images.flip(3) if turned else images for images in self._source.batches())
                views.append(torch.cat([model.features(images) for images in parts]))
        self.train()
        return torch.stack(views)
