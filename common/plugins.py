"""The user's own code, named by import path: `package.module:attribute`.

Modules are looked for where Python looks for any, and last of all in the folder that the
command was started in. Last, because such a folder may hold an `analysis` or a `search` of
its own, which must not take the place of ours.
"""

import importlib
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from common.errors import SpecError

IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
"""`package.module:attribute`, either side with any number of dots."""


def load_object(path: str, *, where: str) -> object:
    """What stands at `path`, e.g. the function `build` of mynet.py for `mynet:build`.

    The current folder is appended to sys.path first. `where` names the place for
    messages, e.g. "recipe: model".

    Raises:
        SpecError: not an import path, no such module, a module that fails when it is
            imported, or one without the attribute.
    """
    if not is_import_path(path):
        raise SpecError(f"{where}: {path!r} is not an import path; write package.module:attribute")
    use_folder(Path.cwd())
    name, _, attributes = path.partition(":")
    found: object = _module(name, where=where)
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise SpecError(
                f"{where}: {path!r} does not exist: {_described(found)} has no {attribute!r}"
            )
        found = getattr(found, attribute)
    return found


def is_import_path(text: str) -> bool:
    """Whether `text` reads like `package.module:attribute`; nothing is imported."""
    return IMPORT_PATH.fullmatch(text) is not None


def use_folder(folder: str | Path) -> None:
    """Let modules be imported from `folder` too, after all other places."""
    place = str(Path(folder).absolute())
    if place not in sys.path and Path(place).is_dir():
        sys.path.append(place)


def _module(name: str, *, where: str) -> ModuleType:
    importlib.invalidate_caches()  # of a folder that was listed before the file was written
    try:
        return importlib.import_module(name)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise SpecError(f"{where}: {_not_found(name)}") from None
        raise SpecError(f"{where}: {name!r} cannot be imported: {blame(error)}") from error


def _not_found(name: str) -> str:
    first = name.partition(".")[0]
    if first in sys.modules:
        held = _described(sys.modules[first])
        return f"no module {name!r}: {first!r} is {held}; rename yours"
    return (
        f"no module {name!r} among the installed packages or in {Path.cwd()}; "
        "start the command in the folder that holds it"
    )


def blame(error: Exception) -> str:
    """An error of the user's code in one line, with the place that raised it."""
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith("<")]
    if isinstance(error, SyntaxError) or not theirs:
        return what  # its text names file and line
    return f"{what} ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})"


def _described(found: object) -> str:
    if isinstance(found, ModuleType):
        return f"the module {found.__name__!r} ({found.__file__ or 'no file'})"
    return f"{getattr(found, '__qualname__', type(found).__name__)!r}"
