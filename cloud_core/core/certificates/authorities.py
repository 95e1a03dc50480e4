"""The small CAs of tenants: who may have one, what it issues and what it takes back. Decisions are plain functions of
a transaction, checks before writes; what a certificate looks like stands in `signing`.

A CA of ours vouches for who a device is, for as long as it says. Everything that it has issued is known here, so a
device with a revoked certificate is refused at once; the revocation list is for others.

Source: RFC 5280 sections 4.2.1 and 5; wire-contract.md section 1.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cloud_core.core.certificates import signing
from cloud_core.core.certificates.signing_requests import read_request
from cloud_core.core.names import fault_of
from cloud_core.core.tokens import new_uuid
from cloud_core.model import Authority, Device, DeviceProfile, KnownCertificate
from cloud_core.storage.interface import ReadTx, Tx
from shared import certificates
from shared.credentials import X509Certificate
from shared.errors import InvalidArgument, InvalidCredentials, NoAuthority, NotFound

E = TypeVar("E", bound=x509.ExtensionType)

MAX_AUTHORITIES = 100  # of a tenant
MAX_YEARS = 100
MAX_DAYS = 36_500
MAX_CHAIN_CERTIFICATES = 10
MAX_PEM_CHARS = 65_536
MIN_RSA_BITS, MAX_RSA_BITS = 2_048, 8_192
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A signed certificate, which is not kept yet. `chain_pem`: it, then its issuers."""

    certificate: bytes  # DER
    chain_pem: str
    authority_id: int
    authority_name: str
    not_after_ms: int

    @property
    def serial(self) -> str:
        return f"{certificates.load(self.certificate).serial_number:x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """The certificates that are meant: by serial (of the CA `authority`, a name), by fingerprint, or a device's."""

    serial: str = ""
    fingerprint: bytes = b""
    device_name: str = ""
    authority: str = ""


# -- authorities ----------------------------------------------------------------------------------


def check_name(name: str) -> str:
    """The trimmed name of a CA, which is its CN as well. Raises: InvalidArgument."""
    name = name.strip()
    if not name:
        raise InvalidArgument("The CA needs a name")
    fault = fault_of("name", name)
    if fault or "/" in name or len(name.encode()) > signing.MAX_COMMON_NAME_BYTES:
        limit = signing.MAX_COMMON_NAME_BYTES
        raise InvalidArgument(f"Validation error: the name of a CA has at most {limit} bytes, and no / or markup")
    return name


def make(name: str, curve: str, years: int, now_ms: int) -> tuple[tuple[bytes, ...], bytes]:
    """A new self-signed CA: (chain, key), to be kept with `add`. Raises: InvalidArgument."""
    if curve not in signing.CURVES:
        raise InvalidArgument(f"Validation error: keyType must be one of {', '.join(signing.CURVES)}")
    if not 1 <= years <= MAX_YEARS:
        raise InvalidArgument(f"Validation error: years must be 1 to {MAX_YEARS}")
    certificate, key = signing.make_root(check_name(name), curve, now_ms=now_ms, years=years)
    return (certificate,), key


def take_over(chain_pem: str, key_pem: str, now_ms: int) -> tuple[tuple[bytes, ...], bytes]:
    """A CA that exists: (chain, key), to be kept with `add`. Its certificate comes first, then its issuers.

    Raises: InvalidArgument, which quotes nothing.
    """
    if len(chain_pem) > MAX_PEM_CHARS or len(key_pem) > MAX_PEM_CHARS:
        raise InvalidArgument(f"Chain and key must each have at most {MAX_PEM_CHARS} characters")
    try:
        chain = certificates.load_all(chain_pem)
    except certificates.MalformedCertificate as error:
        raise InvalidArgument(f"The chain cannot be read. {error}") from error
    if len(chain) > MAX_CHAIN_CERTIFICATES:
        raise InvalidArgument(f"The chain has {len(chain)} certificates; at most {MAX_CHAIN_CERTIFICATES} are taken")
    key = _ca_key(key_pem)
    if key.public_key() != chain[0].public_key():
        raise InvalidArgument(f"The key is not that of the first certificate, '{_subject(chain[0])}'")
    for position, one in enumerate(chain):
        fault = _ca_fault(one, position, now_ms)
        if fault:
            raise InvalidArgument(f"The certificate '{_subject(one)}' {fault}")
    for issued, issuer in pairwise(chain):
        try:
            issued.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise InvalidArgument(
                f"'{_subject(issued)}' is not signed by '{_subject(issuer)}', which follows it; order the chain from "
                "the CA up to its root"
            ) from error
    return tuple(map(certificates.der, chain)), signing.key_der(key)


