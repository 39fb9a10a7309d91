"""Write a classifier's description into its ONNX file.

The package `onnx` loads slowly and is imported when a file is written.
"""

from pathlib import Path

from common.files import write_bytes_atomically
from ensemble.deployment.metadata import ModelMetadata


def write_metadata(path: Path, metadata: ModelMetadata) -> None:
    """Write a description into an exported file; `OnnxClassifier.metadata` reads it."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata.to_props())
    write_bytes_atomically(path, model.SerializeToString())
