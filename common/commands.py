"""Write commands that people copy: quoted for the shell, with the options that they need."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

Value = str | Path | bool | Iterable[str] | None


def command(*words: str | Path, program: str = "quorum", **options: Value) -> str:
    """Return a command line of `program`, quoted for the shell.

    An option that is None, False or empty is left out, True is a flag, and several values repeat
    the option: `command("run", "x.yaml", resume=True, runs="my runs")`.
    """
    line = [program, *map(str, words)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            line.append(flag)
        elif value:
            values = [value] if isinstance(value, str | Path) else list(value)
            for each in map(str, values):
                # A value that starts with a dash must be joined to its option by `=`.
                line += [f"{flag}={each}"] if each.startswith("-") else [flag, each]
    return shlex.join(line)


def quoted(word: str | Path) -> str:
    """Return one word, quoted for the shell."""
    return shlex.quote(str(word))


def runs_folder(runs: str | Path | None = None) -> Path:
    """Return the folder of all runs: `runs`, else $QUORUM_RUNS, else ./runs."""
    return Path(runs or os.environ.get("QUORUM_RUNS") or "runs")


def runs_option(folder: Path) -> Path | None:
    """Return `folder`, the folder of all runs, as the option --runs; None for ./runs.

    The option is left out only if a shell with and one without $QUORUM_RUNS mean the same folder.
    """
    here = Path("runs").resolve()
    return None if folder.resolve() == here == runs_folder().resolve() else folder
