"""Compare what a resumed run is given with what it was started with.

Every option given is either honoured or refused. A resumed run may have another folder with the
same images, more trials, a new time budget or disk space, hidden or shown pictures, and another
place to run. Anything else that differs from the run's start is refused, with a message that names
the difference.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import QuorumError, RunError, SpecError
from common.parsing import to_mapping
from common.plugins import is_import_path
from common.uris import is_uri
from journal.journal import read_state
from quorum.options import AblationOptions, RunOptions, SearchOptions
from search.space.paths import absolute_path, with_absolute_paths
from search.space.settings import PROFILES, changes_of, merge_all
from search.space.spec import SweepSpec
from search.space.sweep_files import load_mapping, shipped_names, spec_from_mapping, spec_of_run
from trainables.records import RunFolder

log = logging.getLogger(__name__)

MOST_DIFFERENCES = 3
"""Differences that an error names."""

NOT_COMPARED = ("name", "description", "pictures", "disk_gb")
"""Keys that no trial depends on."""


def settings_of(options: RunOptions) -> tuple[Mapping[str, Any], ...]:
    """Return the changes that options make to a sweep, in order, as nested mappings."""
    changes = changes_of(options.set)
    if isinstance(options, SearchOptions):
        given = {"trials": options.trials, "members": options.members}
        changes += [{name: value} for name, value in given.items() if value is not None]
        if options.budgets:
            changes.append({"gates": options.budgets})
        if options.selection:
            changes.append({"selection": options.selection})
    if options.skip_unreadable:
        changes.append({"dataset": {"skip_unreadable": True}})
    return tuple(changes)


def resumed_sweep(
    sweep: SweepSpec | str | Path, options: RunOptions, folder: RunFolder
) -> SweepSpec:
    """Return the specification of the run in `folder`, with the options that a resume honours.

    Raises:
        SpecError: an option would change the run.
        RunError: the sweep differs from the one that the run was started with.
    """
    spec = spec_of_run(folder)
    _refuse_changes(options, spec, folder)
    _refuse_other_device(options, folder)
    _refuse_late_trials(options, spec, folder)
    if not isinstance(options, AblationOptions):
        _compare(sweep, folder)
    elif not _same_file(sweep, folder.sweep):
        log.warning("%s keeps the recipe of its own sweep.yaml", folder.root)
    if options.data is not None:
        own = is_import_path(spec.dataset.name)  # a function's path may be anything
        path = str(options.data) if own else absolute_path(str(options.data))
        spec = spec.with_values(dataset=replace(spec.dataset, path=path))
    given = {"pictures": options.pictures, "disk_gb": options.disk_gb}
    return spec.with_values(**{key: value for key, value in given.items() if value is not None})


def _refuse_changes(options: RunOptions, spec: SweepSpec, folder: RunFolder) -> None:
    """Refuse the options that only a new run can have."""
    started = read_state(folder.journal).started if folder.journal.exists() else None
    asked_members = None if started is None else (started.asked or {}).get("members")
    given = {
        "--set": bool(options.set),
        "--storage": options.storage is not None
        and not _same_place(str(options.storage), spec.storage),
        "--skip-unreadable": options.skip_unreadable and not spec.dataset.skip_unreadable,
        "--members": getattr(options, "members", None) not in (None, spec.members, asked_members),
        **{
            f"--{name.replace('_', '-')}": value != getattr(spec.gates, name)
            for name, value in getattr(options, "budgets", {}).items()
        },
        **_selection_changes(options, spec),
        "--factors": bool(getattr(options, "factors", None)),
        "--epochs": getattr(options, "epochs", None) not in (None, spec.rungs[-1]),
    }
    for flag, refused in given.items():
        if refused:
            raise SpecError(
                f"{flag} applies to new runs only; leave it out, because a resumed run keeps its "
                "sweep.yaml"
            )


def _selection_changes(options: RunOptions, spec: SweepSpec) -> dict[str, bool]:
    given = options.selection if isinstance(options, SearchOptions) else {}
    return {f"--{name}": value != getattr(spec.selection, name) for name, value in given.items()}


def _same_place(given: str, known: str | None) -> bool:
    return known in (given, given if is_uri(given) else absolute_path(given))


def _refuse_other_device(options: RunOptions, folder: RunFolder) -> None:
    """Refuse a profile whose device is not the one that the run's trials are trained on."""
    first = next(folder.starts(), None)
    if options.device is None or first is None:
        return
    used = first.numerics.device.partition(":")[0]
    if used != options.device:
        raise RunError(
            f"--profile {options.profile}: the trials of {folder.root} are trained on {used!r}, "
            "and a resumed run stays on its device; leave out --profile, or start a new run"
        )


