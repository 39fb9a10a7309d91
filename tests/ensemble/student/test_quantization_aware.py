"""Quantization-aware training: the same rounding as the int8 file, and only where it helps."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from common.files import file_sha256
from common.statistics.metrics import nll
from ensemble.deployment.card import read_card
from ensemble.deployment.export import export_onnx
from ensemble.deployment.onnx_model import predict
from ensemble.deployment.packaging import TrainedStudent, export_student
from ensemble.deployment.quantize import quantize_int8
from ensemble.student.distillation import StudentResult, distill
from ensemble.student.quantization_aware import (
    QuantizationLoss,
    improve_int8,
    quantization_loss,
    stage_epochs,
)
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.splits import SplitSpec, make_splits
from trainables.prediction import predict_log_probs
from trainables.recipe import Numerics, Recipe
from trainables.training.fake_quantization import (
    LARGEST,
    LARGEST_REDUCED,
    fake_quantized,
    quantized_weights,
)
from trainables.training.losses import Distillation

pytestmark = pytest.mark.slow

RECIPE = Recipe(
    block="plain", activation="relu", whitening=False, width=8, batch_size=64, optimizer="adamw",
    adamw_lr=1e-2, epochs=20, flip=False,
)  # fmt: skip
LONG = RECIPE.with_values(epochs=120)
"""Its quantization-aware stage has 30 epochs."""

IMAGES = load_dataset(DatasetSpec(name="digits"))
SPLITS = make_splits(IMAGES, SplitSpec(counts=(400, 400, 400)))
VAL, LABELS = IMAGES.images[SPLITS.val], IMAGES.labels[SPLITS.val]


@pytest.fixture(scope="module")
def trained() -> StudentResult:
    return distill(RECIPE, images=IMAGES, splits=SPLITS, seed=0, numerics=Numerics())


def with_outliers(result: StudentResult, factor: float) -> TrainedStudent:
    """Scale an eighth of each block's channels up and the next layer's weights down.

    The function stays the same, but these channels take the range of 8-bit activations.
    """
    model = copy.deepcopy(result.model)
    with torch.no_grad():
        for block in model.net.blocks:  # type: ignore[union-attr]
            few = len(block.norms[0].weight) // 8
            block.norms[0].weight[:few] *= factor
            block.norms[0].bias[:few] *= factor
            block.convs[1].weight[:, :few] /= factor
    return TrainedStudent(
        model=model.eval(), recipe=LONG, seed=0, params=result.params, steps=result.steps,
        train_seconds=result.seconds,
    )  # fmt: skip


def packaged(student: TrainedStudent, folder: Path) -> Path:
    export_student(student, folder, images=IMAGES, splits=SPLITS, int8=True)
    return folder


def improve(student: TrainedStudent, folder: Path, *, seconds: float = float("inf")) -> None:
    improve_int8(
        student, folder, images=IMAGES, splits=SPLITS, numerics=Numerics(), teacher=None,
        distillation=None, seconds=seconds,
    )  # fmt: skip


def test_a_network_that_quantization_hurts_is_trained_for_it(
    trained: StudentResult, tmp_path: Path
) -> None:
    student = with_outliers(trained, 100.0)
    folder = packaged(student, tmp_path / "student")
    before = read_card(folder)
    hurt = quantization_loss(folder, IMAGES, SPLITS)
    assert hurt.matters
    improve(student, folder, seconds=0.0)
    unchanged = read_card(folder)
    assert unchanged.int8 == before.int8, "no time, no training"
    improve(student, folder)
    after = read_card(folder)
    assert after.fp32 == before.fp32
    assert after.int8 is not None
    assert after.quantization is not None
    assert after.quantization.aware_epochs == stage_epochs(LONG, len(SPLITS.train)) == 30
    assert after.quantization.val_loss == pytest.approx(hurt.value)
    assert file_sha256(folder / after.int8.file) == after.int8.sha256
    assert (folder / after.int8.file).stat().st_size == after.int8.bytes
    assert quantization_loss(folder, IMAGES, SPLITS).value < hurt.value / 2


class BrokenTeacher:
    """A teacher that answers NaN, so that the loss is not finite."""

    identity = "broken"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), len(IMAGES.class_names)), torch.nan)


def test_a_stage_that_diverges_leaves_the_int8_file_as_it_was(
    trained: StudentResult, tmp_path: Path
) -> None:
    student = with_outliers(trained, 100.0)
    folder = packaged(student, tmp_path)
    before = read_card(folder)
    improve_int8(
        student, folder, images=IMAGES, splits=SPLITS, numerics=Numerics(),
        teacher=BrokenTeacher(), distillation=Distillation(alpha=0.5, tau=2.0),
    )  # fmt: skip
    after = read_card(folder)
    assert after.int8 == before.int8
    assert after.quantization is not None
    assert after.quantization.aware_epochs == 0


def test_a_network_that_quantizes_well_is_left_alone(
    trained: StudentResult, tmp_path: Path
) -> None:
    folder = packaged(with_outliers(trained, 1.0), tmp_path / "student")
    before = read_card(folder)
    loss = quantization_loss(folder, IMAGES, SPLITS)
    improve(with_outliers(trained, 1.0), folder)
    after = read_card(folder)
    assert after.quantization is not None
    assert after.quantization.val_loss == pytest.approx(loss.value)
    if not loss.matters:
        assert (after.int8, after.quantization.aware_epochs) == (before.int8, 0)
    assert before.int8 is not None
    assert after.int8 is not None
    assert nll(predict(folder / after.int8.file, VAL), LABELS) < 1.2 * nll(
        predict(folder / before.fp32.file, VAL), LABELS
    )


def test_the_rounding_is_that_of_the_int8_file(trained: StudentResult, tmp_path: Path) -> None:
    """Compare how far both move the predictions; each rounds a few tensors that the other skips."""
    student = with_outliers(trained, 10.0)
    card = read_card(packaged(student, tmp_path))
    assert card.int8 is not None
    exact = predict_log_probs(student.model, IMAGES.images, Numerics(), indices=SPLITS.val)
    with fake_quantized(student.model) as layers:
        rounded = predict_log_probs(student.model, IMAGES.images, Numerics(), indices=SPLITS.val)
    assert layers == 7, "six convolutions and the head"
    again = predict_log_probs(student.model, IMAGES.images, Numerics(), indices=SPLITS.val)
    assert np.array_equal(again, exact)
    moved = np.abs(np.exp(rounded) - np.exp(exact)).mean()
    assert 0 < moved < 0.05


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, LARGEST), (True, LARGEST_REDUCED)])
def test_weights_have_as_many_steps_as_in_the_int8_file(
    reduce_range: bool, largest: int, trained: StudentResult, tmp_path: Path
) -> None:
    """On every processor, whatever it needs itself."""
    fp32, int8 = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    export_onnx(trained.model, fp32, image_size=IMAGES.image_size, classes=10)
    quantize_int8(
        fp32, int8, calibration=IMAGES.images[SPLITS.train], holdout=VAL, labels=LABELS,
        methods=("MinMax",), reduce_range=reduce_range,
    )  # fmt: skip
    values = [
        numpy_helper.to_array(each)
        for each in onnx.load(int8).graph.initializer
        if each.data_type == onnx.TensorProto.INT8 and each.dims and len(each.dims) > 1
    ]
    assert {int(np.abs(each.astype(int)).max()) for each in values} == {largest}
    weights = torch.randn(3, 4, 5, 5)
    scale = weights.abs().amax(dim=(1, 2, 3), keepdim=True) / largest
    steps = quantized_weights(weights, largest) / scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert steps.abs().max() == pytest.approx(largest, abs=1e-3)


def test_a_loss_matters_from_one_standard_error() -> None:
    assert QuantizationLoss(value=0.011, standard_error=0.010).matters
    assert not QuantizationLoss(value=0.010, standard_error=0.010).matters
    assert not QuantizationLoss(value=-1.0, standard_error=0.0).matters


def test_the_stage_has_enough_steps_but_is_short() -> None:
    assert stage_epochs(Recipe(epochs=40, batch_size=100), 100 * 88) == 4
    assert stage_epochs(Recipe(epochs=40, batch_size=100), 100 * 25) == 8
    assert stage_epochs(Recipe(epochs=40, batch_size=100), 400) == 10
    assert stage_epochs(Recipe(epochs=1), 100) == 1


class OneLayer(nn.Module):
    """A linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x)
        return result


def test_gradients_pass_the_rounding() -> None:
    model, x = OneLayer(), torch.rand(5, 4)
    exact = model(x)
    with fake_quantized(model):
        rounded = model(x)
        rounded.sum().backward()
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)
    grad = model.layer.weight.grad
    assert grad is not None
    torch.testing.assert_close(grad, x.sum(dim=0).expand(3, 4), atol=0.05, rtol=0.05)
