"""Provisioning: strategies in a table; plain functions of a transaction.

Every check stands before the first write, so a refusal leaves nothing behind; the log line of the
attempt is written in the same transaction as its outcome. `provisionState` is changed here only.

Source: wire-contract.md sections 1.3 to 1.6; product.md section 5.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from cloud_core.core.assignments import tell_new_device
from cloud_core.core.certificates import authorities
from cloud_core.core.holders import holder
from cloud_core.core.keys import approvals, provision_keys
from cloud_core.core.names import check_device_name
from cloud_core.core.quota import check_room
from cloud_core.core.tokens import new_reference, new_secret, new_uuid
from cloud_core.model import (
    PROVISION_STATE,
    PROVISIONED,
    Approval,
    Attempt,
    Device,
    DeviceProfile,
    Peer,
    ProvisionConfiguration,
    ProvisionKey,
    ProvisionStrategy,
    Reprovisioning,
    Scope,
    StoredCredentials,
)
from cloud_core.storage.interface import NewDevice, Tx
from shared import certificates
from shared.credentials import (
    AccessToken,
    Credentials,
    CredentialsType,
    MqttBasic,
    X509Certificate,
    check_credentials,
)
from shared.errors import (
    AlreadyProvisioned,
    ApprovalPending,
    CredentialsInUse,
    DeviceAlreadyExists,
    DeviceNotFound,
    InvalidCredentials,
    InvalidProvisionCredentials,
    PlatformError,
    ProvisioningDisabled,
    ProvisionRefused,
    ProvisionStatus,
)
from shared.messages import ProvisionRequest, ProvisionResponse

KEY_HINT_CHARS = 4
SUCCESS = "SUCCESS"
_NO_SECRET = new_secret()  # compared against when the key is unknown, so that timing tells nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the installation allows, beside the profile."""

    max_devices_per_tenant: int = 0  # 0: without limit
    public_url: str = ""  # where others reach the core over HTTP, for certificates to say; empty: nowhere


@dataclass(slots=True)
class Context:
    """One request on its way through the checks."""

    tx: Tx
    request: ProvisionRequest
    name: str  # trimmed; empty when the server shall generate one
    digest: bytes  # keyed hash of everything that identifies the request
    now_ms: int
    policy: Policy
    key: ProvisionKey | None = None  # that was shown, where it is not the profile's own


@dataclass(frozen=True, slots=True)
class Shown:
    """Whose key and secret a request shows. `key`: None for the profile's own."""

    profile: DeviceProfile
    key: ProvisionKey | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """The answer to a request, its line in the log, and what it has shown if that was right."""

    outcome: ProvisionResponse | ProvisionRefused
    line: Attempt
    shown: Shown | None


@dataclass(slots=True, kw_only=True)
class Replaced(ProvisionResponse):
    """A positive answer that has put new credentials in the place of the device's old ones."""

    device_id: int


@dataclass(slots=True)
class Issued:
    """A positive decision."""

    device_id: int
    credentials: Credentials
    outcome: str = SUCCESS
    device_name: str = ""  # only where it was generated
    warning: str = ""
    has_replaced: bool = False
    detail: str = ""  # for the log
    certificate_chain: str = ""  # PEM, of a certificate that a CA of ours has issued


@dataclass(frozen=True, slots=True)
class Given:
    """Credentials for a device; what goes with them where a CA of ours has issued them."""

    credentials: Credentials
    authority_id: int | None = None
    chain_pem: str = ""
    detail: str = ""


def attempt(
    tx: Tx,
    request: ProvisionRequest,
    digest: bytes,
    peer: Peer,
    now_ms: int,
    policy: Policy,
    redacted: dict[str, object],
    ref: str = "",
) -> Decided:
    """One provision request, decided and logged in the transaction `tx`; `ref` is that of a success."""
    shown: Shown | None = None
    stage = "profile"
    try:
        name = check_device_name(request.device_name) if request.device_name else ""
        shown = _shown(tx, request, now_ms)
        profile, key = shown.profile, shown.key
        if key is not None:
            stage = "key"
            provision_keys.check(key, request, name, peer, now_ms)
        stage = "strategy"
        context = Context(tx, request, name, digest, now_ms, policy, key)
        issued = _STRATEGIES[profile.provision.strategy](context, profile)
    except ProvisionRefused as refusal:
        refusal.seed_worded = shown is not None and shown.profile.provision.seed_error_messages
        line = _refused_attempt(refusal, request, _whose(tx, request, shown), peer, now_ms, redacted, stage)
        tx.log_attempt(line)
        if isinstance(refusal, ApprovalPending) and shown is not None:
            approvals.wait(tx, shown.profile, shown.key, request, digest, peer, now_ms)
        return Decided(refusal, line, shown)
    if issued.outcome == SUCCESS:
        approvals.used(tx, profile, digest)
        if key is not None:
            tx.count_key_use(key.id)
    line = Attempt(
        ref=ref, at_ms=now_ms, peer=peer, outcome=issued.outcome, stage="stored",
        tenant_id=profile.tenant_id, profile_id=profile.id, device_id=issued.device_id,
        device_name=issued.device_name or request.device_name.strip(), key_hint=key_hint(request),
        request=dict(redacted), detail=issued.detail or issued.warning,
    )  # fmt: skip
    tx.log_attempt(line)
    return Decided(_answer(issued), line, shown)


