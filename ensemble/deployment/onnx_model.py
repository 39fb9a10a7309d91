"""Run an exported classifier: predictions, files of images, latency.

Axes: N images, K classes. The graph takes `images`, uint8 [N, H, W, 3], and returns
`log_probs`, float32 [N, K]; normalization and temperature are inside. Nothing here needs
torch, so a prediction from the command line starts quickly.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from common.errors import DataError, RunError
from ensemble.deployment.card import Card, Latency, Speedup, read_card
from trainables.data.pixels import read_image

Images = np.ndarray[Any, np.dtype[np.uint8]]
LogProbs = np.ndarray[Any, np.dtype[np.float32]]

BLOCK_SECONDS = 2e-3
"""Calls are timed in blocks of about this length, so that the clock costs nothing."""
WARM_UP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the model says about one file."""

    image: Path
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]
    """In the order of `class_names`; they sum to 1."""

    @property
    def best(self) -> str:
        """The most probable class."""
        return self.class_names[int(np.argmax(self.probabilities))]


class OnnxClassifier:
    """A loaded ONNX classifier, on the CPU."""

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        """Load `path`; `threads` is the number of intra-op threads, 0 for one a core.

        Raises:
            RunError: the file is missing, not ONNX, or not an image classifier of ours.
        """
        self.path = Path(path)
        self.threads = threads
        self._session = _load(self.path, threads)
        self.input_size, self.classes = _signature(self._session, self.path)

    def log_probs(self, images: Images, *, batch: int = 256) -> LogProbs:
        """Log-probabilities float32 [N, K] of uint8 images [N, H, W, 3], `batch` at a time.

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
        """One call of the graph, unchecked: what latency measures."""
        log_probs: LogProbs = self._session.run(["log_probs"], {"images": images})[0]
        return log_probs


def predict(path: str | Path, images: Images) -> LogProbs:
    """Log-probabilities [N, K] of many images, on all cores; for timing use one thread."""
    return OnnxClassifier(path, threads=0).log_probs(images)


def classify(
    model: str | Path, images: Sequence[str | Path], *, threads: int = 1
) -> tuple[Prediction, ...]:
    """Class probabilities for image files, in any size and colour mode.

    `model` is an ONNX file with its `card.json` beside it, or a student's folder, of which
    the released file is used. Images are decoded and resized one at a time, by the rule
    that training used.

    Raises:
        RunError: no such model, or no card beside it.
        DataError: an image is missing or unreadable; the message names it.
    """
    path = Path(model)
    if not path.exists():
        raise RunError(f"no model at {path}: give an ONNX file or a student's folder")
    folder = path if path.is_dir() else path.parent
    card = read_card(folder)
    file = folder / card.shipped.file if path.is_dir() else path
    classifier = OnnxClassifier(file, threads=threads)
    _check_card(card, classifier)
    return tuple(_predict(classifier, card, Path(image)) for image in images)


def latency(
    classifier: OnnxClassifier, images: Images, *, batch: int = 256, repeats: int = 50
) -> Latency:
    """Time calls with one image and with `batch` images (repeated if there are fewer).

    A repeat is the mean over a block of calls of about 2 ms. The interval is the exact
    order-statistic interval of a median, for independent repeats; other load on the
    machine widens it.
    """
    one = np.ascontiguousarray(images[:1])
    many = np.resize(images, (batch, *images.shape[1:]))
    single = _times(lambda: classifier.run(one), repeats)
    low, high = _median_ranks(repeats, 0.975)
    throughput = _times(lambda: classifier.run(many), max(5, repeats // 5), warm_up=2)
    return Latency(
        ms_batch1=float(np.median(single)) * 1e3,
        interval=(float(single[low]) * 1e3, float(single[high]) * 1e3),
        images_per_second=batch / float(np.median(throughput)),
        batch=batch,
        repeats=repeats,
        threads=classifier.threads,
    )


def paired_latency(
    a: OnnxClassifier,
    b: OnnxClassifier,
    image: Images,
    *,
    repeats: int = 50,
    level: float = 0.95,
) -> Speedup:
    """How many times faster `b` answers than `a` for one image uint8 [1, H, W, 3].

    Blocks of calls alternate as a b b a, so slow changes of the machine's speed cancel
    within a repeat. `bound` is the sign test's lower confidence bound on the median ratio:
    exact for independent repeats, whatever their distribution.

    Raises:
        ValueError: too few repeats for a bound at `level`.
    """
    rank, _ = _median_ranks(repeats, level)
    run_a, run_b = (lambda: a.run(image)), (lambda: b.run(image))
    calls_a, calls_b = _calibrate(run_a), _calibrate(run_b)
    ratios = np.empty(repeats)
    for i in range(repeats):
        first = _block(run_a, calls_a)
        both = _block(run_b, calls_b) + _block(run_b, calls_b)
        ratios[i] = (first + _block(run_a, calls_a)) / both
    ratios = np.sort(ratios * calls_b / calls_a)
    return Speedup(
        value=float(np.median(ratios)), bound=float(ratios[rank]), level=level, repeats=repeats
    )


def _load(path: Path, threads: int) -> Any:
    if not path.is_file():
        raise RunError(f"{path} is not an ONNX file: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        reason = str(error).splitlines()[0].rsplit(" failed:", 1)[-1].strip()
        raise RunError(f"{path} cannot be loaded as an ONNX file: {reason}") from None


def _signature(session: Any, path: Path) -> tuple[int, int]:
    """The input's side and the number of classes."""
    inputs = [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()]
    outputs = [(o.name, o.type, o.shape[1:]) for o in session.get_outputs()]
    match inputs, outputs:
        case (
            [("images", "tensor(uint8)", [int(height), int(width), 3])],
            [("log_probs", "tensor(float)", [int(classes)])],
        ) if height == width:
            return height, classes
    raise RunError(
        f"{path} is no classifier of ours: it must take `images` uint8 [N, size, size, 3] and "
        f"return `log_probs` float32 [N, K], it has {inputs} -> {outputs}"
    )


