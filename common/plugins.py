"""Load user code by import path: `package.module:attribute`.

Modules are searched on Python's path, then in the folder in which the command was started. That
folder comes last, because its packages may be named `analysis` or `search` like Quorum's.
"""

import importlib
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from common.errors import SpecError

IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
"""Matches `package.module:attribute`, with any number of dots on either side."""


def load_object(path: str, *, where: str) -> object:
    """Return the object at an import path, e.g. the function `build` of mynet.py for `mynet:build`.

    The current folder is appended to sys.path. `where` starts error messages, e.g. "recipe: model".

    Raises:
        SpecError: `path` is not an import path, the module does not exist or cannot be
            imported, or it lacks the attribute.
    """
    if not is_import_path(path):
        raise SpecError(f"{where}: {path!r} is not an import path; write package.module:attribute")
    add_import_folder(Path.cwd())
    name, _, attributes = path.partition(":")
    value: object = _module(name, where=where)
    for attribute in attributes.split("."):
        if not hasattr(value, attribute):
            raise SpecError(
                f"{where}: {path!r} does not exist: {_describe(value)} has no {attribute!r}"
            )
        value = getattr(value, attribute)
    return value


def is_import_path(text: str) -> bool:
    """Return whether `text` has the form `package.module:attribute`; nothing is imported."""
    return IMPORT_PATH.fullmatch(text) is not None


def add_import_folder(folder: str | Path) -> None:
    """Append `folder` to the places from which modules are imported."""
    place = str(Path(folder).absolute())
    if place not in sys.path and Path(place).is_dir():
        sys.path.append(place)


def _module(name: str, *, where: str) -> ModuleType:
    importlib.invalidate_caches()  # the folder may have been listed before the file was written
    try:
        return importlib.import_module(name)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise SpecError(f"{where}: {_not_found(name)}") from None
        raise SpecError(
            f"{where}: {name!r} cannot be imported: {describe_user_error(error)}"
        ) from error


def _not_found(name: str) -> str:
    first = name.partition(".")[0]
    if first in sys.modules:
        taken = _describe(sys.modules[first])
        return f"no module {name!r}: {first!r} is {taken}; rename yours"
    return (
        f"no module {name!r} among the installed packages or in {Path.cwd()}; "
        "start the command in the folder that holds it"
    )


def describe_user_error(error: Exception) -> str:
    """Return an error of user code in one line, with the file and line that raised it."""
    text = " ".join(str(error).split())
    summary = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    in_files = [frame for frame in frames if not frame.filename.startswith("<")]
    if isinstance(error, SyntaxError) or not in_files:
        return summary  # the text of a SyntaxError names file and line
    return f"{summary} ({Path(in_files[-1].filename).name}, line {in_files[-1].lineno})"


def _describe(value: object) -> str:
    if isinstance(value, ModuleType):
        return f"the module {value.__name__!r} ({value.__file__ or 'no file'})"
    return f"{getattr(value, '__qualname__', type(value).__name__)!r}"
