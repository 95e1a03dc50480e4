"""Certificates, authorities and trust anchors: one list of promises, kept on SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from cloud_core.model import Authority, DeviceProfile, KnownCertificate, Page, ProvisionStrategy
from cloud_core.storage.migrations import NEWEST, current
from cloud_core.storage.store import make_engine
from shared import certificates
from shared.credentials import AccessToken, X509Certificate
from tests.support.pki import Ca, Leaf, Pki
from tests.support.stores import TENANT, InlineReactor, StoreUnderTest, open_store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
DAY_MS = 86_400_000
BY_CHAIN = ProvisionStrategy.X509_CERTIFICATE_CHAIN
PKI = Pki(NOW)


@pytest.fixture(scope="module")
def root() -> Ca:
    return PKI.root("Root")


def credentials(leaf: Leaf) -> X509Certificate:
    return X509Certificate(certificates.certificate_text(leaf.der))


def known(store: StoreUnderTest, leaf: Leaf) -> KnownCertificate | None:
    found: KnownCertificate | None = store.read(lambda tx: tx.certificate(certificates.fingerprint(leaf.der)))
    return found


def certainly(store: StoreUnderTest, leaf: Leaf) -> KnownCertificate:
    found = known(store, leaf)
    assert found is not None
    return found


def put(store: StoreUnderTest, device_id: int, leaf: Leaf, *, now_ms: int = NOW_MS, until_ms: int = 0) -> None:
    store.run(lambda tx: tx.put_credentials(device_id, credentials(leaf), now_ms=now_ms, former_until_ms=until_ms))


def an_authority(name: str = "plant", key: bytes = b"key") -> Authority:
    return Authority(
        id=0, uuid=uuid4(), tenant_id=TENANT, name=name, chain=(b"own", b"issuer"), key=key, created_ms=NOW_MS
    )


def former_login(store: StoreUnderTest, leaf: Leaf, now_ms: int) -> Any:
    return store.read(lambda tx: tx.former_login(certificates.fingerprint(leaf.der), now_ms=now_ms))


# -- what is known of certificates ----------------------------------------------------------------


def test_what_a_certificate_says_is_kept_with_its_device(store: StoreUnderTest, root: Ca) -> None:
    """Serial in hexadecimal, names, times, whose it is; found by its fingerprint."""
    leaf = root.leaf("SN-1", serial=0xABC)
    device_id = store.add_device("SN-1", store.add_profile(), credentials(leaf))
    assert certainly(store, leaf) == KnownCertificate(
        id=certainly(store, leaf).id, tenant_id=TENANT, device_id=device_id, authority_id=None,
        fingerprint=certificates.fingerprint(leaf.der), serial="abc", subject="CN=SN-1", issuer="CN=Root",
        not_before_ms=certificates.not_before_ms(leaf.certificate),
        not_after_ms=certificates.not_after_ms(leaf.certificate), created_ms=1, device_name="SN-1",
    )  # fmt: skip


def test_of_a_mere_fingerprint_or_a_token_nothing_is_kept(store: StoreUnderTest) -> None:
    """Credentials may be an opaque text (the specification's `testHash`)."""
    profile = store.add_profile()
    store.add_device("a", profile, X509Certificate("testHash"))
    store.add_device("b", profile, AccessToken("t"))
    assert store.read(lambda tx: tx.certificates(TENANT, Page(sort_property="notAfter"))) == ([], 0)


def test_a_replaced_certificate_opens_the_door_until_its_time_is_over(store: StoreUnderTest, root: Ca) -> None:
    """`former_login` gives the device, confirmed, and no current certificate is a former one."""
    first, second = root.leaf("SN-1"), root.leaf("SN-1")
    device_id = store.add_device("SN-1", store.add_profile(), credentials(first))
    put(store, device_id, second, until_ms=NOW_MS + 1_000)
    login = former_login(store, first, NOW_MS + 999)
    assert (login.identity.device_id, login.identity.device_name, login.is_confirmed) == (device_id, "SN-1", True)
    assert former_login(store, first, NOW_MS + 1_000) is None
    assert former_login(store, second, NOW_MS) is None
    assert certainly(store, first).until_ms == NOW_MS + 1_000 and certainly(store, second).until_ms is None


def test_without_an_overlap_a_replaced_certificate_is_over_at_once(store: StoreUnderTest, root: Ca) -> None:
    """As when an operator gives the device other credentials, of whatever kind."""
    leaf = root.leaf("SN-1")
    device_id = store.add_device("SN-1", store.add_profile(), credentials(leaf))
    store.run(lambda tx: tx.put_credentials(device_id, AccessToken("t"), now_ms=NOW_MS))
    assert former_login(store, leaf, 1) is None
    assert certainly(store, leaf).until_ms == 0


def test_a_later_renewal_does_not_prolong_an_earlier_former_certificate(store: StoreUnderTest, root: Ca) -> None:
    """It shortens what is longer and leaves what is shorter."""
    leaves = [root.leaf("SN-1") for _ in range(3)]
    device_id = store.add_device("SN-1", store.add_profile(), credentials(leaves[0]))
    put(store, device_id, leaves[1], until_ms=NOW_MS + 10)
    put(store, device_id, leaves[2], until_ms=NOW_MS + 20)
    assert [certainly(store, one).until_ms for one in leaves] == [NOW_MS + 10, NOW_MS + 20, None]
    store.run(lambda tx: tx.put_credentials(device_id, AccessToken("t"), now_ms=NOW_MS))
    assert {certainly(store, one).until_ms for one in leaves} == {0}


def test_a_certificate_that_comes_back_is_a_current_one_again(store: StoreUnderTest, root: Ca) -> None:
    """It keeps its number and who issued it, and may be another device's now."""
    leaf = root.leaf("SN-1")
    profile = store.add_profile()
    authority_id = store.run(lambda tx: tx.insert_authority(an_authority()))
    first = store.add_device("a", profile)
    store.run(lambda tx: tx.put_credentials(first, credentials(leaf), now_ms=NOW_MS, authority_id=authority_id))
    before = certainly(store, leaf)
    store.run(lambda tx: tx.put_credentials(first, AccessToken("t2"), now_ms=NOW_MS))
    put(store, store.add_device("b", profile), leaf)
    after = certainly(store, leaf)
    assert (after.id, after.authority_id, after.until_ms) == (before.id, authority_id, None)
    assert after.device_name == "b"


def test_a_revoked_certificate_opens_nothing_and_stays_revoked(store: StoreUnderTest, root: Ca) -> None:
    """The first date and reason count; being shown or recorded again takes nothing back."""
    first, second = root.leaf("SN-1"), root.leaf("SN-1")
    device_id = store.add_device("SN-1", store.add_profile(), credentials(first))
    put(store, device_id, second, until_ms=NOW_MS + 1_000)
    number = certainly(store, first).id
    store.run(lambda tx: tx.revoke_certificate(number, now_ms=5, reason="keyCompromise"))
    store.run(lambda tx: tx.revoke_certificate(number, now_ms=6, reason="superseded"))
    assert former_login(store, first, NOW_MS) is None
    put(store, device_id, first)
    after = certainly(store, first)
    assert (after.revoked_ms, after.revocation_reason) == (5, "keyCompromise")


def test_certificates_outlive_their_device(store: StoreUnderTest, root: Ca) -> None:
    """A revocation list must still name them."""
    leaf = root.leaf("SN-1")
    device_id = store.add_device("SN-1", store.add_profile(), credentials(leaf))
    store.run(lambda tx: tx.delete_device(device_id))
    assert (certainly(store, leaf).device_id, certainly(store, leaf).device_name) == (None, "")


def test_all_certificates_of_a_device_are_found(store: StoreUnderTest, root: Ca) -> None:
    """Current and former, in their order, and nobody else's."""
    leaves = [root.leaf("SN-1") for _ in range(3)]
    profile = store.add_profile()
    device_id = store.add_device("SN-1", profile, credentials(leaves[0]))
    store.add_device("SN-2", profile, credentials(root.leaf("SN-2")))
    for leaf in leaves[1:]:
        put(store, device_id, leaf)
    found = store.read(lambda tx: tx.certificates_of_device(device_id))
    assert [one.fingerprint for one in found] == [certificates.fingerprint(one.der) for one in leaves]


def ending(root: Ca, name: str, days: int) -> Leaf:
    return root.leaf(name, not_after=NOW + timedelta(days=days))


def test_a_list_is_in_the_order_of_ends_and_can_be_cut_to_those_in_use(store: StoreUnderTest, root: Ca) -> None:
    """Former ones, revoked ones and those of no device are left out where an end is asked for."""
    profile = store.add_profile()
    devices = {name: store.add_device(name, profile) for name in ("a", "b", "c", "d")}
    for name, days in (("a", 30), ("b", 10), ("c", 20), ("d", 5)):
        put(store, devices[name], ending(root, name, days))
    put(store, devices["d"], ending(root, "d", 400))
    revoked = store.read(lambda tx: tx.certificates_of_device(devices["c"]))[0]
    store.run(lambda tx: tx.revoke_certificate(revoked.id, now_ms=1, reason="unspecified"))
    store.run(lambda tx: tx.record_certificate(ending(root, "x", 1).der, tenant_id=TENANT, device_id=None, now_ms=1))

    def listed(**asked: Any) -> tuple[list[str], int]:
        page = Page(sort_property="notAfter", **asked.pop("page", {}))
        rows, total = store.read(lambda tx: tx.certificates(TENANT, page, **asked))
        return [one.subject for one in rows], total

    assert listed() == (["CN=x", "CN=d", "CN=b", "CN=c", "CN=a", "CN=d"], 6)
    assert listed(page={"size": 2, "page": 1}) == (["CN=b", "CN=c"], 6)
    assert listed(page={"text_search": "cn=B"}) == (["CN=b"], 1)
    assert listed(ends_before_ms=NOW_MS + 40 * DAY_MS) == (["CN=b", "CN=a"], 2)
    assert store.read(lambda tx: tx.certificates(TENANT + 1, Page(sort_property="notAfter"))) == ([], 0)


def test_what_ends_soon_is_counted_with_the_first(store: StoreUnderTest, root: Ca) -> None:
    """Of those in use, from one time to another."""
    profile = store.add_profile()
    for name, days in (("over", -1), ("soon", 10), ("sooner", 5), ("later", 100)):
        leaf = root.leaf(name, not_before=NOW - timedelta(days=9), not_after=NOW + timedelta(days=days))
        store.add_device(name, profile, credentials(leaf))
    count, first = store.read(lambda tx: tx.ending_certificates(from_ms=NOW_MS, before_ms=NOW_MS + 30 * DAY_MS))
    assert (count, first.device_name) == (2, "sooner")
    assert store.read(lambda tx: tx.ending_certificates(from_ms=1, before_ms=2)) == (0, None)


# -- authorities ----------------------------------------------------------------------------------


def test_an_authority_comes_back_with_its_key(store: StoreUnderTest) -> None:
    """By name, uuid, number, and among those of its tenant."""
    made = an_authority()
    number = store.run(lambda tx: tx.insert_authority(made))
    kept = replace(made, id=number)
    assert store.read(lambda tx: tx.authority(TENANT, "plant")) == kept
    assert store.read(lambda tx: tx.authority_by_uuid(made.uuid)) == kept
    assert store.read(lambda tx: tx.authority_by_id(number)) == kept
    assert store.read(lambda tx: tx.authorities(TENANT)) == store.read(lambda tx: tx.every_authority()) == [kept]
    assert store.read(lambda tx: (tx.authority(TENANT, "x"), tx.authority_by_uuid(uuid4()), tx.authorities(99))) == (
        None, None, [],
    )  # fmt: skip


def test_the_key_of_an_authority_is_sealed_at_rest(sqlite_store: StoreUnderTest, tmp_path: Path) -> None:
    """Neither in the database's file nor in its log, and never in a text about it."""
    made = an_authority(key=b"CANARY-private-key")
    sqlite_store.run(lambda tx: tx.insert_authority(made))
    content = b"".join(file.read_bytes() for file in tmp_path.glob("muster.db*"))
    assert b"plant" in content and b"CANARY" not in content
    assert "CANARY" not in repr(made)


def test_revocation_lists_are_counted(store: StoreUnderTest) -> None:
    """1, 2, 3 for each authority by itself."""
    one, other = (store.run(lambda tx, n=name: tx.insert_authority(an_authority(n))) for name in ("a", "b"))
    assert [store.run(lambda tx: tx.next_crl_number(one)) for _ in range(3)] == [1, 2, 3]
    assert store.run(lambda tx: tx.next_crl_number(other)) == 1


def test_an_authority_knows_what_it_has_issued_and_taken_back(store: StoreUnderTest, root: Ca) -> None:
    """By serial; a list names what has not ended by itself."""
    one, other = (store.run(lambda tx, n=name: tx.insert_authority(an_authority(n))) for name in ("a", "b"))
    old = root.leaf("old", not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1), serial=1)
    new, good = root.leaf("new", serial=2), root.leaf("good", serial=3)

    def record(tx: Any) -> None:
        for leaf in (old, new, good):
            tx.record_certificate(leaf.der, tenant_id=TENANT, device_id=None, authority_id=one, now_ms=NOW_MS)

    store.run(record)
    for leaf in (old, new):
        store.run(lambda tx, leaf=leaf: tx.revoke_certificate(certainly_in(tx, leaf).id, now_ms=NOW_MS, reason="r"))
    named = store.read(lambda tx: tx.revoked_certificates(one, now_ms=NOW_MS))
    assert [known.serial for known in named] == ["2"]
    assert store.read(lambda tx: tx.certificate_by_serial(one, "3")).subject == "CN=good"
    assert store.read(lambda tx: tx.certificate_by_serial(other, "3")) is None


