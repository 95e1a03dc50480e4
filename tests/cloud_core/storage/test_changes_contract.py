"""What is recorded for other nodes, and leases: the same on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from cloud_core.core import inventory
from cloud_core.core.certificates import authorities
from cloud_core.model import (
    INACTIVITY_TIMEOUT,
    ApiKey,
    Change,
    ChangeKind,
    EndedLogin,
    PersistentCommand,
    ProvisionStrategy,
    RpcStatus,
    Scope,
    UserRole,
)
from cloud_core.storage.interface import NewDevice
from shared.credentials import AccessToken, Credentials, MqttBasic
from shared.errors import DeviceAlreadyExists
from tests.support.stores import TENANT, StoreUnderTest, open_store

A_DAY_MS = 86_400_000


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        new_database: Callable[[], str] = request.getfixturevalue("postgresql")
        return new_database()
    return f"sqlite:///{tmp_path / 'muster.db'}"


class Recorded:
    """A store that is one of several, and what it has recorded since."""

    def __init__(self, url: str, node: str) -> None:
        self.store = open_store(url, node)
        self.told: list[Change] = []
        self.store.store.on_changes(self.told.extend)
        self.profile_id = self.store.add_profile()

    def by(self, work: Callable[[Any], Any]) -> list[tuple[ChangeKind, int | None, Any]]:
        """What the decision records; what is told is what stands in the database."""
        last = self.store.read(lambda tx: tx.newest_change())
        self.told.clear()
        self.store.run(work)
        rows = self.store.read(lambda tx: tx.changes(last, 1_000))
        assert self.told == rows
        assert all(row.node == "a" for row in rows)
        return [(ChangeKind(row.kind), row.device_id, row.body) for row in rows]

    def device(self, credentials: Credentials | None = None) -> int:
        return self.store.add_device(f"d-{uuid4()}", self.profile_id, credentials)


@pytest.fixture
def node(url: str) -> Iterator[Recorded]:
    recorded = Recorded(url, "a")
    yield recorded
    recorded.store.close()


def put(device_id: int, credentials: Credentials, **members: Any) -> Callable[[Any], None]:
    return lambda tx: tx.put_credentials(device_id, credentials, now_ms=5, **members)


def test_credentials_that_are_replaced_end_sessions_and_an_overlap_does_not(node: Recorded) -> None:
    """The same ones again are read anew; a password alone is enough to be others."""
    one = node.device(AccessToken("t"))
    basic = node.device(MqttBasic("c", "u", "p"))
    assert node.by(put(one, AccessToken("t"))) == [(ChangeKind.LOGIN, one, None)]
    assert node.by(put(one, AccessToken("t2"), former_until_ms=A_DAY_MS)) == [(ChangeKind.LOGIN, one, None)]
    assert node.by(put(one, AccessToken("t3"))) == [(ChangeKind.CREDENTIALS, one, None)]
    assert node.by(put(basic, MqttBasic("c", "u", "q"))) == [(ChangeKind.CREDENTIALS, basic, None)]


def new_device(node: Recorded, credentials: Credentials) -> Callable[[Any], int]:
    def work(tx: Any) -> int:
        device = NewDevice(
            uuid=uuid4(), tenant_id=TENANT, profile_id=node.profile_id, name=f"n-{uuid4()}", created_ms=1
        )
        device_id = int(tx.insert_device(device))
        tx.put_credentials(device_id, credentials, now_ms=1, is_new_device=True)
        tx.put_attributes(device_id, Scope.SHARED, {"fw_title": "x"}, now_ms=1)
        return device_id

    return work


def test_a_new_device_with_a_token_records_nothing(node: Recorded) -> None:
    """Not for its shared attributes either; other credentials may be remembered not to exist."""
    assert node.by(new_device(node, AccessToken("fresh"))) == []
    [(kind, _, _)] = node.by(new_device(node, MqttBasic("c9", "u9", "p")))
    assert kind is ChangeKind.NEW_CREDENTIALS


def test_what_devices_say_records_nothing(node: Recorded) -> None:
    """Telemetry, client attributes, presence."""
    one = node.device()

    def said(tx: Any) -> None:
        tx.append_samples(one, [(1, {"a": 1})])
        tx.put_attributes(one, Scope.CLIENT, {"a": 1}, now_ms=1)
        tx.put_attributes(one, Scope.SERVER, {"a": 1}, now_ms=1)
        tx.mark_confirmed(one, now_ms=1)

    assert node.by(said) == []


def test_of_a_device_only_what_sessions_copy_is_recorded(node: Recorded) -> None:
    """Another label or document ends no session; another name, profile or gateway flag does; and its deletion."""
    one = node.device()
    other_profile = node.store.add_profile("other")

    def changed(**members: Any) -> Callable[[Any], None]:
        return lambda tx: tx.update_device(replace(tx.device_by_id(one), **members))

    assert node.by(changed(label="l", document={"additionalInfo": {"a": 1}})) == []
    for members in ({"name": "x"}, {"profile_id": other_profile}, {"is_gateway": True}):
        assert node.by(changed(**members)) == [(ChangeKind.DEVICE, one, None)]
    assert node.by(lambda tx: tx.delete_device(one)) == [(ChangeKind.DELETED, one, None)]


def test_shared_attributes_are_recorded_by_their_keys(node: Recorded) -> None:
    """Values may be secrets, and are read by whoever has the device; the inactivity time-out is recorded, too."""
    one = node.device()
    shared = node.by(lambda tx: tx.put_attributes(one, Scope.SHARED, {"a": "secret", "b": 1}, now_ms=1))
    assert shared == [(ChangeKind.SHARED, one, ["a", "b"])]
    assert node.by(lambda tx: tx.delete_attributes(one, Scope.SHARED, ["a"])) == [(ChangeKind.SHARED, one, ["a"])]
    written = node.by(lambda tx: tx.put_attributes(one, Scope.SERVER, {INACTIVITY_TIMEOUT: 5, "z": 1}, now_ms=1))
    assert written == [(ChangeKind.INACTIVITY, one, None)]
    deleted = node.by(lambda tx: tx.delete_attributes(one, Scope.SERVER, [INACTIVITY_TIMEOUT]))
    assert deleted == [(ChangeKind.INACTIVITY, one, None)]


def test_profiles_and_authorities_are_recorded_once_a_transaction(node: Recorded) -> None:
    """A new profile that admits by no certificate is in nobody's memory."""
    profile = node.store.read(lambda tx: tx.profile_by_name(TENANT, "sensor"))

    def twice(tx: Any) -> None:
        tx.update_profile(profile)
        tx.update_profile(replace(profile, version=profile.version + 1))

    assert node.by(twice) == [(ChangeKind.PROFILE, None, None)]
    spare = node.store.add_profile("spare")
    assert node.by(lambda tx: tx.delete_profile(spare)) == [(ChangeKind.PROFILE, None, None)]
    chain, key = authorities.make("CA", "P-256", 1, 1_700_000_000_000)
    added = node.by(lambda tx: authorities.add(tx, TENANT, "CA", chain, key, 1))
    assert added == [(ChangeKind.PROFILE, None, None)]


