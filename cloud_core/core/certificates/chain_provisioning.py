"""Provisioning by certificate chain: create or match, as plain functions of a transaction.

That the chain leads to the profile's CA, and the device's name, are decided before (`chain_matching`); here stands what
has to be true at the moment of writing. Every check is before the first write, and the log line of the attempt is
in the same transaction as its outcome.

Source: wire-contract.md section 1.8, steps 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from cryptography import x509

from cloud_core.core.assignments import tell_new_device
from cloud_core.core.provisioning import Policy
from cloud_core.core.quota import check_room
from cloud_core.core.tokens import GENERATED_CHARS, new_attempt_id, new_reference, new_uuid
from cloud_core.model import (
    PROVISION_STATE,
    PROVISIONED,
    Attempt,
    Device,
    DeviceProfile,
    Identity,
    Peer,
    Renewal,
    Scope,
    StoredCredentials,
)
from cloud_core.storage.interface import NewDevice, Tx
from shared import certificates
from shared.certificates import MalformedCertificate
from shared.credentials import AccessToken, X509Certificate, credentials_id, credentials_type
from shared.errors import (
    CredentialsInUse,
    DeviceAlreadyExists,
    DeviceNotFound,
    PlatformError,
    ProvisionRefused,
    QuotaExceeded,
)

DAY_MS = 86_400_000
MAX_FACT_CHARS = 300


@dataclass(frozen=True, slots=True)
class Wanted:
    """A verified leaf that asks to come in. `version`: of the profile that it was verified against."""

    tenant_id: int
    profile_uuid: UUID
    version: int
    name: str
    leaf: x509.Certificate
    der: bytes
    peer: Peer

    @property
    def credentials(self) -> X509Certificate:
        return X509Certificate(certificates.certificate_text(self.der))


@dataclass(frozen=True, slots=True)
class Admitted:
    """The certificate is the device's now. `forgets`: it had others before; `ends_sessions`: which are over."""

    identity: Identity
    line: Attempt
    is_new_device: bool
    forgets: bool = False
    ends_sessions: bool = False


class Overtaken:
    """Profile or certificate are not what they were when the chain was verified: look again."""


class _Refusal(Exception):
    """The refusal, and the name of the check that decided."""

    def __init__(self, stage: str, error: ProvisionRefused) -> None:
        super().__init__(str(error))
        self.stage = stage
        self.error = error


@dataclass(slots=True)
class _Decision:
    device_id: int
    stored: StoredCredentials | None = None  # what the device had so far
    former_until_ms: int = 0
    ends_sessions: bool = False
    detail: str = ""
    is_new: bool = False


def admit(tx: Tx, wanted: Wanted, now_ms: int, policy: Policy) -> Admitted | Overtaken | ProvisionRefused:
    """One verified chain, decided and logged in the transaction `tx`; a refusal leaves nothing but its log line."""
    profile = tx.profile(wanted.tenant_id, wanted.profile_uuid)
    known = tx.certificate(certificates.fingerprint(wanted.der))
    is_revoked = known is not None and known.revoked_ms is not None
    key = credentials_id(wanted.credentials)
    owner = tx.logins([key])[0]
    is_registered = owner is not None and isinstance(owner.credentials, X509Certificate)
    if profile is None or profile.version != wanted.version or is_revoked or is_registered:
        return Overtaken()
    try:
        if owner is not None:
            raise _in_use(owner.identity, profile.tenant_id)
        decision = _decide(tx, profile, wanted, now_ms, policy)
    except _Refusal as refusal:
        error = refusal.error
        error.ref, error.stage = new_reference(), refusal.stage
        place = Place(profile.tenant_id, profile.id)
        tx.log_attempt(refused_attempt(error, refusal.stage, wanted.leaf, wanted.peer, now_ms, place, wanted.name))
        return error
    line = _write(tx, profile, decision, wanted, now_ms)
    login = tx.logins([key])[0]
    assert login is not None, "it has just been written"
    return Admitted(
        login.identity, line, decision.is_new, forgets=decision.stored is not None,
        ends_sessions=decision.ends_sessions,
    )  # fmt: skip