def certainly_in(tx: Any, leaf: Leaf) -> KnownCertificate:
    found: KnownCertificate = tx.certificate(certificates.fingerprint(leaf.der))
    return found


# -- trust anchors --------------------------------------------------------------------------------


def by_issuer(store: StoreUnderTest, *cas: Ca) -> list[str]:
    hashes = [certificates.name_hash(one.certificate.subject) for one in cas]
    found: list[DeviceProfile] = store.read(lambda tx: tx.profiles_by_issuer(hashes))
    return [one.name for one in found]


def test_profiles_are_found_by_the_names_of_their_cas(store: StoreUnderTest, root: Ca) -> None:
    """By the anchor and by those that help to build paths; several share one; the oldest comes first."""
    between, other = root.intermediate("Between"), PKI.root("Other")
    store.add_profile("b", strategy=BY_CHAIN, key="k", secret=root.pem, certificate_pattern="b(.*)")
    store.add_profile("a", strategy=BY_CHAIN, key="k", secret=root.pem + between.pem, certificate_pattern="a(.*)")
    store.add_profile("plain")
    assert by_issuer(store, root) == ["b", "a"]
    assert by_issuer(store, between) == ["a"]
    assert by_issuer(store, between, root) == ["b", "a"]
    assert by_issuer(store, other) == by_issuer(store) == []
    assert [one.name for one in store.read(lambda tx: tx.chain_profiles())] == ["b", "a"]


