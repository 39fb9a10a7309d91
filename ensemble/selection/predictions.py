"""Predictions of a pool's members: an array in memory, or read from files member by member.

Axes: M members, N examples, K classes. Everything in this package asks for one member's
log-probabilities at a time, so a pool may be far larger than memory.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from common.statistics.metrics import FLOOR

KEPT_BYTES = 1 << 27
"""Bytes of members' arrays that stay in memory after their first use: 128 MiB."""


class Predictions(Protocol):
    """Log-probabilities [M, N, K], of which one member's [N, K] is taken at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """M, N and K."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, member: int, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...


class RecentArrays:
    """The most recently used arrays, up to a number of bytes in all."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        """Hold nothing yet."""
        self._arrays: OrderedDict[Hashable, np.ndarray[Any, Any]] = OrderedDict()
        self._most_bytes, self._bytes = most_bytes, 0

    def get(self, key: Hashable, make: Callable[[], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """Return the array of a key, computed if it is not held; it must not be changed."""
        if key in self._arrays:
            self._arrays.move_to_end(key)
            return self._arrays[key]
        array = make()
        self._arrays[key] = array
        self._bytes += array.nbytes
        while self._bytes > self._most_bytes:
            self._bytes -= self._arrays.popitem(last=False)[1].nbytes
        return array


class StoredPredictions:
    """Members' log-probabilities that `read` gets from files, one member at a time."""

    def __init__(
        self,
        read: Callable[[int], Float32[np.ndarray, "N K"]],
        shape: tuple[int, int, int],
        prob_true: Float32[np.ndarray, "N M"],
    ) -> None:
        """Take over `prob_true`, the true classes' probabilities with the metrics' floor."""
        self._read, self.shape, self.prob_true = read, shape, prob_true
        self._recent = RecentArrays()

    def __len__(self) -> int:
        """Return M."""
        return self.shape[0]

    def __getitem__(self, member: int, /) -> Float32[np.ndarray, "N K"]:
        """Return a member's log-probabilities, which must not be changed."""
        if not 0 <= member < len(self):
            raise IndexError(f"there are {len(self)} members, and no member {member}")
        return self._recent.get(member, lambda: self._read(member))

    def __iter__(self) -> Iterator[Float32[np.ndarray, "N K"]]:
        """Yield every member's log-probabilities, and keep none of them."""
        return map(self._read, range(len(self)))


class SmoothedVotes:
    """Predictions where some members' are votes, each smoothed by that member's error rate."""

    def __init__(
        self,
        others: Predictions,
        voted: Mapping[int, Int[np.ndarray, " N"]],
        errors: Mapping[int, float],
    ) -> None:
        """Smooth the classes `voted` for by `errors`; other members' predictions stay."""
        self.others, self.voted = others, voted
        self._errors = errors

    @property
    def shape(self) -> tuple[int, ...]:
        """M, N and K."""
        return self.others.shape

    def __len__(self) -> int:
        """Return M."""
        return len(self.others)

    def __getitem__(self, member: int, /) -> Float32[np.ndarray, "N K"]:
        """Return a member's log-probabilities."""
        if member not in self.voted:
            return np.asarray(self.others[member])
        _, examples, classes = self.shape
        right, wrong = self._log_probs(member)
        log_probs = np.full((examples, classes), wrong, np.float32)
        log_probs[np.arange(examples), self.voted[member]] = right
        return log_probs

    def __iter__(self) -> Iterator[Float32[np.ndarray, "N K"]]:
        """Yield every member's log-probabilities."""
        if len(self.voted) < len(self):
            for member, log_probs in enumerate(self.others):
                yield self[member] if member in self.voted else log_probs
        else:
            yield from (self[member] for member in range(len(self)))

    def prob_true(
        self, labels: Int64[np.ndarray, " N"], members: Sequence[int]
    ) -> Float[np.ndarray, "N S"]:
        """Return the true classes' probabilities under these members."""
        columns = np.array(prob_true(self.others, labels, members))
        for place, member in enumerate(members):
            if member in self.voted:
                right, wrong = self._log_probs(member)
                columns[:, place] = np.exp(np.where(self.voted[member] == labels, right, wrong))
        return columns

    def _log_probs(self, member: int) -> tuple[np.float32, np.float32]:
        error, classes = self._errors[member], self.shape[2]
        return np.float32(np.log1p(-error)), np.float32(np.log(error / (classes - 1)))


def prob_true(
    predictions: Predictions, labels: Int64[np.ndarray, " N"], members: Sequence[int]
) -> Float[np.ndarray, "N S"]:
    """Return the probability that each of these members gives to each example's true class.

    A probability below FLOOR counts as FLOOR, as in the metrics.
    """
    if isinstance(predictions, StoredPredictions):
        everyone = len(members) == len(predictions) and list(members) == [*range(len(members))]
        return predictions.prob_true if everyone else predictions.prob_true[:, list(members)]
    if isinstance(predictions, SmoothedVotes):
        return predictions.prob_true(labels, members)
    rows = np.arange(len(labels))
    true = np.stack([predictions[member][rows, labels] for member in members], axis=1)
    return floored_probs(true.astype(np.float64))


def floored_probs(log_probs: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return the probabilities of these logarithms, at least FLOOR."""
    return np.asarray(np.maximum(np.exp(log_probs), log_probs.dtype.type(FLOOR)))
