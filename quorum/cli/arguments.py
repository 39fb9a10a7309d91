"""Arguments that several commands take. Imports nothing slow, for `quorum --help`."""

from argparse import ArgumentParser, Namespace
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from quorum.options import RunOptions

BOOLEAN = "store_true"


def add_sweep(parser: ArgumentParser, **settings: Any) -> None:
    """Add SWEEP."""
    text = "a shipped sweep's name, or a YAML file"
    parser.add_argument("sweep", **{"metavar": "SWEEP", "help": text, **settings})


def add_run(parser: ArgumentParser, **settings: Any) -> None:
    """Add RUN."""
    text = "a run's name, or its folder"
    parser.add_argument("run", **{"metavar": "RUN", "help": text, **settings})


def add_options(
    parser: ArgumentParser,
    options: type[RunOptions] = RunOptions,
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> None:
    """Add the fields of an options class as options, those that all commands share last."""
    shared = [field.name for field in fields(RunOptions)]
    for field in sorted(fields(options), key=lambda field: field.name in shared):
        settings: dict[str, Any] = dict(field.metadata)
        del settings["python"]
        flag = settings.pop("flag", f"--{field.name.replace('_', '-')}")
        if flag is None or field.name in without or (only is not None and field.name not in only):
            continue
        # argparse would append to the default itself.
        default = None if settings.get("action") == "append" else field.default
        flags = (flag,) if isinstance(flag, str) else flag
        parser.add_argument(*flags, dest=field.name, default=default, **settings)


def add_dry_run(parser: ArgumentParser, help: str) -> None:
    """Add --dry-run."""
    parser.add_argument("--dry-run", action=BOOLEAN, help=help)


def values_of(arguments: Namespace, options: type[RunOptions] = RunOptions) -> dict[str, Any]:
    """Return the given values of an options class, as keyword arguments of a public function."""
    given = vars(arguments)
    names = [field.name for field in fields(options)]
    return {name: given[name] for name in names if given.get(name) is not None}
