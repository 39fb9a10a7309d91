"""The arms of `orchestration.py`, each run in a process of its own: ARM TRIALS EPOCHS.

Prints the rate per second of trials, or of reports if there is one trial, and the CPU of the driver
for each of them.
"""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SPACE: dict[str, dict[str, Any]] = {
    "dropout": {"type": "float", "low": 0.0, "high": 0.9},
    "weight_decay": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "label_smoothing": {"type": "float", "low": 0.0, "high": 0.2},
    "width": {"type": "int", "low": 8, "high": 64, "step": 8},
}
AT_ONCE = 2
METRICS = ("train_loss", "val_accuracy", "temperature", "lr")
"""Metrics beside val_nll that every arm reports."""


def run_arm(arm: str, *, trials: int, epochs: int) -> dict[str, float]:
    """Run one arm in this process; return its rate per second and its CPU."""
    ends: list[tuple[float, float]] = []

    def tick() -> None:
        ends.append((time.perf_counter(), time.process_time()))

    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        ours = arm.startswith("quorum")
        run = run_quorum if ours else run_tune
        run(Path(folder), arm, trials, epochs, tick)
    (began, cpu), (ended, cpu_ended) = ends[0], ends[-1]
    count = len(ends) - 1
    return {"rate": count / (ended - began), "cpu_ms": 1e3 * (cpu_ended - cpu) / count}


def draw(trial: Any) -> None:
    """Draw the values of SPACE for OptunaSearch, which pickles this function."""
    trial.suggest_float("dropout", 0.0, 0.9)
    trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True)
    trial.suggest_float("label_smoothing", 0.0, 0.2)
    trial.suggest_int("width", 8, 64, step=8)


def run_tune(folder: Path, arm: str, trials: int, epochs: int, tick: Callable[[], None]) -> None:
    """Run plain Tune with OptunaSearch."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    lean = arm == "tune-lean"
    if lean:
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    import optuna
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    class NoOp(tune.Trainable):
        """Reports metrics, and learns nothing."""

        def setup(self, config: dict[str, Any]) -> None:
            self._config, self._step = config, 0

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            self._step += 1
            done = self._step >= epochs
            values = dict.fromkeys(METRICS, 0.5)
            result = {**values, "val_nll": abs(self._config["dropout"] - 0.4), "done": done}
            return {**result, "should_checkpoint": True} if lean and done else result

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            Path(checkpoint_dir, "state.json").write_text("{}")

        def load_checkpoint(self, checkpoint: Any) -> None:
            """Do nothing."""

    class Ticks(tune.Callback):
        """Notes the time of each report or of each trial's end."""

        def on_trial_result(self, *_: Any, **__: Any) -> None:
            if trials == 1:
                tick()

        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            if trials > 1:
                tick()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    callbacks: list[Any] = [Ticks()]
    if arm == "tune-mlflow":
        uri = f"sqlite:///{folder}/mlflow.db"
        callbacks.append(MLflowLoggerCallback(tracking_uri=uri, experiment_name="stock"))
    ray.init(
        address="local", include_dashboard=False, num_cpus=AT_ONCE, log_to_driver=False,
        object_store_memory=100_000_000, logging_level=logging.ERROR,
    )  # fmt: skip
    tune.Tuner(
        NoOp,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(draw, metric="val_nll", mode="min", seed=0),
            num_samples=trials, max_concurrent_trials=AT_ONCE, reuse_actors=arm != "tune",
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0, callbacks=callbacks),
    ).fit()  # fmt: skip
    ray.shutdown()


class NoOpTrainer:
    """A trainer (`trainables.trainer.Trainer`) that learns nothing."""

    params = 1
    halvings = ()

    def __init__(self, recipe: Any, *, rungs: Sequence[int], **_: Any) -> None:
        """Keep what the reports need."""
        self._dropout, self._last = recipe.architecture.dropout, rungs[-1]

    def reports(self) -> Any:
        """Yield a report per epoch."""
        from trainables.trainer import EpochReport

        for step in range(1, self._last + 1):
            yield EpochReport(
                step=step, epoch=step, phase="trunk", rung=step if step == self._last else None,
                train_loss=0.5, val_nll=abs(self._dropout - 0.4), val_accuracy=0.5,
                temperature=1.0, lr=0.1, seconds=0.001, images_per_second=1.0,
                peak_memory_bytes=1,
            )  # fmt: skip

    def log_probs(self, indices: Any) -> Any:
        """Return two equal probabilities per image."""
        import numpy as np

        return np.full((len(indices), 2), np.log(0.5), dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write a file."""
        folder.mkdir(parents=True)
        (folder / "state.json").write_text("{}")

    def load(self, folder: Path) -> None:
        """Do nothing."""

    def save_weights(self, path: Path) -> None:
        """Write a file without tensors."""
        path.write_bytes((2).to_bytes(8, "little") + b"{}")


def run_quorum(folder: Path, arm: str, trials: int, epochs: int, tick: Callable[[], None]) -> None:
    """Run our sweep."""
    import numpy as np

    from journal.emitter import Emitter
    from journal.events import EpochEnded, Event, RunStarted, TrialEnded
    from journal.journal import Journal
    from search.mlflow.mirror import MlflowMirror
    from search.space.sweep_files import spec_from_mapping
    from search.tune.session import ray_session
    from search.tune.sweep import run_sweep
    from trainables.data.image_set import ImageSet
    from trainables.data.splits import make_splits
    from trainables.recipe import Numerics
    from trainables.records import RunFolder

    kind = EpochEnded if trials == 1 else TrialEnded

    def observe(event: Event) -> None:
        if isinstance(event, kind):
            tick()

    spec = spec_from_mapping(
        {
            "name": "orchestration", "trials": trials, "rungs": [epochs], "concurrent": AT_ONCE,
            "startup_trials": 10, "splits": {"counts": [30, 20, 20]}, "space": SPACE,
        }
    )  # fmt: skip
    images = ImageSet(
        name="noise",
        images=np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8),
        labels=np.arange(100, dtype=np.int64) % 2,
        class_names=("even", "odd"),
    )
    run = RunFolder(folder / "run")
    run.root.mkdir()
    observers: list[Callable[[Event], None]] = [observe]
    uri = f"sqlite:///{folder}/mlflow.db"
    mirror = MlflowMirror(run, uri) if arm == "quorum-mlflow" else None
    if mirror is not None:
        observers.append(mirror.handle)
    with ray_session(cpus=AT_ONCE, folder=run.root), Journal(run.journal) as journal:
        emitter = Emitter(journal, observers)
        emitter.emit(RunStarted(run="orchestration", spec=spec.to_mapping()))
        run_sweep(
            spec, run, emitter, images=images, splits=make_splits(images, spec.splits),
            numerics=Numerics(), trainer=NoOpTrainer,
        )  # fmt: skip
    if mirror is not None:
        mirror.close()


if __name__ == "__main__":
    print(json.dumps(run_arm(sys.argv[1], trials=int(sys.argv[2]), epochs=int(sys.argv[3]))))
