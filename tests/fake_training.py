"""A trainer that trains nothing: known curves within milliseconds, and faults on demand.

The curve of a trial follows from its recipe and seed alone; a step is an epoch. A recipe's
`width` asks for a fault (those that strike once leave a mark in QUORUM_FAKE_MARKS):

    101 diverges at step 2          104 kills its process at step 2, once
    102 raises at step 2, once      105 scores NaN at its first rung
    103 raises at step 2, always

A `batch_size` above 1000 asks for epochs of so many milliseconds more.
"""

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DivergedError, RunError
from common.files import dump_json, read_json, write_bytes_atomically
from common.seeds import numpy_generator
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics, Recipe

DIVERGES, RAISES_ONCE, RAISES, DIES_ONCE, NOT_A_NUMBER = 101, 102, 103, 104, 105


class FakeTraining:
    """Looks like `trainables.training.loop.Training`."""

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
        self.recipe, self.rungs, self.seed = recipe, tuple(rungs), seed
        self.classes = len(images.class_names)
        self.step = 0

    @property
    def params(self) -> int:
        return 1000 + self.recipe.architecture.width

    def reports(self) -> Iterator[dict[str, Any]]:
        while self.step < self.rungs[-1]:
            time.sleep(max(0, self.recipe.optimizer.batch_size - 1000) / 1000)
            self.step += 1
            self._strike()
            rung = self.step if self.step in self.rungs else None
            val_nll = curve(self.recipe, self.seed, self.step)
            if rung is not None and self.recipe.architecture.width == NOT_A_NUMBER:
                val_nll = float("nan")
            yield {
                "step": self.step,
                "epoch": self.step,
                "phase": "trunk" if rung is None else "cooldown",
                "rung": rung,
                "train_loss": val_nll / 2,
                "val_nll": val_nll,
                "val_accuracy": 1 / (1 + val_nll),
                "temperature": 1.0,
                "lr": 0.1,
                "seconds": 0.25,
                "images_per_second": 100.0,
                "peak_memory_bytes": 1_000_000 + self.step,
            }

    def scored_model(self) -> "FakeTraining":
        return self

    def log_probs(self, indices: np.ndarray) -> np.ndarray:
        rng = numpy_generator(self.seed, "fake", self.step, len(indices))
        logits = rng.standard_normal((len(indices), self.classes))
        shifted: np.ndarray = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return shifted.astype(np.float32)

    def save(self, folder: Path) -> None:
        state = {"step": self.step, "seed": self.seed}
        write_bytes_atomically(folder / "state.json", dump_json(state).encode())

    def load(self, folder: Path) -> None:
        state = read_json(folder / "state.json")
        if state["seed"] != self.seed:
            raise RunError(f"{folder} is of another seed")
        self.step = state["step"]

    def _strike(self) -> None:
        if self.step != 2:
            return
        width = self.recipe.architecture.width
        if width == DIVERGES:
            raise DivergedError("the loss is not finite at step 2")
        if width == RAISES or (width == RAISES_ONCE and self._first_time()):
            raise ValueError("a fault on demand")
        if width == DIES_ONCE and self._first_time():
            os.kill(os.getpid(), signal.SIGKILL)

    def _first_time(self) -> bool:
        mark = Path(os.environ["QUORUM_FAKE_MARKS"]) / str(self.seed)
        if mark.exists():
            return False
        mark.touch()
        return True


def curve(recipe: Recipe, seed: int, step: int) -> float:
    """val_nll after `step` epochs: falls with the budget, to a level set by the recipe."""
    level = abs(recipe.architecture.dropout - 0.4) + 0.1 * abs(
        np.log10(recipe.optimizer.weight_decay) + 3
    )
    noise = 0.02 * numpy_generator(seed, "noise", step).standard_normal()
    return float(level + 1.5 / step + abs(noise))


def save_weights(model: FakeTraining, path: Path) -> None:
    """In the format of safetensors: an empty header and no tensors."""
    header = json.dumps({"__metadata__": {"seed": str(model.seed)}}).encode()
    write_bytes_atomically(path, len(header).to_bytes(8, "little") + header)
