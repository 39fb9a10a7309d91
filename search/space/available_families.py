"""Leave out a sweep's optional families whose initial weights are unavailable."""

from collections.abc import Callable

from common.errors import SpecError
from search.space.initial_networks import initial_networks
from search.space.spec import SweepSpec
from trainables.hyperparameters import HUB, PACKAGE, Architecture
from trainables.initial_weights import packaged_file, packaged_net, weights_identity


def with_available_families(
    spec: SweepSpec, *, problem_of: Callable[[Architecture], str] | None = None
) -> tuple[SweepSpec, tuple[str, ...]]:
    """Return the sweep without the optional families that lack weights, and a note on each.

    A family lacks weights if any network that its trials may start from does. `problem_of` returns
    why the initial weights of a network are unavailable, or an empty string; by default
    `weights_problem`.

    Raises:
        SpecError: no family is left.
    """
    problem_of = problem_of or weights_problem
    problems = {
        name: next(filter(None, map(problem_of, initial_networks(spec, name))), "")
        for name, family in spec.families.items()
        if family.optional
    }
    missing = {name: problem for name, problem in problems.items() if problem}
    kept = {name: family for name, family in spec.families.items() if name not in missing}
    notes = tuple(f"family {name!r} is left out: {problem}" for name, problem in missing.items())
    if missing and not kept:
        raise SpecError("; ".join(notes) + "; no family is left")
    return (spec.with_values(families=kept) if missing else spec), notes


def weights_problem(architecture: Architecture) -> str:
    """Return why the initial weights of a network are unavailable; empty if they are available.

    Raises:
        SpecError: the network can have no such weights.
    """
    if architecture.pretrained == HUB:
        from trainables.nets.hub import hub_problem  # imports timm

        return hub_problem(architecture)
    if architecture.pretrained == PACKAGE:
        net = packaged_net(architecture.model)
        try:
            packaged_file(net)
        except SpecError as error:
            return str(error)
    missing = [name for name, digest in weights_identity(architecture).items() if digest is None]
    return f"{missing[0]} is missing" if missing else ""
