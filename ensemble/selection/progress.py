"""Report the progress of a decision."""

from collections.abc import Callable

Progress = Callable[[str, float], object]
"""Called with a description of the current step and the share of it that is done, from 0 to 1."""


def silent(stage: str, share: float) -> None:
    """Report nothing."""
