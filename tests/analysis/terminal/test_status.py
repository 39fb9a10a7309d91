"""The command that resumes a run, as status and sweep print it."""

import shlex
from pathlib import Path

import pytest

from analysis.terminal.status import resume_command
from quorum.cli.main import COMMANDS
from quorum.cli.parser import build_parser
from trainables.records import RunFolder


def read(command: str) -> dict[str, object]:
    """Parse a printed command as the command line does."""
    _, *words = shlex.split(command)
    return vars(build_parser(COMMANDS).parse_args(words))


def test_a_run_in_another_folder_is_resumed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUORUM_RUNS", raising=False)
    folder = RunFolder(tmp_path / "my runs" / "it's mine")
    given = read(resume_command(folder))
    assert (given["runs"], given["name"], given["resume"]) == ("my runs", "it's mine", True)
    assert given["sweep"] == str(folder.sweep.relative_to(tmp_path))
    assert read(resume_command(RunFolder(tmp_path / "runs" / "x")))["runs"] is None


def test_the_options_of_a_sweep_are_kept(tmp_path: Path) -> None:
    options = {"data": "my photos", "profile": "cpu", "address": "head:6379"}
    given = read(resume_command(RunFolder(tmp_path / "x"), sweep="digits", **options))
    assert given["sweep"] == "digits"
    assert {name: given[name] for name in options} == options


def test_the_line_that_scripts_read_names_the_bare_program(tmp_path: Path) -> None:
    command = resume_command(RunFolder(tmp_path / "x"), program="quorum")
    assert shlex.split(command)[:2] == ["quorum", "run"]


def test_an_ablation_is_resumed_as_one(tmp_path: Path) -> None:
    command = resume_command(RunFolder(tmp_path / "x"), "ablate")
    assert shlex.split(command)[1] == "ablate"
    assert "seeds" in read(command)
