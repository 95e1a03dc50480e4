"""Enrolment over a secure transport (EST): a certificate of our CA for whoever may have one, and its renewal.

Two kinds of peer come: one that knows a provision key and secret, which is a provision request like any other; and a
device that has shown its certificate in the handshake, which gets another one in its place. No transport is known here.

Source: RFC 7030 sections 4.1 and 4.2; RFC 9148.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cloud_core.core.authentication import certificate_ids
from cloud_core.core.certificates import authorities, signing
from cloud_core.core.certificates.signing_requests import read_request, requested_name
from cloud_core.core.downlinks import Ending
from cloud_core.core.limits import FailedAttempts
from cloud_core.core.provisioning import Policy, is_called
from cloud_core.core.tokens import new_reference
from cloud_core.model import (
    Attempt,
    Device,
    DeviceProfile,
    Identity,
    Peer,
    PresentedChain,
    StoredCredentials,
)
from cloud_core.storage.interface import Done, ReadTx, Store, Tx
from shared import certificates
from shared.credentials import CredentialsType, X509Certificate, credentials_id
from shared.errors import (
    FAILED_ATTEMPTS_TEXT,
    DeviceNotFound,
    InvalidArgument,
    InvalidCredentials,
    InvalidDeviceName,
    NotAuthenticated,
    NotFound,
    PlatformError,
    ProvisionRefused,
    RateLimited,
)
from shared.messages import ProvisionRequest, ProvisionResponse

DAY_MS = 86_400_000
MAX_ISSUED = 10  # to a device in a day: each leaves a row behind
NAME_BY_ID = "write the id of the device profile into the path, behind /.well-known/est/."


@dataclass(frozen=True, slots=True)
class Wanted:
    """A device asks for another certificate. `label`: the profile that it names in its path, "" for none."""

    device_id: int
    leaf: bytes  # DER of the certificate that it has shown
    csr: str
    digest: bytes
    label: str
    peer: Peer


@dataclass(frozen=True, slots=True)
class Renewed:
    """`ends_sessions`: the former certificate is over at once. `line`: None for an answer given again."""

    certificate: bytes  # DER
    line: Attempt | None = None
    is_new: bool = True
    ends_sessions: bool = False


@dataclass(frozen=True, slots=True)
class NotRenewed:
    """A refusal, logged."""

    error: ProvisionRefused
    line: Attempt


class Enrolment:
    """The door for EST on every transport. Answers are DER of certificates.

    A `label` is the name or the id of a device profile. Whose it is, is decided by the key or by the certificate that
    is shown; where neither is there, by the label alone, and then it has to be one tenant's.

    `provision`, `authenticate`, `forget_logins`, `device_changed`, `on_logged`: of `DeviceApi` and its parts.
    """

    def __init__(
        self, *, store: Store, now_ms: Callable[[], int], policy: Policy, failed_attempts: FailedAttempts,
        provision: Callable[[ProvisionRequest, Peer, Done[ProvisionResponse]], None],
        authenticate: Callable[[PresentedChain, Peer, Done[Identity]], None],
        forget_logins: Callable[[int], None], device_changed: Callable[[int, Ending], None],
        on_logged: Callable[..., None],
    ) -> None:  # fmt: skip
        self._store = store
        self._now_ms = now_ms
        self._policy = policy
        self._failed_attempts = failed_attempts
        self._provision = provision
        self._authenticate = authenticate
        self._forget_logins = forget_logins
        self._device_changed = device_changed
        self._on_logged = on_logged

    def ca_certificates(self, label: str, chain: PresentedChain | None, done: Done[list[bytes]]) -> None:
        """The CA of the profile and its issuers; without a label, every CA of the tenant.

        `chain`: that the peer has shown, if any; it says whose device asks. Refuses by NotFound, and by InvalidArgument
        where it could be one tenant's or another's.
        """
        self._store.survey(_ca_certificates, (label, None if chain is None else chain.leaf), done)

    def enrol(self, key: str, secret: str, csr: str, peer: Peer, done: Done[bytes], *, label: str = "") -> None:
        """As a provision request with this CSR of a device that is called as its subject says.

        Refuses as `DeviceApi.provision`.
        """

        def decided(outcome: ProvisionResponse | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                done(outcome)
                return
            assert isinstance(outcome.credentials, X509Certificate), "a CSR was asked to be signed"
            done(certificates.der_of(outcome.credentials.certificate))

        request = ProvisionRequest(
            provision_key=key, provision_secret=secret, device_name=requested_name(csr), csr=csr,
            credentials_type=CredentialsType.X509_CERTIFICATE, profile_name=label,
        )  # fmt: skip
        self._provision(request, peer, decided)

    def renew(self, chain: PresentedChain, csr: str, peer: Peer, done: Done[bytes], *, label: str = "") -> None:
        """Another certificate for the device whose this chain is; a lost answer is asked for by the same CSR again.

        The former one stays good for the profile's `overlap_days`. Refuses as `CertificateLogins.authenticate`, and by
        InvalidCredentials (the CSR), NoAuthority, DeviceNotFound (of the profile named), RateLimited.
        """

        def known(outcome: Identity | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                done(outcome)
                return
            key = f"renewal {outcome.device_id}"
            wait_s = self._failed_attempts.wait_s(peer.address, key, self._now_ms() / 1000)
            if wait_s > 0:
                done(RateLimited(FAILED_ATTEMPTS_TEXT, retry_after_s=wait_s))
                return
            digest = self._store.digest("renewal", str(outcome.device_id), csr)
            wanted = Wanted(outcome.device_id, chain.leaf, csr, digest, label, peer)

            def decided(outcome: Renewed | NotRenewed | PlatformError) -> None:
                if isinstance(outcome, NotRenewed):
                    self._failed_attempts.record(peer.address, key, self._now_ms() / 1000)
                    self._on_logged(outcome.line)
                    done(outcome.error)
                else:
                    self._renewed(wanted.device_id, outcome, done)

            self._store.submit(renew, (wanted, self._now_ms(), self._policy.public_url), decided)

        self._authenticate(chain, peer, known)

    def _renewed(self, device_id: int, outcome: Renewed | PlatformError, done: Done[bytes]) -> None:
        if isinstance(outcome, PlatformError):
            done(outcome)
            return
        if outcome.line is not None:
            self._on_logged(outcome.line)
        if outcome.ends_sessions:
            self._device_changed(device_id, Ending.CREDENTIALS_CHANGED)
        elif outcome.is_new:
            self._forget_logins(device_id)
        done(outcome.certificate)


def explained(error: PlatformError) -> str:
    """A sentence or two for whoever runs the client. Why a device may not come in is for the operator alone; what is
    wrong with what it has sent, it may know."""
    text = error.public_text if _is_for_operators(error) else str(error)
    sentence = text[:1].upper() + text[1:] + ("" if text.endswith((".", "!")) else ".")
    ref = f" Reference {error.ref}; the operator can explain it." if error.ref else ""
    return f"{sentence} ({error.reason.value}){ref}"


def _is_for_operators(error: PlatformError) -> bool:
    return isinstance(error, ProvisionRefused) and not isinstance(error, InvalidCredentials | InvalidDeviceName)


def _ca_certificates(tx: ReadTx, label: str, shown: bytes | None) -> list[bytes]:
    tenant_id = None if shown is None else _tenant_of(tx, shown)
    if label:
        return list(authorities.authority_of(tx, _profile_labelled(tx, label, tenant_id)).chain)
    found = tx.every_authority() if tenant_id is None else tx.authorities(tenant_id)
    if not found:
        raise NotFound("There is no CA; make one with: cloud-core ca init")
    if len({one.tenant_id for one in found}) > 1:
        raise InvalidArgument(f"Several tenants have a CA here; {NAME_BY_ID}")
    return list(dict.fromkeys(der for one in found for der in one.chain))


def _profile_labelled(tx: ReadTx, label: str, tenant_id: int | None) -> DeviceProfile:
    """`tenant_id`: whose it has to be, None where nobody knows. Raises: NotFound, InvalidArgument."""
    try:
        uuid = UUID(label)
    except ValueError:
        uuid = None
    if tenant_id is None:
        found = tx.profiles_called(label, uuid)
    else:
        own = (tx.profile_by_name(tenant_id, label), None if uuid is None else tx.profile(tenant_id, uuid))
        found = list({one.id: one for one in own if one is not None}.values())
    if not found:
        raise NotFound("There is no device profile of this name or id")
    if len(found) > 1:
        raise InvalidArgument(f"Several device profiles are called so; {NAME_BY_ID}")
    return found[0]


def _tenant_of(tx: ReadTx, leaf: bytes) -> int | None:
    """Whose device has or had the certificate, None for nobody's. That a former one is over is no matter here: what
    is told is for everybody."""
    known = tx.certificate(certificates.fingerprint(leaf))
    if known is not None:
        return known.tenant_id
    for one in certificate_ids(leaf):
        owner = tx.credentials_owner(one)
        device = None if owner is None else tx.device_by_id(owner)
        if device is not None:
            return device.tenant_id
    return None


# -- renewal --------------------------------------------------------------------------------------


def renew(tx: Tx, wanted: Wanted, now_ms: int, public_url: str) -> Renewed | NotRenewed:
    """A certificate in the place of the one shown, decided and logged in the transaction `tx`.

    Raises: NotAuthenticated where the one shown is the device's no more, RateLimited.
    """
    device, stored = _holder(tx, wanted, now_ms)
    if _is_asked_again(stored, wanted):
        assert isinstance(stored.credentials, X509Certificate)
        return Renewed(certificates.der_of(stored.credentials.certificate), is_new=False)
    _check_rate(tx, device, now_ms)
    profile = tx.profile(device.tenant_id, device.profile_uuid)
    assert profile is not None, "a device's profile exists"
    try:
        _check_name(device, profile, wanted)
        issued = authorities.issue(tx, profile, wanted.csr, device.name, now_ms, public_url=public_url)
    except ProvisionRefused as refusal:
        refusal.ref = new_reference()
        line = _line(device, profile, wanted, now_ms, refusal.reason.value, refusal.detail, refusal.ref)
        tx.log_attempt(line)
        return NotRenewed(refusal, line)
    return _put(tx, device, stored, profile, issued, wanted, now_ms)


def _holder(tx: Tx, wanted: Wanted, now_ms: int) -> tuple[Device, StoredCredentials]:
    """The device, which the certificate shown still opens; an operator may just be revoking it on another node."""
    tx.lock_device(wanted.device_id)
    device, stored = tx.device_by_id(wanted.device_id), tx.credentials(wanted.device_id)
    if device is None or stored is None:
        raise NotAuthenticated
    known = tx.certificate(certificates.fingerprint(wanted.leaf))
    is_former = known is not None and known.device_id == device.id and (known.until_ms or 0) > now_ms
    is_revoked = known is not None and known.revoked_ms is not None
    if is_revoked or not (_is_current(stored, wanted) or is_former):
        raise NotAuthenticated
    return device, stored


def _is_current(stored: StoredCredentials, wanted: Wanted) -> bool:
    return credentials_id(stored.credentials) in certificate_ids(wanted.leaf)


def _is_asked_again(stored: StoredCredentials, wanted: Wanted) -> bool:
    """The answer may have been lost: whoever asks with the same CSR before the first login gets it again."""
    digest = stored.request_digest
    return stored.confirmed_ms is None and digest is not None and hmac.compare_digest(digest, wanted.digest)


def _check_rate(tx: ReadTx, device: Device, now_ms: int) -> None:
    issued = (one for one in tx.certificates_of_device(device.id) if one.authority_id is not None)
    recent = [one for one in issued if one.created_ms > now_ms - DAY_MS]
    if len(recent) >= MAX_ISSUED:
        wait_ms = min(one.created_ms for one in recent) + DAY_MS - now_ms
        raise RateLimited(
            f"A device is issued at most {MAX_ISSUED} certificates a day.", retry_after_s=max(1.0, wait_ms / 1000)
        )


def _check_name(device: Device, profile: DeviceProfile, wanted: Wanted) -> None:
    """The subject is the device's name, or as it was (RFC 7030 section 4.2.2), or left to us."""
    if wanted.label and not is_called(profile, wanted.label):
        raise DeviceNotFound(
            f"device '{device.name}' is of profile '{profile.name}', and '{wanted.label[:255]}' is asked for"
        )
    request = read_request(wanted.csr)
    allowed = ("", device.name, signing.common_name_for(device.name))
    if request.common_name not in allowed and request.subject != certificates.load(wanted.leaf).subject:
        raise InvalidCredentials(
            f"the subject of the csr must be CN={signing.common_name_for(device.name)}, the device's name, or that of "
            "the certificate shown"
        )


