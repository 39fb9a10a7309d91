"""The graph of imports between folders, read from the source.

`python -m tests.architecture` prints it and writes it to CONTRIBUTING.md. A node is a sub-package,
a package without sub-packages, or a module beside sub-packages.
"""

import ast
from collections.abc import Iterator
from functools import cache

from tests.docs import ROOT

PACKAGES = ("quorum", "analysis", "search", "ensemble", "trainables", "journal", "common")
"""The packages, top to bottom: a package imports only from those below it."""

ORDER = (
    "quorum.__main__",
    "quorum.cli",
    "quorum.api",
    "quorum.serving",
    "quorum.inputs",
    "quorum.pipeline",
    "quorum.resuming",
    "quorum.options",
    "quorum.outcome",
    "quorum.process",
    "quorum.stages",
    "quorum.student_stage",
    "quorum.student_request",
    "quorum.robustness",
    "quorum.trial_stages",
    "quorum.candidates",
    "quorum.selection",
    "quorum.seeds",
    "quorum.workspace",
    "quorum.testing",
    "analysis.report",
    "analysis.terminal",
    "analysis.figures",
    "analysis.explain",
    "analysis.facts",
    "analysis.text",
    "search.ablation",
    "search.tune",
    "search.samplers",
    "search.schedulers",
    "search.timetable",
    "search.mlflow",
    "search.space",
    "ensemble.evaluation",
    "ensemble.student",
    "ensemble.deployment",
    "ensemble.robustness",
    "ensemble.ledger",
    "ensemble.selection",
    "trainables.replay",
    "trainables.trial",
    "trainables.trial_data",
    "trainables.time_limit",
    "trainables.preflight",
    "trainables.device",
    "trainables.training",
    "trainables.trainer",
    "trainables.feature_files",
    "trainables.weights",
    "trainables.prediction",
    "trainables.resident_pixels",
    "trainables.nets",
    "trainables.augmentation",
    "trainables.records",
    "trainables.initial_weights",
    "trainables.lineage",
    "trainables.recipe",
    "trainables.hyperparameters",
    "trainables.stages",
    "trainables.data",
    "journal",
    "common.statistics",
    "common",
)
"""Every node, top to bottom: an import from a lower node to a higher one fails the tests."""

SIBLINGS = (("search", "ensemble"),)
"""Pairs of packages that never import each other."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the project by its dotted name."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return {
        name.removesuffix(".__init__"): ast.parse(path.read_text())
        for name, path in zip(names, paths, strict=True)
    }


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of every import; `from package import module` names the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules() else node.module


def node_of(module: str) -> str | None:
    """Return the node of ORDER that holds a module; None for other projects' modules."""
    parts = module.split(".")
    for length in (2, 1):
        node = ".".join(parts[:length])
        if node in ORDER:
            return node
    return None


@cache
def edges() -> dict[tuple[str, str], tuple[str, ...]]:
    """Every pair of different nodes (importer, imported), with the imports behind it."""
    imports_by_pair: dict[tuple[str, str], list[str]] = {}
    for name, tree in modules().items():
        for target in sorted(set(imported(tree))):
            above, below = node_of(name), node_of(target)
            if above and below and above != below:
                imports_by_pair.setdefault((above, below), []).append(f"{name} imports {target}")
    return {pair: tuple(imports) for pair, imports in imports_by_pair.items()}


def upward(above: str, below: str) -> bool:
    """Return whether an import breaks the order or joins two siblings."""
    packages = {above.split(".")[0], below.split(".")[0]}
    return ORDER.index(above) > ORDER.index(below) or packages in map(set, SIBLINGS)


def drawing() -> str:
    """Return the graph as text: each node with the nodes it imports from."""
    lines = []
    for package in PACKAGES:
        for node in ORDER:
            if node.split(".")[0] == package:
                below = [
                    b for a, b in sorted(edges(), key=lambda e: ORDER.index(e[1])) if a == node
                ]
                lines.append(f"{node:26} → {', '.join(below) or '(nothing)'}")
        lines.append("")
    return "\n".join(lines).rstrip()


def overview() -> str:
    """Return the graph of the packages in Mermaid, `common` left out: all import it."""
    pairs = {(above.split(".")[0], below.split(".")[0]) for above, below in edges()}
    lines = [
        f"    {above} --> {below}"
        for above in PACKAGES
        for below in PACKAGES
        if (above, below) in pairs and above != below and below != "common"
    ]
    return "\n".join(["graph TD", *lines])


MARKER = "<!-- graph -->\n"


def contributing() -> str:
    """Return CONTRIBUTING.md with the current graph."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    graph = f"```mermaid\n{overview()}\n```\n\n```\n{drawing()}\n```\n"
    return f"{text[: text.index(MARKER)]}{MARKER}\n{graph}"


if __name__ == "__main__":
    (ROOT / "CONTRIBUTING.md").write_text(contributing())
    print(drawing())  # noqa: T201
