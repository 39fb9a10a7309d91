"""Fixtures of the tests of data sets."""

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return the folder of a cache of decoded images, not made yet."""
    return tmp_path / "cache"
