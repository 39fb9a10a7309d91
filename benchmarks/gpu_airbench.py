"""Run one of airbench's scripts beside ours on the same card, a run at a time."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits


@contextmanager
def running(script: Path, images: ImageSet, splits: Splits) -> Iterator["OtherScript"]:
    """Start the script in a folder with our images, so that it downloads nothing.

    It runs until the end of its first `next_run`, and is then paused.
    """
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
        other = OtherScript(script.stem, process)
        try:
            yield other
        finally:
            other.close()


class OtherScript:
    """One of airbench's scripts, in a process that is paused between its runs."""

    def __init__(self, name: str, process: "subprocess.Popen[str]") -> None:
        """`process` prints a table with a row `eval` at the end of each run."""
        self.name = name
        self._process = process
        self._columns: list[str] = []
        self._run = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def next_run(self, *, timeout: float) -> dict[str, float]:
        """Let the script finish a run; return its seconds and accuracy.

        SIGSTOP pauses it when it prints the row. Resumed, it first loads the images for its next
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
        """End the script, if it has not ended."""
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