def test_ends_of_logins_and_new_api_keys_are_recorded(node: Recorded) -> None:
    """Once, however many end together."""
    key = ApiKey(
        id=0, uuid=uuid4(), tenant_id=TENANT, name="k", role=UserRole.ADMINISTRATOR, hint="", created_ms=1,
        created_by="", ends_ms=None, used_ms=None,
    )  # fmt: skip

    def people(tx: Any) -> None:
        tx.put_ended_login(EndedLogin(uuid4(), 1, 2))
        tx.insert_api_key(key, b"h" * 32)

    assert node.by(people) == [(ChangeKind.LOGINS, None, None)]


def test_a_command_that_waits_is_recorded(node: Recorded) -> None:
    """And the end of its time, for which another command may have waited."""
    one = node.device()
    command = PersistentCommand(
        id=0, uuid=uuid4(), tenant_id=TENANT, device_id=one, created_ms=1, expires_ms=10, is_oneway=True, method="m",
        params=None,
    )  # fmt: skip
    assert node.by(lambda tx: tx.insert_command(command)) == [(ChangeKind.COMMAND, one, None)]
    assert node.by(lambda tx: tx.expire_commands(20)) == [(ChangeKind.COMMAND, one, None)]


def test_who_has_sent_a_command_stands_in_its_row(node: Recorded) -> None:
    """With the time."""
    one = node.device()
    command = PersistentCommand(
        id=0, uuid=uuid4(), tenant_id=TENANT, device_id=one, created_ms=1, expires_ms=10**13, is_oneway=True,
        method="m", params=None,
    )  # fmt: skip
    number = node.store.run(lambda tx: tx.insert_command(command))
    node.store.run(lambda tx: tx.mark_command_sent(number, now_ms=77))
    stored = node.store.read(lambda tx: tx.command_by_id(number))
    assert (stored.status, stored.sent_ms, stored.sent_by) == (RpcStatus.QUEUED, 77, "a")


def test_a_refusal_records_nothing(node: Recorded) -> None:
    """What was rolled back is told to nobody, and its neighbours in the batch are."""
    one, other = node.device(), node.device()
    answers: list[Any] = []

    def refused(tx: Any) -> None:
        tx.put_attributes(one, Scope.SHARED, {"a": 1}, now_ms=1)
        raise DeviceAlreadyExists

    node.told.clear()
    store = node.store.store
    store.submit(refused, (), answers.append)
    store.submit(lambda tx: tx.put_attributes(other, Scope.SHARED, {"a": 1}, now_ms=1), (), answers.append)
    node.store.reactor.run_until(lambda: len(answers) == 2)
    assert [(one.kind, one.device_id) for one in node.told] == [(ChangeKind.SHARED, other)]
    assert node.store.read(lambda tx: tx.changes(0, 1_000))[-1] == node.told[0]


