"""Bring the decoded images to the workers.

On one machine, workers memory-map large sets from the cache that the driver filled. On a cluster
the nodes' disks hold nothing yet: images that fit go through Ray's object store, one copy per
node; larger sets are split into parts, from which every node fills its own cache once. Nodes pull
parts from each other as well as from the driver's machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray

from common.errors import DataError
from search.timetable.capacity import Capacity
from trainables.data.cache import (
    Layout,
    entry_parts,
    find_entry,
    layout_of,
    received_images,
    store_images,
)
from trainables.data.image_set import ImageSet
from trainables.data.resizing import ResizeRequest

SENT_BYTES = 32_000_000
"""Image sets up to this size are sent to workers even on a single machine."""

STORE_SHARE = 0.4
"""Share of a node's object store that the images may take; checkpoints in transit need the rest."""

PART_BYTES = 64_000_000
"""Size of a part; at most a few are in memory at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageParts:
    """The files of an entry in the driver's cache, as Ray objects."""

    fingerprint: str
    layout: Layout
    parts: tuple[tuple[str, Any], ...]
    """Name of the file and reference to its bytes, in order."""

    def receive(self, cache: Path | None) -> ImageSet:
        """Return the images, mapped from this node's cache; fill it on the first call.

        Raises:
            DataError: the cache cannot be written, or the driver's machine is lost.
        """
        return received_images(self.fingerprint, self.layout, self._fetch, cache=cache)

    def _fetch(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, reference in self.parts:
            try:
                yield name, ray.get(reference)
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[0]
                raise DataError(f"the images did not arrive: {reason}") from None


def sent_images(
    images: ImageSet,
    *,
    cluster: Capacity | None,
    cache: Path | None,
    put: Callable[[Any], Any] = ray.put,
) -> Any:
    """Send images to workers; return a reference, `ImageParts`, or None for the workers' caches.

    `cluster` has the nodes that the workers are on; None if there is only this machine.
    """
    if images.nbytes <= SENT_BYTES:
        return put(images)
    if cluster is None:
        return None
    smallest = min((node.store_bytes for node in cluster.nodes), default=0.0)
    if images.nbytes <= STORE_SHARE * smallest:
        return put(replace(images, images=np.asarray(images.images)))
    layout = layout_of(images)
    entry = find_entry(images.fingerprint, layout, cache=cache)
    if entry is None:
        asked = ResizeRequest(size=layout.size, rule=layout.rule, crop_size=layout.large_size)
        store_images(images, cache=cache, asked=asked)
        entry = find_entry(images.fingerprint, layout, cache=cache)
        assert entry is not None
    parts = entry_parts(entry, most_bytes=PART_BYTES)
    return ImageParts(
        fingerprint=images.fingerprint,
        layout=layout,
        parts=tuple((name, put(part)) for name, part in parts),
    )
