"""Design the student: choose the candidate network to train.

1. Candidates that break a budget are left out, before anything is trained. Parameters and
   arithmetic are computed; sizes and latencies are measured on this machine, in order of
   preference, until enough candidates are found.
2. Those left compete in a short sweep, by successive halving on NLL on val: each trains the same
   share of its own schedule, with the same teacher and seed, and the better half continues. The
   sweep stops before the cooldown, so the winner's training simply continues from there and ends
   with the weights that it would have had without a sweep. The sweep takes at most SWEEP_SHARE of
   the student's training time. If the schedules are too short for that, fewer candidates compete.
   If only one is left, there is no sweep, and the first, preferred candidate is taken.

`student/design.json` holds every candidate with its cost and scores.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.errors import DivergedError, SpecError
from common.files import dump_json, read_versioned, write_bytes_atomically
from common.parsing import to_mapping
from common.rungs import cooldown_epochs
from ensemble.deployment.gates import GateMargins, budgets
from ensemble.deployment.network_cost import NetworkCost, describe, exact_cost, measured_cost
from ensemble.ledger.predictions import StageCost
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.hyperparameters import Architecture
from trainables.recipe import Recipe

log = logging.getLogger(__name__)

SCHEMA = 1
FILE = "design.json"

SWEEP_SHARE = 0.3
"""Largest share of the student's epochs that all candidates together, including the winner, train
in the short sweep."""

HEADROOM = 0.95
"""Share of the latency budget that a candidate may take: the trained file is timed again."""

TIMED_IMAGES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network that could become the student."""

    name: str
    recipe: Recipe
    start: str | None = None
    """The trial whose weights it starts from; None for random weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A candidate with its cost and its scores."""

    name: str
    start: str | None
    params: int | None = None
    gflops: float | None = None
    bytes: int | None = None
    """Size of the file that would ship; None if it was not measured."""
    latency_ms: float | None = None
    """Milliseconds that this file takes for one image."""
    over: tuple[str, ...] = ()
    """Budgets that it breaks; if there are any, it is not trained."""
    epochs: tuple[int, ...] = ()
    """Epochs trained at each rung of the short sweep that it reached."""
    val_nll: tuple[float, ...] = ()
    """NLL on val at these rungs, in nats."""
    diverged: str = ""
    """The reason why it left the short sweep, where its loss was not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The student's network and the candidates it was chosen from, as design.json holds them."""

    schema: int = SCHEMA
    chosen: str
    """Empty while candidates compete."""
    because: str
    budgets: dict[str, float] = field(default_factory=dict)
    """Limits that the candidates were judged by."""
    candidates: tuple[Judged, ...]
    """The candidates looked at, in order of preference."""