def _put(
    tx: Tx, device: Device, stored: StoredCredentials, profile: DeviceProfile, issued: authorities.Issued,
    wanted: Wanted, now_ms: int,
) -> Renewed:  # fmt: skip
    overlap_ms = profile.provision.overlap_days * DAY_MS
    if stored.confirmed_ms is None or _is_current(stored, wanted):
        # A former one whose successor nobody has used counts anew: the answer with the successor was lost.
        tx.record_certificate(wanted.leaf, tenant_id=device.tenant_id, device_id=device.id, now_ms=now_ms)
    tx.put_credentials(
        device.id, X509Certificate(certificates.certificate_text(issued.certificate)), now_ms=now_ms,
        issued_ms=now_ms, request_digest=wanted.digest, authority_id=issued.authority_id,
        former_until_ms=now_ms + overlap_ms if overlap_ms else 0,
    )  # fmt: skip
    detail = f"the CA '{issued.authority_name}' issued certificate {issued.serial}"
    line = _line(device, profile, wanted, now_ms, "SUCCESS", detail, "")
    tx.log_attempt(line)
    return Renewed(issued.certificate, line, ends_sessions=not overlap_ms)


def _line(
    device: Device, profile: DeviceProfile, wanted: Wanted, now_ms: int, outcome: str, detail: str, ref: str
) -> Attempt:
    request: dict[str, Any] = {"credentialsType": "X509_CSR", "present": ["csr"]}  # Any: members as the log keeps them
    return Attempt(
        ref=ref, at_ms=now_ms, peer=wanted.peer, outcome=outcome, stage="renewal", detail=detail[:500],
        tenant_id=device.tenant_id, profile_id=profile.id, device_id=device.id, device_name=device.name,
        request=request,
    )  # fmt: skip
