"""Run the command line within a test."""

import pytest

from quorum.cli.main import main


def user_error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail because of a user error; return its one-line message."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("quorum: ")
    return lines[0]
