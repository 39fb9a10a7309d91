"""The exceptions that Quorum raises for problems that users can fix.

    QuorumError
    ├── SpecError           an impossible sweep, space or recipe (also a ValueError)
    │   ├── TooShortError   a time budget too short for anything (search/timetable/plan.py)
    │   └── MissingWeightsError  initial weights that this machine lacks now
    ├── DataError           unusable images or labels (also a ValueError)
    ├── PoolError           unusable predictions (also a ValueError)
    ├── RunError            a missing, damaged, locked or mismatched run (also a RuntimeError)
    └── DivergedError       a training whose loss is not finite (also an ArithmeticError)

The command line prints such an error as one line and exits with code 2. Any other exception is a
defect in Quorum and keeps its traceback.
"""


class QuorumError(Exception):
    """Base class of errors that users can fix."""


class SpecError(QuorumError, ValueError):
    """A sweep, search space or recipe has an unknown key or an impossible value."""


class MissingWeightsError(SpecError):
    """Initial weights are missing here and now; another machine or a later try may have them."""


class DataError(QuorumError, ValueError):
    """A data set is missing, empty, unreadable or too small for its splits."""


class PoolError(QuorumError, ValueError):
    """Predictions have wrong shapes, sums or labels, or non-finite values."""


class RunError(QuorumError, RuntimeError):
    """A run folder is missing, damaged, in use, or belongs to another split."""


class DivergedError(QuorumError, ArithmeticError):
    """The loss or the weights of a training are not finite."""
