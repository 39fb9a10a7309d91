"""List the networks with initial weights that a sweep's trials may start from."""

from collections.abc import Sequence
from dataclasses import replace

from search.space.parameters import FAMILY, Parameter, Scalar, condition_holds
from search.space.spec import SweepSpec
from trainables.hyperparameters import HUB, PACKAGE, Architecture
from trainables.initial_weights import PACKAGED

SEARCHED = ("model", "pretrained")
"""Recipe keys on which the initial weights depend."""


def initial_networks(spec: SweepSpec, family: str = "") -> list[Architecture]:
    """Return the networks with initial weights that trials of a family may have, each once.

    A space combines every `model` with every `pretrained`. Combinations without weights are left
    out: `package` with a network that has no packaged weights, `hub` with one that is not timm's.
    If no combination has weights, all are returned, so that the caller can report them.
    """
    space = spec.search_space()
    base = space.families.get(family, space.base).architecture
    found: dict[Architecture, None] = {}
    for values in _draws(space.parameters, family):
        network = replace(
            base,
            model=str(values.get("model", base.model)),
            pretrained=str(values.get("pretrained", base.pretrained)),
            family="",
        )
        if network.pretrained:
            found[network] = None
    return [network for network in found if _has_weights(network)] or [*found]


def _has_weights(network: Architecture) -> bool:
    if network.pretrained == PACKAGE:
        return any(net.model == network.model for net in PACKAGED)
    return network.pretrained != HUB or network.model.startswith("timm:")


def _draws(parameters: Sequence[Parameter], family: str) -> list[dict[str, Scalar]]:
    """Return every draw of the SEARCHED keys, and of those that their conditions name."""
    needed = set(SEARCHED)
    for parameter in reversed(parameters):  # each comes after those that its condition names
        if parameter.name in needed:
            needed |= {name for name, _ in parameter.when}
    draws: list[dict[str, Scalar]] = [{FAMILY: family} if family else {}]
    for parameter in parameters:
        if parameter.name in needed - {FAMILY}:
            draws = [
                draw | change
                for draw in draws
                for change in (
                    [{parameter.name: value} for value in _values(parameter)]
                    if condition_holds(parameter, draw)
                    else [{}]
                )
            ]
    return draws


def _values(parameter: Parameter) -> Sequence[Scalar]:
    if parameter.type != "int":
        return parameter.ends
    return range(int(parameter.low), int(parameter.high) + 1, int(parameter.step or 1))
