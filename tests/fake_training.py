"""A fake trainer: known curves within milliseconds, and faults on demand.

The curve of a trial depends only on its recipe and seed; a step is an epoch. A recipe's `width`
selects a fault (faults that occur once leave a file in the folder QUORUM_FAKE_MARKS):

    101 diverges at step 2          104 kills its process at step 2, once
    102 raises at step 2, once      105 scores NaN at its first rung
    103 raises at step 2, always
    106 runs out of memory at step 2, always, and leaves the resources of its worker in a file
    107 and 108 run out of memory at step 2, once

A `batch_size` of 1000 + t makes every epoch last t milliseconds longer.
"""

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import ray

from common.errors import DivergedError, RunError
from common.files import dump_json, read_json, write_bytes_atomically
from common.seeds import numpy_generator
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics, Recipe
from trainables.trainer import EpochReport

DIVERGES, RAISES_ONCE, RAISES, DIES_ONCE, NOT_A_NUMBER = 101, 102, 103, 104, 105
OUT_OF_MEMORY, OUT_OF_MEMORY_ONCE = 106, 107


class FakeTraining:
    """A `trainables.trainer.Trainer` without a network."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        rungs: Sequence[int],
        seed: int,
        numerics: Numerics,
        images: ImageSet,
        splits: Splits,
        features: object = None,
    ) -> None:
        self._recipe, self._rungs, self._seed = recipe, tuple(rungs), seed
        self._classes = len(images.class_names)
        self._step = 0

    @property
    def params(self) -> int:
        return 1000 + self._recipe.architecture.width

    def reports(self) -> Iterator[EpochReport]:
        while self._step < self._rungs[-1]:
            time.sleep(max(0, self._recipe.optimizer.batch_size - 1000) / 1000)
            self._step += 1
            self._inject_fault()
            rung = self._step if self._step in self._rungs else None
            val_nll = curve(self._recipe, self._seed, self._step)
            if rung is not None and self._recipe.architecture.width == NOT_A_NUMBER:
                val_nll = float("nan")
            yield EpochReport(
                step=self._step,
                epoch=self._step,
                phase="trunk" if rung is None else "cooldown",
                rung=rung,
                train_loss=val_nll / 2,
                val_nll=val_nll,
                val_accuracy=1 / (1 + val_nll),
                temperature=1.0,
                lr=0.1,
                seconds=0.25,
                images_per_second=100.0,
                peak_memory_bytes=1_000_000 + self._step,
            )

    def log_probs(self, indices: np.ndarray) -> np.ndarray:
        rng = numpy_generator(self._seed, "fake", self._step, len(indices))
        logits = rng.standard_normal((len(indices), self._classes))
        shifted: np.ndarray = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return shifted.astype(np.float32)

    def save(self, folder: Path) -> None:
        state = {"step": self._step, "seed": self._seed}
        write_bytes_atomically(folder / "state.json", dump_json(state).encode())

    def load(self, folder: Path) -> None:
        state = read_json(folder / "state.json")
        if state["seed"] != self._seed:
            raise RunError(f"{folder} is a checkpoint of seed {state['seed']}, not {self._seed}")
        self._step = state["step"]

    def save_weights(self, path: Path) -> None:
        """Write a safetensors file with a header and no tensors."""
        about = {"seed": str(self._seed), "step": str(self._step)}
        header = json.dumps({"__metadata__": about}).encode()
        write_bytes_atomically(path, len(header).to_bytes(8, "little") + header)

    def _inject_fault(self) -> None:
        if self._step != 2:
            return
        width = self._recipe.architecture.width
        if width == DIVERGES:
            raise DivergedError("the loss is not finite at step 2")
        if width == RAISES or (width == RAISES_ONCE and self._first_time()):
            raise ValueError("a fault on demand")
        if width == OUT_OF_MEMORY:
            resources = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
            with self._mark().open("a") as file:
                file.write(json.dumps(resources) + "\n")
            raise MemoryError("on demand")
        if width in (OUT_OF_MEMORY_ONCE, OUT_OF_MEMORY_ONCE + 1) and self._first_time():
            raise MemoryError("on demand")
        if width == DIES_ONCE and self._first_time():
            os.kill(os.getpid(), signal.SIGKILL)

    def _mark(self) -> Path:
        return Path(os.environ["QUORUM_FAKE_MARKS"]) / str(self._seed)

    def _first_time(self) -> bool:
        mark = self._mark()
        if mark.exists():
            return False
        mark.touch()
        return True


def resources_of(seed: int) -> list[dict[str, float]]:
    """Return the resources of each attempt of a trial that ran out of memory."""
    lines = (Path(os.environ["QUORUM_FAKE_MARKS"]) / str(seed)).read_text().splitlines()
    return [json.loads(line) for line in lines]


def curve(recipe: Recipe, seed: int, step: int) -> float:
    """Return val_nll after `step` epochs; it falls to a level that depends on the recipe."""
    decay = recipe.optimizer.weight_decay
    level = abs(recipe.architecture.dropout - 0.4) + 0.1 * abs(np.log10(decay) + 3)
    noise = 0.02 * numpy_generator(seed, "noise", step).standard_normal()
    return float(level + 1.5 / step + abs(noise))
