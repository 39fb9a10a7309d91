"""Quantized files against closed forms and against the float files they come from."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from common.errors import DataError, RunError
from common.statistics.metrics import fit_temperature, nll
from ensemble.deployment.card import Quantization
from ensemble.deployment.export import export_onnx, set_temperature
from ensemble.deployment.onnx_model import OnnxClassifier
from ensemble.deployment.quantize import (
    METHODS,
    count_qdq,
    needs_reduced_range,
    parity,
    quantize_int8,
    refit_temperature,
)
from tests.ensemble.deployment.test_export import (
    CLASSES,
    PLAIN,
    SIZE,
    MeanColour,
    pictures,
    small_net,
)
from tests.ensemble.deployment.test_onnx_model import write_linear

Array = np.ndarray[Any, Any]
CALIBRATION, HOLDOUT = pictures(100, seed=5), pictures(80, seed=6)


def labels_of(path: Path, images: Array, seed: int = 0) -> Array:
    """Draw labels from the model's own predictions, so that it is calibrated at temperature 1."""
    uniform = np.random.default_rng(seed).random((len(images), 1))
    cumulative = np.exp(OnnxClassifier(path).log_probs(images)).cumsum(axis=1)
    labels: Array = (uniform > cumulative[:, :-1]).sum(axis=1).astype(np.int64)
    return labels


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    export_onnx(small_net(), path, image_size=SIZE, classes=CLASSES)
    return path


@pytest.fixture(scope="module")
def pair(float_model: Path) -> tuple[Path, Path, Quantization]:
    """Return the fp32 file, the int8 file and the quantization's settings."""
    int8 = float_model.with_name("model.int8.onnx")
    made = quantize_int8(
        float_model,
        int8,
        calibration=CALIBRATION,
        holdout=HOLDOUT,
        labels=labels_of(float_model, HOLDOUT),
        methods=["MinMax"],
        reduce_range=True,  # full weights would saturate where the processor has no VNNI
    )
    return float_model, int8, made


def test_int8_is_close_to_fp32(
    pair: tuple[Path, Path, Quantization],
) -> None:
    fp32, int8, _ = pair
    images = pictures(60, seed=9)
    temperature = _temperature(int8)
    set_temperature(int8, 1.0)
    measured = parity(fp32, int8, images)
    a, b = OnnxClassifier(fp32).log_probs(images), OnnxClassifier(int8).log_probs(images)
    set_temperature(int8, temperature)
    assert measured.images == 60
    assert measured.max_abs == np.abs(a - b).max() < 0.2
    assert measured.mean_abs == pytest.approx(np.abs(a - b).mean(), rel=1e-4)
    assert 0 < measured.mean_abs < 0.05
    assert measured.agreement == np.mean(a.argmax(1) == b.argmax(1)) > 0.9
    same = parity(fp32, fp32, images)
    assert (same.max_abs, same.mean_abs, same.agreement) == (0, 0, 1)


def test_only_convolutions_and_matrix_products_are_quantized(
    pair: tuple[Path, Path, Quantization],
) -> None:
    _, int8, made = pair
    graph = onnx.load(int8).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    inputs = {n.op_type: [made_by.get(i) for i in n.input if i] for n in graph.node}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert [made_by.get(name) for name in node.input] == ["DequantizeLinear"] * 3
    assert inputs["Div"] == ["Gemm", None], "logits and temperature stay in float"
    assert inputs["LogSoftmax"] == ["Div"]
    assert inputs["Sub"] == ["Cast", None], "the scaling of the pixels stays in float"
    kinds = [node.op_type for node in graph.node]
    assert made.qdq_nodes == kinds.count("QuantizeLinear") + kinds.count("DequantizeLinear")
    assert "Relu" not in kinds, "a zero point at the bottom of the range is the rectifier"