def _decide(tx: Tx, profile: DeviceProfile, wanted: Wanted, now_ms: int, policy: Policy) -> _Decision:
    """Creates the device where it is new: the last of the checks, and the first write."""
    device = tx.device_by_name(profile.tenant_id, wanted.name)
    if device is None:
        return _Decision(_create(tx, profile, wanted, now_ms, policy), is_new=True)
    if device.profile_id != profile.id:
        raise _exists(
            "profile",
            f"device '{device.name}' is of profile '{device.type}' and not of '{profile.name}', whose CA has issued "
            "the certificate; move the device to this profile, or rename it",
        )
    stored = tx.credentials(device.id)
    if stored is None:
        return _Decision(device.id)
    if isinstance(stored.credentials, X509Certificate):
        return _renew(tx, profile, device, stored, wanted, now_ms)
    if _is_unused(stored):
        return _Decision(
            device.id, stored, detail="its generated access token, never used, gave way to the certificate"
        )
    raise _exists(
        "credentials",
        f"device '{device.name}' has credentials of the type {credentials_type(stored.credentials).value}, which are "
        "left alone; give it this certificate as its credentials, or delete it and let it come in anew",
    )


def _exists(stage: str, detail: str) -> _Refusal:
    return _Refusal(stage, DeviceAlreadyExists(detail))


def _in_use(owner: Identity, tenant_id: int) -> _Refusal:
    """Ids of credentials are one space, and tokens can be chosen. Nobody learns of the devices of other tenants."""
    who = f"device '{owner.device_name}'" if owner.tenant_id == tenant_id else "a device of another tenant"
    detail = f"{who} has a token or user name that is the id of this certificate; give it another one"
    return _Refusal("credentials", CredentialsInUse(detail))


def _is_unused(stored: StoredCredentials) -> bool:
    """Whether these are what a device gets that is made or imported by name, and nobody has had them."""
    token = stored.credentials.token if isinstance(stored.credentials, AccessToken) else ""
    is_generated = len(token) == GENERATED_CHARS and token.isalnum()
    return is_generated and stored.issued_ms is None and stored.confirmed_ms is None


def _create(tx: Tx, profile: DeviceProfile, wanted: Wanted, now_ms: int, policy: Policy) -> int:
    if not profile.provision.allow_create_by_certificate:
        raise _Refusal(
            "strategy",
            DeviceNotFound(
                f"profile '{profile.name}' has no device '{wanted.name}'; create or import it first, or set "
                "allowCreateNewDevicesByX509Certificate"
            ),
        )
    try:
        check_room(tx, profile.tenant_id, policy.max_devices_per_tenant)
    except QuotaExceeded as error:
        raise _Refusal("quota", error) from error
    return tx.insert_device(
        NewDevice(
            uuid=new_uuid(now_ms), tenant_id=profile.tenant_id, profile_id=profile.id, name=wanted.name,
            created_ms=now_ms, document={},
        )
    )  # fmt: skip


def _renew(
    tx: Tx, profile: DeviceProfile, device: Device, stored: StoredCredentials, wanted: Wanted, now_ms: int
) -> _Decision:
    """Another certificate for the name of a device that has one: taken as the profile's renewal policy says."""
    assert isinstance(stored.credentials, X509Certificate)
    current = _certificate_of(stored.credentials)
    is_same_key = current is not None and certificates.key_hash(current) == certificates.key_hash(wanted.leaf)
    if current is not None and is_same_key and _is_revoked(tx, current):
        raise _exists(
            "renewal",
            f"the certificate of device '{device.name}' has been revoked, and this one is of the same key; have the "
            "device's certificate issued for a new key",
        )
    detail = "the certificate took the place of the device's former one"
    if profile.provision.renewal is Renewal.ALWAYS:
        return _Decision(device.id, stored, ends_sessions=True, detail=detail)
    end_ms = certificates.not_after_ms(current) if current is not None else None
    is_former = _is_former(tx, device, wanted)
    if not _is_taken(profile, is_same_key, is_former, end_ms, now_ms):
        raise _exists("renewal", _why_not(profile, device, is_same_key, is_former, end_ms))
    assert end_ms is not None, "of a mere fingerprint nothing is the same, and nothing is due"
    until_ms = min(end_ms, now_ms + profile.provision.overlap_days * DAY_MS)
    if until_ms <= now_ms:
        return _Decision(device.id, stored, ends_sessions=True, detail=detail)
    detail += f", which is taken until {_date(until_ms)}"
    return _Decision(device.id, stored, former_until_ms=until_ms, detail=detail)


def _is_taken(profile: DeviceProfile, is_same_key: bool, is_former: bool, end_ms: int | None, now_ms: int) -> bool:
    """A former certificate of the device, whose time was over, comes back only when its successor has ended."""
    renewal = profile.provision.renewal
    window_ms = 0 if is_former else profile.provision.renewal_window_days * DAY_MS
    is_due = end_ms is not None and now_ms >= end_ms - window_ms
    if renewal is Renewal.NEVER:
        return False
    return (is_same_key and (is_due or not is_former)) or (is_due and renewal is Renewal.SAME_KEY_OR_WINDOW)


