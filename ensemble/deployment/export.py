"""Export a trained net as a compact ONNX classifier.

Axes: B images of a batch, K classes. The graph takes `images` uint8 [B, H, W, 3] and returns
`log_probs` float32 [B, K]. It contains the layout and scaling of the pixels, the net, the division
by the constant `temperature` and the log-softmax. Source lines, shapes and other metadata are
stripped, so that sizes before and after quantization compare fairly. Every file has the opset and
IR version below, so that runtimes of several years ago can read it.
"""

import copy
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, numpy_helper
from torch import Tensor, nn

from common.errors import RunError
from common.files import write_bytes_atomically
from common.printable import printable
from ensemble.deployment.onnx_model import OnnxClassifier
from trainables.prediction import place_model
from trainables.recipe import Numerics

OPSET = 18
"""The ONNX operator set of all files: the first in which Resize can antialias."""

IR_VERSION = 8
"""The file format of that opset's release, ONNX 1.13. onnxruntime 1.15.1 (2023) and 1.17.3 give the
same predictions as 1.32 for fp32 and int8 files; both refuse the exporter's own choice, IR 10."""


_TAIL = ("temper", "normalize")
"""Names of the nodes after the logits."""


class NoOnnxFormError(RunError):
    """A network that torch cannot convert to ONNX, so that no file of it can ship."""


def export_onnx(
    model: nn.Module, path: Path, *, image_size: int, classes: int, temperature: float = 1.0
) -> None:
    """Write `model` as an ONNX classifier that divides its logits by `temperature`.

    `model` takes float images [B, 3, H, W] in [0, 1], normalizes them itself and returns
    logits [B, K]. Batch norms after convolutions are folded into them, and the scaling of
    the pixels into the first convolution where nothing else uses it.

    Raises:
        NoOnnxFormError: torch cannot convert the network.
        RunError: the exported graph does not return [N, classes].
    """
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.onnx"
        try:
            _export_logits(model, raw, image_size)
        except torch.onnx.OnnxExporterError as error:
            cause = str(error.__cause__ or error).strip().partition("\n")[0]
            reason = printable(re.sub(r"\x1b\[\d*m", "", cause))  # torch colours its messages
            raise NoOnnxFormError(f"a network cannot be converted to ONNX: {reason}") from error
        graph = onnx.load(raw)
    _fold_pixel_scaling(graph)
    _append_temperature(graph, temperature)
    _save(graph, path)
    exported = OnnxClassifier(path).classes
    if exported != classes:
        raise RunError(f"the exported model has {exported} classes, expected {classes}")


def set_temperature(path: Path, temperature: float) -> None:
    """Change the temperature inside an exported file.

    Raises:
        RunError: the file has no initializer named `temperature`.
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature must be positive, got {temperature!r}")
    model = onnx.load(path)
    for initializer in model.graph.initializer:
        if initializer.name == "temperature":
            value = np.array(temperature, np.float32)
            initializer.CopyFrom(numpy_helper.from_array(value, "temperature"))
            write_bytes_atomically(path, model.SerializeToString())
            return
    raise RunError(f"{path} has no initializer `temperature`, so it is not an exported student")


def write_logits_graph(exported: Path, path: Path) -> None:
    """Write a copy of an exported classifier that ends at `logits`, before the temperature.

    Run tools that rewrite graphs on this copy, then `add_temperature`: in the whole file they may
    merge the temperature with an equal constant of the network, or drop it if it is 1.
    """
    model = onnx.load(exported)
    graph = model.graph
    for node in [node for node in graph.node if node.name in _TAIL]:
        graph.node.remove(node)
    for item in [item for item in graph.initializer if item.name == "temperature"]:
        graph.initializer.remove(item)
    graph.output[0].name = "logits"
    onnx.checker.check_model(model)
    write_bytes_atomically(path, model.SerializeToString())


def add_temperature(path: Path, temperature: float) -> None:
    """Append the temperature and the log-softmax to a file that returns `logits`.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature must be positive, got {temperature!r}")
    model = onnx.load(path)
    _append_temperature(model, temperature)
    _save(model, path)


def count_nodes(path: Path, *op_types: str) -> int:
    """Return the number of nodes of these types in an ONNX file."""
    return sum(node.op_type in op_types for node in onnx.load(path).graph.node)


def strip(path: Path) -> None:
    """Remove debugging metadata and unused operator sets from an ONNX file."""
    _save(onnx.load(path), path)


