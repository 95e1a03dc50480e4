"""The rules of the small CA, on a real store: making, taking over, issuing, revoking, lists."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from cloud_core.core.certificates import authorities, expiry
from cloud_core.core.certificates.authorities import Which
from cloud_core.model import Page, ProvisionStrategy
from shared import certificates
from shared.credentials import X509Certificate
from shared.errors import InvalidArgument, InvalidCredentials, NoAuthority, NotFound
from tests.support.authorities import KEY, NOW_MS, add_authority, csr
from tests.support.pki import Ca, Pki
from tests.support.stores import TENANT, StoreUnderTest, forget_certificates

DAY_MS = 86_400_000
PKI = Pki()
TODAY_MS = int(PKI.now.timestamp() * 1000)


def issue(store: StoreUnderTest, profile: str = "sensor", **options: Any) -> authorities.Issued:
    def decide(tx: Any) -> authorities.Issued:
        found = tx.profile_by_name(TENANT, profile)
        text, name = options.get("csr", csr()), options.get("name", "SN-1")
        return authorities.issue(
            tx, found, text, name, options.get("now_ms", NOW_MS), public_url=options.get("url", "")
        )

    issued: authorities.Issued = store.read(decide)
    return issued


# -- which CA, how long ---------------------------------------------------------------------------


def test_the_only_ca_signs_for_every_profile(sqlite_store: StoreUnderTest) -> None:
    """The certificate is of the request's key and the device's name, and lives as the profile says."""
    authority = add_authority(sqlite_store)
    sqlite_store.add_profile(certificate_days=30)
    issued = issue(sqlite_store, csr=csr("somebody else"), name="SN-1")
    leaf = certificates.load(issued.certificate)
    assert (certificates.common_name(leaf), leaf.public_key()) == ("SN-1", KEY.public_key())
    assert issued.not_after_ms == NOW_MS + 30 * DAY_MS
    assert issued.authority_id == authority.id
    first, second = certificates.load_all(issued.chain_pem)
    assert (first, certificates.der(second)) == (leaf, authority.chain[0])


def test_a_profile_names_its_ca_where_there_are_several(sqlite_store: StoreUnderTest) -> None:
    """A name that is not there, and none where there is a choice, are refused with what to do."""
    for name in ("one", "two"):
        add_authority(sqlite_store, name)
    sqlite_store.add_profile("named", authority="two")
    sqlite_store.add_profile("lost", authority="three")
    sqlite_store.add_profile("open")
    assert issue(sqlite_store, "named").authority_name == "two"
    with pytest.raises(NoAuthority, match="'three', which does not exist"):
        issue(sqlite_store, "lost")
    with pytest.raises(NoAuthority, match="several CAs \\('one', 'two'\\); name one in certificateAuthority"):
        issue(sqlite_store, "open")


def test_without_a_ca_nothing_is_signed(sqlite_store: StoreUnderTest) -> None:
    """It says how to make one."""
    sqlite_store.add_profile()
    with pytest.raises(NoAuthority, match="cloud-core ca init"):
        issue(sqlite_store)


def test_a_ca_that_is_over_signs_nothing(sqlite_store: StoreUnderTest) -> None:
    """The device is refused, and not given what nobody takes."""
    add_authority(sqlite_store, years=1)
    sqlite_store.add_profile()
    assert issue(sqlite_store, now_ms=NOW_MS + 300 * DAY_MS).not_after_ms < NOW_MS + 370 * DAY_MS
    with pytest.raises(NoAuthority, match="is over since 2024-11-1"):
        issue(sqlite_store, now_ms=NOW_MS + 400 * DAY_MS)


def test_a_certificate_says_where_its_revocation_list_is(sqlite_store: StoreUnderTest) -> None:
    """The address under which the CA is for everybody."""
    authority = add_authority(sqlite_store)
    sqlite_store.add_profile()
    leaf = certificates.load(issue(sqlite_store, url="http://core:8080/").certificate)
    point = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value[0]
    assert point.full_name is not None
    assert point.full_name[0].value == f"http://core:8080/api/ca/{authority.uuid}/crl"


def test_a_bad_request_is_refused_before_anything_is_signed(sqlite_store: StoreUnderTest) -> None:
    """InvalidCredentials, as for any credentials that break their rules."""
    add_authority(sqlite_store)
    sqlite_store.add_profile()
    with pytest.raises(InvalidCredentials):
        issue(sqlite_store, csr="nonsense")


# -- making and taking over -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "curve", "years", "words"),
    [
        ("", "P-256", 1, "needs a name"),
        ("n" * 65, "P-256", 1, "at most 64 bytes"),
        ("a/b", "P-256", 1, "no /"),
        ("<b>", "P-256", 1, "markup"),
        ("ok", "P-521", 1, "keyType must be one of P-256, P-384"),
        ("ok", "P-256", 0, "years must be 1 to 100"),
        ("ok", "P-256", 101, "years must be 1 to 100"),
    ],
)
def test_what_a_new_ca_cannot_be(name: str, curve: str, years: int, words: str) -> None:
    """Each fault says what is allowed."""
    with pytest.raises(InvalidArgument, match=words):
        authorities.make(name, curve, years, NOW_MS)


def test_names_and_cas_are_kept_once(sqlite_store: StoreUnderTest) -> None:
    """A second CA of a name would take the first one's profiles; two of one key would have two lists."""
    authority = add_authority(sqlite_store)
    with pytest.raises(InvalidArgument, match="There is a CA 'plant' already"):
        add_authority(sqlite_store)
    with pytest.raises(InvalidArgument, match="there already, as 'plant'"):
        sqlite_store.run(authorities.add, TENANT, "other", authority.chain, authority.key, NOW_MS)


