"""Fixtures of the tests of data sets."""

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return the path of a cache of decoded images that does not exist yet."""
    return tmp_path / "cache"
