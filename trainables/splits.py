"""Who is in train, val, holdout and test."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSpec:
    """Who is in train, val, holdout and test."""

    seed: int = 0
    test: float = 0.20
    """Fraction for test, where the data set has no test split of its own."""
    holdout: float = 0.10
    """Fraction of the rest."""
    val: float = 0.05
    """Fraction of the rest."""
    floor: int = 400
    """Fewest examples in val and in holdout, for small sets."""
    counts: tuple[int, int, int] | None = None
    """Exact sizes of train, val and holdout; all other examples are test."""
