"""Read every docstring of the project: `python -m tests.prose` lists those that break a rule.

A docstring is the first string of a module, class or function, or a string that follows the
assignment of a field or constant.
"""

import ast
import sys
from collections.abc import Iterator

from tests.docs import ROOT

RIDDLES = {
    *("Of", "What", "Who", "Whom", "Whose", "How", "Where", "Whether", "Why", "When", "Which"),
    *("That", "As", "By", "If", "So", "With"),
}
"""First words that make a reader wait for the subject."""

FOLDERS = ("quorum", "analysis", "search", "ensemble", "trainables", "journal", "common", "tests")


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every docstring of a module, those of fields included."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for position, statement in enumerate(body):
            before = body[position - 1] if position else None
            starts = (position == 0 and documented) or isinstance(
                before, ast.Assign | ast.AnnAssign
            )
            if starts and isinstance(statement, ast.Expr):
                value = statement.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield statement.lineno, value.value.strip()


def riddles() -> list[str]:
    """Return every docstring that starts with a word of RIDDLES, with its place."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for line, text in docstrings(ast.parse(path.read_text())):
                words = text.split(maxsplit=1)
                if words and words[0].strip(",") in RIDDLES:
                    place = path.relative_to(ROOT)
                    found.append(f"{place}:{line}: {text.splitlines()[0][:80]}")
    return found


if __name__ == "__main__":
    under = tuple(sys.argv[1:])
    print("\n".join(place for place in riddles() if place.startswith(under or "")))  # noqa: T201
