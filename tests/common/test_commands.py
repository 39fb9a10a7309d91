"""Commands to copy: quoted, with the options that they need, and written in one way everywhere."""

import ast
import re
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.commands import command, runs_folder, runs_option
from quorum.cli.main import COMMANDS
from tests.architecture import imported, modules
from tests.prose import docstrings

NAMES = [name.__name__.rpartition(".")[2] for name in COMMANDS]
BY_HAND = re.compile(rf"\b(quorum|mlflow) ({'|'.join([*NAMES, 'ui'])})\b")


@given(word=st.text(min_size=1), value=st.text(min_size=1), values=st.lists(st.text(min_size=1)))
def test_the_shell_and_the_parser_read_what_was_given(
    word: str, value: str, values: list[str]
) -> None:
    line = command("run", word, resume=True, no_images=False, data=value, set=values, name=None)
    parser = ArgumentParser()
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--data")
    parser.add_argument("--set", action="append", default=[])
    first, second, third, *rest = shlex.split(line)
    assert (first, second, third) == ("quorum", "run", word)
    parsed = parser.parse_args(rest)
    assert (parsed.resume, parsed.data, parsed.set) == (True, value, values)


def test_only_the_folder_that_every_shell_means_needs_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUORUM_RUNS", raising=False)
    assert runs_folder() == Path("runs")
    assert runs_option(tmp_path / "runs") is None
    assert runs_option(tmp_path / "mine") == tmp_path / "mine"
    monkeypatch.setenv("QUORUM_RUNS", str(tmp_path / "mine"))
    assert runs_option(tmp_path / "runs") == tmp_path / "runs"
    assert runs_option(tmp_path / "mine") == tmp_path / "mine"


def test_no_module_writes_a_command_by_hand() -> None:
    """Docstrings and the examples of the help pages name commands that nobody's run is part of."""
    wrong = []
    for module, tree in modules().items():
        lines = {line for line, _ in docstrings(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                example = module.startswith("quorum.cli.") and node.lineno in _examples(tree)
                if BY_HAND.search(node.value) and node.lineno not in lines and not example:
                    wrong.append(f"{module}:{node.lineno}: use common.commands.command")
    assert wrong == []


def test_only_one_module_quotes_for_the_shell() -> None:
    users = [name for name, tree in modules().items() if "shlex" in imported(tree)]
    assert users == ["common.commands"]


def _examples(tree: ast.Module) -> set[int]:
    """Return the lines of a command's constants EXAMPLE and EPILOG."""
    return {
        node.value.lineno
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in ("EXAMPLE", "EPILOG")
    }
