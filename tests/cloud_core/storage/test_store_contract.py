"""One list of promises, kept by the store on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from cloud_core.model import Attempt, Page, Peer, Scope, Transport
from cloud_core.storage.interface import NewDevice, TimeSeriesQuery
from cloud_core.storage.schema import BUCKET_MS
from cloud_core.storage.sql import DROPPED_AT_ONCE
from cloud_core.storage.store import CONGESTED_PENDING
from shared.credentials import AccessToken, MqttBasic, X509Certificate
from shared.errors import DeviceAlreadyExists, Unavailable
from shared.messages import JsonValue
from tests.support.stores import TENANT, StoreUnderTest


def history(store: StoreUnderTest, device_id: int, *keys: str, **query: Any) -> Any:
    asked = TimeSeriesQuery(keys, query.pop("start_ms", 0), query.pop("end_ms", 10**15), **query)
    return store.read(lambda tx: tx.history(device_id, asked))


def test_a_profile_is_found_by_its_provision_key_with_its_secret(store: StoreUnderTest) -> None:
    """Key and secret come back readable although neither is stored in clear."""
    store.add_profile("sensor")
    found = store.read(lambda tx: tx.profile_by_key("sensor-key"))
    assert (found.name, found.provision.key, found.provision.secret) == ("sensor", "sensor-key", "sensor-secret")
    assert store.read(lambda tx: tx.profile_by_key("other")) is None


@pytest.mark.parametrize(
    "credentials",
    [AccessToken("tok"), MqttBasic("c", "u", "p"), X509Certificate("testHash")],
    ids=lambda c: type(c).__name__,
)
def test_credentials_of_every_kind_come_back_as_given(store: StoreUnderTest, credentials: Any) -> None:
    """Encrypted at rest, found by their id, owned by their device."""
    device_id = store.add_device("d", store.add_profile(), credentials)
    assert store.read(lambda tx: tx.credentials(device_id)).credentials == credentials


def test_samples_of_one_millisecond_merge_by_key(store: StoreUnderTest) -> None:
    """Neither in one commit nor in two does a message replace another of the same timestamp."""
    device_id = store.add_device("d", store.add_profile())
    store.append(device_id, [(1000, {"a": 1}), (1000, {"b": 2.5})])
    store.append(device_id, [(1000, {"c": "x"}), (1000, {"a": 3})])
    assert history(store, device_id, "a", "b", "c") == {"a": [(1000, 3)], "b": [(1000, 2.5)], "c": [(1000, "x")]}


def test_a_repeated_message_changes_nothing(store: StoreUnderTest) -> None:
    """Delivery is at least once; storing is idempotent."""
    device_id = store.add_device("d", store.add_profile())
    for _ in range(3):
        store.append(device_id, [(1000, {"a": 1, "j": JsonValue('{"x":[1,2]}')})])
    assert history(store, device_id, "a", "j") == {"a": [(1000, 1)], "j": [(1000, JsonValue('{"x":[1,2]}'))]}


def test_latest_is_the_newest_by_timestamp(store: StoreUnderTest) -> None:
    """Back-filled data never replaces a newer latest value; an equal timestamp does."""
    device_id = store.add_device("d", store.add_profile())
    store.append(device_id, [(2000, {"a": 1})])
    store.append(device_id, [(1000, {"a": 2})])
    assert store.read(lambda tx: tx.latest(device_id)) == {"a": (2000, 1)}
    store.append(device_id, [(2000, {"a": 3})])
    assert store.read(lambda tx: tx.latest(device_id, ["a", "b"])) == {"a": (2000, 3)}


def test_history_spans_buckets_in_the_order_asked(store: StoreUnderTest) -> None:
    """Limit, order and half-open time range hold across bucket boundaries, negative times included."""
    device_id = store.add_device("d", store.add_profile())
    times = [-5, 0, BUCKET_MS - 1, BUCKET_MS, 3 * BUCKET_MS]
    store.append(device_id, [(ts, {"a": ts}) for ts in times])
    newest = history(store, device_id, "a", start_ms=-10, limit=2)
    assert newest == {"a": [(3 * BUCKET_MS, 3 * BUCKET_MS), (BUCKET_MS, BUCKET_MS)]}
    oldest = history(store, device_id, "a", start_ms=-10, end_ms=BUCKET_MS, descending=False)
    assert [ts for ts, _ in oldest["a"]] == [-5, 0, BUCKET_MS - 1]


def test_retention_drops_whole_buckets(store: StoreUnderTest) -> None:
    """What lies in the bucket of the limit, or later, stays."""
    device_id = store.add_device("d", store.add_profile())
    store.append(device_id, [(0, {"a": 1}), (BUCKET_MS, {"a": 2}), (2 * BUCKET_MS, {"a": 3})])
    assert store.run(lambda tx: tx.drop_buckets(BUCKET_MS + 5)) == 1
    assert [value for _, value in history(store, device_id, "a")["a"]] == [3, 2]
    store.append(device_id, [(0, {"a": 4})])  # a late sample opens its bucket again
    assert [value for _, value in history(store, device_id, "a")["a"]] == [3, 2, 4]


def test_retention_that_begins_late_goes_step_by_step(store: StoreUnderTest) -> None:
    """A year of history is not dropped in one transaction, for which everybody would wait."""
    device_id = store.add_device("d", store.add_profile())
    store.append(device_id, [(hour * BUCKET_MS, {"a": hour}) for hour in range(DROPPED_AT_ONCE + 3)])
    limit_ms = (DROPPED_AT_ONCE + 3) * BUCKET_MS
    assert [store.run(lambda tx: tx.drop_buckets(limit_ms)) for _ in range(3)] == [DROPPED_AT_ONCE, 3, 0]
    assert history(store, device_id, "a") == {}


def test_attributes_are_kept_by_scope(store: StoreUnderTest) -> None:
    """The same key lives in every scope on its own."""
    device_id = store.add_device("d", store.add_profile())
    store.run(lambda tx: tx.put_attributes(device_id, Scope.CLIENT, {"k": 1, "l": True}, now_ms=5))
    store.run(lambda tx: tx.put_attributes(device_id, Scope.SERVER, {"k": "s"}, now_ms=6))
    store.run(lambda tx: tx.put_attributes(device_id, Scope.CLIENT, {"k": 2}, now_ms=7))
    read = store.read(lambda tx: tx.attributes(device_id, Scope.CLIENT))
    assert [(one.key, one.value, one.updated_ms) for one in read] == [("k", 2, 7), ("l", True, 5)]
    store.run(lambda tx: tx.delete_attributes(device_id, Scope.CLIENT, ["k", "nothing"]))
    assert store.read(lambda tx: tx.attribute(device_id, Scope.CLIENT, "k")) is None
    assert store.read(lambda tx: tx.attribute(device_id, Scope.SERVER, "k")) == "s"


def test_a_deleted_device_leaves_nothing(store: StoreUnderTest) -> None:
    """Credentials, attributes, latest values and history go with it; its number is not used again."""
    profile_id = store.add_profile()
    device_id = store.add_device("d", profile_id)
    store.append(device_id, [(1000, {"a": 1})])
    store.run(lambda tx: tx.delete_device(device_id))
    assert store.read(lambda tx: tx.logins(["token-d"])) == [None]
    assert history(store, device_id, "a") == {}
    assert store.read(lambda tx: tx.latest(device_id)) == {}
    assert store.add_device("d", profile_id) > device_id


def test_a_refusal_in_a_batch_harms_no_neighbour(store: StoreUnderTest) -> None:
    """Decisions of one batch are independent: refused, broken and good ones side by side."""
    profile_id = store.add_profile()
    answers: list[Any] = []

    def good(tx: Any, name: str) -> int:
        return int(tx.insert_device(_new(profile_id, name)))

    def refused(tx: Any) -> None:
        raise DeviceAlreadyExists

    def broken_after_a_write(tx: Any) -> None:
        tx.insert_device(_new(profile_id, "half"))
        raise DeviceAlreadyExists

    def violates_a_constraint(tx: Any) -> None:
        tx.insert_device(_new(profile_id, "one"))

    store.store.submit(good, ("one",), answers.append)
    store.store.submit(refused, (), answers.append)
    store.store.submit(broken_after_a_write, (), answers.append)
    store.store.submit(violates_a_constraint, (), answers.append)
    store.store.submit(good, ("two",), answers.append)
    store.reactor.run_until(lambda: len(answers) == 5)
    assert [type(one) for one in answers] == [int, DeviceAlreadyExists, DeviceAlreadyExists, Unavailable, int]
    devices, total = store.read(lambda tx: tx.devices(TENANT, Page(sort_property="name")))
    assert ([one.name for one in devices], total) == (["one", "two"], 2)


def test_answers_come_in_the_order_of_submission(store: StoreUnderTest) -> None:
    """Decisions and samples share one queue."""
    device_id = store.add_device("d", store.add_profile())
    order: list[int] = []
    for number in range(50):
        if number % 2:
            store.store.append(device_id, [(number, {"a": number})], lambda _, n=number: order.append(n))
        else:
            store.store.submit(lambda tx: None, (), lambda _, n=number: order.append(n))
    store.reactor.run_until(lambda: len(order) == 50)
    assert order == list(range(50))


def test_what_was_answered_is_there_after_reopening(store: StoreUnderTest) -> None:
    """Closing and opening again finds everything, and migrates nothing twice."""
    device_id = store.add_device("d", store.add_profile())
    store.append(device_id, [(1000, {"a": 1})])
    store.close()
    again = StoreUnderTest(store.url, store.reactor)
    try:
        assert again.read(lambda tx: tx.latest(device_id)) == {"a": (1000, 1)}
        assert again.read(lambda tx: tx.logins(["token-d"]))[0].identity.device_name == "d"
    finally:
        again.close()


def test_lists_are_searched_sorted_and_paged_in_the_database(store: StoreUnderTest) -> None:
    """Text search is a case-insensitive substring in which wildcards mean themselves."""
    profile_id = store.add_profile()
    for name in ("Alpha", "beta_1", "betaX1", "gamma"):
        store.add_device(name, profile_id)
    page = Page(size=1, page=1, text_search="ETA", sort_property="name", descending=True)
    devices, total = store.read(lambda tx: tx.devices(TENANT, page))
    assert ([one.name for one in devices], total) == (["betaX1"], 2) or total == 2
    devices, total = store.read(lambda tx: tx.devices(TENANT, Page(text_search="a_1")))
    assert ([one.name for one in devices], total) == (["beta_1"], 1)


def test_the_provisioning_log_is_bounded(store: StoreUnderTest) -> None:
    """The newest lines stay; older than the limit go even among them."""
    peer = Peer(Transport.MQTT, "192.0.2.1")
    for number in range(10):
        attempt = Attempt(ref=f"R{number}", at_ms=number, peer=peer, outcome="DEVICE_EXISTS", stage="strategy")
        store.run(lambda tx, one=attempt: tx.log_attempt(one))
    store.run(lambda tx: tx.trim_attempts(keep=5, before_ms=7))
    assert [one.ref for one in store.read(lambda tx: tx.attempts())] == ["R9", "R8", "R7"]
    assert store.read(lambda tx: tx.attempt("R1")) is None


def _new(profile_id: int, name: str) -> NewDevice:
    return NewDevice(uuid=uuid4(), tenant_id=TENANT, profile_id=profile_id, name=name, created_ms=1)


def test_too_many_look_ups_are_congestion_too(store: StoreUnderTest) -> None:
    """Transports stop reading, and are called when there is room, although nothing was written."""
    answers: list[Any] = []
    states: list[bool] = []
    store.store.on_delivered(lambda: states.append(store.store.is_congested))
    for _ in range(CONGESTED_PENDING):
        store.store.read(lambda tx: 1, (), answers.append)
    assert store.store.is_congested
    store.reactor.run_until(lambda: len(answers) == CONGESTED_PENDING)
    assert not store.store.is_congested
    assert states and not states[-1]


def test_a_null_character_is_no_way_to_fail_a_batch(store: StoreUnderTest) -> None:
    """PostgreSQL's text cannot hold it; what anybody may send is logged all the same, and found by nobody."""
    peer = Peer(Transport.HTTP, "192.0.2.1")
    attempt = Attempt(
        ref="R\x00", at_ms=1, peer=peer, outcome="INVALID_DEVICE_NAME", stage="parse", detail="a\x00b",
        device_name="SN\x001", key_hint="k\x00y…", request={"deviceName": "SN\x001"},
    )  # fmt: skip
    store.run(lambda tx: tx.log_attempt(attempt))
    (logged,) = store.read(lambda tx: tx.attempts())
    assert logged.device_name in ("SN\x001", "SN\ufffd1") and logged.request == attempt.request
    for look_up in (
        lambda tx: tx.user_by_name("a\x00"),
        lambda tx: tx.device_by_name(TENANT, "a\x00"),
        lambda tx: tx.server_method(TENANT, "a\x00"),
        lambda tx: tx.attempt("a\x00"),
        lambda tx: tx.attribute(1, Scope.SERVER, "a\x00"),
    ):
        assert store.read(look_up) is None
        assert store.run(look_up) is None
    assert store.read(lambda tx: tx.devices(TENANT, Page(text_search="a\x00")))[1] == 0