class Clipped(nn.Module):
    """Two convolutions with ReLU6, which cuts most of the first one's range off."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, CLASSES)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data.uniform_(-1, 1, generator=generator)
        self.first.weight.data *= 40

    def forward(self, images: Tensor) -> Tensor:
        x = nn.functional.relu6(self.first(images - 0.5))
        logits: Tensor = self.head(nn.functional.relu6(self.second(x)).mean(dim=(2, 3)))
        return logits


def test_the_eight_bits_of_a_clipped_activation_cover_only_what_is_left_of_it(
    tmp_path: Path,
) -> None:
    """They resolve 6/255 at best; of the first convolution's whole range, some 200/255."""
    fp32, int8 = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    export_onnx(Clipped().eval(), fp32, image_size=SIZE, classes=CLASSES)
    quantize_int8(
        fp32, int8, calibration=CALIBRATION, holdout=HOLDOUT, labels=labels_of(fp32, HOLDOUT),
        methods=["MinMax"], reduce_range=True,
    )  # fmt: skip
    graph = onnx.load(int8).graph
    tensors = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    convolved = {node.output[0] for node in graph.node if node.op_type == "Conv"}
    steps = [
        float(tensors[node.input[1]])
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in convolved
    ]
    assert "Clip" not in [node.op_type for node in graph.node]
    assert len(steps) == 2
    assert max(steps) <= 6 / 255 * 1.001


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 127), (True, 64)])
def test_weights_are_symmetric_int8_per_output_channel(
    float_model: Path, tmp_path: Path, reduce_range: bool, largest: int
) -> None:
    """The closed form: scale = max|w| / largest code per output channel, zero point 0."""
    int8 = tmp_path / "model.int8.onnx"
    made = quantize_int8(
        float_model,
        int8,
        calibration=CALIBRATION,
        holdout=HOLDOUT,
        labels=labels_of(float_model, HOLDOUT),
        methods=["MinMax"],
        reduce_range=reduce_range,
    )
    assert made.reduce_range == reduce_range
    floats = [numpy_helper.to_array(i) for i in onnx.load(float_model).graph.initializer]
    tensors = {i.name: numpy_helper.to_array(i) for i in onnx.load(int8).graph.initializer}
    quantized = [name for name in tensors if name.endswith(".weight_quantized")]
    assert len(quantized) == 7
    for name in quantized:
        stem = name.removesuffix("_quantized")
        codes, scale = tensors[name], tensors[f"{stem}_scale"]
        assert codes.dtype == np.int8
        assert np.abs(codes.astype(int)).max() == largest
        assert not tensors[f"{stem}_zero_point"].any()
        scale = scale.reshape(-1, *[1] * (codes.ndim - 1)) if scale.ndim else scale
        restored = codes * scale
        twin = min(
            (w for w in floats if w.shape == codes.shape), key=lambda w: np.abs(w - restored).max()
        )
        assert (np.abs(twin - restored) <= scale * 0.5001).all()
        if scale.ndim == 4:
            widest = np.abs(twin).max(axis=(1, 2, 3), keepdims=True)
            np.testing.assert_allclose(scale, widest / largest, rtol=1e-5)


