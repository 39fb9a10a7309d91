"""The command that a run was started with, as far as its journal tells."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.space.settings import PROFILES, settings_between
from search.space.spec import load_spec, shipped_names

Event = Mapping[str, Any]


def command_asked(events: Sequence[Event]) -> str:
    """`quorum run level3 --set recipe.width=64 --time-budget 90m`; empty where it is not known.

    Paths on this machine keep their last part only.
    """
    started: Event = next((e for e in events if e["event"] == "run_started"), {})
    asked: Mapping[str, Any] = started.get("asked") or {}
    told = asked or started.get("spec") or {}
    name, budget = str(told.get("name") or ""), _budget(events)
    if name not in shipped_names() or not (budget or asked):
        return ""
    settings = "".join(f" --set {shlex.quote(one)}" for one in settings_asked(asked))
    data = data_option((told.get("dataset") or {}).get("path"))
    return f"quorum run {name}{data}{_profile(asked)}{settings}{budget}"


def settings_asked(asked: Mapping[str, Any]) -> list[str]:
    """What was changed of the shipped sweep of this name: `recipe.width=64` and so on."""
    if asked.get("name") not in shipped_names():
        return []
    return [_portable(one) for one in min(_by_profile(asked).values(), key=len)]


def data_option(path: str | None) -> str:
    """` --data FOLDER`; nothing where the sweep knows its data."""
    if path is None:
        return ""
    folder = Path(path)
    known = f"path/to/{folder.name}" if folder.is_absolute() else path
    return f" --data {shlex.quote(known)}"


def _by_profile(asked: Mapping[str, Any]) -> dict[str, list[str]]:
    """The settings that make what was asked for of each profile's sweep."""
    name = str(asked["name"])
    told = {**asked, "dataset": {**asked.get("dataset", {}), "path": None}}
    told.pop("description", None)  # describes the sweep, and changes nothing of it
    return {
        profile: settings_between(load_spec(name, profile=profile).to_mapping(), told)
        for profile in PROFILES
    }


def _profile(asked: Mapping[str, Any]) -> str:
    """` --profile gpu` where that is nearer to what was asked for than the other."""
    found = _by_profile(asked) if asked else {}
    counts = {profile: len(settings) for profile, settings in found.items()}
    if len(set(counts.values())) < 2:
        return ""
    return f" --profile {min(counts, key=lambda profile: counts[profile])}"


def _portable(setting: str) -> str:
    key, _, value = setting.partition("=")
    path = Path(value.strip('"'))
    return f'{key}="path/to/{path.name}"' if path.is_absolute() else setting


def _budget(events: Sequence[Event]) -> str:
    """` --time-budget 60m`, from the run's start to its deadline, in whole minutes."""
    began = next((float(event["time"]) for event in events if "time" in event), None)
    plans = (event for event in events if event["event"] == "plan")
    deadline = next((plan.get("deadline") for plan in plans), None)
    if deadline is None or began is None:
        return ""
    # The clock starts with the command, the journal some seconds later.
    minutes = max(1, math.ceil((float(deadline) - began) / 60))
    return f" --time-budget {minutes}m"