def test_another_ca_takes_the_former_ones_place(store: StoreUnderTest, root: Ca) -> None:
    """Saving a profile anew, or with another strategy, forgets what it trusted."""
    other = PKI.root("Other")
    store.add_profile("p", strategy=BY_CHAIN, key="k", secret=root.pem)

    def save(**changes: Any) -> None:
        profile = store.read(lambda tx: tx.profile_by_name(TENANT, "p"))
        changed = replace(profile, provision=replace(profile.provision, **changes))
        store.run(lambda tx: tx.update_profile(changed))

    save(secret=other.pem)
    assert (by_issuer(store, root), by_issuer(store, other)) == ([], ["p"])
    save(strategy=ProvisionStrategy.DISABLED)
    assert by_issuer(store, other) == []


def test_a_deleted_profile_trusts_nobody(store: StoreUnderTest, root: Ca) -> None:
    """Its anchors go with it."""
    number = store.add_profile("p", strategy=BY_CHAIN, key="k", secret=root.pem)
    store.run(lambda tx: tx.delete_profile(number))
    assert by_issuer(store, root) == []


# -- older databases ------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'old.db'}"
    new_database: Callable[[], str] = request.getfixturevalue("postgresql")
    return new_database()


def test_a_database_of_the_step_before_gets_the_new_tables(url: str, root: Ca) -> None:
    """What was there stays; certificates of its devices are kept from their next change on."""
    store = open_store(url)
    leaf = root.leaf("SN-1")
    device_id = store.add_device("SN-1", store.add_profile(), credentials(leaf))
    store.close()
    engine = make_engine(url)
    with engine.begin() as connection:
        for table in ("trust_anchor", "certificate", "authority"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    store = StoreUnderTest(url, InlineReactor())
    try:
        assert current(engine) == NEWEST
        assert store.read(lambda tx: tx.credentials(device_id)).credentials == credentials(leaf)
        assert known(store, leaf) is None and store.read(lambda tx: tx.every_authority()) == []
        put(store, device_id, leaf)
        assert certainly(store, leaf).device_id == device_id
    finally:
        store.close()
        engine.dispose()
