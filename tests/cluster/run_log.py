"""Read the journal of a run while a driver on some host is writing it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Events = Sequence[Mapping[str, Any]]

ENDED_WELL = ("completed", "pruned")


def read_log(path: Path) -> Events:
    """Return the events of a journal as mappings; a line that is being written is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]


def of_kind(events: Iterable[Mapping[str, Any]], kind: str) -> Events:
    """Return the events of one kind."""
    return [event for event in events if event["event"] == kind]


def flaws(events: Events, *, trials: int | None = None) -> list[str]:
    """Return what a finished sweep lost or counted twice; empty if its journal is whole.

    Every epoch must be journalled once, every trial end well, and `trials` searched trials end.
    """
    epochs = Counter((event["trial"], event["step"]) for event in of_kind(events, "epoch"))
    ends = {event["trial"]: event for event in of_kind(events, "trial_ended")}
    started = {event["trial"] for event in of_kind(events, "trial_started")}
    searched = [trial for trial, end in ends.items() if end.get("kind", "search") == "search"]
    found = [f"{trial} epoch {step} twice" for (trial, step), n in epochs.items() if n > 1]
    for trial, end in ends.items():
        missing = set(range(1, end["steps"] + 1)) - {step for name, step in epochs if name == trial}
        found += [f"{trial} epoch {step} missing" for step in sorted(missing)]
        if end["status"] not in ENDED_WELL:
            found.append(f"{trial} {end['status']}: {end.get('reason', '')}")
    found += [f"{trial} never ended" for trial in sorted(started - ends.keys())]
    if trials is not None and len(searched) != trials:
        found.append(f"{len(searched)} of {trials} trials ended")
    return found


def recovery_seconds(events: Events, since: float) -> float | None:
    """Return the time from `since` (unix seconds) to the recovery from a fault.

    That is the first epoch of a trial after its restart; if no trial was restarted, the first
    epoch of any trial. None if there is none.
    """
    later = [event for event in events if event["time"] > since]
    restarted: set[str] = set()
    first: float | None = None
    for event in later:
        again = event["event"] == "trial_started" and event["attempt"] > 1
        if again or event["event"] == "trial_retried":
            restarted.add(event["trial"])
        elif event["event"] == "epoch":
            first = first or event["time"]
            if event["trial"] in restarted:
                return float(event["time"]) - since
    return None if restarted or first is None else first - since