def _answer(issued: Issued) -> ProvisionResponse:
    response = ProvisionResponse if not issued.has_replaced else partial(Replaced, device_id=issued.device_id)
    return response(
        status=ProvisionStatus.SUCCESS,
        credentials=issued.credentials,
        device_name=issued.device_name,
        warning=issued.warning,
        certificate_chain=issued.certificate_chain,
    )


def early_refusal(error: PlatformError, request: ProvisionRequest | None, peer: Peer, now_ms: int) -> Attempt:
    """The line of a refusal that was decided before any transaction (malformed, rationed)."""
    return Attempt(
        ref=error.ref or "", at_ms=now_ms, peer=peer, outcome=error.reason.value, stage=error.stage,
        detail=error.detail[:500], device_name=request.device_name[:255] if request else "",
        key_hint=key_hint(request) if request else "",
    )  # fmt: skip


def log(tx: Tx, line: Attempt) -> None:
    """Logs it."""
    tx.log_attempt(line)


def key_hint(request: ProvisionRequest) -> str:
    """Enough of the key to recognise it in a list, too little to use it."""
    return hint_of(request.provision_key)


def hint_of(key: str) -> str:
    """As `key_hint`."""
    return key[:KEY_HINT_CHARS] + "…" if len(key) >= 2 * KEY_HINT_CHARS else ""


def _whose(tx: Tx, request: ProvisionRequest, shown: Shown | None) -> DeviceProfile | None:
    """Whose key it is, also with a wrong secret: the line is that tenant's, and names its profile."""
    if shown is not None:
        return shown.profile
    if not request.provision_key:
        return None
    profile = tx.profile_by_key(request.provision_key)
    if profile is not None:
        return profile
    found = tx.provision_key(request.provision_key)
    return found[1] if found is not None else None


def _refused_attempt(
    refusal: ProvisionRefused,
    request: ProvisionRequest,
    profile: DeviceProfile | None,
    peer: Peer,
    now_ms: int,
    redacted: dict[str, object],
    stage: str,
) -> Attempt:
    refusal.ref = new_reference()
    refusal.stage = stage
    return Attempt(
        ref=refusal.ref, at_ms=now_ms, peer=peer, outcome=refusal.reason.value, stage=refusal.stage,
        detail=refusal.detail[:500],
        tenant_id=profile.tenant_id if profile else None, profile_id=profile.id if profile else None,
        device_name=request.device_name[:255], key_hint=key_hint(request), request=dict(redacted),
    )  # fmt: skip


def _shown(tx: Tx, request: ProvisionRequest, now_ms: int) -> Shown:
    if not request.provision_key or not request.provision_secret:
        raise InvalidProvisionCredentials("the provision key or secret is empty")
    profile = tx.profile_by_key(request.provision_key)
    key: ProvisionKey | None = None
    if profile is not None:
        is_right = _is_secret_of(profile.provision, request.provision_secret, now_ms)
    else:
        found = tx.provision_key(request.provision_key)
        if found is not None:
            key, profile = found
        is_right = provision_keys.is_right(key, request.provision_secret, _NO_SECRET)
    if profile is None:
        raise InvalidProvisionCredentials("no profile has this provision key")
    if not is_right:
        raise InvalidProvisionCredentials(f"wrong secret for the key of profile '{profile.name}'")
    if request.profile_name and not is_called(profile, request.profile_name):
        raise InvalidProvisionCredentials(
            f"the key is that of profile '{profile.name}', and '{request.profile_name[:255]}' is asked for"
        )
    return Shown(profile, key)