def _is_former(tx: Tx, device: Device, wanted: Wanted) -> bool:
    known = tx.certificate(certificates.fingerprint(wanted.der))
    return known is not None and known.device_id == device.id and known.until_ms is not None


def _is_revoked(tx: Tx, current: x509.Certificate) -> bool:
    known = tx.certificate(certificates.fingerprint(certificates.der(current)))
    return known is not None and known.revoked_ms is not None


def _why_not(profile: DeviceProfile, device: Device, is_same_key: bool, is_former: bool, end_ms: int | None) -> str:
    provision = profile.provision
    if is_former and provision.renewal is not Renewal.NEVER and end_ms is not None:
        return (
            f"this is a former certificate of the device '{device.name}', which has another one until {_date(end_ms)}; "
            "give the device this certificate as its credentials if it is right"
        )
    other = (
        "only its fingerprint is registered" if end_ms is None
        else f"it is of {'the same' if is_same_key else 'another'} key and ends {_date(end_ms)}"
    )  # fmt: skip
    window = (
        f" (its last {provision.renewal_window_days} days)" if provision.renewal is Renewal.SAME_KEY_OR_WINDOW else ""
    )
    return (
        f"device '{device.name}' has another certificate ({other}), and certificateRenewal of profile '{profile.name}' "
        f"is {provision.renewal.value}{window}; give the device this certificate as its credentials, or change "
        "certificateRenewal"
    )


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _certificate_of(credentials: X509Certificate) -> x509.Certificate | None:
    """None for a mere fingerprint or another opaque text."""
    try:
        return certificates.load(certificates.der_of(credentials.certificate))
    except MalformedCertificate:
        return None


def _write(tx: Tx, profile: DeviceProfile, decision: _Decision, wanted: Wanted, now_ms: int) -> Attempt:
    """The attempt's line in the log."""
    if decision.former_until_ms and decision.stored is not None:  # one from an older database is not kept yet
        assert isinstance(decision.stored.credentials, X509Certificate)
        former = certificates.der_of(decision.stored.credentials.certificate)
        tx.record_certificate(former, tenant_id=profile.tenant_id, device_id=decision.device_id, now_ms=now_ms)
    tx.put_credentials(
        decision.device_id, wanted.credentials, now_ms=now_ms, issued_ms=now_ms, is_new_device=decision.is_new,
        former_until_ms=decision.former_until_ms,
    )  # fmt: skip
    tx.mark_confirmed(decision.device_id, now_ms=now_ms)  # it has just been used
    if decision.is_new or tx.attribute(decision.device_id, Scope.SERVER, PROVISION_STATE) is None:
        tx.put_attributes(decision.device_id, Scope.SERVER, {PROVISION_STATE: PROVISIONED}, now_ms=now_ms)
    if decision.is_new:
        tell_new_device(tx, decision.device_id, profile.document, now_ms=now_ms)
    line = Attempt(
        ref=new_attempt_id(), at_ms=now_ms, peer=wanted.peer, outcome="SUCCESS", stage="stored",
        detail=decision.detail, tenant_id=profile.tenant_id, profile_id=profile.id, device_id=decision.device_id,
        device_name=wanted.name, request=facts(wanted.leaf),
    )  # fmt: skip
    tx.log_attempt(line)
    return line


# -- the log --------------------------------------------------------------------------------------


def facts(leaf: x509.Certificate | None) -> dict[str, Any]:
    """What the log says of a certificate: nothing that anybody could log in with."""
    if leaf is None:
        return {}
    return {
        "subject": certificates.name_text(leaf.subject, MAX_FACT_CHARS),
        "issuer": certificates.name_text(leaf.issuer, MAX_FACT_CHARS),
        "serial": f"{leaf.serial_number:x}",
        "notAfter": _date(certificates.not_after_ms(leaf)),
    }


@dataclass(frozen=True, slots=True)
class Place:
    """Whom a refusal concerns, as far as that is known: who may read its line. None: anybody's operator may."""

    tenant_id: int | None = None
    profile_id: int | None = None
    device_id: int | None = None


def refused_attempt(
    error: PlatformError, stage: str, leaf: x509.Certificate | None, peer: Peer, now_ms: int, place: Place, name: str
) -> Attempt:
    """The log line of a refusal that has its reference already."""
    return Attempt(
        ref=error.ref or "", at_ms=now_ms, peer=peer, outcome=error.reason.value, stage=stage,
        detail=error.detail[:500], tenant_id=place.tenant_id, profile_id=place.profile_id, device_id=place.device_id,
        device_name=name[:255], request=facts(leaf),
    )  # fmt: skip


def log(tx: Tx, attempt: Attempt) -> None:
    """A refusal that was decided before any transaction."""
    tx.log_attempt(attempt)
