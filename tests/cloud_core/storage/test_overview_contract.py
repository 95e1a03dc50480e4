"""Counts of what a tenant has: the same on both databases."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from cloud_core.model import Attempt, DevicePresence, Peer, PendingRequest, Transport
from cloud_core.storage.interface.attempts import AttemptFilter
from cloud_core.storage.interface.overview import Stages, Waiting
from tests.support.stores import TENANT, StoreUnderTest


def line(outcome: str, at_ms: int = 1_000, tenant_id: int | None = TENANT, **members: Any) -> Attempt:
    return Attempt(
        ref=members.pop("ref", None) or uuid4().hex, at_ms=at_ms, peer=Peer(Transport.MQTT, "192.0.2.1"),
        outcome=outcome, stage="secret", tenant_id=tenant_id, **members,
    )  # fmt: skip


def log(store: StoreUnderTest, *lines: Attempt) -> None:
    def write(tx: Any) -> None:
        for one in lines:
            tx.log_attempt(one)

    store.run(write)


def wait(store: StoreUnderTest, profile_id: int, name: str, first_ms: int) -> None:
    request = PendingRequest(
        uuid=uuid4(), tenant_id=TENANT, profile_id=profile_id, digest=uuid4().bytes, name=name, source="192.0.2.1",
        transport="mqtt", key_name="", is_gateway=False, first_ms=first_ms, last_ms=first_ms, until_ms=10**15,
    )  # fmt: skip
    store.run(lambda tx: tx.put_pending(request))


def stages(store: StoreUnderTest, profile_id: int, after: int = 0, limit: int = 100) -> Any:
    return store.survey(lambda tx: tx.stages(profile_id, after, limit, silent_before_ms=500))


def test_devices_are_counted_by_how_far_they_have_come(store: StoreUnderTest) -> None:
    """Each stage holds those behind it; who is heard without having asked counts as issued and confirmed."""
    profile_id = store.add_profile()
    created, issued, confirmed, active, silent, heard = (
        store.add_device(name, profile_id) for name in ("created", "issued", "confirmed", "active", "silent", "heard")
    )
    assert created < issued

    def live(tx: Any) -> None:
        for number in (issued, confirmed, active, silent):
            tx.mark_issued(number, now_ms=2, request_digest=None)
        for number, at_ms in ((confirmed, 900), (active, 900), (silent, 3)):
            tx.mark_confirmed(number, now_ms=at_ms)
        tx.put_presence([
            DevicePresence(device_id=active, is_active=True, last_activity_ms=100),
            DevicePresence(device_id=silent, is_active=False, last_activity_ms=499),
            DevicePresence(device_id=heard, is_active=False, last_activity_ms=600),
        ])  # fmt: skip

    store.run(live)
    assert stages(store, profile_id)[0] == Stages(created=6, issued=5, confirmed=4, active=1, stale=1)
    store.add_profile("other")
    assert store.survey(lambda tx: tx.stages(profile_id + 1, 0, 100, silent_before_ms=0)) == (Stages(), None)


def test_devices_are_counted_in_parts(store: StoreUnderTest) -> None:
    """A part ends with the number to go on behind; the last one with none."""
    profile_id = store.add_profile()
    numbers = [store.add_device(f"d{one}", profile_id) for one in range(5)]
    first, after = stages(store, profile_id, 0, 3)
    assert (first.created, after) == (3, numbers[2])
    rest, end = stages(store, profile_id, after, 3)
    assert (rest.created, end) == (2, None)


def test_who_has_asked_in_vain_is_found_by_name(store: StoreUnderTest) -> None:
    """In the newest lines of the log and among those that wait; each device once, and none that has got something."""
    profile_id = store.add_profile()
    refused, waits, idle, done = (store.add_device(name, profile_id) for name in ("refused", "waits", "idle", "done"))
    assert refused < waits < idle
    store.run(lambda tx: tx.mark_issued(done, now_ms=2, request_digest=None))
    log(
        store, line("DEVICE_EXISTS", device_name="refused"), line("DEVICE_EXISTS", device_name="refused"),
        line("SUCCESS", device_name="done"), line("DEVICE_EXISTS", device_name="nobody"),
    )  # fmt: skip
    wait(store, profile_id, "waits", 1)
    wait(store, profile_id, "refused", 1)
    assert store.survey(lambda tx: tx.asked_only(TENANT, 100)) == {profile_id: 2}
    log(store, *(line("SUCCESS") for _ in range(3)))
    assert store.survey(lambda tx: tx.asked_only(TENANT, 3)) == {profile_id: 2}
    assert store.survey(lambda tx: tx.asked_only(TENANT + 1, 100)) == {}


def test_the_oldest_that_waits_is_told(store: StoreUnderTest) -> None:
    """Of those that wait; decided ones do not."""
    profile_id = store.add_profile()
    assert store.survey(lambda tx: tx.waiting(TENANT)) == Waiting(0, 0)
    for name, first_ms in (("a", 30), ("b", 20), ("c", 40)):
        wait(store, profile_id, name, first_ms)
    assert store.survey(lambda tx: tx.waiting(TENANT)) == Waiting(3, 20)
    assert store.survey(lambda tx: tx.waiting(TENANT + 1)) == Waiting(0, 0)


def test_refusals_are_counted_by_outcome(store: StoreUnderTest) -> None:
    """Since a time, among the newest lines; those of nobody's keys for whom they are."""
    log(
        store, line("DEVICE_EXISTS", at_ms=10), line("DEVICE_EXISTS"), line("SUCCESS"), line("REPLAYED"),
        line("INVALID_PROVISION_CREDENTIALS", tenant_id=None), line("DEVICE_EXISTS", tenant_id=TENANT + 1),
    )  # fmt: skip

    def found(lines: int, with_unassigned: bool) -> Any:
        return store.survey(
            lambda tx: tx.refusals(TENANT, lines, since_ms=100, with_unassigned=with_unassigned)
        )  # fmt: skip

    assert found(100, with_unassigned=False) == {"DEVICE_EXISTS": 1}
    assert found(100, with_unassigned=True) == {"DEVICE_EXISTS": 1, "INVALID_PROVISION_CREDENTIALS": 1}
    assert found(2, with_unassigned=False) == {}


def test_attempts_are_listed_from_a_line_on(store: StoreUnderTest) -> None:
    """Newest first, by filter and by text, in parts that do not shift when new ones come."""
    log(store, *(line("SUCCESS", ref=f"R{one}", device_name=f"d{one % 2}") for one in range(6)))

    def refs(before: int | None = None, text: str = "", **wanted: Any) -> Any:
        return store.survey(
            lambda tx: tx.attempt_lines(TENANT, AttemptFilter(**wanted), text, before, 2, with_unassigned=False)
        )

    first = refs()
    assert [one.attempt.ref for one in first] == ["R5", "R4"]
    log(store, line("SUCCESS", ref="R6", device_name="d0"))
    assert [one.attempt.ref for one in refs(first[-1].number)] == ["R3", "R2"]
    assert [one.attempt.ref for one in refs(device_name="d1")] == ["R5", "R3"]
    assert [one.attempt.ref for one in refs(text="r2")] == ["R2"]