def _is_secret_of(provision: ProvisionConfiguration, secret: str, now_ms: int) -> bool:
    """The current one, or the former one while it is valid."""
    is_current = hmac.compare_digest((provision.secret or _NO_SECRET).encode(), secret.encode())
    if not provision.former_secret or now_ms >= provision.former_until_ms:
        return is_current
    return hmac.compare_digest(provision.former_secret.encode(), secret.encode()) or is_current


def is_called(profile: DeviceProfile, label: str) -> bool:
    """Whether the label is the profile's name or id. Names are unique in a tenant alone, ids everywhere."""
    try:
        return label == profile.name or UUID(label) == profile.uuid
    except ValueError:
        return False


def _disabled(context: Context, profile: DeviceProfile) -> Issued:
    raise ProvisioningDisabled(f"profile '{profile.name}' has the strategy {profile.provision.strategy.value}")


def _create_new(context: Context, profile: DeviceProfile) -> Issued:
    tx, name = context.tx, context.name
    if name:
        existing = tx.device_by_name(profile.tenant_id, name)
        if existing is not None:
            return _replay(context, profile.provision, existing) or _exists(existing)
    check_room(tx, profile.tenant_id, context.policy.max_devices_per_tenant)
    _last_checks(context, profile)
    generated = "" if name else new_secret()
    given = _given(context, profile, name or generated) or Given(AccessToken(new_secret()))  # 119 bits: nobody has them
    is_gateway = context.request.is_gateway
    device_id = tx.insert_device(
        NewDevice(
            uuid=new_uuid(context.now_ms), tenant_id=profile.tenant_id, profile_id=profile.id, name=name or generated,
            created_ms=context.now_ms, is_gateway=is_gateway,
            document={"additionalInfo": {"gateway": True}} if is_gateway else {},
        )
    )  # fmt: skip
    tx.put_credentials(
        device_id, given.credentials, now_ms=context.now_ms, issued_ms=context.now_ms,
        request_digest=context.digest, is_new_device=True, authority_id=given.authority_id,
    )  # fmt: skip
    tx.put_attributes(device_id, Scope.SERVER, {PROVISION_STATE: PROVISIONED}, now_ms=context.now_ms)
    tell_new_device(tx, device_id, profile.document, now_ms=context.now_ms)
    return Issued(
        device_id, given.credentials, device_name=generated, warning=_warning(context.request), detail=given.detail,
        certificate_chain=given.chain_pem,
    )  # fmt: skip


def _given(
    context: Context, profile: DeviceProfile, name: str, device_id: int | None = None, *, may_bring: bool = True
) -> Given | None:
    """What the request puts in the place of any other credentials; None for a request that asks for none.

    Stands behind all other checks: to sign costs as much as all of them. `device_id`: who may have them already.
    """
    tx, request = context.tx, context.request
    if request.csr:
        public_url = context.policy.public_url
        signed = authorities.issue(tx, profile, request.csr, name, context.now_ms, public_url=public_url)
        return Given(
            X509Certificate(certificates.certificate_text(signed.certificate)), signed.authority_id, signed.chain_pem,
            f"the CA '{signed.authority_name}' issued certificate {signed.serial}",
        )  # fmt: skip
    brought = _checked_credentials(context, device_id) if may_bring else None
    return None if brought is None else Given(brought)


def _checked_credentials(context: Context, device_id: int | None) -> Credentials | None:
    brought = brought_credentials(context.request)
    if brought is not None and holder(context.tx, brought, context.now_ms) not in (None, device_id):
        raise CredentialsInUse("another device has these credentials")
    return brought


def _last_checks(
    context: Context, profile: DeviceProfile, device_id: int | None = None, *, may_bring: bool = True
) -> None:
    """What comes behind all that is wrong with the request itself: an operator's word, and the key's budget."""
    if profile.provision.approval is Approval.REQUIRED:
        if may_bring and not context.request.csr:
            _checked_credentials(context, device_id)
        approvals.check(context.tx, profile, context.digest, context.now_ms)
    if context.key is not None:
        provision_keys.check_budget(context.tx, context.key)


def _exists(device: Device) -> Issued:
    raise DeviceAlreadyExists(f"device '{device.name}' of profile '{device.type}' has this name")


