"""Choose passes per epoch so that an epoch takes the same time in every family of a sweep.

Networks of one sweep may differ tenfold in the cost of an epoch. Compared after equal epochs, an
expensive network has used ten times the computation; compared after equal computation, a cheap one
has seen more images. So with `resource: compute`, an epoch is an amount of computation: the time
that the first family takes for its passes. The other families get as many passes as take that long.
Within a family, a drawn network gets passes in inverse proportion to its operations per image.

If only the head learns, features of all images are computed once, before the first epoch. This may
take up to half of a schedule; if it would take longer, the family uses only a share of the training
images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from common.stage_costs import StageCosts

MOST_PASSES = 20.0
"""Largest number of passes per epoch for a cheap network; more would overfit before the second
rung."""

MOST_HEAD_PASSES = 2.0
"""The same where features are computed once: a head on fixed features converges in about ten passes
and then overfits (1,200 images of CIFAR-10, lite0 at 96 px, val NLL: 0.67 after 10, 0.73 after 30).
"""

FEATURES_SHARE = 0.5
"""Largest share of a whole schedule for computing features."""

LEAST_SHARE = 0.02
"""Smallest share of the training images that is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyPace:
    """The measured times of a family's first recipe in one worker, in seconds, by stage."""

    starts: tuple[int, ...]
    """Epochs of the schedule before each stage."""
    passes: tuple[float, ...]
    """One pass over all training images."""
    scores: tuple[float, ...]
    """Scoring after an epoch."""
    entries: tuple[float, ...]
    """Features of all training images, computed when a stage begins; 0 if there are none."""

    def epoch_seconds(self, passes: float) -> float:
        """Return the time of an epoch of the last stage."""
        return passes * self.passes[-1] + self.scores[-1]

    def costs(self, allotment: "Allotment", *, unit: float) -> StageCosts:
        """Return the costs of epochs in units of `unit` seconds."""
        share = allotment.train_share
        passes = allotment.passes * share
        return StageCosts(
            starts=self.starts,
            epochs=tuple(
                (passes * each + score) / unit
                for each, score in zip(self.passes, self.scores, strict=True)
            ),
            entries=tuple(share * entry / unit for entry in self.entries),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """The images of a family's epoch."""

    passes: float
    """Passes over the training images that are used."""
    train_share: float = 1.0
    """Share of the training images that is used."""


def allot(
    families: Mapping[str, FamilyPace], *, passes: float, epochs: int, fewest: float
) -> dict[str, Allotment]:
    """Return the images of an epoch of each family; the first has `passes`.

    `epochs` is the length of the schedules. No family has fewer than `fewest` passes.
    """
    first, *_ = families
    unit = families[first].epoch_seconds(passes)
    return {
        name: Allotment(passes=passes)
        if name == first
        else _allotted(pace, unit=unit, epochs=epochs, fewest=fewest)
        for name, pace in families.items()
    }


def _allotted(pace: FamilyPace, *, unit: float, epochs: int, fewest: float) -> Allotment:
    whole, entry = unit * epochs, sum(pace.entries)
    share = 1.0 if not entry else min(1.0, max(LEAST_SHARE, FEATURES_SHARE * whole / entry))
    left = (whole - share * entry) / epochs - pace.scores[-1]
    passes = left / (share * max(pace.passes[-1], 1e-9))
    most = MOST_HEAD_PASSES if pace.entries[-1] else MOST_PASSES
    return Allotment(passes=min(most, max(fewest, passes)), train_share=share)