def _refuse_late_trials(options: RunOptions, spec: SweepSpec, folder: RunFolder) -> None:
    """Refuse more trials than there are once the selection is frozen."""
    trials = getattr(options, "trials", None)
    if trials is None or not folder.selection.exists():
        return
    there = len(read_state(folder.journal).trials.of_kind("search"))
    if trials > max(there, spec.trial_count):
        raise RunError(
            f"--trials {trials}: the ensemble of {folder.root} was selected from its {there} "
            f"trials and is frozen in {folder.selection.name}; start a new run for more trials"
        )


def _compare(sweep: SweepSpec | str | Path, folder: RunFolder) -> None:
    """Refuse a sweep other than the run's; if a shipped one has changed since, only warn."""
    started = read_state(folder.journal).started
    if started is None or _same_file(sweep, folder.sweep):
        return
    asked = _comparable(spec_from_mapping(started.asked or started.spec))
    shipped = not isinstance(sweep, SweepSpec) and str(sweep) in shipped_names()
    try:
        given = _variants(sweep, started.settings or ())
    except QuorumError:
        if shipped:  # the run's settings may not suit this version of the sweep
            return
        raise
    closest = min((_differences(asked, each) for each in given), key=len)
    if not closest or _comparable(spec_of_run(folder)) in given:
        return
    named = ", ".join(closest[:MOST_DIFFERENCES])
    more = len(closest) - MOST_DIFFERENCES
    rest = f" and {more} more" if more > 0 else ""
    name = sweep.name if isinstance(sweep, SweepSpec) else sweep
    if shipped or started.settings is None:
        # A shipped sweep may change between versions, and early versions did not record --set.
        log.warning(
            "%s keeps its own sweep.yaml, which differs from the sweep %s: %s%s",
            folder.root, name, named, rest,
        )  # fmt: skip
        return
    raise RunError(
        f"{name} differs from the sweep that {folder.root} was started with: {named}{rest}; resume "
        f"it with {folder.sweep} (--trials may raise the number of trials), or start a new run"
    )


def _variants(
    sweep: SweepSpec | str | Path, settings: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the comparable values of a sweep with the run's settings, one for each profile."""
    loaded: list[Any]
    if isinstance(sweep, SweepSpec):
        loaded = [sweep.to_mapping()]
    else:
        loaded = [load_mapping(sweep, profile=profile) for profile in PROFILES]
    for each in loaded:
        if not isinstance(each, Mapping):
            spec_from_mapping(each, where=str(sweep))  # says what is wrong with it
    return [_comparable(spec_from_mapping(merge_all(each, settings))) for each in loaded]


def _differences(asked: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the values of `given` that differ, as settings; a value that it leaves out is null.

    A sweep that leaves `trials` out does not differ in it.
    """
    before, after = _flat(asked), _flat(given)
    if after.get("trials") is None:
        after["trials"] = before.get("trials")
    keys = [*after, *(key for key in before if key not in after)]
    return [
        f"{key}={json.dumps(after.get(key))}" for key in keys if before.get(key) != after.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _comparable(spec: SweepSpec) -> dict[str, Any]:
    """Return the values of a specification that a resume cannot change."""
    mapping = with_absolute_paths(spec).to_mapping()
    values = {key: value for key, value in mapping.items() if key not in NOT_COMPARED}
    dataset = {key: value for key, value in values["dataset"].items() if key != "path"}
    return {**to_mapping(values), "dataset": dataset}


def _same_file(sweep: SweepSpec | str | Path, path: Path) -> bool:
    return (
        not isinstance(sweep, SweepSpec)
        and Path(sweep).exists()
        and path.exists()
        and Path(sweep).samefile(path)
    )