def _check_pre_provisioned(context: Context, profile: DeviceProfile) -> Issued:
    """A CSR is taken whatever `accept_device_credentials` says: the server issues the certificate, and the device
    brings nothing of its own choice but a key."""
    tx = context.tx
    device = tx.device_by_name(profile.tenant_id, context.name) if context.name else None
    if device is None or device.profile_id != profile.id:
        raise DeviceNotFound(f"profile '{profile.name}' has no device '{context.name}'; create or import it first")
    tx.lock_device(device.id)  # of two that come at the same moment, to two nodes, one is first
    state = tx.attribute(device.id, Scope.SERVER, PROVISION_STATE)
    if state is not None:
        return _replay(context, profile.provision, device) or _already(device, state)
    stored = tx.credentials(device.id)
    if stored is None:
        raise InvalidCredentials(f"device '{device.name}' has no credentials")
    may_bring = profile.provision.accept_device_credentials
    _last_checks(context, profile, device.id, may_bring=may_bring)
    given = _given(context, profile, device.name, device.id, may_bring=may_bring)
    if given is not None:
        tx.put_credentials(
            device.id, given.credentials, now_ms=context.now_ms, issued_ms=context.now_ms,
            request_digest=context.digest, authority_id=given.authority_id,
        )  # fmt: skip
    else:
        tx.mark_issued(device.id, now_ms=context.now_ms, request_digest=context.digest)
        given = Given(stored.credentials)
    tx.put_attributes(device.id, Scope.SERVER, {PROVISION_STATE: PROVISIONED}, now_ms=context.now_ms)
    return Issued(
        device.id, given.credentials, has_replaced=given.credentials is not stored.credentials, detail=given.detail,
        certificate_chain=given.chain_pem,
    )  # fmt: skip


def _already(device: Device, state: object) -> Issued:
    raise AlreadyProvisioned(
        f"{PROVISION_STATE} of device '{device.name}' is '{state}'; delete that attribute to allow it again"
    )


_STRATEGIES: dict[ProvisionStrategy, Callable[[Context, DeviceProfile], Issued]] = {
    ProvisionStrategy.DISABLED: _disabled,
    ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES: _create_new,
    ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES: _check_pre_provisioned,
    ProvisionStrategy.X509_CERTIFICATE_CHAIN: _disabled,  # by chain only, never by a request
}


def _replay(context: Context, policy: ProvisionConfiguration, device: Device) -> Issued | None:
    """The same answer again, for the same requester whose first answer may have been lost."""
    if policy.reprovisioning is not Reprovisioning.REPLAY_UNTIL_CONFIRMED:
        return None
    stored = context.tx.credentials(device.id)
    if stored is None or not _is_replayable(stored, context, policy.replay_window_s):
        return None
    warning = _warning(context.request) if policy.strategy is ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES else ""
    chain = ""
    if context.request.csr and isinstance(stored.credentials, X509Certificate):
        chain = authorities.chain_of(context.tx, certificates.der_of(stored.credentials.certificate))
    return Issued(device.id, stored.credentials, outcome="REPLAYED", warning=warning, certificate_chain=chain)


def _is_replayable(stored: StoredCredentials, context: Context, window_s: int) -> bool:
    return (
        stored.confirmed_ms is None
        and stored.issued_ms is not None
        and stored.request_digest is not None
        and context.now_ms - stored.issued_ms <= window_s * 1000
        and hmac.compare_digest(stored.request_digest, context.digest)
    )


def digest_parts(request: ProvisionRequest) -> tuple[str, ...]:
    """Everything that makes two requests the same one: key, secret, name and credential fields."""
    return (
        request.provision_key, request.provision_secret, request.device_name.strip(),
        request.credentials_type.value, request.token, request.client_id, request.username,
        request.password, request.certificate, str(request.is_gateway),
        *((request.csr,) if request.csr else ()),
    )  # fmt: skip


def brought_credentials(request: ProvisionRequest) -> Credentials | None:
    """The credentials that the device brings, checked; None when it brings none (section 1.5)."""
    if not request.brings_credentials:
        return None
    match request.credentials_type:
        case CredentialsType.ACCESS_TOKEN:
            if not request.token:
                raise InvalidCredentials("credentialsType is ACCESS_TOKEN but `token` is empty; set both")
            return check_credentials(AccessToken(request.token))
        case CredentialsType.MQTT_BASIC:
            return check_credentials(MqttBasic(request.client_id, request.username, request.password))
        case CredentialsType.X509_CERTIFICATE:
            return check_credentials(X509Certificate(request.certificate))


def _warning(request: ProvisionRequest) -> str:
    wanted = request.credentials_type
    if request.csr or wanted is CredentialsType.ACCESS_TOKEN or request.brings_credentials:
        return ""
    return f"{wanted.value} was requested without values; an access token was generated"
