"""The folder of all runs, and the names of runs and models in it."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from common.commands import command, runs_folder, runs_option
from common.errors import RunError
from trainables.records import RunFolder


class Runs:
    """The folder of all runs. Creating the object reads and writes nothing."""

    def __init__(self, root: str | Path | None = None) -> None:
        """`root` defaults to $QUORUM_RUNS, then to ./runs."""
        self.root = runs_folder(root)

    def __iter__(self) -> Iterator[RunFolder]:
        """Yield every run, by name."""
        for path in sorted(self.root.glob("*/sweep.yaml")):
            yield RunFolder(path.parent)

    def existing(self, run: str) -> RunFolder:
        """Return the run with this path, or with this name in the folder.

        Raises:
            RunError: there is no such run.
        """
        for path in (Path(run), self.root / run):
            if (path / "sweep.yaml").is_file():
                return RunFolder(path)
        nearest = difflib.get_close_matches(run, [folder.name for folder in self], n=1)
        runs = command("status", runs=runs_option(self.root))
        advice = f"did you mean {nearest[0]!r}?" if nearest else f"see `{runs}` for all runs"
        raise RunError(f"no run {run!r} in {self.root}; {advice}")

    def new(
        self,
        name: str | None,
        *,
        default: str,
        resume: bool = False,
        resume_unfinished: bool = False,
    ) -> RunFolder:
        """Return the folder of a run to start, or to resume.

        Without `name`, the name is `default`, or the first free one of default-2, default-3 …
        `resume` requires that the run exists; `resume_unfinished` resumes it if it exists
        without a report.

        Raises:
            RunError: the name is taken, or would lie outside the folder of all runs.
        """
        allowed = r"[^/\\\0]+" if resume else r"[A-Za-z0-9][A-Za-z0-9._-]*"
        if name is not None and (not re.fullmatch(allowed, name) or name in (".", "..")):
            raise RunError(f"--name {name!r}: use letters, digits, '.', '_' and '-' only")
        folder = RunFolder(self.root / (name or default))
        if resume:
            return folder.require()
        if not folder.root.exists() or (resume_unfinished and not folder.report.exists()):
            return folder
        if name is not None:
            raise RunError(
                f"{folder.root} exists; continue it with --resume, or choose another --name"
            )
        number = 2
        while (self.root / f"{default}-{number}").exists():
            number += 1
        return RunFolder(self.root / f"{default}-{number}")

    def model(self, model: str) -> Path:
        """Return a model, given as a file, a student's folder, or a run's folder or name.

        Raises:
            RunError: there is no such model.
        """
        path = Path(model)
        if path.is_file():
            return path
        for folder in (path, path / "student", self.root / model / "student"):
            if (folder / "card.json").is_file():
                return folder
        raise RunError(f"no model at {model!r}: give an .onnx file or a distilled run")
