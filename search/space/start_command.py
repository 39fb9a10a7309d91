"""Reconstruct the command that started a run from its journal."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.commands import command
from journal.state import RunState
from search.space.settings import PROFILES, settings_between
from search.space.sweep_files import load_spec, shipped_names


def start_command(state: RunState) -> str:
    """Return `quorum run level3 --set recipe.width=64 --time-budget 90m`, or an empty string.

    The command is unknown for a custom sweep, and for a journal that records neither the
    requested sweep nor a deadline. Absolute paths keep only their last part.
    """
    requested = requested_sweep(state)
    sweep = requested or state.spec
    name, budget = str(sweep.get("name") or ""), _time_budget(state)
    if name not in shipped_names() or not (budget or requested):
        return ""
    return command(
        "run",
        name,
        data=portable((sweep.get("dataset") or {}).get("path")),
        profile=_profile(requested),
        set=changed_settings(requested),
        time_budget=budget,
    )


def requested_sweep(state: RunState) -> Mapping[str, Any]:
    """Return the specification that the user gave; empty if the journal does not record it."""
    return (state.started and state.started.asked) or {}


def changed_settings(requested: Mapping[str, Any]) -> list[str]:
    """Return the settings that turn the shipped sweep into the requested one: `recipe.width=64`."""
    if requested.get("name") not in shipped_names():
        return []
    return [
        _portable(setting) for setting in min(_settings_by_profile(requested).values(), key=len)
    ]


def portable(path: str | None) -> str | None:
    """Return a path for a command on another machine: an absolute one keeps only its last part."""
    if path is None or not Path(path).is_absolute():
        return path
    return f"path/to/{Path(path).name}"


def _settings_by_profile(requested: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the settings that turn each profile's shipped sweep into the requested one."""
    name = str(requested["name"])
    without_path = {**requested, "dataset": {**requested.get("dataset", {}), "path": None}}
    without_path.pop("description", None)  # It has no effect on the run.
    return {
        profile: settings_between(load_spec(name, profile=profile).to_mapping(), without_path)
        for profile in PROFILES
    }


def _profile(requested: Mapping[str, Any]) -> str | None:
    """Return the profile that needs fewer settings than the other; None if both need as many."""
    settings = _settings_by_profile(requested) if requested else {}
    counts = {profile: len(changes) for profile, changes in settings.items()}
    if len(set(counts.values())) < 2:
        return None
    return min(counts, key=lambda profile: counts[profile])


def _portable(setting: str) -> str:
    key, _, value = setting.partition("=")
    path = Path(value.strip('"'))
    return f'{key}="path/to/{path.name}"' if path.is_absolute() else setting


def _time_budget(state: RunState) -> str | None:
    """Return the budget as it was given: `60m`, or `90s`.

    Journals of earlier versions give whole minutes from the run's start to its deadline.
    """
    given = None if state.started is None else state.started.time_budget
    if given is not None:
        return f"{given / 60:g}m" if given % 60 == 0 else f"{given:g}s"
    deadline = state.plans[0].deadline if state.plans else None
    if deadline is None or state.started is None:
        return None
    # The budget starts with the command, the journal a few seconds later.
    minutes = max(1, math.ceil((deadline - state.started.time) / 60))
    return f"{minutes}m"
