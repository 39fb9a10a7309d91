"""Exported files against the nets they were made from.

An export takes most of a second, so the nets are tiny and files that tests only read are
exported once.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from common.errors import RunError
from common.statistics.metrics import apply_temperature
from ensemble.deployment.card import write_card
from ensemble.deployment.export import count_nodes, export_onnx, set_temperature, strip
from ensemble.deployment.onnx_model import OnnxClassifier, classify
from tests.ensemble.deployment.test_card import card
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.resizing import ResizeRule
from trainables.nets.build import build_model
from trainables.nets.classifier import Classifier
from trainables.recipe import Recipe

Array = np.ndarray[Any, Any]
SIZE, CLASSES = 8, 3
PLAIN = Recipe(width=4, block="plain", activation="relu", whitening=False)


def pictures(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def small_net(recipe: Recipe = PLAIN) -> Classifier:
    """Return a net in eval mode whose batch norms are not the identity."""
    model = build_model(recipe, classes=CLASSES, image_size=SIZE, train_images=pictures(64), seed=1)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                assert values is not None
                values.uniform_(low, high, generator=generator)
    return model.eval()


def torch_log_probs(model: nn.Module, images: Array) -> Array:
    with torch.no_grad():
        logits = model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    log_probs: Array = torch.log_softmax(logits, dim=1).numpy()
    return log_probs


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(small_net(), path, image_size=SIZE, classes=CLASSES)
    return path


@pytest.mark.parametrize(
    "recipe",
    [
        PLAIN.with_values(depth=3, whitening=True, dropout=0.5),
        Recipe(width=4, activation="silu", attention="se", tta="mirror_translate"),
    ],
    ids=["residual, whitened", "airbench with attention, six views"],
)
def test_the_file_predicts_what_the_net_predicts(tmp_path: Path, recipe: Recipe) -> None:
    model = small_net(recipe)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    path = tmp_path / "model.onnx"
    export_onnx(model, path, image_size=SIZE, classes=CLASSES, temperature=2.0)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    images = pictures(5, seed=3)
    expected = apply_temperature(torch_log_probs(model.eval(), images), 2.0)
    assert np.ptp(expected) > 0.1
    for batch in (1, 2, 5):
        log_probs = OnnxClassifier(path).log_probs(images, batch=batch)
        np.testing.assert_allclose(log_probs, expected, atol=2e-5)


@pytest.mark.parametrize(("side", "input_size"), [(8, 20), (24, 16), (40, 8)])
def test_the_file_resizes_images_as_the_net_does(
    tmp_path: Path, side: int, input_size: int
) -> None:
    """Also where it reduces them: then the filter must antialias."""
    images = np.random.default_rng(0).integers(0, 256, (70, side, side, 3), dtype=np.uint8)
    recipe = PLAIN.with_values(input_size=input_size)
    model = build_model(recipe, classes=CLASSES, image_size=side, train_images=images, seed=1)
    path = tmp_path / "model.onnx"
    export_onnx(model.eval(), path, image_size=side, classes=CLASSES)
    expected = torch_log_probs(model, images[:6])
    np.testing.assert_allclose(OnnxClassifier(path).log_probs(images[:6]), expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 1e-3


def test_batch_norms_are_folded_into_convolutions(exported: Path) -> None:
    operators = [node.op_type for node in onnx.load(exported).graph.node]
    block = ["Conv", "Relu", "Conv", "Relu", "MaxPool"]
    before, after = ["Transpose", "Cast", "Sub"], ["ReduceMean", "Gemm", "Div", "LogSoftmax"]
    assert operators == [*before, *block * 3, *after]
    assert count_nodes(exported, "Conv", "Gemm") == 7
    assert count_nodes(exported, "BatchNormalization") == 0


def test_the_file_holds_weights_and_little_else(exported: Path) -> None:
    model = onnx.load(exported)
    assert len(model.graph.value_info) == 0
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    parameters = sum(p.numel() for p in small_net().parameters())
    assert exported.stat().st_size < 4 * parameters + 4000
    size = exported.stat().st_size
    strip(exported)
    assert exported.stat().st_size == size


def test_the_temperature_acts_like_apply_temperature(tmp_path: Path, exported: Path) -> None:
    images = pictures(4)
    plain = OnnxClassifier(exported).log_probs(images)
    np.testing.assert_allclose(plain, torch_log_probs(small_net(), images), atol=2e-5)
    path = tmp_path / "model.onnx"
    path.write_bytes(exported.read_bytes())
    for temperature in (0.5, 1.0, 3.0):
        set_temperature(path, temperature)
        log_probs = OnnxClassifier(path).log_probs(images)
        np.testing.assert_allclose(log_probs, apply_temperature(plain, temperature), atol=2e-5)


def test_invalid_temperatures_and_other_files_are_refused(tmp_path: Path, exported: Path) -> None:
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            set_temperature(exported, temperature)
    model = onnx.load(exported)
    next(i for i in model.graph.initializer if i.name == "temperature").name = "other"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(RunError, match="has no initializer `temperature`"):
        set_temperature(tmp_path / "other.onnx", 2.0)


def test_a_wrong_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="3 classes, expected 4"):
        export_onnx(MeanColour(), tmp_path / "m.onnx", image_size=SIZE, classes=4)


class MeanColour(nn.Module):
    """A net of three classes without parameters."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.sin(images.mean(dim=(2, 3)))


