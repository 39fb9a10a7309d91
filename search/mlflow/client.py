"""Import MLflow with our settings, and show its addresses and errors without passwords."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

# The mirror retries by itself and reports a failure in one line of its own.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def load_mlflow() -> Any:
    """Import MLflow on first use, with telemetry, pickles and its own log messages off.

    It takes seconds to import and reads its settings from the environment, so it is imported
    here, in the mirror's thread, once they are set.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    # Deprecations inside MLflow do not concern our users.
    warnings.filterwarnings("ignore", module=r"mlflow\.")
    import mlflow

    return mlflow


@contextmanager
def without_stray_folder(uri: str) -> Iterator[None]:
    """Remove an empty folder that MLflow makes within the block for the database at `uri`.

    MLflow makes the parent folder of a SQLite file before it decodes the address, so that a quoted
    character gives a second folder. One with anything in it stays.
    """
    file = uri.removeprefix("sqlite:///")
    folder = Path(file).parent
    new = [each for each in (folder, *folder.parents) if file != uri and not each.exists()]
    try:
        yield
    finally:
        for each in new:
            with suppress(OSError):
                each.rmdir()


def without_password(uri: str) -> str:
    """Return a tracking URI without the user and password before its host."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def error_summary(error: BaseException) -> str:
    """Return an error's kind and its first line, without passwords."""
    lines = str(error).strip().splitlines()
    line = re.sub(r"//[^/@\s]+@", "//", lines[0])[:200] if lines else ""
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
