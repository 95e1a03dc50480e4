"""What the pages of device profiles look up, on both databases."""

from __future__ import annotations

from uuid import uuid4

from cloud_core.model import Attempt, KeyRules, Peer, ProvisionKey, Transport
from tests.support.stores import TENANT, StoreUnderTest


def log(store: StoreUnderTest, profile_id: int, *names: str) -> None:
    def lines(tx: object) -> None:
        for name in names:
            line = Attempt(
                ref=f"{profile_id}-{name}", at_ms=1, peer=Peer(Transport.HTTP, "192.0.2.1"), outcome="SUCCESS",
                stage="stored", tenant_id=TENANT, profile_id=profile_id, device_name=name,
            )  # fmt: skip
            tx.log_attempt(line)  # type: ignore[attr-defined]

    store.run(lines)


def test_the_newest_attempts_of_a_profile(store: StoreUnderTest) -> None:
    """Newest first, of this profile alone, and of the newest lines of the log alone."""
    one, other = store.add_profile("one"), store.add_profile("other")
    assert store.read(lambda tx: tx.newest_attempts(one, 10, 100)) == []
    log(store, one, "a", "b", "c")
    log(store, other, "x", "y")
    log(store, one, "d")
    assert [line.device_name for line in store.read(lambda tx: tx.newest_attempts(one, 3, 100))] == ["d", "c", "b"]
    assert [line.device_name for line in store.read(lambda tx: tx.newest_attempts(one, 10, 4))] == ["d", "c"]
    assert [line.ref for line in store.read(lambda tx: tx.newest_attempts(other, 10, 100))] == [
        f"{other}-y", f"{other}-x",
    ]  # fmt: skip


def test_keys_are_counted_by_profile(store: StoreUnderTest) -> None:
    """One look-up for several profiles; those without any are missing."""
    ids = [store.add_profile(name) for name in ("one", "two", "none")]
    for number, profile_id in enumerate((ids[0], ids[0], ids[1])):
        key = ProvisionKey(
            id=0, uuid=uuid4(), tenant_id=TENANT, profile_id=profile_id, name=f"k{number}", key=f"key-{number}",
            secret="s", rules=KeyRules(),
        )  # fmt: skip
        store.run(lambda tx, key=key: tx.insert_provision_key(key))
    assert store.read(lambda tx: tx.provision_key_counts(ids)) == {ids[0]: 2, ids[1]: 1}
    assert store.read(lambda tx: tx.provision_key_counts([])) == {}