class Unusual(nn.Module):
    """Nets whose scaling of the pixels must not be folded into one convolution."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        groups = 3 if kind == "depthwise" else 1
        self.kind = kind
        self.first = nn.Conv2d(3, 6, 3, padding=1, groups=groups)
        self.second = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6, CLASSES)
        for parameter in self.parameters():
            parameter.data.uniform_(-1, 1, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - 0.25) / torch.tensor([0.5, 0.25, 0.125])[:, None, None]
        y = self.first(x)
        if self.kind == "two readers":
            y = y + self.second(x)
        if self.kind == "shared weights":
            y = y + self.first(x.flip(2))
        logits: Tensor = self.head(y.relu().mean(dim=(2, 3)))
        return logits


@pytest.mark.parametrize("kind", ["depthwise", "two readers", "shared weights"])
def test_pixel_scaling_is_not_folded_where_that_would_be_wrong(tmp_path: Path, kind: str) -> None:
    model, images = Unusual(kind).eval(), pictures(5)
    path = tmp_path / "model.onnx"
    export_onnx(model, path, image_size=SIZE, classes=CLASSES)
    expected = torch_log_probs(model, images)
    np.testing.assert_allclose(OnnxClassifier(path).log_probs(images), expected, atol=5e-5)
    assert not any(i.name == "pixel_offset" for i in onnx.load(path).graph.initializer)


@pytest.mark.parametrize("rule", ["crop", "squash", "pad"])
def test_training_prediction_and_export_see_the_same_pixels(
    rule: ResizeRule, tmp_path: Path
) -> None:
    """A network that returns pixels: exported, and asked about files as training read them."""
    side = 8

    class Pixels(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) * 10

    folder, classes = tmp_path / "data", 3 * side**2
    shapes = {"landscape": (50, 31), "portrait": (23, 60), "tiny": (3, 5), "large": (900, 700)}
    rng = np.random.default_rng(0)
    for i, shape in enumerate([*shapes.values(), *shapes.values()]):
        picture = Image.fromarray(rng.integers(0, 256, (*shape[::-1], 3), np.uint8))
        path = folder / "ab"[i // 4] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (picture.quantize(32) if i == 5 else picture).save(path)
    spec = DatasetSpec(name="imagefolder", path=str(folder), image_size=side, resize=rule)
    stored = load_dataset(spec, cache=tmp_path / "cache")
    export_onnx(Pixels(), tmp_path / "model.onnx", image_size=side, classes=classes)
    names = tuple(str(i) for i in range(classes))
    about = card(class_names=names, image_size=side, resize_rule=rule)
    write_card(tmp_path, replace(about, fp32=replace(about.fp32, file="model.onnx")))
    predictions = classify(tmp_path / "model.onnx", sorted(folder.glob("*/*")))
    for pixels, prediction in zip(stored.images, predictions, strict=True):
        # Logits up to a constant: 10 × grey level / 255, channel by channel.
        logits = np.log(prediction.probabilities) * 25.5
        expected = pixels.transpose(2, 0, 1).reshape(-1).astype(float)
        np.testing.assert_allclose(logits - logits[0], expected - expected[0], atol=0.1)
