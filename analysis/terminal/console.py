"""The live display of a run: a screen on a terminal, a line at a time elsewhere."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from analysis.terminal.screen import plain_line, render, trial_line
from common.errors import RunError
from journal.events import STAGES, Event, ModelRegistered, StageReported, TrialEnded, TrialRetried
from journal.journal import read_state
from journal.state import RunState
from search.space.spec import SweepSpec

__all__ = ["LiveDisplay", "plain_line", "render"]

REFRESH_PER_SECOND = 2.0
QUIET_SECONDS = 30.0
"""Without a terminal, a line comes at least this often while something is under way."""

logger = logging.getLogger(__name__)


class LiveDisplay:
    """Shows a run while it works, and never raises into it.

    Events come from the thread that works; the screen is drawn by another. Whatever goes
    wrong with the terminal is logged once and ends the display alone.
    """

    def __init__(
        self,
        stream: IO[str],
        spec: SweepSpec | None = None,
        interactive: bool | None = None,
        *,
        journal: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Draw on `stream`; `interactive` None asks the stream whether it is a terminal.

        `spec` fills the screen until the first event has told as much. `journal` is that of
        a run that is gone on with: what it tells of earlier processes is shown too.
        """
        self._stream = stream
        self._console = _PlainlyFailingConsole(file=stream, highlight=False)
        self._clock = clock
        self._state = _so_far(journal, spec)
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
        """Take the terminal."""
        self._guarded(self._start)

    def apply(self, event: Event) -> None:
        """Show what `event` changes."""
        if not self._broken:
            self._guarded(lambda: self._apply(event))

    def stop(self) -> None:
        """Give the terminal back, with the last state left on it."""
        self._guarded(self._stop)

    def __enter__(self) -> "LiveDisplay":
        """Start."""
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop, whatever happened."""
        self.stop()

    def _start(self) -> None:
        if self._interactive:
            self._live = _QuietLive(
                get_renderable=self._screen,
                console=self._console,
                refresh_per_second=REFRESH_PER_SECOND,
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
            prefix = self._news(event)
            if prefix:
                self._line(prefix)

    def _news(self, event: Event) -> str:
        """What in `event` is worth a line of its own; nothing for most."""
        match event:
            case TrialEnded():
                return trial_line(self._state, self._state.trials[event.trial])
            case TrialRetried():
                return f"{event.trial} starts again: {event.reason}"
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
        while not self._stopped.wait(min(1.0, QUIET_SECONDS / 4)) and not self._broken:
            with self._lock:
                if self._clock() - self._last_line >= QUIET_SECONDS and self._state.active:
                    self._guarded(lambda: self._line(""))

    def _line(self, prefix: str) -> None:
        now = self._clock()
        self._last_line = now
        line = plain_line(self._state, now)
        self._stream.write(f"{prefix} | {line}\n" if prefix else f"{line}\n")
        self._stream.flush()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            self._give_up()

    def _give_up(self) -> None:
        if not self._broken:
            self._broken = True
            logger.warning("the display failed and is off; the work goes on", exc_info=True)


def _so_far(journal: Path | None, spec: SweepSpec | None) -> RunState:
    """Return the state of a journal; without one, that of a run of `spec` that has not begun."""
    try:
        if journal is not None:
            return read_state(journal)
    except RunError:
        pass
    return RunState(None if spec is None else spec.to_mapping())


class _PlainlyFailingConsole(Console):
    """A Console for which a broken pipe is an error; rich would exit the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError("the terminal is gone")


class _QuietLive(Live):
    """A Live whose refresh, on its own thread, reports an error instead of raising it."""

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