def take_over(chain: str, key: str) -> tuple[tuple[bytes, ...], bytes]:
    return authorities.take_over(chain, key, TODAY_MS)


@pytest.mark.parametrize("key", ["p256", "p384", "rsa2048"])
def test_a_ca_that_exists_is_taken_over_and_signs(sqlite_store: StoreUnderTest, key: str) -> None:
    """An intermediate with its issuers; what it signs verifies by them."""
    root = PKI.root("Root")
    between = root.intermediate("Between", key=key, path_length=0)
    chain, kept = take_over(between.pem + root.pem, between.key_pem)
    sqlite_store.run(authorities.add, TENANT, "old", chain, kept, TODAY_MS)
    sqlite_store.add_profile()
    issued = issue(sqlite_store, now_ms=TODAY_MS)
    leaf, *issuers = certificates.load_all(issued.chain_pem)
    assert issuers == [between.certificate, root.certificate]
    leaf.verify_directly_issued_by(between.certificate)


def encrypted(ca: Ca) -> str:
    kept = ca.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    return kept.decode()


ROOT = PKI.root("Root")
OTHER = PKI.root("Root")
BAD: dict[str, tuple[str, str, str]] = {
    "no certificate": ("hello", ROOT.key_pem, "cannot be read"),
    "no key": (ROOT.pem, "hello", "no private key in PEM"),
    "another key": (ROOT.pem, OTHER.key_pem, "is not that of the first certificate, 'CN=Root'"),
    "encrypted": (ROOT.pem, encrypted(ROOT), "is encrypted"),
    "a device": ((leaf := ROOT.leaf("SN-1")).pem, leaf.key_pem, "is no CA"),
    "no keyCertSign": (
        (ca := PKI.root("R", key_usage=("digital_signature",))).pem, ca.key_pem, "keyUsage lacks keyCertSign",
    ),
    "no cRLSign": ((ca := PKI.root("R", key_usage=("key_cert_sign",))).pem, ca.key_pem, "or cRLSign"),
    "over": ((ca := PKI.root("R", not_after=PKI.now)).pem, ca.key_pem, "is over since"),
    "wrong order": (
        (one := ROOT.intermediate("B")).pem + OTHER.pem, one.key_pem, "'CN=B' is not signed by 'CN=Root'",
    ),
    "path too long": (
        (one := (top := PKI.root("R", path_length=0)).intermediate("B")).pem + top.pem, one.key_pem,
        "allows 0 CAs beneath it, and there are 1",
    ),
    "weak": ((ca := PKI.root("R", key="rsa1024")).pem, ca.key_pem, "2048 bits or more"),
    "of a kind that signs nothing here": ((ca := PKI.root("R", key="ed25519")).pem, ca.key_pem, "ECDSA on"),
    "giant": ("A" * 70_000, ROOT.key_pem, "at most 65536"),
    "many": (ROOT.pem * 11, ROOT.key_pem, "has 11 certificates"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_a_ca_that_cannot_sign_is_not_taken_over(fault: str) -> None:
    """Refused with what is wrong, and without a word of the key."""
    chain, key, words = BAD[fault]
    with pytest.raises(InvalidArgument) as refused:
        take_over(chain, key)
    assert words in refused.value.detail
    assert len(key) < 80 or key[40:80] not in refused.value.detail


# -- for operators --------------------------------------------------------------------------------


def issue_ahead(store: StoreUnderTest, name: str = "SN-1", **options: Any) -> authorities.Issued:
    issued: authorities.Issued = store.run(
        authorities.issue_for_operator, TENANT, options.get("ca", "plant"), options.get("csr", csr()), name,
        options.get("days", 365), NOW_MS, "",
    )  # fmt: skip
    return issued


def test_a_certificate_is_issued_ahead_of_its_device(sqlite_store: StoreUnderTest) -> None:
    """It is known, of the CA, and of no device; the CA is named by its name or its uuid."""
    authority = add_authority(sqlite_store)
    issued = issue_ahead(sqlite_store, ca=str(authority.uuid))
    known = sqlite_store.read(lambda tx: tx.certificate_by_serial(authority.id, issued.serial))
    assert (known.device_id, known.subject) == (None, "CN=SN-1")
    assert sqlite_store.read(lambda tx: authorities.chain_of(tx, issued.certificate)) == issued.chain_pem
    assert sqlite_store.read(lambda tx: authorities.chain_of(tx, authority.chain[0])) == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": " "}, "a name is missing"), ({"name": "<script>"}, "malformed"), ({"days": 0}, "days must be"),
        ({"days": 99_999}, "days must be"), ({"csr": "x"}, "csr"),
    ],
)  # fmt: skip
def test_what_is_not_issued_ahead(sqlite_store: StoreUnderTest, options: dict[str, Any], words: str) -> None:
    """Bad arguments are refused as such."""
    add_authority(sqlite_store)
    with pytest.raises(InvalidArgument, match=words):
        issue_ahead(sqlite_store, **options)


