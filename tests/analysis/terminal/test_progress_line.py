"""The progress of a computation on one line of a terminal."""

import io

import pytest

from analysis.terminal.progress_line import PATIENCE_SECONDS, ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def capable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_long_computation_shows_stage_and_share_and_leaves_no_line() -> None:
    terminal, clock = Terminal(), Clock()
    with ProgressLine(terminal, clock=clock) as line:
        clock.now += PATIENCE_SECONDS + 0.1
        line.report("fitting", 0.5)
        assert "50%" in terminal.getvalue()
        assert "fitting" in terminal.getvalue()
        line.report("fitting", 0.6)  # too soon after
        line.report("scoring", 0.0)
    assert "60%" not in terminal.getvalue()
    assert "scoring" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased


def test_a_short_computation_shows_nothing() -> None:
    terminal, clock = Terminal(), Clock()
    with ProgressLine(terminal, clock=clock) as line:
        for step in range(10):
            clock.now += PATIENCE_SECONDS / 11
            line.report("fitting", step / 10)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_nothing_is_shown_without_a_terminal(stream: io.StringIO | None) -> None:
    clock = Clock()
    with ProgressLine(stream, clock=clock) as line:
        clock.now += 10.0
        line.report("fitting", 0.5)
    assert stream is None or stream.getvalue() == ""


def test_ctrl_c_gives_the_cursor_back() -> None:
    terminal, clock = Terminal(), Clock()

    def interrupted() -> None:
        with ProgressLine(terminal, clock=clock) as line:
            clock.now += 10.0
            line.report("fitting", 0.5)
            raise KeyboardInterrupt("by Ctrl-C")

    with pytest.raises(KeyboardInterrupt, match="by Ctrl-C"):
        interrupted()
    assert terminal.getvalue().rfind("\x1b[?25h") > terminal.getvalue().rfind("\x1b[?25l")
