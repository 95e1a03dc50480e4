"""The same attributes for many devices, while other things happen to them."""

from __future__ import annotations

import pytest

from cloud_core.core import attributes
from cloud_core.model import Scope
from tests.support.api import ApiUnderTest
from tests.support.stores import StoreUnderTest


def test_a_device_that_is_deleted_meanwhile_ends_nothing(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All others get their attributes; the one that is gone is left out."""
    monkeypatch.setattr(attributes, "BATCH", 2)
    api, profile = ApiUnderTest(store), store.add_profile()
    numbers = [store.add_device(f"d{n}", profile) for n in range(6)]
    store.run(lambda tx: tx.delete_device(numbers[2]))
    outcome = api.outcome(lambda done: api.api.attributes.put_all(numbers, Scope.SHARED, {"limit": 42}, done))
    assert outcome is None
    rest = numbers[:2] + numbers[3:]
    assert [store.read(lambda tx, n=n: tx.attribute(n, Scope.SHARED, "limit")) for n in rest] == [42] * 5