class _Logits(nn.Module):
    """The net after pixel layout and scaling: uint8 [B, H, W, 3] in, logits [B, K] out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.permute(0, 3, 1, 2).float() / 255)
        return logits


def _export_logits(model: nn.Module, path: Path, image_size: int) -> None:
    # A copy, so that the caller's net keeps its device, layout and mode.
    wrapped = _Logits(place_model(copy.deepcopy(model), Numerics(layout="contiguous"))).eval()
    # The exporter treats a batch of 1 as a constant; any other size becomes a symbol.
    example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    with torch.inference_mode(False), torch.no_grad():
        torch.onnx.export(
            wrapped,
            (example,),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _append_temperature(model: ModelProto, temperature: float) -> None:
    """Divide the logits by a named constant, then take the log-softmax."""
    graph = model.graph
    value = np.array(temperature, np.float32)
    graph.initializer.append(numpy_helper.from_array(value, "temperature"))
    graph.node.extend(
        [
            onnx.helper.make_node("Div", ["logits", "temperature"], ["tempered"], _TAIL[0]),
            onnx.helper.make_node("LogSoftmax", ["tempered"], ["log_probs"], _TAIL[1], axis=1),
        ]
    )
    graph.output[0].name = "log_probs"


def _fold_pixel_scaling(model: ModelProto) -> None:
    """Fold x/255, −mean and /std into one subtraction and the first convolution's weights.

    The chain is a·x + b per channel, so conv(W, a·x + b) = conv(a·W, x + b/a); borders stay
    correct because padded zeros are zeros in both. Three operators become one, which saves
    8% of a call of the smallest int8 student (36.0 → 33.1 µs, medians of 2,000 calls, one core
    of an AMD EPYC). A graph without such a chain is not changed.
    """
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    chain = _pixel_chain(graph, constants)
    if len(chain) < 2:
        return
    conv = chain.pop()
    weight = constants[conv.input[1]]
    scale, shift = np.ones((1, 3, 1, 1)), np.zeros((1, 3, 1, 1))
    for node in chain:
        value = numpy_helper.to_array(constants[node.input[1]]).astype(np.float64)
        match node.op_type:
            case "Div":
                scale, shift = scale / value, shift / value
            case "Mul":
                scale, shift = scale * value, shift * value
            case "Sub":
                shift = shift - value
            case _:
                shift = shift + value
    folded = (numpy_helper.to_array(weight) * scale).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(folded, weight.name))
    offset = numpy_helper.from_array((-shift / scale).astype(np.float32), "pixel_offset")
    graph.initializer.append(offset)
    chain[0].CopyFrom(
        onnx.helper.make_node("Sub", [chain[0].input[0], offset.name], ["pixels"], "center")
    )
    conv.input[0] = "pixels"
    for node in chain[1:]:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)


def _pixel_chain(graph: Any, constants: dict[str, Any]) -> list[NodeProto]:
    """Return the scalings of the pixels and the convolution after them, or [] if there is none."""
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    name = "images"
    chain: list[NodeProto] = []
    while len(next_nodes := users.get(name, [])) == 1:
        node = next_nodes[0]
        if node.op_type == "Conv":
            weight = constants.get(node.input[1])
            foldable = weight is not None and weight.dims[1] == 3 and len(users[weight.name]) == 1
            return [*chain, node] if foldable else []
        if node.op_type in ("Div", "Mul", "Sub", "Add"):
            if node.input[0] != name or not _per_channel(constants.get(node.input[1])):
                return []
            chain.append(node)
        elif node.op_type not in ("Transpose", "Cast"):
            return []
        name = node.output[0]
    return []


def _per_channel(constant: Any) -> bool:
    return constant is not None and tuple(constant.dims) in ((), (1,), (3, 1, 1), (1, 3, 1, 1))


def _save(model: ModelProto, path: Path) -> None:
    """Strip debugging metadata, pin the versions, check the graph and write it atomically.

    Raises:
        RunError: the graph needs operators beyond ONNX's own, or of another opset.
    """
    graph = model.graph
    _pin_versions(model, path)
    del graph.value_info[:]
    for item in [model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    write_bytes_atomically(path, model.SerializeToString())


def _pin_versions(model: ModelProto, path: Path) -> None:
    used = {node.domain for node in model.graph.node} | {""}
    opsets = {item.domain: item.version for item in model.opset_import if item.domain in used}
    if opsets != {"": OPSET}:
        raise RunError(
            f"{path.name} uses the operator sets {opsets}, but only ONNX's own {OPSET} may be "
            "exported, because other runtimes would refuse the file"
        )
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
