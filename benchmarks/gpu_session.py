"""A session of `gpu.py`: the device, the images, the time that remains, and a part's tables.

Axes: N images, S×S pixels, K classes.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from origin import commit, output_of
from scipy import stats

from common.errors import DataError
from common.files import write_bytes_atomically
from common.formats import DASH
from common.provenance import code_version, machine_description
from common.seeds import numpy_generator
from trainables.data.cifar10 import CIFAR10_FOLDER
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.device.candidates import half_precision
from trainables.recipe import Dtype, Numerics

T = TypeVar("T")

CLASSES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The options of a session, and what they mean for its parts."""

    command: str
    """The command of the whole session, for the files."""
    device: str
    """`cuda`, or `cpu` to try the script out."""
    tiny: bool = False
    """Run everything once, on a few images: the figures mean nothing."""
    data: Path | None = None
    """Folder of CIFAR-10 in any layout that Quorum reads; noise if None."""
    out: Path | None = None
    """Folder of the JSON files; None for none."""
    airbench: Path | None = None
    """A script of airbench to run beside ours."""
    until: float = math.inf
    """The end of the part, in seconds as `time.time()`."""

    @property
    def on_gpu(self) -> bool:
        """True on a GPU."""
        return self.device != "cpu"

    @property
    def seconds_left(self) -> float:
        """Time until the end of the part."""
        return self.until - time.time()

    def pick(self, full: T, tiny: T) -> T:
        """Return `full`, or `tiny` in a tiny session."""
        return tiny if self.tiny else full

    def numerics(self, dtype: Dtype | None = None, *, captured: bool = False) -> Numerics:
        """Return numerics of this dtype; by default on a GPU the 16-bit one of the engine.

        With `captured`, gradients are computed by a CUDA graph.
        """
        default = (half_precision(self.device) if self.on_gpu else None) or "float32"
        return Numerics(
            device=self.device, dtype=dtype or default, threads=1, captured=captured and self.on_gpu
        )

    def wait(self) -> None:
        """Wait until the device has finished."""
        wait_for(self.device)

    def seconds_per_call(self, call: Callable[[], object]) -> float:
        """Return the time of a call: the median of three series of at least `series` seconds."""
        series = self.pick(0.3, 0.0)
        call()
        count = 1
        times: list[float] = []
        while len(times) < self.pick(3, 1):
            self.wait()
            started = time.perf_counter()
            for _ in range(count):
                call()
            self.wait()
            elapsed = time.perf_counter() - started
            if elapsed < series:
                count = max(2 * count, math.ceil(count * series / max(elapsed, 1e-9)))
            else:
                times.append(elapsed / count)
        return sorted(times)[len(times) // 2]

    def images(self) -> ImageSet:
        """Return the data set, or noise of its size.

        Raises:
            DataError: the folder holds no data set, or an incomplete CIFAR-10.
        """
        if self.data is None:
            return noise(self.pick(60_000, 640), test=self.pick(10_000, 128))
        if (self.data / CIFAR10_FOLDER).is_dir():
            _require_complete(self.data)  # our loader would download what is missing
        images = load_dataset(DatasetSpec(name="images", path=str(self.data)))
        return thinned(images, 768) if self.tiny else images


def wait_for(device: str) -> None:
    """Wait until a device has finished."""
    if device != "cpu":
        torch.cuda.synchronize()


def noise(count: int, *, size: int = 32, test: int = 0) -> ImageSet:
    """Return random images, which take as long to process as real ones; the last are test."""
    rng = numpy_generator(0, "benchmark")
    return ImageSet(
        name="noise",
        images=rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        labels=np.arange(count) % CLASSES,
        class_names=tuple(str(number) for number in range(CLASSES)),
        is_test=np.arange(count) >= count - test if test else None,
        digests=rng.integers(0, 256, (count, 16), dtype=np.uint8),
    )


def thinned(images: ImageSet, count: int) -> ImageSet:
    """Return about `count` evenly spaced images of a set, in memory."""
    rows = np.arange(0, len(images), max(1, len(images) // count))
    return ImageSet(
        name=images.name,
        images=images.images[rows],
        labels=images.labels[rows],
        class_names=images.class_names,
        is_test=None if images.is_test is None else images.is_test[rows],
    )


def train_on_all(images: ImageSet) -> Splits:
    """Return splits that train on all images outside test; 512 of them stand in for val."""
    own = np.zeros(len(images), np.bool_) if images.is_test is None else images.is_test
    train, test = np.flatnonzero(~own), np.flatnonzero(own)
    return Splits(train=train, val=train[:512], holdout=train[:0], test=test, split_id="all")


def _require_complete(root: Path) -> None:
    from torchvision.datasets import CIFAR10

    try:
        for train in (True, False):
            CIFAR10(root, train=train, download=False)
    except RuntimeError as error:
        raise DataError(f"{root / CIFAR10_FOLDER} is not the whole of CIFAR-10: {error}") from None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    format: str = ""
    """Python's format of a value, e.g. `,.0f`."""


@dataclass(slots=True)
class Report:
    """A table printed row by row as Markdown; after each row, a JSON file holds all of them."""

    session: Session
    name: str
    columns: Mapping[str, Column]
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    about: dict[str, Any] = field(default_factory=dict)

    def row(self, **values: Any) -> None:
        """Print a row and write the file; values without a column are only in the file."""
        if not self.rows:
            print(f"\n### {self.name}\n")
            print("| " + " | ".join(column.title for column in self.columns.values()) + " |")
            print("|" + "---|" * len(self.columns))
        self.rows.append(values)
        cells = (_cell(values.get(key), column) for key, column in self.columns.items())
        print("| " + " | ".join(cells) + " |", flush=True)
        self._write()

    def note(self, text: str) -> None:
        """Print a sentence below the rows so far and write it to the file."""
        self.notes.append(text)
        print(f"\n{text}", flush=True)
        self._write()

    def _write(self) -> None:
        if self.session.out is None:
            return
        self.about = self.about or about(self.session)
        content = {
            "part": self.name,
            "about": self.about,
            "seconds": round(time.time() - self.started, 1),
            "rows": self.rows,
            "notes": self.notes,
        }
        self.session.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=1, default=float) + "\n"
        write_bytes_atomically(self.session.out / f"{self.name}.json", text.encode())


def _cell(value: Any, column: Column) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return DASH if missing else format(value, column.format)


def about(session: Session) -> dict[str, Any]:
    """Describe the origin of the figures: command, code, card, driver and versions."""
    facts = {
        "command": session.command,
        "commit": commit(),
        "code": code_version(),
        "tiny": session.tiny,
        "data": None if session.data is None else session.data.name,
        "device": session.device,
        **machine_description(),
    }  # fmt: skip
    if not session.on_gpu:
        return facts
    asked = ("driver_version", "power.limit", "clocks.max.sm", "memory.total")
    answer = output_of("nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader")
    values = answer.splitlines()[0].split(", ") if answer else [""] * len(asked)
    return {
        **facts,
        "gpu": torch.cuda.get_device_name(),
        **{f"gpu {name}": value for name, value in zip(asked, values, strict=True)},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half of Student's 95% interval; NaN for fewer than two values."""
    half = math.nan
    if len(values) > 1:
        half = float(stats.sem(values)) * float(stats.t.ppf(0.975, len(values) - 1))
    return float(np.mean(values)) if values else math.nan, half
