"""Make the relative paths of a specification absolute, so that any folder can resume its run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.plugins import is_import_path
from common.uris import is_uri
from search.space.spec import SweepSpec
from search.space.sweep_files import spec_from_mapping
from trainables.hyperparameters import HUB, PACKAGE


def absolute_path(path: str) -> str:
    """Return a path from the root, with `~` expanded."""
    return str(Path(path).expanduser().absolute())


def with_absolute_paths(spec: SweepSpec) -> SweepSpec:
    """Return a sweep with absolute paths of its data, other data, storage and weights."""
    mapping = spec.to_mapping()
    dataset = dict(mapping["dataset"])
    if dataset["path"] is not None and not is_import_path(dataset["name"]):
        dataset["path"] = absolute_path(dataset["path"])
    robustness = dict(mapping["robustness"])
    if robustness["ood"] is not None:
        robustness["ood"] = absolute_path(robustness["ood"])
    changed = {**_with_weights(mapping), "dataset": dataset, "robustness": robustness}
    if spec.storage is not None and not is_uri(spec.storage):
        changed["storage"] = absolute_path(spec.storage)
    return spec if changed == mapping else spec_from_mapping(changed)


def _with_weights(values: Any) -> Any:
    """Return plain values in which every file under `pretrained`, at any depth, is absolute."""
    if isinstance(values, list | tuple):
        return [_with_weights(value) for value in values]
    if not isinstance(values, Mapping):
        return values
    return {
        key: _file(value) if key == "pretrained" else _with_weights(value)
        for key, value in values.items()
    }


def _file(value: Any) -> Any:
    """Return the absolute path of a file of weights, or of each choice of a searched one."""
    if isinstance(value, list | tuple):
        return [_file(choice) for choice in value]
    if isinstance(value, Mapping):
        return {
            key: _file(entry) if key in ("choices", "start") else entry
            for key, entry in value.items()
        }
    if not isinstance(value, str) or value in ("", "none", HUB, PACKAGE):
        return value
    return absolute_path(value)
