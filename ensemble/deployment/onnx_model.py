"""Run an exported classifier on arrays or on image files.

Axes: N images, K classes. The graph takes `images`, uint8 [N, H, W, 3], and returns
`log_probs`, float32 [N, K]; normalization and temperature are inside. Nothing here needs
torch, so that `quorum predict` starts quickly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from common.errors import DataError, RunError, SpecError
from ensemble.deployment.card import read_card
from ensemble.deployment.metadata import ModelMetadata, metadata_from_props
from ensemble.deployment.released import released_model
from trainables.data.pixels import read_image

Images = np.ndarray[Any, np.dtype[np.uint8]]
LogProbs = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The model's class probabilities for one image file."""

    image: Path
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]
    """In the order of `class_names`; they sum to 1."""

    @property
    def best(self) -> str:
        """The most probable class."""
        return self.class_names[int(np.argmax(self.probabilities))]

    @property
    def ranked(self) -> tuple[tuple[str, float], ...]:
        """The classes with their probabilities, most probable first."""
        pairs = zip(self.class_names, self.probabilities, strict=True)
        return tuple(sorted(pairs, key=lambda pair: -pair[1]))


class OnnxClassifier:
    """An exported classifier, loaded on the CPU."""

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        """Load `path` with `threads` intra-op threads; 0 means one per core.

        Raises:
            RunError: the file is missing, not ONNX, or has other inputs or outputs.
        """
        self.path = Path(path)
        self.threads = threads
        self._session = _load(self.path, threads)
        self.input_size, self.classes = _signature(self._session, self.path)

    @property
    def metadata(self) -> ModelMetadata | None:
        """The description in the file; None for files of versions that wrote none.

        Raises:
            RunError: the description is damaged or belongs to another model.
        """
        props = self._session.get_modelmeta().custom_metadata_map
        try:
            metadata = metadata_from_props(props, where=str(self.path))
        except SpecError as error:
            raise RunError(str(error)) from None
        if metadata is not None:
            self._check(metadata, f"the metadata of {self.path}")
        return metadata

    def describe(self) -> ModelMetadata:
        """Return the description in the file, or else the one in the card.json beside it.

        Raises:
            RunError: there is neither, or it is damaged or belongs to another model.
        """
        metadata = self.metadata
        if metadata is None:
            metadata = read_card(self.path.parent).metadata
            self._check(metadata, f"card.json beside {self.path}")
        return metadata

    def log_probs(self, images: Images, *, batch: int = 256) -> LogProbs:
        """Return log-probabilities float32 [N, K] of uint8 images [N, H, W, 3].

        The graph runs on `batch` images at a time.

        Raises:
            DataError: the images are not uint8 or not of the model's size.
        """
        size = self.input_size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise DataError(
                f"{self.path.name} takes uint8 images [N, {size}, {size}, 3], "
                f"got {images.dtype} {list(images.shape)}; resize them first"
            )
        output = np.empty((len(images), self.classes), np.float32)
        for start in range(0, len(images), batch):
            output[start : start + batch] = self.run(images[start : start + batch])
        return output

    def run(self, images: Images) -> LogProbs:
        """Call the graph once, without checks; `latency` times this call."""
        log_probs: LogProbs = self._session.run(["log_probs"], {"images": images})[0]
        return log_probs

    def _check(self, metadata: ModelMetadata, where: str) -> None:
        described = (metadata.image_size, len(metadata.class_names))
        in_model = (self.input_size, self.classes)
        if described != in_model:
            raise RunError(
                f"{where} belongs to another model: it has size and classes {described}, the "
                f"model has {in_model}"
            )


def predict(path: str | Path, images: Images) -> LogProbs:
    """Return log-probabilities [N, K] of uint8 images [N, H, W, 3], computed on all cores."""
    return OnnxClassifier(path, threads=0).log_probs(images)


def classify(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    threads: int = 1,
    on_prediction: Callable[[Prediction], None] = lambda _: None,
    on_unreadable: Callable[[Path, DataError], None] | None = None,
) -> tuple[Prediction, ...]:
    """Predict class probabilities for image files of any size and colour mode.

    `model` is an exported ONNX file, or a student's folder, whose released file is used. Images
    are decoded and resized one at a time, by the model's `resize_rule`, as in training.
    `on_prediction` is called with each prediction as soon as it is made.

    A missing or unreadable image has no prediction. `on_unreadable`, if given, is called with the
    image and the error; otherwise the error is raised.

    Raises:
        RunError: the model is missing, or nothing describes it.
        DataError: an image is missing or unreadable; the message names it.
    """
    classifier = load_classifier(model, threads=threads)
    metadata = classifier.describe()
    predictions = []
    for image in map(Path, images):
        try:
            prediction = _predict(classifier, metadata, image)
        except DataError as error:
            if on_unreadable is None:
                raise
            on_unreadable(image, error)
            continue
        predictions.append(prediction)
        on_prediction(prediction)
    return tuple(predictions)


def load_classifier(model: str | Path, *, threads: int = 1) -> OnnxClassifier:
    """Load an ONNX file, or the released file of a student's folder.

    Raises:
        RunError: the model is missing or damaged.
    """
    path = Path(model)
    if not path.exists():
        raise RunError(f"{path} does not exist; give an ONNX file or a student's folder")
    file = released_model(path)[0] if path.is_dir() else path
    return OnnxClassifier(file, threads=threads)


def _load(path: Path, threads: int) -> Any:
    if not path.is_file():
        raise RunError(f"{path} does not exist; give the path of an ONNX file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no narrower base class
        reason = str(error).splitlines()[0].rsplit(" failed:", 1)[-1].strip()
        raise RunError(f"{path} cannot be loaded as an ONNX file: {reason}") from None


def _signature(session: Any, path: Path) -> tuple[int, int]:
    """Return the input's side in pixels and the number of classes."""
    inputs = [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()]
    outputs = [(o.name, o.type, o.shape[1:]) for o in session.get_outputs()]
    match inputs, outputs:
        case (
            [("images", "tensor(uint8)", [int(height), int(width), 3])],
            [("log_probs", "tensor(float)", [int(classes)])],
        ) if height == width:
            return height, classes
    raise RunError(
        f"{path} is not an exported classifier: it must take `images` uint8 [N, size, size, 3] and "
        f"return `log_probs` float32 [N, K], but has {inputs} -> {outputs}"
    )


def _predict(classifier: OnnxClassifier, metadata: ModelMetadata, path: Path) -> Prediction:
    return Prediction(
        image=path,
        class_names=metadata.class_names,
        probabilities=probabilities_of(classifier, metadata, path),
    )


def probabilities_of(
    classifier: OnnxClassifier, metadata: ModelMetadata, image: Path | bytes
) -> tuple[float, ...]:
    """Return class probabilities for one image file, or for its bytes.

    Raises:
        DataError: the image is missing or unreadable.
    """
    size = classifier.input_size
    pixels = read_image(image, size, metadata.resize_rule, metadata.grey_levels)
    probs = np.exp(classifier.log_probs(pixels[None])[0].astype(np.float64))
    probs /= probs.sum()
    return tuple(probs.tolist())
