"""The origin of a result: the machine, and the version of the training code."""

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from common.cpu_runtime import usable_cores


def machine_description() -> dict[str, Any]:
    """Describe the machine that results depend on: processor, cores, memory and versions."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "cpu_flags": sorted(cpu_flags() & _FLAGS_OF_INTEREST),
    }


def cpu_flags(cpuinfo: Iterable[str] | None = None) -> frozenset[str]:
    """Return the processor's feature flags as Linux names them; empty on other systems.

    `cpuinfo` are the lines of /proc/cpuinfo, by default this machine's.
    """
    for line in _cpuinfo() if cpuinfo is None else cpuinfo:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):  # x86, ARM
            return frozenset(value.split())
    return frozenset()


def code_version() -> str:
    """Return the distribution's version and a digest of the code that trains."""
    try:
        number = version("quorum-ensembles")
    except PackageNotFoundError:
        number = "0"
    return f"{number}+{source_digest(Path(__file__).parent.parent)[:12]}"


TRAINING_PACKAGES = ("common", "journal", "trainables")
"""The packages whose code a training imports."""


def source_digest(root: Path) -> str:
    """Return the SHA-256 of every Python file of `TRAINING_PACKAGES` below `root`, as hex.

    Sub-packages are included. So is each file's path: moved code has another digest.
    """
    digest = hashlib.sha256()
    for package in TRAINING_PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


_FLAGS_OF_INTEREST = {
    *("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_int8"),
    *("asimddp", "bf16", "i8mm", "sve"),
}
"""Instruction sets of x86 and ARM that decide the speed and the rounding of kernels."""


def _processor() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
