"""Where runs live: the folder of all runs, and how a command names one of them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from common.errors import RunError
from trainables.records import RunFolder


class Runs:
    """The folder of all runs. Creating the object touches nothing."""

    def __init__(self, root: str | Path | None = None) -> None:
        """`root` None is $QUORUM_RUNS, else ./runs."""
        self.root = Path(root or os.environ.get("QUORUM_RUNS") or "runs")

    def __iter__(self) -> Iterator[RunFolder]:
        """Every run that is there, in order of name."""
        for path in sorted(self.root.glob("*/sweep.yaml")):
            yield RunFolder(path.parent)

    def existing(self, run: str) -> RunFolder:
        """A run given by its path or by its name here.

        Raises:
            RunError: there is no such run.
        """
        path = Path(run)
        return RunFolder(path if (path / "sweep.yaml").exists() else self.root / run).require()

    def new(
        self, name: str | None, *, default: str, resume: bool = False, go_on: bool = False
    ) -> RunFolder:
        """The folder of a run to start, or with `resume` (or `go_on`) of one to go on with.

        Without a `name` it is `default`, or the first of default-2, default-3 … that is free.

        Raises:
            RunError: the name is taken, or would leave the folder of all runs.
        """
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise RunError(f"--name {name!r}: use letters, digits, '.', '_' and '-' only")
        folder = RunFolder(self.root / (name or default))
        if resume:
            return folder.require()
        if not folder.root.exists() or (go_on and not folder.report.exists()):
            return folder
        if name is not None:
            raise RunError(
                f"{folder.root} exists; go on with it by --resume, or choose another --name"
            )
        number = 2
        while (self.root / f"{default}-{number}").exists():
            number += 1
        return RunFolder(self.root / f"{default}-{number}")

    def model(self, model: str) -> Path:
        """A model given as a file, a student's folder, or a run's folder or name.

        Raises:
            RunError: there is none.
        """
        path = Path(model)
        if path.is_file():
            return path
        for folder in (path, path / "student", self.root / model / "student"):
            if (folder / "card.json").is_file():
                return folder
        raise RunError(f"no model at {model!r}: give an .onnx file, or a run that was distilled")
