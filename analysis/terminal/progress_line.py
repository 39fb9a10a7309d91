"""Show the progress of a computation that may take long on one line of a terminal."""

import time
from collections.abc import Callable
from typing import IO

from rich.live import Live
from rich.text import Text

from analysis.terminal.console import PlainConsole
from analysis.terminal.glyphs import ASCII, Glyphs

PATIENCE_SECONDS = 1.0
"""Time before anything is shown; what takes less leaves no trace."""

INTERVAL_SECONDS = 0.1
"""Least time between two drawings."""

CELLS = 30


class ProgressLine:
    """A bar with the stage and its share, which is erased at the end; nothing but on a terminal."""

    def __init__(
        self, stream: IO[str] | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Draw on `stream`, or nowhere if it is None."""
        console = None if stream is None else PlainConsole(file=stream, highlight=False)
        if console is not None and (not console.is_terminal or console.is_dumb_terminal):
            console = None
        self._console, self._clock = console, clock
        self._next = clock() + PATIENCE_SECONDS
        self._stage = ""
        self._live: Live | None = None

    def __enter__(self) -> "ProgressLine":
        """Wait; `report` draws."""
        return self

    def report(self, stage: str, share: float) -> None:
        """Show what is being done, and the share of it that is done, from 0 to 1."""
        if self._console is None:
            return
        now = self._clock()
        if now < self._next and (self._live is None or stage == self._stage):
            return
        self._next, self._stage = now + INTERVAL_SECONDS, stage
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self._line(stage, share, self._console), refresh=True)

    def __exit__(self, *error: object) -> None:
        """Erase the line."""
        if self._live is not None:
            self._live.stop()

    @staticmethod
    def _line(stage: str, share: float, console: PlainConsole) -> Text:
        glyphs = Glyphs() if console.encoding.startswith("utf") else ASCII
        full = round(CELLS * share)
        line = Text(no_wrap=True, overflow=glyphs.overflow)
        line.append(glyphs.bar * full, style="cyan")
        line.append(glyphs.track * (CELLS - full), style="dim")
        return line.append(f" {share:4.0%}").append(f"  {glyphs.text(stage)}", style="dim")
