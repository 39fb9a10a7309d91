"""Docstrings start with their subject; CONTRIBUTING.md shows the graph of imports as it is."""

import ast

from tests.architecture import contributing
from tests.docs import ROOT
from tests.prose import docstrings, riddles


def test_no_docstring_starts_with_a_riddle() -> None:
    assert riddles() == []


def test_docstrings_of_fields_are_read_too() -> None:
    source = '"""Module."""\n\n\nclass A:\n    """Class."""\n\n    x: int = 0\n    """Field."""\n'
    assert sorted(text for _, text in docstrings(ast.parse(source))) == [
        "Class.",
        "Field.",
        "Module.",
    ]


def test_contributing_shows_the_graph_of_imports() -> None:
    assert contributing() == (ROOT / "CONTRIBUTING.md").read_text(), (
        "CONTRIBUTING.md is out of date: run python -m tests.architecture"
    )