def _ca_key(key_pem: str) -> signing.CaKey:
    try:
        key = load_pem_private_key(key_pem.encode(), None)
    except TypeError as error:
        raise InvalidArgument("The key is encrypted; decrypt it first: openssl pkey -in FILE") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidArgument("The key is no private key in PEM") from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPrivateKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        return key
    raise InvalidArgument(f"The key of a CA is ECDSA on P-256, P-384 or P-521, or RSA of {MIN_RSA_BITS} bits or more")


def _ca_fault(one: x509.Certificate, cas_below: int, now_ms: int) -> str | None:
    """Why it cannot stand in the chain of a CA, `cas_below` others beneath it; completes "The certificate … "."""
    try:
        constraints = _extension(one, x509.BasicConstraints)
        usage = _extension(one, x509.KeyUsage)
    except ValueError:
        return "has extensions that cannot be read"
    if constraints is None or not constraints.ca:
        return "is no CA: it lacks BasicConstraints with CA:TRUE"
    if constraints.path_length is not None and constraints.path_length < cas_below:
        return f"allows {constraints.path_length} CAs beneath it, and there are {cas_below}"
    if usage is not None and not (usage.key_cert_sign and (usage.crl_sign or cas_below)):
        return "may not sign certificates and revocation lists: its keyUsage lacks keyCertSign or cRLSign"
    if certificates.not_after_ms(one) <= now_ms:
        return f"is over since {one.not_valid_after_utc:%Y-%m-%d}"
    if certificates.not_before_ms(one) > now_ms:
        return f"is not valid before {one.not_valid_before_utc:%Y-%m-%d}"
    return None


