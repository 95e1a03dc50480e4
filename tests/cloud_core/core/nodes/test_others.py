"""What `DeviceApi` keeps for several nodes costs nothing where there is one."""

from __future__ import annotations

from tests.support.api import ApiUnderTest
from tests.support.stores import StoreUnderTest

SHARED_KEYS = 30  # of CPython's dicts of instances (Objects/dictobject.c, SHARED_KEYS_MAX_SIZE)


def test_the_core_has_few_enough_attributes_to_be_read_quickly(sqlite_store: StoreUnderTest) -> None:
    """With one more each read of any of them takes longer, on the path of every message."""
    assert len(vars(ApiUnderTest(sqlite_store).api)) <= SHARED_KEYS
