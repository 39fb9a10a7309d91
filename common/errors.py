"""The exceptions that Quorum raises for reasons a user can mend.

    QuorumError
    ├── SpecError       a sweep, space or recipe that cannot be (also a ValueError)
    │   └── TooShortError   a time budget without room for anything (in search/timetable/plan.py)
    ├── DataError       images or labels that cannot be used (also a ValueError)
    ├── PoolError       predictions that cannot be pooled (also a ValueError)
    ├── RunError        a run folder that is missing, damaged, locked or of another split
    └── DivergedError   a training whose loss is not finite (also an ArithmeticError)

The command line prints such an error as one line and exits with 2. Anything else is a
defect of ours and keeps its traceback.
"""


class QuorumError(Exception):
    """Something that the person who started the command can mend."""


class SpecError(QuorumError, ValueError):
    """A sweep, search space or recipe with an unknown key or an impossible value."""


class DataError(QuorumError, ValueError):
    """A data set that is missing, empty, unreadable or too small for its splits."""


class PoolError(QuorumError, ValueError):
    """Predictions with wrong shapes, sums, labels or non-finite values."""


class RunError(QuorumError, RuntimeError):
    """A run folder that is missing, damaged, in use, or made from another split."""


class DivergedError(QuorumError, ArithmeticError):
    """A training whose loss or weights are not finite."""
