"""List the networks that could become the student, in order of preference.

A student that starts from the best single trial may instead start from another trial of the pool.
If the sweep trains networks from scratch, it may also be such a network: that of `student.recipe`,
or one that is narrower, wider or deeper.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any

from ensemble.deployment.export import NoOnnxFormError
from ensemble.deployment.gates import GateMargins, budgets
from ensemble.deployment.network_cost import exact_cost
from ensemble.ledger.predictions import StageCost
from ensemble.selection.run_pool import pool_from_run
from ensemble.selection.selection import read_selection
from ensemble.student.design import Candidate, affordable
from search.space.spec import SweepSpec
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Recipe
from trainables.records import RunFolder, read_record, read_start

MOST_CANDIDATES = 4
"""Largest number of candidates that are trained if the specification does not set it."""

WIDTHS = (1.5, 1.0, 0.75, 0.5, 0.25)
"""Widths of a student from scratch, as multiples of its recipe's."""

MOST_DEPTH = 8

BEFORE_SWEEP = 1.5
"""Before the sweep, a network is refused only above this many times the latency budget."""

WIDTH_STEP = 4
"""Widths are multiples of this, as int8 kernels prefer."""


def student_candidates(spec: SweepSpec, folder: RunFolder) -> list[Candidate]:
    """Return the candidates for a run's student; the first is what a run without budgets trains."""
    scratch = list(_from_scratch(spec.student_recipe()))
    if spec.student.start == "random":
        return scratch
    trials = list(_from_trials(spec, folder))
    if all(recipe.architecture.pretrained for recipe in spec.first_recipes().values()):
        return trials
    pairs = zip_longest(trials, scratch)
    return [each for each in chain.from_iterable(pairs) if each is not None]


def most_candidates(spec: SweepSpec, margins: GateMargins) -> int:
    """Return how many candidates are trained at most."""
    if spec.student.candidates is not None:
        return spec.student.candidates
    return MOST_CANDIDATES if budgets(StageCost(), margins) else 1


def require_affordable(
    spec: SweepSpec, margins: GateMargins, images: ImageSet, splits: Splits
) -> None:
    """Refuse limits on the released file's cost that no candidate can meet, before the sweep.

    No trial exists yet, so the ends of every searched range stand for the trials. Among the
    candidates within the limits on parameters and arithmetic, two are measured: the one with the
    fewest parameters for its size, and the one with the least arithmetic for its latency. A latency
    is refused only far above the limit, because the machine may be less busy when the student is
    designed.

    Raises:
        SpecError: names the cheapest network and its cost.
    """
    recipes = spec.first_recipes()
    candidates: list[Candidate] = []
    if spec.student.start == "best_single":
        candidates += [
            Candidate(name=name or "the first trial", recipe=spec.tuned_student_recipe(recipe))
            for name, recipe in recipes.items()
        ]
        space = spec.search_space()
        candidates += [
            Candidate(
                name=f"space: {values}", recipe=spec.tuned_student_recipe(space.recipe(values))
            )
            for values in space.ends()
        ]
    if spec.student.start == "random" or not all(
        recipe.architecture.pretrained for recipe in recipes.values()
    ):
        candidates += _from_scratch(spec.student_recipe())
    exact = GateMargins(max_params=margins.max_params, max_gflops=margins.max_gflops)
    data: dict[str, Any] = {"images": images, "splits": splits}
    candidates, _ = affordable(candidates, exact, most=len(candidates), **data)
    if margins.max_bytes is None and margins.max_latency_ms is None:
        return

    def cost(candidate: Candidate) -> StageCost:
        classes = len(images.class_names)
        return exact_cost(candidate.recipe, classes=classes, image_size=images.image_size).fp32

    alone: tuple[tuple[Candidate, GateMargins], ...] = (
        (
            min(candidates, key=lambda candidate: cost(candidate).params or 0),
            GateMargins(max_bytes=margins.max_bytes),
        ),
        (
            min(candidates, key=lambda candidate: cost(candidate).gflops or 0.0),
            GateMargins(max_latency_ms=margins.max_latency_ms),
        ),
    )
    with suppress(NoOnnxFormError):  # it cannot be measured; others may have such a form
        for candidate, limit in alone:
            affordable([candidate], limit, most=1, latency_share=BEFORE_SWEEP, **data)


def _from_trials(spec: SweepSpec, folder: RunFolder) -> Iterator[Candidate]:
    """Yield the best single trial, then the best trial on val of every other network."""
    best = read_selection(folder.selection).best_single.name
    scores = {
        name: read_record(folder.trial(name) / "record.json").metrics.get("val_nll", float("inf"))
        for name in pool_from_run(folder).names
    }
    seen = set()
    for name in [best, *sorted(scores, key=lambda name: scores[name])]:
        recipe = spec.tuned_student_recipe(read_start(folder.trial(name) / "start.json").recipe)
        network = recipe.architecture.prediction_work
        if network not in seen:
            seen.add(network)
            yield Candidate(name=name, recipe=recipe, start=name)


def _from_scratch(recipe: Recipe) -> Iterator[Candidate]:
    """Yield the recipe's own net, then others by falling size."""
    own = recipe.architecture
    if own.model != "convnet":
        yield Candidate(name=own.model, recipe=recipe)
        return
    shapes = {
        (max(WIDTH_STEP, WIDTH_STEP * round(factor * own.width / WIDTH_STEP)), depth)
        for factor in WIDTHS
        for depth in range(max(1, own.depth - 1), min(MOST_DEPTH, own.depth + 1) + 1)
    }
    falling = sorted(
        shapes - {(own.width, own.depth)}, key=lambda shape: -(shape[0] ** 2) * shape[1]
    )
    for width, depth in [(own.width, own.depth), *falling]:
        yield Candidate(
            name=f"width {width}, depth {depth}",
            recipe=recipe.with_values(width=width, depth=depth),
        )
