"""Part `time94` of gpu.py: airbench94's recipes in our engine beside airbench's own script.

Published, on an A100 of 400 W (github.com/KellerJordan/cifar10-airbench): airbench94_muon 2.59 s
and 94.01% (n = 200); airbench94 3.83 s, compiled 3.09 s, 94.01% (n = 1,000); a later variant
claims 1.99 s.

As in airbench, training sees all 50,000 images. Unlike there, nothing is scored on test but the
network after the last epoch. Seconds go from the images in memory to the predictions for test:
building the network, training, recalibrating batch normalization, and six views of every test
image. Scores after earlier epochs are left out, because airbench leaves out its own. The script's
seconds are those it prints: its whitening, its training and its predictions.

Ours differ from the published recipes in the head (a mean over the last map and an affine layer,
where airbench has a maximum and a scaled matrix; beside Muon, its rate is a hundred times the
published one, see docs/log.md), in batch normalization (with scales), in whole epochs, and in
rates that start at 0 and fall to 0.
"""

import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_session import Column, Report, Session, interval, train_on_all

from common.errors import DivergedError
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Recipe
from trainables.training.loop import Training

GOAL = 1.2
"""Largest ratio of our seconds to the script's on the same card."""
SHAPE: dict[str, Any] = {
    "width": 64, "middle": 4, "translate": 2, "alternating_flip": True, "label_smoothing": 0.2,
    "tta": "mirror_translate",
}  # fmt: skip
RECIPES = {
    "airbench94": Recipe(
        **SHAPE, epochs=10, batch_size=1024, lr_per_1024=1.5, momentum=0.85, weight_decay=1.33e-3,
        bias_lr_scale=64.0, lookahead=5, lookahead_decay=0.95, ema_decay=0.0, warmup_epochs=2.3,
        cooldown_fraction=0.77,
    ),
    "airbench94_muon": Recipe(
        **SHAPE, epochs=8, batch_size=2000, optimizer="muon_sgd", muon_sgd_lr=0.24, momentum=0.6,
        lr_per_1024=1.0, bias_lr_scale=54.0, weight_decay=0.0, ema_decay=0.0, warmup_epochs=0.0,
        cooldown_fraction=1.0,
    ),
}  # fmt: skip
TINY: dict[str, Any] = {"width": 4, "middle": 2, "batch_size": 128, "epochs": 1}
COLUMNS = {
    "run": Column("run"),
    "code": Column("code"),
    "recipe": Column("recipe"),
    "seconds": Column("seconds", ".2f"),
    "build_seconds": Column("building", ".2f"),
    "train_seconds": Column("training", ".2f"),
    "predict_seconds": Column("predictions", ".2f"),
    "accuracy": Column("test accuracy", ".2%"),
}


def run_time94(session: Session) -> None:
    """Train every recipe and run the script in turns until the time is over; print ratios."""
    report = Report(session, "time94", COLUMNS)
    images = session.images()
    splits = train_on_all(images)
    recipes = {
        name: recipe.with_values(**session.pick({}, TINY)) for name, recipe in RECIPES.items()
    }
    if not session.tiny:
        for recipe in recipes.values():  # loads kernels and chooses algorithms
            short = recipe.with_values(epochs=1, warmup_epochs=0.0)
            trained(session, short, images, splits, seed=0)
    with ExitStack() as stack:
        script = None
        if session.airbench is not None:
            script = stack.enter_context(running(session.airbench, images, splits))
        for run in range(session.pick(20, 2)):
            started = time.time()
            for name, recipe in recipes.items():
                try:
                    values = trained(session, recipe, images, splits, seed=run + 1)
                except DivergedError as error:
                    report.note(f"{name}, seed {run + 1}: {error}")
                else:
                    report.row(run=run, code="ours", recipe=name, **values)
            if script is not None:
                name = session.airbench.stem if session.airbench else ""
                try:
                    values = script.next_run(timeout=session.seconds_left)
                except RuntimeError as error:
                    report.note(f"{name} ended: {error}")
                    script = None
                else:
                    report.row(run=run, code="airbench", recipe=name, **values)
            if session.seconds_left < 1.5 * (time.time() - started):
                break
    summarize(report, test_images=len(splits.test))