def test_the_method_with_the_lowest_holdout_nll_is_chosen(
    float_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    labels, int8 = labels_of(float_model, HOLDOUT), tmp_path / "int8.onnx"
    rare = np.random.default_rng(0).random(CALIBRATION.shape) < 2e-4
    dark = np.where(rare, 255, CALIBRATION // 8).astype(np.uint8)
    made = quantize_int8(
        float_model,
        int8,
        calibration=dark,
        holdout=HOLDOUT,
        labels=labels,
        reduce_range=True,
    )
    assert capfd.readouterr() == ("", ""), "the quantizer's own prints are swallowed"
    assert set(made.holdout_nll) == set(METHODS)
    assert made.holdout_nll[made.method] == min(made.holdout_nll.values())
    assert len(set(made.holdout_nll.values())) == 3, "rare bright pixels separate the methods"
    log_probs = OnnxClassifier(int8).log_probs(HOLDOUT)
    assert nll(log_probs, labels) == pytest.approx(made.holdout_nll[made.method], abs=1e-6)
    assert fit_temperature(log_probs, labels) == pytest.approx(1, abs=2e-3)


def test_a_temperature_of_one_survives_quantization(
    pair: tuple[Path, Path, Quantization],
) -> None:
    fp32, int8, _ = pair
    assert _temperature(fp32) == 1.0
    assert _temperature(int8) > 0


class Divided(nn.Module):
    """A network whose logits are the mean of two views, as with mirror images, or divided."""

    def __init__(self, *, views: bool, by: float) -> None:
        super().__init__()
        self.net, self.views, self.by = small_net(), views, by

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        if self.views:
            logits = (logits + self.net(images.flip(3))) / 2
        return logits / self.by if self.by != 1 else logits


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("by", [1.0, 2.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_constant_of_the_network_that_equals_the_temperature_is_not_mistaken_for_it(
    views: bool, by: float, temperature: float, tmp_path: Path
) -> None:
    fp32, int8 = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    network = Divided(views=views, by=by)
    export_onnx(network, fp32, image_size=SIZE, classes=CLASSES, temperature=temperature)
    quantize_int8(
        fp32, int8, calibration=CALIBRATION, holdout=HOLDOUT, labels=labels_of(fp32, HOLDOUT),
        methods=["MinMax"], reduce_range=True,
    )  # fmt: skip
    log_probs = OnnxClassifier(int8).log_probs(HOLDOUT)
    found = _temperature(int8)
    set_temperature(int8, 2 * found)
    flatter = OnnxClassifier(int8).log_probs(HOLDOUT)
    halved = torch.log_softmax(torch.from_numpy(log_probs) / 2, dim=1).numpy()
    np.testing.assert_allclose(flatter, halved, atol=1e-5)
    set_temperature(int8, temperature)
    assert parity(fp32, int8, HOLDOUT).mean_abs < 0.2


def test_refitting_replaces_a_wrong_temperature(tmp_path: Path, float_model: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(float_model.read_bytes())
    labels = labels_of(path, HOLDOUT)
    first = refit_temperature(path, HOLDOUT, labels)
    set_temperature(path, 7.0)
    assert refit_temperature(path, HOLDOUT, labels) == first == pytest.approx(_temperature(path))
    best = nll(OnnxClassifier(path).log_probs(HOLDOUT), labels)
    for factor in (0.9, 1.1):
        set_temperature(path, first * factor)
        assert nll(OnnxClassifier(path).log_probs(HOLDOUT), labels) > best


def test_a_residual_net_runs_in_integer_arithmetic(tmp_path: Path) -> None:
    """Check every convolution: with int8 activations half of them would run in float32."""
    import onnxruntime

    fp32, int8 = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    export_onnx(small_net(PLAIN.with_values(depth=3)), fp32, image_size=SIZE, classes=CLASSES)
    labels = labels_of(fp32, HOLDOUT)
    quantize_int8(
        fp32, int8, calibration=CALIBRATION, holdout=HOLDOUT, labels=labels, methods=["MinMax"]
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(int8, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 9
    assert "Conv" not in kinds


@pytest.mark.parametrize(
    ("machine", "flags", "reduced"),
    [
        ("x86_64", set(), True),
        ("x86_64", {"avx2", "avx512f"}, True),
        ("x86_64", {"avx2", "avx_vnni"}, False),
        ("x86_64", {"avx512f", "avx512_vnni"}, False),
        ("x86_64", {"amx_int8"}, False),
        ("AMD64", {"avx2"}, True),
        ("i686", {"sse2"}, True),
        ("aarch64", {"asimd"}, False),
        ("aarch64", set(), False),
        ("arm64", set(), False),
        ("armv7l", {"neon"}, False),
        ("riscv64", set(), True),
        ("", set(), True),
    ],
)
def test_only_processors_that_could_saturate_get_7_bit_weights(
    machine: str, flags: set[str], reduced: bool
) -> None:
    assert needs_reduced_range(machine, flags) == reduced


def test_an_unknown_architecture_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    needs_reduced_range("aarch64", ())
    needs_reduced_range("x86_64", ())
    assert not caplog.records
    needs_reduced_range("riscv64", ())
    assert "riscv64" in caplog.text


def test_quantizing_nothing_is_refused(tmp_path: Path, float_model: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(MeanColour(), path, image_size=SIZE, classes=3)
    labels = labels_of(path, HOLDOUT)
    with pytest.raises(RunError, match="no quantized node"):
        quantize_int8(
            path,
            tmp_path / "int8.onnx",
            calibration=CALIBRATION,
            holdout=HOLDOUT,
            labels=labels,
            methods=["MinMax"],
        )
    assert not (tmp_path / "int8.onnx").exists()
    with pytest.raises(DataError, match="calibration images, got none"):
        quantize_int8(
            float_model,
            tmp_path / "int8.onnx",
            calibration=CALIBRATION[:0],
            holdout=HOLDOUT,
            labels=labels,
        )
    with pytest.raises(RunError, match="no quantized node"):
        count_qdq(float_model)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_linear(tmp_path_factory.mktemp("linear") / "model.onnx")


@given(seed=st.integers(0, 1000), count=st.integers(1, 30))
def test_a_file_is_equal_to_itself(linear: Path, seed: int, count: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    same = parity(linear, linear, images)
    assert (same.max_abs, same.mean_abs, same.agreement, same.images) == (0, 0, 1, count)


def _temperature(path: Path) -> float:
    tensors = {i.name: i for i in onnx.load(path).graph.initializer}
    return float(numpy_helper.to_array(tensors["temperature"]))
