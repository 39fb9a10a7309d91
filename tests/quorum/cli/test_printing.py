"""Every command prints through one layer, so that no name acts on the terminal."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from quorum.cli.main import COMMANDS, main
from quorum.cli.printing import complain, print_line, print_path
from tests.command_line import user_error
from tests.docs import ROOT
from tests.names import ODD_NAMES, controls_in

PRINTERS = {"quorum/cli/printing.py", "quorum/cli/main.py", "quorum/cli/parser.py"}
"""The modules that may write to standard output or standard error."""
CONSOLE = "analysis/terminal/console.py"
SUBPROCESS = "trainables/nets/hub_download.py"
"""Runs as a program of its own, whose output its parent reads."""


def sources() -> list[Path]:
    folders = ("quorum", "analysis", "search", "ensemble", "trainables", "journal", "common")
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py")]


def test_only_the_printing_layer_writes_to_the_terminal() -> None:
    """Other modules return values or views; `sys.stderr` may be passed on, to a display."""
    for path in sources():
        name = str(path.relative_to(ROOT))
        if name in PRINTERS | {SUBPROCESS}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="print")):
                    pytest.fail(f"{name}:{node.lineno} prints")
                case ast.Call(func=ast.Attribute(attr="write", value=ast.Attribute(value=stream))):
                    assert not (isinstance(stream, ast.Name) and stream.id == "sys"), name
                case ast.ImportFrom(module="rich.console"):
                    consoles = [alias.name for alias in node.names if alias.name == "Console"]
                    assert not consoles or name in {CONSOLE, "quorum/cli/printing.py"}, name


@given(ODD_NAMES)
def test_lines_and_paths_obey_no_name(name: str) -> None:
    for show in (print_line, complain, lambda text: print_path("written to", Path(text))):
        out, err = captured(show, name)
        assert not controls_in(out + err, allowed="\n\t")
        assert (out + err).count("\n") == 1


def captured(show: object, name: str) -> tuple[str, str]:
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        show(name)  # type: ignore[operator]
    return out.getvalue(), err.getvalue()


NAMES = ["[red]a", "net[18]", "[/]x", "b\x1b[31m\ny"]


def write_pool(path: Path, names: object = NAMES) -> Path:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    logits = rng.normal(size=(4, 60, 3)) + 2 * np.eye(3)[labels]
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.savez(path, probs=probs, labels=labels, names=np.array(names))
    return path


def test_members_of_a_foreign_pool_are_named_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pool(tmp_path / "pool.npz")
    assert main(["select", str(tmp_path / "pool.npz"), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert not controls_in(text)
    assert any(name in text for name in NAMES)


def test_names_that_are_not_utf8_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pool(tmp_path / "pool.npz", [b"a", b"b\xff", b"c", b"d"])
    line = user_error(capsys, "select", tmp_path / "pool.npz", "--out", tmp_path / "out")
    assert "pool.npz" in line
    assert "UTF-8" in line


@pytest.mark.parametrize("data", [b"name: \xff\xfe\n", b"# caf\xe9\nname: x\n"])
def test_a_sweep_that_is_not_utf8_is_one_line(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_bytes(data)
    assert "mine.yaml" in user_error(capsys, "plan", tmp_path / "mine.yaml")


@pytest.mark.parametrize("command", ["select", "status", "report", "clean", "sync", "distill"])
def test_an_odd_name_of_a_run_is_one_harmless_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = user_error(capsys, command, "[red]\x1b[31m\u202e\nx", "--runs", tmp_path)
    assert not controls_in(line)
    assert "[red]" in line


@pytest.mark.parametrize("below", ["", "deeper"])
@pytest.mark.parametrize("kind", ["file", "read-only name"])
def test_a_folder_to_write_that_is_a_file_is_one_line(
    kind: str, below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "picked" if kind == "file" else Path("/dev/null")
    if kind == "file":
        out.write_text("x")
    pool = write_pool(tmp_path / "pool.npz")
    line = user_error(capsys, "select", pool, "--out", out / below)
    assert str(out) in line


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_folder_of_runs_that_is_a_file_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").write_text("x")
    line = user_error(capsys, command, "digits", "--runs", tmp_path / "runs", "--name", "a")
    assert str(tmp_path / "runs") in line


def test_a_mistyped_argument_is_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["status", "x", "--\x1b[31m\nno"])
    assert not controls_in(capsys.readouterr().err)


ASCII = {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.slow
@pytest.mark.parametrize("setting", [ASCII, C_LOCALE], ids=["ascii", "C locale"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "digits"],
        ["select", "pool.npz", "--out", "out"],
        ["status"],
        ["ladder"],
        ["ladder", "--json"],
        ["status", "absent→"],
        *([command.__name__.rpartition(".")[2], "--help"] for command in COMMANDS),
    ],
    ids=lambda words: " ".join(words),
)
def test_every_command_works_on_an_ascii_terminal(
    arguments: list[str], setting: dict[str, str], tmp_path: Path
) -> None:
    write_pool(
        tmp_path / "pool.npz", ["猫", "b\udcff".encode("utf-8", "replace").decode(), "c", "d"]
    )
    result = subprocess.run(
        [sys.executable, "-m", "quorum", *arguments],
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **setting},
    )
    assert result.returncode in (0, 2)
    assert b"Traceback" not in result.stderr
    assert (result.stdout + result.stderr).isascii()