def affordable(
    candidates: Sequence[Candidate],
    margins: GateMargins,
    *,
    most: int,
    images: ImageSet,
    splits: Splits,
    measure: Callable[[Recipe], NetworkCost] | None = None,
    latency_share: float = HEADROOM,
) -> tuple[list[Candidate], list[Judged]]:
    """Return the first `most` candidates within every budget, and all that were looked at.

    Without budgets nothing is measured. `measure` replaces the measurement of a recipe's files.
    `latency_share` is the share of the latency budget that a candidate may take.

    Raises:
        SpecError: no candidate is within the budgets; the message names the cheapest and its cost.
    """
    limits = {name: limit for name, (_, limit) in budgets(StageCost(), margins).items()}
    if not limits:
        chosen = list(candidates[:most])
        return chosen, [Judged(name=each.name, start=each.start) for each in chosen]
    classes, side = len(images.class_names), images.image_size
    timed = images.images[splits.holdout[:TIMED_IMAGES]]
    measure = measure or (lambda recipe: measured_cost(recipe, timed, classes=classes))
    measured: dict[Architecture, NetworkCost] = {}
    chosen, judged, costs = [], list[Judged](), list[StageCost]()
    for each in candidates:
        network = each.recipe.architecture.prediction_work
        cost = exact_cost(each.recipe, classes=classes, image_size=side)
        over = cost.over(margins)
        if not over and not {"latency_ms", "bytes"}.isdisjoint(limits):
            if network not in measured:
                measured[network] = measure(each.recipe)
                if not measured[network].over(margins, headroom=latency_share):
                    # If candidates were timed only once on a busy machine, the luckiest would be
                    # taken: of 9, one that was timed at 36 µs took 75 µs in the release.
                    measured[network] = measured[network].slower(measure(each.recipe))
            cost = measured[network]
            over = cost.over(margins, headroom=latency_share)
        file = cost.shipped
        costs.append(file)
        judged.append(
            Judged(
                name=each.name,
                start=each.start,
                params=file.params,
                gflops=file.gflops,
                bytes=file.bytes,
                latency_ms=file.latency_ms_batch1,
                over=over,
            )
        )
        if not over:
            chosen.append(each)
        if len(chosen) == most:
            break
    if not chosen:
        best = min(range(len(costs)), key=lambda i: _excess(costs[i], margins))
        given = ", ".join(f"max_{name} {limit:g}" for name, limit in limits.items())
        raise SpecError(
            f"no network is within the budget ({given}): the cheapest candidate for the "
            f"student, {judged[best].name} (of {len(judged)}), has {describe(costs[best])}; raise "
            "the budget, or set smaller networks in student.recipe"
        )
    return chosen, judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A candidate in the short sweep."""

    name: str
    recipe: Recipe
    """The recipe with the full schedule."""
    train_until: Callable[[int], float]
    """Continues training until the given number of epochs is done; returns the NLL on val. Raises
    DivergedError if the loss is not finite."""


def short_sweep(
    entrants: Sequence[Entrant], judged: Sequence[Judged], *, share: float = SWEEP_SHARE
) -> Design:
    """Choose an entrant by successive halving; `judged` also holds the candidates left out.

    At every rung, the better half of the remaining entrants, rounded up, continues. An entrant that
    diverges is out.
    """
    count = competing([entrant.recipe for entrant in entrants], share=share)
    if count < 2:
        because = "the preferred candidate"
        if len(entrants) > 1:
            because += "; the schedule is too short for a sweep"
        return Design(chosen=entrants[0].name, because=because, candidates=tuple(judged))
    known = {each.name: each for each in judged}
    left = list(entrants[:count])
    step = _step(count, share)
    rung = 0
    while len(left) > 1:
        rung += 1
        places = math.ceil(len(left) / 2)
        for entrant in left:
            epochs = _epochs_at(entrant.recipe, rung * step)
            before = known[entrant.name]
            try:
                score = entrant.train_until(epochs)
            except DivergedError as error:
                log.warning("%s left the short sweep: %s", entrant.name, error)
                known[entrant.name] = replace(before, diverged=str(error))
                continue
            known[entrant.name] = replace(
                before, epochs=(*before.epochs, epochs), val_nll=(*before.val_nll, score)
            )
            log.info("%s: val NLL %.4f after %d epochs", entrant.name, score, epochs)
        left = [entrant for entrant in left if not known[entrant.name].diverged]
        if not left:
            return Design(
                chosen=entrants[0].name,
                because=f"the preferred candidate: all {count} of the short sweep diverged",
                candidates=tuple(known.values()),
            )
        left.sort(key=lambda entrant: known[entrant.name].val_nll[-1])
        left = left[:places]
    return Design(
        chosen=left[0].name,
        because=f"lowest NLL on val of {count} candidates after a short sweep",
        candidates=tuple(known.values()),
    )


def competing(recipes: Sequence[Recipe], *, share: float = SWEEP_SHARE) -> int:
    """Return how many of the first candidates can compete within the share of their schedules.

    Each needs an epoch before the first rung, and its last rung before its cooldown.
    """
    for count in range(len(recipes), 1, -1):
        step = _step(count, share)
        last = math.ceil(math.log2(count)) * step
        if all(
            _epochs_at(recipe, step) >= 1 and _epochs_at(recipe, last) <= _trunk(recipe)
            for recipe in recipes[:count]
        ):
            return count
    return 1


def write_design(folder: Path, design: Design) -> None:
    """Write `folder/design.json` atomically."""
    write_bytes_atomically(folder / FILE, dump_json(to_mapping(design)).encode())


def read_design(folder: Path) -> Design | None:
    """Read `folder/design.json`; None if there is none.

    Raises:
        RunError: the file is damaged or of another schema.
    """
    path = folder / FILE
    return read_versioned(Design, path, schema=SCHEMA) if path.is_file() else None


def _step(count: int, share: float) -> float:
    """Return the share of its schedule that an entrant trains from one rung to the next."""
    trained = 0
    while count > 1:
        trained += count
        count = math.ceil(count / 2)
    return share / trained


def _epochs_at(recipe: Recipe, share: float) -> int:
    return math.floor(share * recipe.schedule.epochs + 1e-9)


def _trunk(recipe: Recipe) -> int:
    schedule = recipe.schedule
    return schedule.epochs - cooldown_epochs(schedule.epochs, schedule.cooldown_fraction)


def _excess(cost: StageCost, margins: GateMargins) -> float:
    """Return by what factor a cost exceeds the budget it breaks most."""
    known = [value / limit for value, limit in budgets(cost, margins).values() if value is not None]
    return max(known, default=math.inf)
