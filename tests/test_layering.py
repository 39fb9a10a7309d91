"""The shape of the code: imports run one way, each heavy library has its owners, and
importing does nothing.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("trainables", "search", "ensemble", "analysis")
ALLOWED = {
    "trainables": {"trainables"},
    "search": {"search", "trainables"},
    "ensemble": {"ensemble", "trainables"},
    "analysis": {"analysis", "search", "ensemble", "trainables"},
    "pipeline_stages": {"analysis", "search", "ensemble", "trainables"},
    "pipeline": {"pipeline_stages", "analysis", "search", "ensemble", "trainables"},
    "quorum": {"pipeline", "analysis", "search", "ensemble", "trainables"},
}
OWNERS = {
    "ray": {
        "trainables.trial",
        "search.sweep",
        "search.suggestions",
        "search.scheduler",
        "search.session",
        "search.handover",
        "search.hooks",
        "ensemble.distributed",
    },
    "optuna": {"search.sampler"},
    "mlflow": {"search.mlflow_store"},
    "timm": {
        "trainables.models",
        "trainables.convnet",
        "trainables.optim",
        "trainables.training",
        "trainables.snapshot",
    },
    "onnxruntime": {"ensemble.onnx_model", "ensemble.quantize"},
    "onnx": {"ensemble.export"},
    "pytorch_grad_cam": {"analysis.explain"},
}


@cache
def modules() -> list[tuple[str, ast.Module]]:
    paths = [ROOT / f"{name}.py" for name in ("quorum", "pipeline", "pipeline_stages")]
    paths += [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [
        (name.removesuffix(".__init__"), ast.parse(path.read_text()))
        for name, path in zip(names, paths, strict=True)
    ]


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_imports_run_one_way() -> None:
    ours = {"quorum", "pipeline", "pipeline_stages", *PACKAGES}
    wrong = [
        f"{name} imports {target}"
        for name, tree in modules()
        for target in imported(tree)
        if target.split(".")[0] in ours - ALLOWED[name.split(".")[0]]
    ]
    assert wrong == []


def test_no_import_cycles() -> None:
    graph = {
        name: {target for target in imported(tree) if target != name} for name, tree in modules()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' → '.join([*trail, name])}"
        if name in done:
            return
        for target in graph.get(name, ()):
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())
    assert done >= set(graph)


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_heavy_libraries_have_owners(library: str) -> None:
    users = {
        name
        for name, tree in modules()
        if any(target.split(".")[0] == library for target in imported(tree))
    }
    assert users <= OWNERS[library]


def test_imports_inside_functions_only_for_heavy_libraries() -> None:
    """The modules at the top defer imports for speed; elsewhere only slow libraries may be."""
    slow = {"torch", "torchvision", "sklearn", "mlflow", "psutil", "PIL", "pyarrow", "importlib"}
    slow |= {"trainables.probe", "trainables.rehearsal", "analysis.explain"}  # they import torch
    slow |= {"trainables.suitability"}
    slow |= {"analysis.gates"}
    slow |= {"pytorch_grad_cam"}
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in modules()
        if name not in ("quorum", "pipeline", "pipeline_stages", "analysis.commands")
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and not all(target in slow or target.split(".")[0] in slow for target in imported(node))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("ensemble.selection", ("torch", "ray", "optuna", "mlflow", "pandas")),
        ("ensemble.onnx_model", ("torch", "ray", "mlflow")),
        ("search.progress", ("torch", "ray", "optuna", "mlflow", "pandas")),
        ("analysis.console", ("torch", "ray", "optuna", "mlflow")),
        ("quorum", ("torch", "ray", "numpy", "mlflow", "yaml", "rich")),
    ],
)
def test_light_modules_stay_light(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_importing_does_nothing() -> None:
    code = f"""
import importlib, logging, os
import matplotlib, mlflow, numpy, onnxruntime, optuna, pandas, ray.tune, timm, torch, torchvision

def world():
    return (torch.get_num_threads(), os.getcwd(), dict(os.environ), len(logging.root.handlers),
            torch.initial_seed(), numpy.random.get_state()[1].tolist(), ray.is_initialized())

before = world()
for name in {[name for name, _ in modules()]!r}:
    importlib.import_module(name)
print([a == b for a, b in zip(before, world())], ray.is_initialized())
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == f"{[True] * 7} False"
