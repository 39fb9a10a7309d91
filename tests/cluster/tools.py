"""A temporary environment with the S3 server and the gRPC client that the scenarios use."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("moto[server]", "grpcio")


@contextmanager
def made_tools() -> Iterator[Path | None]:
    """Make the environment and remove it at the end; None where it cannot be installed."""
    uv = Path(sys.executable).with_name("uv")
    folder = Path(tempfile.mkdtemp(prefix="quorum-tools-"))
    folder.chmod(0o755)
    venv = folder / "venv"
    try:
        steps = [
            ["venv", "--python", sys.executable, str(venv)],
            ["pip", "install", "--python", str(venv / "bin" / "python"), *PACKAGES],
        ]
        made = all(subprocess.run([uv, "--quiet", *step]).returncode == 0 for step in steps)
        yield venv if made else None
    finally:
        shutil.rmtree(folder)