def test_an_unknown_ca_is_not_found(sqlite_store: StoreUnderTest) -> None:
    """Nor is one of another tenant."""
    authority = add_authority(sqlite_store)
    for tenant_id, which in ((TENANT, "x"), (TENANT + 1, "plant"), (TENANT + 1, str(authority.uuid))):
        with pytest.raises(NotFound):
            sqlite_store.read(lambda tx, t=tenant_id, w=which: authorities.authority_named(tx, t, w))


# -- revoking -------------------------------------------------------------------------------------


def revoke(store: StoreUnderTest, reason: str = "keyCompromise", now_ms: int = NOW_MS, **which: Any) -> list[Any]:
    revoked: list[Any] = store.run(authorities.revoke, TENANT, Which(**which), reason, now_ms)
    return revoked


def crl(store: StoreUnderTest, authority: Any, now_ms: int = NOW_MS) -> x509.CertificateRevocationList:
    counted, number = store.run(authorities.count_crl, authority.uuid)
    return x509.load_der_x509_crl(store.read(lambda tx: authorities.make_crl(tx, counted, number, now_ms)))


@pytest.mark.parametrize("form", [str, str.upper, lambda s: "0x" + s, lambda s: "00" + s])
def test_a_certificate_is_revoked_by_its_serial_however_it_is_written(sqlite_store: StoreUnderTest, form: Any) -> None:
    """Of the CA that is named, or of any; the list names it from then on."""
    authority = add_authority(sqlite_store)
    add_authority(sqlite_store, "other")
    issued = issue_ahead(sqlite_store)
    assert len(crl(sqlite_store, authority)) == 0
    (known,) = revoke(sqlite_store, serial=form(issued.serial))
    assert (known.revoked_ms, known.revocation_reason) == (NOW_MS, "keyCompromise")
    entry = crl(sqlite_store, authority).get_revoked_certificate_by_serial_number(int(issued.serial, 16))
    assert entry is not None
    with pytest.raises(NotFound):
        revoke(sqlite_store, serial=issued.serial, authority="other")


def test_all_certificates_of_a_device_are_revoked_together(sqlite_store: StoreUnderTest) -> None:
    """Former ones too, whoever has issued them; one that was revoked before keeps its reason."""
    leaves = [ROOT.leaf("SN-1") for _ in range(2)]
    texts = [X509Certificate(certificates.certificate_text(one.der)) for one in leaves]
    device_id = sqlite_store.add_device("SN-1", sqlite_store.add_profile(), texts[0])
    revoke(sqlite_store, "superseded", 5, fingerprint=certificates.fingerprint(leaves[0].der))
    sqlite_store.run(lambda tx: tx.put_credentials(device_id, texts[1], now_ms=NOW_MS, former_until_ms=NOW_MS + 9))
    revoked = revoke(sqlite_store, device_name="SN-1")
    assert [(one.revoked_ms, one.revocation_reason) for one in revoked] == [
        (5, "superseded"), (NOW_MS, "keyCompromise"),
    ]  # fmt: skip


