"""Changes to a sweep's YAML before it is checked: device profiles and `--set` settings."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import yaml

from common.errors import SpecError
from common.parsing import check_key
from common.yaml_text import read_yaml

Profile = Literal["cpu", "gpu"]
PROFILES: tuple[Profile, ...] = ("cpu", "gpu")
ProfileChoice = Profile | Callable[[], Profile] | None
"""A profile, a function that finds it out, or None for that of this machine."""

_SCIENTIFIC = re.compile(r"[-+]?\d+e[-+]?\d+")
"""Numbers such as 4e-3, which YAML 1.1 reads as text."""


def with_profile(
    mapping: Mapping[str, Any], profile: ProfileChoice, *, where: str
) -> dict[str, Any]:
    """Merge the values that `profiles` has for a device into a sweep, and drop `profiles`.

    None stands for `gpu` where there is a GPU, else `cpu`. A function is called only if the sweep
    has profiles. A sweep without profiles is returned unchanged.

    Raises:
        SpecError: `profiles` has anything but values for `cpu` and `gpu`.
    """
    plain = {key: value for key, value in mapping.items() if key != "profiles"}
    if "profiles" not in mapping:
        return plain
    profiles = mapping["profiles"]
    if not isinstance(profiles, Mapping):
        raise SpecError(f"{where}: profiles must have values for cpu and gpu, got {profiles!r}")
    for key in profiles:
        check_key(key, PROFILES, where=f"{where}: profiles")
    if callable(profile):
        profile = profile()
    return merge(plain, profiles.get(profile or _profile_of_machine()) or {})


def with_settings(
    mapping: Mapping[str, Any], settings: Sequence[str] | Mapping[str, Any]
) -> dict[str, Any]:
    """Apply settings such as `recipe.width=64`, or {"recipe.width": 64}, to a sweep.

    The value in a text is YAML.

    Raises:
        SpecError: a text is not `KEY=VALUE`, its value is not YAML, or a key is empty.
    """
    return merge_all(mapping, changes_of(settings))


def changes_of(settings: Sequence[str] | Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return settings as nested mappings, in order: {"recipe": {"width": 64}}; raises likewise."""
    if isinstance(settings, Mapping):
        return [_nested(str(key), value, where=str(key)) for key, value in settings.items()]
    return [_parse(setting) for setting in settings]


def merge_all(base: Mapping[str, Any], changes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge each of `changes` into `base`, in order."""
    merged = dict(base)
    for change in changes:
        merged = merge(merged, change)
    return merged


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `changes` into `base`, mapping by mapping; where both have a value, `changes` wins.

    A null removes a value and so restores its default. An empty `splits` clears that mapping, so
    that no folder names a split. A value that `changes` puts into `recipe` is removed from `space`,
    and the reverse; both are removed from `families`.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(old, Mapping) and isinstance(value, Mapping) and (value or key != "splits"):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    for section, opposite in (("recipe", "space"), ("space", "recipe")):
        new, old = changes.get(section), merged.get(opposite)
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            given = {k for k, v in new.items() if v is not None}
            moved = given - set(changes.get(opposite) or {})
            merged[opposite] = {key: value for key, value in old.items() if key not in moved}
    for section in ("recipe", "space"):
        new = changes.get(section)
        if isinstance(new, Mapping) and isinstance(base.get("families"), Mapping):
            given = {key for key, value in new.items() if value is not None}
            merged["families"] = _without(merged["families"], given)
    return merged


def _without(families: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Return families that neither fix nor search `keys`."""
    return {
        name: {
            section: {key: value for key, value in values.items() if key not in keys}
            if isinstance(values, Mapping)
            else values
            for section, values in family.items()
        }
        if isinstance(family, Mapping)
        else family
        for name, family in families.items()
    }


def settings_between(base: Mapping[str, Any], changed: Mapping[str, Any]) -> list[str]:
    """Return the settings that turn `base` into `changed`, in the order of `changed`.

    Both are resolved. A value that is no longer searched needs no setting under `space`, because
    it has one under `recipe`.
    """
    settings = []
    for key, value in changed.items():
        old = base.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            settings += [f"{key}.{setting}" for setting in settings_between(old, value)]
        elif value != old:
            settings.append(f"{key}={json.dumps(value)}")
    return settings


def _parse(setting: str) -> dict[str, Any]:
    name, equals, text = setting.partition("=")
    if not equals:
        raise SpecError(f"{setting!r} is not a setting; write it like recipe.width=64")
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise SpecError(f"{setting!r}: {text!r} is not a YAML value: {problem}") from None
    if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
        value = float(value)
    return _nested(name, value, where=setting)


def _nested(name: str, value: Any, *, where: str) -> dict[str, Any]:
    """Return {"recipe": {"width": 64}} for `recipe.width` and 64."""
    keys = name.strip().split(".")
    if not all(keys):
        raise SpecError(f"{where!r} is not a setting; write it like recipe.width=64")
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _profile_of_machine() -> Profile:
    import torch  # takes seconds to import

    return "gpu" if torch.cuda.is_available() else "cpu"
