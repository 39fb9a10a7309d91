"""Sweeps as files: a shipped sweep by its name, a YAML file by its path, the sweep of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from common.errors import SpecError
from common.parsing import from_mapping
from common.yaml_text import read_yaml
from journal.journal import changed_on_resume
from search.space.settings import ProfileChoice, merge, with_profile, with_settings
from search.space.spec import SweepSpec
from trainables.records import RunFolder

SHIPPED = Path(__file__).parent.parent / "sweeps"


def load_spec(
    sweep: str | Path,
    *,
    profile: ProfileChoice = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
) -> SweepSpec:
    """Load a shipped sweep by name, or a YAML file by path.

    A sweep may have `profiles`, values for one kind of device; None takes the GPU's if this machine
    has a GPU. `settings` such as `recipe.width=64` are applied last.

    Raises:
        SpecError: there is no such sweep, the YAML is broken, a key is unknown, or a value is
            impossible.
    """
    mapping = load_mapping(sweep, profile=profile)
    if isinstance(mapping, dict):
        mapping = with_settings(mapping, settings)
    return spec_from_mapping(mapping, where=str(sweep), default_name=_find(sweep).stem)


def load_mapping(sweep: str | Path, *, profile: ProfileChoice = None) -> Any:
    """Return the values that a sweep's YAML has for a device, unchecked; raises as `load_spec`."""
    return _read(_find(sweep), profile)


def spec_from_mapping(
    mapping: object, *, where: str = "sweep", default_name: str = "sweep"
) -> SweepSpec:
    """Return the specification with these plain values, its space and student checked.

    Raises:
        SpecError: a key is unknown, or a value is impossible.
    """
    if isinstance(mapping, Mapping) and "name" not in mapping:
        mapping = {"name": default_name, **mapping}
    spec = from_mapping(SweepSpec, mapping, where=where)
    spec.search_space(where=f"{where}: space")
    spec.student_recipe()
    spec.tuned_student_recipe(spec.base_recipe())
    return spec


def spec_of_run(folder: RunFolder) -> SweepSpec:
    """Return the specification that a run was started with, with what resumes have changed.

    That is the folder of its data and its disk space.
    """
    spec = load_spec(folder.require().sweep)
    changed = changed_on_resume(folder.journal)
    if "data" in changed:
        spec = spec.with_values(dataset=replace(spec.dataset, path=str(changed["data"])))
    if "disk_gb" in changed:
        spec = spec.with_values(disk_gb=float(changed["disk_gb"]))
    return spec


def shipped_names() -> list[str]:
    """Return the names of the sweeps that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _read(path: Path, profile: ProfileChoice, *, extended_by: Sequence[Path] = ()) -> Any:
    """Read a YAML file with its values for a device.

    Its values override all those of the sweep that it `extends`, if any.
    """
    try:
        mapping = read_yaml(path.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error) or "not valid YAML"
        raise SpecError(f"{path}{place}: {problem}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from None
    if not isinstance(mapping, dict):
        return mapping
    if "extends" not in mapping:
        return with_profile(mapping, profile, where=str(path))
    name = str(mapping.pop("extends"))
    base = _find(name if name in shipped_names() else path.parent / name)
    if base in (path, *extended_by):
        raise SpecError(f"{path} extends {name!r}, which extends {path.name}; remove one `extends`")
    values = _read(base, profile, extended_by=(path, *extended_by))
    if not isinstance(values, dict):
        return values
    return with_profile(merge({**values, "name": path.stem}, mapping), profile, where=str(path))


def _find(sweep: str | Path) -> Path:
    if str(sweep) in shipped_names():
        return SHIPPED / f"{sweep}.yaml"
    path = Path(sweep)
    if path.is_file():
        return path
    names = ", ".join(shipped_names())
    raise SpecError(f"no sweep {str(sweep)!r}: neither a YAML file nor a shipped sweep ({names})")