def _extension(one: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return one.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _subject(one: x509.Certificate) -> str:
    return certificates.name_text(one.subject, 200)


def add(tx: Tx, tenant_id: int, name: str, chain: tuple[bytes, ...], key: bytes, now_ms: int) -> Authority:
    """Keeps a CA. Raises: InvalidArgument."""
    name = check_name(name)
    there = tx.authorities(tenant_id)
    for one in there:
        if one.name == name:
            raise InvalidArgument(f"There is a CA '{name}' already")
        if one.chain[0] == chain[0]:
            raise InvalidArgument(f"This CA is there already, as '{one.name}'")
    if len(there) >= MAX_AUTHORITIES:
        raise InvalidArgument(f"A tenant has at most {MAX_AUTHORITIES} CAs")
    made = Authority(
        id=0, uuid=new_uuid(now_ms), tenant_id=tenant_id, name=name, chain=chain, key=key, created_ms=now_ms
    )
    tx.insert_authority(made)
    return authority_named(tx, tenant_id, name)


def authority_named(tx: ReadTx, tenant_id: int, which: str) -> Authority:
    """By name, or by the text of its uuid. Raises: NotFound."""
    found = tx.authority(tenant_id, which)
    if found is None:
        with suppress(ValueError):  # then it is no uuid either
            found = tx.authority_by_uuid(UUID(which))
    if found is None or found.tenant_id != tenant_id:
        raise NotFound(f"There is no CA '{which}'; make it with: cloud-core ca init")
    return found


def authorities(tx: ReadTx, tenant_id: int) -> list[Authority]:
    return tx.authorities(tenant_id)


def authority_by_uuid(tx: ReadTx, uuid: UUID) -> Authority:
    """Of any tenant: what it says to everybody. Raises: NotFound."""
    found = tx.authority_by_uuid(uuid)
    if found is None:
        raise NotFound("There is no such CA")
    return found


def authority_of(tx: ReadTx, profile: DeviceProfile) -> Authority:
    """The CA that signs for devices of the profile. Raises: NoAuthority."""
    wanted = profile.provision.authority
    if wanted:
        found = tx.authority(profile.tenant_id, wanted)
        if found is None:
            raise NoAuthority(f"profile '{profile.name}' names the CA '{wanted}', which does not exist")
        return found
    there = tx.authorities(profile.tenant_id)
    if not there:
        raise NoAuthority("there is no CA; make one with: cloud-core ca init NAME")
    if len(there) > 1:
        names = ", ".join(f"'{one.name}'" for one in there[:5])
        raise NoAuthority(f"there are several CAs ({names}); name one in certificateAuthority of '{profile.name}'")
    return there[0]


# -- issuing --------------------------------------------------------------------------------------


def issue(
    tx: ReadTx, profile: DeviceProfile, csr_text: str, device_name: str, now_ms: int, *, public_url: str = ""
) -> Issued:
    """A certificate for the key of the request and the name of the device, by the CA of the profile.

    Writes nothing: it is kept with the device's credentials. `public_url`: where others reach the core over HTTP;
    without it the certificate does not say where the revocation list is.

    Raises: InvalidCredentials (the request), NoAuthority.
    """
    authority = authority_of(tx, profile)
    return _signed(authority, csr_text, device_name, profile.provision.certificate_days, now_ms, public_url)


def issue_for_operator(
    tx: Tx, tenant_id: int, which: str, csr_text: str, name: str, days: int, now_ms: int, public_url: str
) -> Issued:
    """A certificate for a device that need not exist yet; kept as issued, of no device.

    Raises: NotFound (the CA), InvalidArgument.
    """
    authority = authority_named(tx, tenant_id, which)
    name = name.strip()
    fault = fault_of("name", name) if name else "a name is missing"
    if fault:
        raise InvalidArgument(f"Validation error: {fault}")
    if not 1 <= days <= MAX_DAYS:
        raise InvalidArgument(f"Validation error: days must be 1 to {MAX_DAYS}")
    try:
        issued = _signed(authority, csr_text, name, days, now_ms, public_url)
    except (InvalidCredentials, NoAuthority) as error:
        raise InvalidArgument(str(error)) from error
    tx.record_certificate(
        issued.certificate, tenant_id=tenant_id, device_id=None, authority_id=authority.id, now_ms=now_ms
    )
    return issued


def _signed(authority: Authority, csr_text: str, name: str, days: int, now_ms: int, public_url: str) -> Issued:
    request = read_request(csr_text)
    signer = signing.signer_of(authority.chain, authority.key)
    end_ms = certificates.not_after_ms(signer.certificate)
    if end_ms <= now_ms:
        raise NoAuthority(
            f"the CA '{authority.name}' is over since {signer.certificate.not_valid_after_utc:%Y-%m-%d}; make another "
            "one, and name it in the profile's certificateAuthority"
        )
    url = crl_url(public_url, authority.uuid)
    made = signing.sign_device(signer, request.public_key, name, now_ms=now_ms, days=days, crl_url=url)
    return Issued(
        certificate=certificates.der(made), chain_pem=certificates.pem(made) + signer.chain_pem,
        authority_id=authority.id, authority_name=authority.name, not_after_ms=certificates.not_after_ms(made),
    )  # fmt: skip


def crl_url(public_url: str, uuid: UUID) -> str:
    return f"{public_url.rstrip('/')}/api/ca/{uuid}/crl" if public_url else ""


def chain_of(tx: ReadTx, leaf: bytes) -> str:
    """PEM of a certificate that a CA of ours has issued, then of its issuers; empty for any other."""
    known = tx.certificate(certificates.fingerprint(leaf))
    authority = None if known is None or known.authority_id is None else tx.authority_by_id(known.authority_id)
    if authority is None:
        return ""
    return certificates.pem(certificates.load(leaf)) + signing.signer_of(authority.chain, authority.key).chain_pem


# -- revoking -------------------------------------------------------------------------------------


def revoke(tx: Tx, tenant_id: int, which: Which, reason: str, now_ms: int) -> list[KnownCertificate]:
    """All that are meant, revoked; one that was before keeps its date and reason. Raises: NotFound, InvalidArgument."""
    if reason not in signing.REASONS:
        raise InvalidArgument(f"Validation error: reason must be one of {', '.join(signing.REASONS)}")
    meant = _meant(tx, tenant_id, which, now_ms)
    for one in meant:
        if one.revoked_ms is None:
            tx.revoke_certificate(one.id, now_ms=now_ms, reason=reason)
    return [known for one in meant if (known := tx.certificate(one.fingerprint))]


def known(tx: ReadTx, tenant_id: int, fingerprint: bytes) -> KnownCertificate:
    """Raises: NotFound."""
    return _existing(tx.certificate(fingerprint), tenant_id, "fingerprint")[0]


def _meant(tx: Tx, tenant_id: int, which: Which, now_ms: int) -> Sequence[KnownCertificate]:
    given = [bool(which.serial), bool(which.fingerprint), bool(which.device_name)]
    if sum(given) != 1:
        raise InvalidArgument("Say which certificate: one of serial, fingerprint and deviceName")
    if which.device_name:
        device = tx.device_by_name(tenant_id, which.device_name)
        if device is None:
            raise NotFound(f"There is no device '{which.device_name}'; a certificate of none is named by its serial")
        return _of_device(tx, device, now_ms)
    if which.fingerprint:
        return _existing(tx.certificate(which.fingerprint), tenant_id, "fingerprint")
    issuers = [authority_named(tx, tenant_id, which.authority)] if which.authority else tx.authorities(tenant_id)
    serial = _serial(which.serial)
    matches = [one for issuer in issuers if (one := tx.certificate_by_serial(issuer.id, serial))]
    return _existing(matches[0] if matches else None, tenant_id, "serial")


def _of_device(tx: Tx, device: Device, now_ms: int) -> Sequence[KnownCertificate]:
    """All of them; what it logs in with is kept first, where it comes from an older database."""
    found, stored = tx.certificates_of_device(device.id), tx.credentials(device.id)
    if not found and stored is not None and isinstance(stored.credentials, X509Certificate):
        with suppress(certificates.MalformedCertificate):  # then it is a mere fingerprint
            der = certificates.der_of(stored.credentials.certificate)
            tx.record_certificate(der, tenant_id=device.tenant_id, device_id=device.id, now_ms=now_ms)
            found = tx.certificates_of_device(device.id)
    if not found:
        raise NotFound(
            f"No certificate of the device '{device.name}' is known; what it logs in with is changed by giving it "
            "other credentials"
        )
    return found


def _existing(one: KnownCertificate | None, tenant_id: int, how: str) -> Sequence[KnownCertificate]:
    if one is None or one.tenant_id != tenant_id:
        raise NotFound(f"No certificate with this {how} is known; see: cloud-core certificates")
    return [one]


def _serial(text: str) -> str:
    """As it is stored, however it was written: colons, capitals, leading zeros or 0x."""
    try:
        return f"{int(text.replace(':', ''), 16):x}"
    except ValueError as error:
        raise InvalidArgument("Validation error: serial must be hexadecimal") from error


def count_crl(tx: Tx, uuid: UUID) -> tuple[Authority, int]:
    """The CA, and the number of its next revocation list. Raises: NotFound."""
    authority = authority_by_uuid(tx, uuid)
    return authority, tx.next_crl_number(authority.id)


def revocations(tx: ReadTx, uuid: UUID) -> int:
    """How many of its certificates the CA has revoked so far: grows with each. Raises: NotFound."""
    return tx.revocation_count(authority_by_uuid(tx, uuid).id)


def revoked(tx: ReadTx, authority: Authority, now_ms: int) -> list[KnownCertificate]:
    """What stands in its list. A look-up, since a long one takes its time, and the writer has none."""
    return tx.revoked_certificates(authority.id, now_ms=now_ms)


def make_crl(authority: Authority, revoked: Sequence[KnownCertificate], number: int, now_ms: int) -> bytes:
    """DER of the list; for a thread."""
    signer = signing.signer_of(authority.chain, authority.key)
    return signing.crl_der(signing.make_crl(signer, revoked, number=number, now_ms=now_ms))
