"""The collector's setting outlives a pause."""

import gc
from contextlib import suppress

import pytest

from common.garbage import collection_paused


@pytest.mark.parametrize("enabled", [True, False])
def test_the_setting_is_as_before_even_after_an_error(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with suppress(ValueError), collection_paused(), collection_paused():
            assert not gc.isenabled()
            raise ValueError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
