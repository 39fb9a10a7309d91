"""Save and load the weights of trained networks: `weights.safetensors` of a trial."""

import json
from pathlib import Path

from torch import nn

from common.errors import RunError
from common.files import file_sha256, write_bytes_atomically
from trainables.lineage import SeenSplit, lineage_metadata
from trainables.nets.build import empty_model
from trainables.nets.classifier import Classifier
from trainables.nets.tensor_file import bytes_to_tensors, tensors_to_bytes
from trainables.records import WEIGHTS, read_record, read_start

RGB = 3
"""Channels of the images of a network whose file does not name them."""


def save_weights(model: nn.Module, path: str | Path, *, seen: tuple[SeenSplit, ...] = ()) -> None:
    """Write a network's parameters and buffers atomically as a safetensors file.

    `seen` are the splits it was trained on, the last one last; they are in the file's metadata.
    """
    if not isinstance(model, Classifier):
        raise TypeError(f"save_weights takes a Classifier, got {type(model).__name__}")
    shape = {"classes": model.classes, "image_size": model.image_size}
    if model.channels != RGB:  # equal networks of all versions get equal checksums
        shape["channels"] = model.channels
    metadata = {"shape": json.dumps(shape), **lineage_metadata(seen)}
    data = tensors_to_bytes(model.state_dict(), metadata)
    write_bytes_atomically(Path(path), data)


def load_trained(trial_folder: str | Path) -> Classifier:
    """Return a trial's scored network, in eval mode on the CPU.

    The recipe in start.json defines the network; its weights come from weights.safetensors.

    Raises:
        RunError: a file is missing or damaged, or differs from the record's checksum.
    """
    folder = Path(trial_folder)
    path = folder / WEIGHTS
    recipe = read_start(folder / "start.json").recipe
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if (folder / "record.json").is_file():
        recorded = read_record(folder / "record.json").sha256.get(path.name)
        if recorded is not None and recorded != file_sha256(path):
            raise RunError(
                f"{path} does not match its record's checksum; restore it or drop the trial"
            )
    tensors, metadata = bytes_to_tensors(data, where=str(path))
    try:
        shape = json.loads(metadata["shape"])
        model = empty_model(
            recipe,
            classes=shape["classes"],
            image_size=shape["image_size"],
            channels=shape.get("channels", RGB),
        )
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{path} does not fit the recipe of its start.json: {reason}") from None
    return model.eval()
