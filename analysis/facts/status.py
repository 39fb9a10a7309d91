"""The status of a run: its progress, the process that works on it, and its disk use."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from journal.events import STAGES
from journal.journal import read_state
from journal.lock import at_work
from journal.state import RunState
from trainables.records import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """The disk space of a run, in bytes."""

    parts: Mapping[str, int] = field(default_factory=dict)
    """Bytes by part of the run."""
    removable: int = 0
    """Bytes that `quorum clean` would free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """The status of a run at the time that its journal was read."""

    folder: RunFolder
    """The run's folder and the paths in it; `folder.root` is the path itself."""
    state: RunState
    """Trials, stages, plan and results, folded from the journal."""
    holder: str | None
    """The process that works on the run, e.g. "process 17 on a-host"; None if none does."""
    disk: DiskUsage

    @property
    def running(self) -> bool:
        """True while a process works on the run."""
        return self.holder is not None

    @property
    def interrupted(self) -> bool:
        """True if the last process ended before its work was done."""
        return not self.running and self.state.interrupted

    @property
    def stage(self) -> str:
        """The current stage, or the last one that began; `start` before the first."""
        begun = [name for name in STAGES if self.state.stages[name].status != "pending"]
        return self.state.stage or (begun[-1] if begun else "start")

    def __str__(self) -> str:
        """Return the progress in a few words."""
        if self.running:
            return f"{self.stage}, running"
        if self.interrupted:
            return f"{self.stage}, interrupted"
        return "finished" if self.stage == "report" else f"{self.stage} done"


def read_status(folder: RunFolder, disk: DiskUsage | None = None) -> RunStatus:
    """Read the status of a run.

    Raises:
        RunError: the journal cannot be read.
    """
    holder = at_work(folder.journal)
    state = read_state(folder.journal)
    if holder is None:
        state.abandon()
    return RunStatus(folder=folder, state=state, holder=holder, disk=disk or DiskUsage())