def test_changes_are_handed_out_before_the_answers_of_their_batch(node: Recorded) -> None:
    """Whoever hears the answer may be sure that the others are being told."""
    one = node.device()
    order: list[str] = []
    node.store.store.on_changes(lambda _: order.append("changes"))
    node.store.wait(
        lambda done: node.store.store.submit(
            lambda tx: tx.put_attributes(one, Scope.SHARED, {"a": 1}, now_ms=1), (),
            lambda outcome: (order.append("answer"), done("answered")),
        )
    )  # fmt: skip
    assert order == ["changes", "answer"]


def test_one_node_alone_records_nothing_and_has_every_lease(store: StoreUnderTest) -> None:
    """The embedded default pays for nobody else."""
    profile_id = store.add_profile("p")
    one = store.add_device("d", profile_id)
    told: list[Change] = []
    store.store.on_changes(told.extend)
    store.run(lambda tx: tx.put_attributes(one, Scope.SHARED, {"a": 1}, now_ms=1))
    store.run(lambda tx: tx.put_credentials(one, AccessToken("other"), now_ms=1))
    store.run(lambda tx: tx.delete_device(one))
    assert (told, store.read(lambda tx: tx.changes(0, 10))) == ([], [])
    assert store.run(lambda tx: tx.take_lease("x", now_ms=1, for_ms=1)) is True
    assert store.run(lambda tx: tx.keep_lease("x", now_ms=1, for_ms=1)) is True


def test_numbers_are_never_given_twice(node: Recorded) -> None:
    """Not after all rows were removed."""
    one = node.device()
    node.by(lambda tx: tx.delete_attributes(one, Scope.SHARED, ["a"]))
    last = node.store.read(lambda tx: tx.newest_change())
    node.store.run(lambda tx: tx.trim_changes(2**62))
    assert node.store.read(lambda tx: (tx.newest_change(), tx.first_change())) == (0, None)
    node.store.run(lambda tx: tx.delete_attributes(one, Scope.SHARED, ["a"]))
    assert node.store.read(lambda tx: tx.first_change()) > last


def test_a_lease_is_one_nodes_until_its_end(url: str) -> None:
    """It may take it again meanwhile; another one gets it when it is over or given back."""
    a, b = open_store(url, "a"), open_store(url, "b")
    try:

        def take(store: StoreUnderTest, now_ms: int) -> bool:
            return bool(store.run(lambda tx: tx.take_lease("work", now_ms=now_ms, for_ms=100)))

        assert [take(a, 0), take(b, 50), take(a, 90), take(b, 189), take(b, 190)] == [True, False, True, False, True]
        assert a.run(lambda tx: tx.keep_lease("work", now_ms=1_000, for_ms=100)) is False  # b has had it since
        b.run(lambda tx: tx.release_lease("work"))
        assert a.run(lambda tx: tx.keep_lease("work", now_ms=1_000, for_ms=100)) is False
        assert take(a, 200)
        assert a.run(lambda tx: tx.keep_lease("work", now_ms=1_000, for_ms=100)) is True
        b.run(lambda tx: tx.release_leases())
        assert not take(b, 1_050)
        a.run(lambda tx: tx.release_leases())
        assert take(b, 1_050)
    finally:
        a.close()
        b.close()


def test_revoking_a_certificate_is_recorded_also_of_nobody(node: Recorded) -> None:
    """The revocation list of its CA is another one from then on."""
    chain, key = authorities.make("CA", "P-256", 1, 1_700_000_000_000)
    node.store.run(lambda tx: authorities.add(tx, TENANT, "CA", chain, key, 1))
    one = node.device()
    node.store.run(lambda tx: tx.record_certificate(chain[0], tenant_id=TENANT, device_id=one, now_ms=1))
    known = node.store.read(lambda tx: tx.certificates_of_device(one))[0]
    revoked = node.by(lambda tx: tx.revoke_certificate(known.id, now_ms=1, reason="unspecified"))
    assert revoked == [(ChangeKind.CREDENTIALS, one, True)]


def test_the_end_of_a_tenant_is_recorded(node: Recorded) -> None:
    """Its profiles and authorities have gone with it."""
    tenant_id = node.store.add_tenant("t")
    assert (ChangeKind.PROFILE, None, None) in node.by(lambda tx: tx.delete_tenant(tenant_id))


def test_a_new_profile_that_admits_by_certificate_is_recorded(node: Recorded) -> None:
    """Servers that trust what profiles trust read it anew."""
    last = node.store.read(lambda tx: tx.newest_change())
    node.store.add_profile("chain", strategy=ProvisionStrategy.X509_CERTIFICATE_CHAIN, secret="")
    assert [one.kind for one in node.store.read(lambda tx: tx.changes(last, 9))] == [ChangeKind.PROFILE]


def test_devices_saved_by_operators_record_as_the_storage_sees_them(node: Recorded) -> None:
    """One decision of several statements: a rename with new credentials."""
    made = node.store.run(inventory.write_device, TENANT, {"name": "x", "type": "sensor"}, None, 1)
    members = {"id": str(made.device.uuid), "name": "y", "type": "sensor"}
    kinds = node.by(lambda tx: inventory.write_device(tx, TENANT, members, AccessToken("new"), 1))
    assert [one[0] for one in kinds] == [ChangeKind.DEVICE, ChangeKind.CREDENTIALS]
    assert isinstance(made.device.uuid, UUID)
