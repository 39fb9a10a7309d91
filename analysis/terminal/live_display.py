"""The live display of a run: a screen on a terminal, single lines elsewhere."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from analysis.terminal.console import PlainConsole
from analysis.terminal.screen import plain_line, render, trial_line
from common.errors import RunError
from common.printable import printable_line
from journal.events import STAGES, Event, ModelRegistered, StageReported, TrialEnded, TrialRetried
from journal.journal import read_state
from journal.state import RunState
from search.space.spec import SweepSpec

REFRESHES_PER_SECOND = 2.0
QUIET_SECONDS = 30.0
"""Maximum seconds between two lines without a terminal."""

logger = logging.getLogger(__name__)


class LiveDisplay:
    """A display of a run in progress; its errors never reach the run.

    The run's thread delivers events; a second thread draws. A failure of the terminal is
    logged once and turns off only the display.
    """

    def __init__(
        self,
        stream: IO[str],
        spec: SweepSpec | None = None,
        interactive: bool | None = None,
        *,
        journal: Path | None = None,
        clock: Callable[[], float] = time.time,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        """Draw on `stream`; `interactive` None detects whether it is a terminal.

        `spec` is shown until the run has started. `journal` belongs to a resumed run, whose
        earlier trials are shown too. Without a terminal, a line is written at least every
        `quiet_seconds`.
        """
        self._stream = stream
        self._console = PlainConsole(file=stream, highlight=False)
        self._clock = clock
        self._quiet_seconds = quiet_seconds
        self._state = _initial_state(journal, spec)
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._ticker: threading.Thread | None = None
        self._stopped = threading.Event()
        self._broken = False
        self._last_line = clock()
        if interactive is None:
            interactive = self._console.is_terminal and not self._console.is_dumb_terminal
        self._interactive = interactive

    def start(self) -> None:
        """Start drawing."""
        self._guarded(self._start)

    def apply(self, event: Event) -> None:
        """Show an event."""
        if not self._broken:
            self._guarded(lambda: self._apply(event))

    def stop(self) -> None:
        """Stop drawing, leaving the last state on the terminal."""
        self._guarded(self._stop)

    def __enter__(self) -> "LiveDisplay":
        """Start."""
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop."""
        self.stop()

    def _start(self) -> None:
        if self._interactive:
            self._live = _QuietLive(
                get_renderable=self._screen,
                console=self._console,
                refresh_per_second=REFRESHES_PER_SECOND,
                on_error=self._give_up,
            )
            self._live.start()
            return
        self._ticker = threading.Thread(target=self._tick, name="quorum-display", daemon=True)
        self._ticker.start()

    def _stop(self) -> None:
        self._stopped.set()
        if self._live is not None:
            self._live.stop()
        if self._ticker is not None:
            self._ticker.join(timeout=2.0)

    def _apply(self, event: Event) -> None:
        with self._lock:
            self._state.apply(event)
            if self._interactive or self._stopped.is_set():
                return
            prefix = self._announcement(event)
            if prefix:
                self._line(prefix)

    def _announcement(self, event: Event) -> str:
        """Return the text that announces an event; empty for most events."""
        match event:
            case TrialEnded():
                return trial_line(self._state, self._state.trials[event.trial])
            case TrialRetried():
                return f"{event.trial} restarts: {event.reason}"
            case StageReported() if event.status != "progress" and event.stage in STAGES:
                return f"{event.stage} {event.status}"
            case ModelRegistered():
                return f"{event.name} version {event.version} is {event.alias}"
            case _:
                return ""

    def _screen(self) -> RenderableType:
        size = self._console.size
        ascii_only = not self._console.encoding.startswith("utf")
        with self._lock:
            return render(
                self._state, self._clock(), size.width, height=size.height, ascii_only=ascii_only
            )

    def _tick(self) -> None:
        while not self._stopped.wait(min(1.0, self._quiet_seconds / 4)) and not self._broken:
            with self._lock:
                if self._clock() - self._last_line >= self._quiet_seconds and self._state.active:
                    self._guarded(lambda: self._line(""))

    def _line(self, prefix: str) -> None:
        now = self._clock()
        self._last_line = now
        line = plain_line(self._state, now)
        text = f"{prefix} | {line}" if prefix else line
        self._stream.write(f"{printable_line(text)}\n")
        self._stream.flush()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            self._give_up()

    def _give_up(self) -> None:
        if not self._broken:
            self._broken = True
            logger.warning("the display failed and is off; the run continues", exc_info=True)


def _initial_state(journal: Path | None, spec: SweepSpec | None) -> RunState:
    """Return the journal's state, or without a journal the state of a run not yet started."""
    try:
        if journal is not None:
            return read_state(journal)
    except RunError:
        pass
    return RunState(None if spec is None else spec.to_mapping())


class _QuietLive(Live):
    """A Live that reports errors of its drawing thread instead of raising them."""

    def __init__(self, *, on_error: Callable[[], None], **options: Any) -> None:
        self._on_error = on_error
        self._failed = False
        super().__init__(**options)

    def get_renderable(self) -> RenderableType:
        if self._failed:
            return Text("")
        try:
            return super().get_renderable()
        except Exception:
            self._fail()
            return Text("")

    def refresh(self) -> None:
        if self._failed:
            return
        try:
            super().refresh()
        except Exception:
            self._fail()

    def _fail(self) -> None:
        self._failed = True
        self._on_error()
