"""An event's values in MLflow's terms: parameters and tags are text, metrics are finite numbers."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from journal.events import RunStarted
from search.mlflow.notes import sweep_note


class Point(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    timestamp_ms: int
    step: int


def about(event: RunStarted) -> dict[str, str]:
    """Return the tags and the description of the sweep's run."""
    spec, machine = event.spec, event.machine
    tags = {
        "quorum.kind": "sweep",
        "quorum.split_id": event.split_id,
        "quorum.fingerprint": event.fingerprint,
        "quorum.code_version": event.code_version,
        "quorum.sizes": ", ".join(f"{name} {size}" for name, size in event.sizes.items()),
        "quorum.machine": ", ".join(f"{machine[key]} {unit}".strip() for key, unit in
                                    _MACHINE.items() if machine.get(key) is not None),
        "quorum.command": event.command or f"quorum run {spec.get('name', '')}".strip(),
    }  # fmt: skip
    tags["mlflow.note.content"] = sweep_note(spec)
    return {key: str(value) for key, value in tags.items() if value}


def points(values: Mapping[str, Any], time: float, step: int = 0) -> list[Point]:
    """The values that a chart can show: finite numbers."""
    return [
        Point(name, float(value), milliseconds(time), step)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]


def flat(mapping: Mapping[str, Any]) -> dict[str, str]:
    """Parameters: one level of names joined by a dot, the rest as text; nothing for null."""
    named: dict[str, str] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            named |= {f"{name}.{k}": _text(item) for k, item in value.items() if item is not None}
        elif name != "description" and value is not None:
            named[str(name)] = _text(value)
    return named


def milliseconds(time: float) -> int:
    """Unix seconds as MLflow counts them."""
    return round(time * 1000)


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, float):
        return str(float(f"{value:.6g}"))  # recipe.yaml has all digits
    return str(value)


_MACHINE = {"processor": "", "cores": "cores", "gpu": "", "memory_gib": "GiB"}
