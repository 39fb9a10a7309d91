"""Set this process's environment before the libraries that read it are loaded."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from common.cpu_runtime import share_arena, wait_passively
from common.telemetry import disable_telemetry

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def prepare_process() -> None:
    """Turn telemetry off, let idle OpenMP threads sleep, and share one memory arena.

    OpenMP reads its settings when torch is loaded, so this must come first.
    """
    disable_telemetry()
    wait_passively()
    share_arena()


def prepares_process(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Prepare the process before `function` runs."""

    @functools.wraps(function)
    def call(*args: Arguments.args, **values: Arguments.kwargs) -> Result:
        prepare_process()
        return function(*args, **values)

    return call