def _check_card(card: Card, classifier: OnnxClassifier) -> None:
    told = (card.image_size, len(card.class_names))
    real = (classifier.input_size, classifier.classes)
    if told != real:
        raise RunError(
            f"card.json beside {classifier.path} is of another model: it says size and classes "
            f"{told}, the model has {real}"
        )


def _predict(classifier: OnnxClassifier, card: Card, path: Path) -> Prediction:
    pixels = read_image(path, classifier.input_size)
    probs = np.exp(classifier.log_probs(pixels[None])[0].astype(np.float64))
    probs /= probs.sum()
    return Prediction(image=path, class_names=card.class_names, probabilities=tuple(probs.tolist()))


def _times(call: Callable[[], object], repeats: int, *, warm_up: int = WARM_UP) -> Any:
    """Seconds a call, float64 [repeats], ascending."""
    calls = _calibrate(call, warm_up=warm_up)
    return np.sort([_block(call, calls) / calls for _ in range(repeats)])


def _calibrate(call: Callable[[], object], *, warm_up: int = WARM_UP) -> int:
    """Warm up, then say how many calls fill a block."""
    _block(call, warm_up)
    return max(1, round(BLOCK_SECONDS / min(_block(call, 1) for _ in range(3))))


def _block(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - start


def _median_ranks(repeats: int, level: float) -> tuple[int, int]:
    """Ranks (from 0) that bound the median below and above, each at confidence `level`.

    The count of repeats below the median is Binomial(repeats, 1/2); the k-th smallest
    exceeds the median with probability P(count < k), which must stay within 1 − level.
    """
    rank, tail = -1, 0.0
    while (tail := tail + math.comb(repeats, rank + 1) / 2**repeats) <= 1 - level:
        rank += 1
    if rank < 0:
        raise ValueError(
            f"{repeats} repeats are too few for a bound at level {level}; "
            f"take at least {math.ceil(-math.log2(1 - level))}"
        )
    return rank, repeats - 1 - rank
