"""Values that change a sweep's YAML: those of a device's profile, and a user's own."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml

from common.errors import SpecError

Profile = Literal["cpu", "gpu"]
PROFILES: tuple[Profile, ...] = ("cpu", "gpu")

_SCIENTIFIC = re.compile(r"[-+]?\d+e[-+]?\d+")
"""What YAML 1.1 takes for text, and people for a number: 4e-3."""


def with_profile(
    mapping: Mapping[str, Any], profile: Profile | None, *, where: str
) -> dict[str, Any]:
    """`mapping` with the values that its `profiles` have for a device, and without the others.

    None stands for `gpu` where there is one, else `cpu`. A mapping without profiles suits both.

    Raises:
        SpecError: `profiles` has anything but values for `cpu` and `gpu`.
    """
    plain = {key: value for key, value in mapping.items() if key != "profiles"}
    if "profiles" not in mapping:
        return plain
    profiles = mapping["profiles"]
    if not isinstance(profiles, Mapping) or not set(profiles) <= set(PROFILES):
        raise SpecError(f"{where}: profiles must have values for cpu and gpu, got {profiles!r}")
    chosen = profile or _profile_here()
    return merged(plain, profiles.get(chosen) or {})


def with_settings(mapping: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`mapping` changed by settings such as `recipe.width=64`; values are YAML.

    Raises:
        SpecError: a setting that is not `KEY=VALUE`, or whose value is not YAML.
    """
    changed = dict(mapping)
    for setting in settings:
        changed = merged(changed, _parsed(setting))
    return changed


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, mapping by mapping; a value in both is that of `changes`.

    A null takes a value away, so that its default holds again. A recipe value that `changes`
    gives is no longer searched, and the other way round.
    """
    found = dict(base)
    for key, value in changes.items():
        old = found.get(key)
        if value is None:
            found.pop(key, None)
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            found[key] = merged(old, value)
        else:
            found[key] = value
    for one, other in (("recipe", "space"), ("space", "recipe")):
        new, there = changes.get(one), found.get(other)
        if isinstance(new, Mapping) and isinstance(there, Mapping):
            given = {k for k, v in new.items() if v is not None} - set(changes.get(other) or {})
            found[other] = {key: value for key, value in there.items() if key not in given}
    return found


def settings_between(base: Mapping[str, Any], changed: Mapping[str, Any]) -> list[str]:
    """The settings that make `changed` of `base`, both resolved, in the order of `changed`.

    What is no longer searched has a value of its own under `recipe`, and needs no word.
    """
    found = []
    for key, value in changed.items():
        old = base.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            found += [f"{key}.{setting}" for setting in settings_between(old, value)]
        elif value != old:
            found.append(f"{key}={json.dumps(value)}")
    return found


def _parsed(setting: str) -> dict[str, Any]:
    name, equals, text = setting.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise SpecError(f"{setting!r} is no setting; write it like recipe.width=64")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SpecError(f"{setting!r}: {text!r} is no YAML value") from None
    if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
        value = float(value)
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _profile_here() -> Profile:
    import torch  # takes seconds

    return "gpu" if torch.cuda.is_available() else "cpu"
