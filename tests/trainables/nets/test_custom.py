"""Custom networks are built, checked, saved, loaded, distilled and quantized like others."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import RunError, SpecError
from common.seeds import numpy_generator
from search.samplers.suggestions import Suggestion
from tests.architecture import PACKAGES
from tests.docs import python_blocks
from tests.simulated_tune import config_of, start_of
from trainables.nets.build import build_model
from trainables.nets.classifier import Classifier
from trainables.recipe import Numerics, Recipe
from trainables.records import TrialStart, write_start
from trainables.trial import QuorumTrial, default_trainer
from trainables.weights import load_trained, save_weights

MYNET = """
import torch
from torch import nn

def build(*, classes, image_size, recipe):
    return nn.Sequential(
        nn.Conv2d(3, recipe.width, 3, stride=2, padding=1),
        nn.BatchNorm2d(recipe.width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(recipe.width, classes),
    )

number = 3

def fails(*, classes, image_size, recipe):
    raise KeyError("no such layer")

def wrong_arguments(classes): ...

def no_module(*, classes, image_size, recipe):
    return "a net"

def too_few(*, classes, image_size, recipe):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, classes - 1))

def too_large(*, classes, image_size, recipe):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 224**2, classes))

def several(*, classes, image_size, recipe):
    class Net(nn.Linear):
        def forward(self, x):
            return x, x
    return Net(1, 1)

def nothing_to_train(*, classes, image_size, recipe):
    return nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.ZeroPad1d((0, classes - 3)))
"""


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "mynet.py").write_text(MYNET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mynet", None)


def build(name: str = "build", *, seed: int = 0, width: int = 8) -> Classifier:
    images = numpy_generator(0, "noise").integers(0, 256, (20, 12, 12, 3), dtype=np.uint8)
    recipe = Recipe(model=f"mynet:{name}", width=width)
    return build_model(recipe, classes=5, image_size=12, train_images=images, seed=seed)


def test_custom_networks_are_normalized_and_seeded() -> None:
    net, again, other = build(), build(), build(seed=1)
    assert net.training
    assert float(net.mean[0]) == pytest.approx(0.5, abs=0.05)
    assert net(torch.rand(4, 3, 12, 12)).shape == (4, 5)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(net.parameters()), next(other.parameters()))
    assert build(width=3).net[0].out_channels == 3  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("biuld", r"recipe: model: 'mynet:biuld' does not exist"),
        ("number", "must be a function or a class, got 3"),
        ("fails", r"failed on \(classes=5, .*KeyError: 'no such layer' \(mynet.py, line 18\)"),
        ("wrong_arguments", r"failed on .* unexpected keyword argument 'image_size'"),
        ("no_module", "must build a torch.nn.Module, got str"),
        ("too_few", r"must return logits \[2, 5\] .*got \[2, 4\]"),
        ("too_large", r"cannot take images \[2, 3, 12, 12\]: RuntimeError"),
        ("several", r"must return logits .* got tuple"),
        ("nothing_to_train", "has no parameter to train"),
    ],
)
def test_unusable_networks_are_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        build(name)
    assert "\n" not in str(caught.value)


def test_weights_are_loaded_with_the_recipe_of_the_record(user_folder: Path) -> None:
    folder = user_folder / "t0001"
    model = build().eval()
    start = TrialStart(
        trial="t0001", kind="search", recipe=Recipe(model="mynet:build", width=8, epochs=1), seed=0,
        rungs=(1,), data={}, split_id="0", numerics=Numerics(), code_version="0", machine={},
    )  # fmt: skip
    write_start(folder, start)
    save_weights(model, folder / "weights.safetensors")
    images = torch.rand(4, 3, 12, 12)
    assert torch.equal(load_trained(folder)(images), model(images))
    sys.modules.pop("mynet")
    (user_folder / "mynet.py").unlink()
    with pytest.raises(
        RunError, match=r"does not fit .* no module 'mynet' .* start the command in"
    ):
        load_trained(folder)


DRIVER = """
from pathlib import Path

import numpy as np

from ensemble.student.distributed import distill_distributed
from ensemble.deployment.export import export_onnx
from ensemble.deployment.onnx_model import OnnxClassifier
from ensemble.deployment.quantize import quantize_int8
from ensemble.student.teacher import EnsembleTeacher
from search.space.sweep_files import spec_of_run
from search.tune.session import ray_session
from trainables.data.dataset import load_dataset
from trainables.training.losses import Distillation
from trainables.weights import load_trained
from trainables.recipe import Numerics
from trainables.data.splits import make_splits

with ray_session(cpus=1, folder=Path("away")):
    exec(Path("own.py").read_text())
    records = list(folder.records())
    assert [record.status for record in records] == ["completed"] * 2, records
    assert {start.recipe.architecture.model for start in folder.starts()} == {"mynet:build"}
    members = [load_trained(folder.trial(record.trial)) for record in records]
    spec = spec_of_run(folder)
    images = load_dataset(spec.dataset)
    splits = make_splits(images, spec.splits)
    student = distill_distributed(
        spec.student_recipe(), workers=1, images=images, splits=splits, seed=0,
        numerics=Numerics(), teacher=EnsembleTeacher(members, [1, 1], 1.0, Numerics()),
        distillation=Distillation(alpha=0.9, tau=4.0),
    )
holdout, labels = images.images[splits.holdout], images.labels[splits.holdout]
export_onnx(student.model, folder.root / "a.onnx", image_size=16, classes=10)
quantize_int8(
    folder.root / "a.onnx", folder.root / "b.onnx", calibration=holdout[:64], holdout=holdout,
    labels=labels, methods=["MinMax"],
)
for name in ("a.onnx", "b.onnx"):
    logp = OnnxClassifier(folder.root / name).log_probs(holdout)
    assert logp.shape == (400, 10) and np.isfinite(logp).all()
print("done")
"""

SWEEP = """
dataset: {name: digits}
splits: {counts: [400, 400, 400]}
trials: 2
rungs: [1]
startup_trials: 1
recipe: {batch_size: 64, flip: false, width: 8, optimizer: adamw}
space:
  adamw_lr: {type: float, low: 2.0e-3, high: 2.0e-2, log: true}
student: {recipe: {epochs: 1}}
"""


@pytest.mark.slow
def test_packages_named_like_quorums_do_not_disturb_a_sweep(user_folder: Path) -> None:
    """Run the example of docs/python.md, then train a student on a worker, export, quantize."""
    for package in PACKAGES:
        (user_folder / package).mkdir()
        (user_folder / package / "__init__.py").write_text("raise SystemExit('the wrong package')")
    (user_folder / "my.yaml").write_text(SWEEP)
    for name in ("mynet.py", "own.py"):
        (user_folder / name).write_text(python_blocks("python.md")[name])
    (user_folder / "drive.py").write_text(DRIVER)
    (user_folder / "away").mkdir()
    # -P keeps the folder of the script off the front of sys.path.
    result = subprocess.run(
        [sys.executable, "-P", "drive.py"], cwd=user_folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("done\n")


def test_a_worker_finds_the_custom_network_in_the_drivers_folder(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = Recipe(model="mynet:build", width=4, epochs=1, batch_size=8)
    suggestion = Suggestion(trial="t0000", number=0, kind="search", recipe=recipe, seed=0)
    config = config_of(start_of(suggestion, (1,)))
    config |= {"trainer": default_trainer, "folder": str(user_folder)}
    monkeypatch.chdir(tmp_path_factory.mktemp("worker"))
    result = QuorumTrial(config).step()
    assert result["done"]
    assert np.isfinite(result["val_nll"])
