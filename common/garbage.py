"""Pause Python's cyclic garbage collector, e.g. while very many objects are built."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the collector within the block, in all threads of the process.

    Each of its passes walks all objects, so that building millions of them takes more time per
    object, the more there are. Objects without cycles are freed as always.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
