"""One stage of a run, and the run's working time over several processes."""

from dataclasses import dataclass
from typing import Literal

from journal.events import StageReported

StageStatus = Literal["pending", "started", "progress", "finished", "skipped"]


@dataclass(slots=True, kw_only=True)
class Stage:
    """One stage of the chain."""

    status: StageStatus = "pending"
    fraction: float | None = None
    """Share that is done, in [0, 1], if the stage reports it."""
    detail: str = ""
    started: float | None = None
    """Time of its last start, or of the resume that continues it."""
    ended: float | None = None
    earlier_seconds: float = 0.0
    """Seconds that earlier processes spent on it since it last began anew."""
    interrupted: bool = False
    """The process that started it is gone: it must start again."""
    times_finished: int = 0
    finished_at: float | None = None
    """Time of its last finish; None before any."""
    last_seconds: float | None = None
    """Wall seconds of its last finished run, without the pauses between processes."""

    @property
    def open(self) -> bool:
        """True from its start to its end."""
        return self.status in ("started", "progress")

    @property
    def running(self) -> bool:
        """True while the process that started it may report on it."""
        return self.open and not self.interrupted

    def seconds(self, now: float) -> float | None:
        """Return the wall seconds of its current run, or of its last one; None before the first."""
        if self.started is None:
            return None
        end = now if self.open or self.ended is None else self.ended
        return self.earlier_seconds + max(0.0, end - self.started)

    def resume(self, time: float, last: float) -> None:
        """Continue its clock at `time` if the process last heard of at `last` left it open."""
        if self.open and self.started is not None:
            self.earlier_seconds += max(0.0, last - self.started)
            self.started = time
            self.interrupted = True

    def apply(self, event: StageReported) -> None:
        """Fold one event of this stage in."""
        if self.started is None or (event.status == "started" and not self.open):
            self.started, self.earlier_seconds = event.time, 0.0
        elif event.status == "started" and self.interrupted:
            self.started = event.time  # other stages may have run since the resume
        if event.status == "finished" or (event.status == "skipped" and self.ended is None):
            self.ended = event.time
        if event.status == "finished":
            self.times_finished += 1
            self.finished_at = event.time
            self.last_seconds = self.seconds(event.time)
        self.status, self.interrupted = event.status, False
        self.fraction, self.detail = event.fraction, event.detail


@dataclass(slots=True, kw_only=True)
class WorkClock:
    """Wall time that successive processes spent on a run, without the pauses between them."""

    began: float | None = None
    """Start of the last process."""
    earlier_seconds: float = 0.0
    """Time spent by the processes before it."""

    def begin(self, time: float, last: float) -> None:
        """Start counting for a process; the one before was last heard of at `last`."""
        if self.began is not None and time >= last:
            self.earlier_seconds += last - self.began
        self.began = max(time, self.began or time)

    def seconds(self, now: float) -> float:
        """Return the time spent up to `now`."""
        return 0.0 if self.began is None else self.earlier_seconds + max(0.0, now - self.began)
