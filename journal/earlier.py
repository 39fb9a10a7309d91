"""Upgrade the journal lines of earlier versions to the current format."""

from collections.abc import Mapping
from typing import Any

from journal.events import Cause, Reason

_MACHINE = (
    "did not reach the run's folder",
    "cannot be downloaded",
    "is not installed",
    "cannot be read",
)
"""Parts of reasons for which a trial of an earlier version failed because of its machine."""


class Upgrade:
    """Adds the fields that earlier versions lack, derived from the preceding lines."""

    def __init__(self) -> None:
        """Start before the first line."""
        self._last_rung: int | None = None

    def __call__(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a line in the current format; call it in the order of the journal."""
        if line["event"] == "run_started":
            rungs = (line.get("spec") or {}).get("rungs") or [None]
            self._last_rung = rungs[-1]
        elif line["event"] == "decision" and "reason" not in line:
            return {**line, "reason": self._reason(line)}
        elif line["event"] == "trial_ended" and line.get("status") == "failed":
            return {"cause": _cause(line), **line}
        return line

    def _reason(self, line: Mapping[str, Any]) -> Reason:
        """Return the reason of a decision; versions before 0.2 did not write it."""
        if line.get("decision") == "continue":
            return "promoted"
        if line.get("cutoff") is not None:
            return "above_cutoff"
        if line.get("value") is None:
            return "not_finite"
        return "last_rung" if line.get("rung") == self._last_rung else "no_time"


def _cause(line: Mapping[str, Any]) -> Cause:
    """Return the cause of a failure: without a traceback, training had reported it by itself."""
    reason = str(line.get("reason"))
    lost = any(sign in reason for sign in _MACHINE)
    return "machine" if lost or line.get("traceback") is not None else "recipe"
