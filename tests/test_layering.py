"""The shape of the code: imports run one way, each heavy library has its owners, and
importing does nothing.
"""

import ast
import subprocess
import sys

import pytest

from tests.architecture import PACKAGES, edges, imported, modules, node_of, upward
from tests.docs import ROOT

IN_WORKERS = {"trainables.trial", "trainables.trial_data"}
"""Modules of trials in Ray's workers."""

OWNERS = {
    "openvino": {"ensemble.deployment.conversion"},
    "ray": {
        *IN_WORKERS,
        "search.tune.sweep",
        "search.tune.session",
        "search.tune.storage",
        "search.tune.adapters",
        "search.tune.cluster",
        "search.tune.data_travel",
        "search.tune.placement",
        "search.tune.remote_stage",
        "search.tune.room",
        "search.tune.served_folder",
        "ensemble.student.distributed",
        "ensemble.student.network",
    },
    "optuna": {"search.samplers.optuna_sampler", "search.samplers.study_storage"},
    "mlflow": {"search.mlflow.client"},
    "timm": {
        "trainables.nets.timm_net",
        "trainables.nets.convnet",
        "trainables.nets.drop_path",
        "trainables.nets.hub",
        "trainables.nets.timm_weights",
        "trainables.training.optimizers",
        "trainables.training.parameter_groups",
        "trainables.training.averaging",
    },
    "onnxruntime": {"ensemble.deployment.onnx_model", "ensemble.deployment.quantize"},
    "onnx": {
        "ensemble.deployment.export",
        "ensemble.deployment.conversion",
        "ensemble.deployment.describe",
    },
    "pytorch_grad_cam": {"analysis.explain.grad_cam"},
}


def test_every_module_has_a_place_in_the_order() -> None:
    assert [name for name in modules() if name not in PACKAGES and node_of(name) is None] == []


def test_imports_between_folders_run_one_way() -> None:
    wrong = {pair: why for pair, why in edges().items() if upward(*pair)}
    assert wrong == {}


def test_no_import_cycles() -> None:
    graph = {
        name: {target for target in imported(tree) if target != name}
        for name, tree in modules().items()
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
        for name, tree in modules().items()
        if any(target.split(".")[0] == library for target in imported(tree))
    }
    assert users <= OWNERS[library]


def test_imports_inside_functions_only_for_heavy_libraries() -> None:
    """Top-level modules defer imports for speed; elsewhere only slow libraries may be deferred."""
    slow = {
        "openvino",
        "onnx",
        "torch",
        "torchvision",
        "sklearn",
        "joblib",
        "mlflow",
        "psutil",
        "PIL",
        "pyarrow",
        "importlib",
    }
    slow |= {
        "trainables.device.probe",
        "trainables.device.rehearsal",
        "trainables.nets.operations",
        "analysis.explain.heat_maps",
        "analysis.explain.attention",
        "trainables.prediction",
        "trainables.weights",
        "trainables.training.loop",
    }  # they import torch
    slow |= {"trainables.preflight", "trainables.nets.hub", "trainables.device.gpus"}
    slow |= {"trainables.feature_files"}
    slow |= {"pytorch_grad_cam"}
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in modules().items()
        if name.split(".")[0] != "quorum"
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
        (
            "ensemble.selection.decision",
            ("torch", "ray", "optuna", "mlflow", "pandas", "timm", "onnx", "onnxruntime"),
        ),
        ("ensemble.selection.run_pool", ("torch", "ray", "optuna", "mlflow", "pandas")),
        ("ensemble.selection.pool_file", ("torch", "ray", "optuna", "mlflow", "pandas")),
        ("ensemble.ledger.rows", ("torch", "ray", "optuna", "mlflow", "pandas")),
        ("ensemble.deployment.gates", ("torch", "ray", "optuna", "mlflow", "onnxruntime")),
        ("ensemble.deployment.release", ("torch", "ray", "mlflow")),
        ("ensemble.deployment.onnx_model", ("torch", "ray", "mlflow")),
        ("journal.journal", ("torch", "ray", "optuna", "mlflow", "pandas", "numpy")),
        ("search.samplers.fixed", ("ray", "optuna", "mlflow")),
        ("search.samplers.optuna_sampler", ("ray", "mlflow")),
        ("search.schedulers.asha", ("torch", "ray", "optuna", "mlflow", "pandas", "numpy")),
        ("search.schedulers.verdict", ("torch", "ray", "optuna", "mlflow")),
        ("journal.state", ("torch", "ray", "optuna", "mlflow", "pandas")),
        ("analysis.terminal.live_display", ("torch", "ray", "optuna", "mlflow")),
        ("search.timetable.preview", ("torch", "ray", "mlflow", "optuna", "pandas")),
        ("search.timetable.deadlines", ("torch", "ray", "mlflow", "optuna", "pandas")),
        ("search.timetable.forecast", ("torch", "ray", "mlflow", "optuna", "pandas")),
        ("search.space.spec", ("torch", "ray", "mlflow", "optuna", "pandas")),
        ("search.ablation.plan", ("torch", "ray", "mlflow", "optuna", "pandas")),
        ("search.ablation.trials", ("torch", "ray", "mlflow", "optuna", "pandas")),
        ("search.samplers.best", ("torch", "ray", "mlflow", "optuna", "pandas")),
        ("trainables.recipe", ("torch", "ray", "numpy", "mlflow")),
        ("trainables.records", ("torch", "ray", "mlflow", "pandas")),
        ("trainables.trainer", ("torch", "ray", "mlflow", "pandas")),
        ("trainables.training.schedule", ("torch", "ray", "mlflow", "pandas")),
        ("quorum", ("torch", "ray", "numpy", "mlflow", "yaml", "rich")),
    ],
)
def test_light_modules_stay_light(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_training_needs_neither_ray_nor_optuna_nor_mlflow() -> None:
    """Only trials in Ray's workers do: a machine that is lent may have nothing but torch."""
    services = ("ray", "optuna", "mlflow")
    below = [
        name
        for name in modules()
        if name.split(".")[0] in ("trainables", "journal", "common") and name not in IN_WORKERS
    ]
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({services!r}))  # importing them fails
for name in {below!r}:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_does_nothing() -> None:
    code = f"""
import importlib, logging, os
import matplotlib, mlflow, numpy, onnxruntime, optuna, pandas, ray.tune, timm, torch, torchvision

def world():
    return (torch.get_num_threads(), os.getcwd(), dict(os.environ), len(logging.root.handlers),
            torch.initial_seed(), numpy.random.get_state()[1].tolist(), ray.is_initialized())

before = world()
for name in {list(modules())!r}:
    importlib.import_module(name)
print([a == b for a, b in zip(before, world())], ray.is_initialized())
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == f"{[True] * 7} False"