def test_the_certificate_of_a_device_from_an_older_database_is_revoked_too(store: StoreUnderTest) -> None:
    """Its credentials are there; nothing else has been kept of it yet."""
    leaf = ROOT.leaf("SN-1")
    text = X509Certificate(certificates.certificate_text(leaf.der))
    device_id = store.add_device("SN-1", store.add_profile(), text)
    store.run(forget_certificates)
    (known,) = revoke(store, device_name="SN-1")
    assert (known.device_id, known.revoked_ms) == (device_id, NOW_MS)
    assert known.fingerprint == certificates.fingerprint(leaf.der)


def test_what_is_not_known_is_not_revoked(sqlite_store: StoreUnderTest) -> None:
    """Each way of naming it says so; two at once, none, and a strange reason are no question."""
    add_authority(sqlite_store)
    sqlite_store.add_device("bare", sqlite_store.add_profile())
    for which in (
        {"serial": "1"}, {"fingerprint": b"f" * 32}, {"device_name": "x"}, {"device_name": "bare"},
        {"serial": "1", "authority": "x"},
    ):  # fmt: skip
        with pytest.raises(NotFound):
            revoke(sqlite_store, **which)
    for which in ({}, {"serial": "1", "device_name": "x"}, {"serial": "xyz"}):
        with pytest.raises(InvalidArgument):
            revoke(sqlite_store, **which)
    with pytest.raises(InvalidArgument, match="reason must be one of"):
        revoke(sqlite_store, "certificateHold", serial="1")


def test_a_certificate_of_another_tenant_cannot_be_revoked(sqlite_store: StoreUnderTest) -> None:
    """It looks like one that does not exist."""
    add_authority(sqlite_store)
    issued = issue_ahead(sqlite_store)
    which = Which(fingerprint=certificates.fingerprint(issued.certificate))
    with pytest.raises(NotFound):
        sqlite_store.run(authorities.revoke, TENANT + 1, which, "unspecified", NOW_MS)


def test_every_list_has_a_higher_number(sqlite_store: StoreUnderTest) -> None:
    """RFC 5280 section 5.2.3; what has ended by itself is not named any more."""
    authority = add_authority(sqlite_store)
    issued = issue_ahead(sqlite_store, days=1)
    revoke(sqlite_store, serial=issued.serial)
    lists = [crl(sqlite_store, authority, now_ms) for now_ms in (NOW_MS, NOW_MS + 2 * DAY_MS)]
    numbers = [one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for one in lists]
    assert (numbers, [len(one) for one in lists]) == ([1, 2], [1, 0])


# -- what ends when -------------------------------------------------------------------------------


def test_every_certificate_that_is_known_is_in_the_overview(sqlite_store: StoreUnderTest) -> None:
    """Devices', CAs', and those that profiles admit by."""
    add_authority(sqlite_store, now_ms=TODAY_MS)
    sqlite_store.add_profile("chain", strategy=ProvisionStrategy.X509_CERTIFICATE_CHAIN, key="k", secret=ROOT.pem)
    text = X509Certificate(certificates.certificate_text(ROOT.leaf("SN-1").der))
    sqlite_store.add_device("SN-1", sqlite_store.add_profile(), text)
    page = Page(sort_property="notAfter")
    found = sqlite_store.read(expiry.overview, TENANT, page, None)
    assert [one.device_name for one in found.devices] == ["SN-1"]
    assert {(one.kind, one.name) for one in found.others} == {("AUTHORITY", "plant"), ("PROFILE", "chain")}
    soon = sqlite_store.read(expiry.overview, TENANT, page, TODAY_MS + 366 * DAY_MS)
    assert ([one.device_name for one in soon.devices], soon.others) == (["SN-1"], [])
    assert sqlite_store.read(expiry.overview, TENANT + 1, page, None).others == []


def test_what_ends_soon_is_worth_a_line_for_each_kind(sqlite_store: StoreUnderTest) -> None:
    """With how many there are, and the first; nothing where all is well."""
    add_authority(sqlite_store, years=1, now_ms=TODAY_MS)
    text = X509Certificate(certificates.certificate_text(ROOT.leaf("SN-1").der))
    sqlite_store.add_device("SN-1", sqlite_store.add_profile(), text)
    server = [("/etc/muster/server.pem", TODAY_MS + 360 * DAY_MS)]
    assert sqlite_store.read(expiry.warnings, server, TODAY_MS, 30) == []
    lines = sqlite_store.read(expiry.warnings, server, TODAY_MS + 350 * DAY_MS, 30)
    assert [line.partition(" that end")[0] for line in lines] == [
        "Certificates of devices", "Certificates of CAs", "Certificates of the server itself",
    ]  # fmt: skip
    assert "'SN-1'" in lines[0] and "'plant'" in lines[1] and "server.pem" in lines[2]