def trained(
    session: Session, recipe: Recipe, images: ImageSet, splits: Splits, *, seed: int
) -> dict[str, float]:
    """Train once; return seconds and the accuracy on test."""
    session.wait()
    started = time.perf_counter()
    training = Training(
        recipe,
        rungs=(recipe.schedule.epochs,),
        seed=seed,
        numerics=session.numerics(),
        images=images,
        splits=splits,
    )
    session.wait()
    built = time.perf_counter()
    steps = scores = score = 0.0
    for report in training.reports():
        scores += score
        trained_images = training.batches * min(recipe.optimizer.batch_size, len(splits.train))
        epoch = trained_images / report.images_per_second
        score = report.seconds - epoch
        steps += epoch
    ended = time.perf_counter()
    answers = training.log_probs(splits.test).argmax(axis=1)
    predicted = time.perf_counter()
    return {
        "seconds": predicted - started - scores,
        "build_seconds": built - started,
        "train_seconds": steps,
        "predict_seconds": score + predicted - ended,
        "accuracy": float((answers == images.labels[splits.test]).mean()),
    }


def summarize(report: Report, *, test_images: int) -> None:
    """Print means, and the paired ratio of our seconds to the script's."""
    by_run: dict[str, dict[int, dict[str, Any]]] = {}
    for row in report.rows:
        by_run.setdefault(f"{row['code']} {row['recipe']}", {})[row["run"]] = row
    for name, runs in by_run.items():
        accuracy, half = interval([row["accuracy"] for row in runs.values()])
        seconds = statistics.median(row["seconds"] for row in runs.values())
        report.note(
            f"{name}: median {seconds:.2f} s, mean accuracy {accuracy:.2%} "
            f"(95% interval ±{100 * half:.2f} points over runs), n = {len(runs)}, "
            f"{test_images:,} test images"
        )
    scripts = [name for name in by_run if name.startswith("airbench ")]
    for theirs in scripts:
        for ours in (name for name in by_run if name.startswith("ours ")):
            both = by_run[ours].keys() & by_run[theirs].keys()
            ratios = [by_run[ours][n]["seconds"] / by_run[theirs][n]["seconds"] for n in both]
            ratio, half = interval(ratios)
            report.note(
                f"{ours} / {theirs}: {ratio:.2f} times the seconds (95% interval ±{half:.2f}, "
                f"n = {len(ratios)} pairs); the goal is {GOAL}"
            )
    if not scripts:
        report.note("published: airbench94_muon 2.59 s, airbench94 3.83 s (compiled 3.09), A100")


class OtherScript:
    """One of airbench's scripts in a process that stands still between its runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """`process` prints a table with a row `eval` at the end of each run."""
        self._process = process
        self._columns: list[str] = []
        self._run = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def next_run(self, *, timeout: float) -> dict[str, float]:
        """Let the script finish a run; return its seconds and accuracy.

        It is stopped by a signal when it prints the row. It then loads the images for its next
        run, before its clock starts, so the pause is in none of its figures.

        Raises:
            RuntimeError: the script ended, or the time is over; the message has its last line.
        """
        end, last = time.time() + timeout, ""
        self._process.send_signal(signal.SIGCONT)
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.time()))
            except queue.Empty:
                raise RuntimeError(f"no run within {timeout:.0f} s; last line: {last}") from None
            if line is None:
                raise RuntimeError(f"exit code {self._process.wait()}; last line: {last}")
            last = line.strip() or last
            values = self._values(line)
            if values is not None:
                self._process.send_signal(signal.SIGSTOP)
                return values

    def close(self) -> None:
        """End the script."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def _values(self, line: str) -> dict[str, float] | None:
        """Return the figures in the last row of a run; None for other lines and the warm-up."""
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if "epoch" in cells:
            self._columns = cells
        if len(cells) != len(self._columns):
            return None
        row = dict(zip(self._columns, cells, strict=True))
        self._run = row["run"] or self._run  # printed in a run's first row only
        if row["epoch"] != "eval" or not self._run.isdigit():
            return None
        seconds = next(value for name, value in row.items() if "time" in name)
        return {"seconds": float(seconds), "accuracy": float(row["tta_val_acc"])}


@contextmanager
def running(script: Path, images: ImageSet, splits: Splits) -> Iterator[OtherScript]:
    """Start the script in a folder with our images, so that it downloads nothing."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cifar10").mkdir()
        for name, rows in (("train", splits.train), ("test", splits.test)):
            content = {
                "images": torch.from_numpy(images.images[rows]),
                "labels": torch.from_numpy(images.labels[rows]),
                "classes": list(images.class_names),
            }
            torch.save(content, Path(folder) / "cifar10" / f"{name}.pt")
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        other = OtherScript(process)
        try:
            yield other
        finally:
            other.close()
