"""Features kept from one training to the next. Imports no torch."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class FeatureCache:
    """The features last computed, for the next training in this process that wants the same.

    The trials of a sweep that train a head begin with the same weights below it.
    """

    def __init__(self) -> None:
        """Empty."""
        self._key = ""
        self._features: Tensor | None = None

    def get(self, key: str, compute: "Callable[[], Tensor]") -> "Tensor":
        """What `compute` gives, or gave when it was last asked for under the same `key`."""
        if self._features is None or key != self._key:
            self._key, self._features = key, None  # the old ones go before the new ones come
            self._features = compute()
        return self._features
