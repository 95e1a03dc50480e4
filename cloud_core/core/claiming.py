"""Claiming: a device offers itself, and the customer who shows the same secret in time becomes its owner.

Source: wire-contract.md sections 2.10, 6.3 (claim calls) and 7.3.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from cloud_core.core.limits import AttemptRations, FailedAttempts
from cloud_core.core.names import MAX_NAME_CHARS
from cloud_core.core.people.audit import Audit, Deed, Subject, Who
from cloud_core.core.people.permissions import may
from cloud_core.model import Device, Identity, Scope
from cloud_core.storage.interface import Done, ReadTx, Store, Tx
from shared.errors import ClaimRefused, NotAuthorized, NotFound, PlatformError, RateLimited
from shared.messages import ClaimRequest, JsonValue
from shared.operations import Operation

CLAIMING_ALLOWED = "claimingAllowed"
CLAIMING_DATA = "claimingData"
_LAST_MS = 2**63 - 1


class ClaimOutcome(StrEnum):
    """`response` of the REST call."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    """Wrong secret, expired, or never offered."""
    CLAIMED = "CLAIMED"
    """It has an owner already."""


class ClaimsApi:
    """`is_allowed_by_default`: whether devices may be claimed without the server attribute `claimingAllowed`."""

    def __init__(
        self,
        *,
        store: Store,
        now_ms: Callable[[], int],
        is_allowed_by_default: bool = True,
        failed_attempts: FailedAttempts | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._store = store
        self._audit = audit or Audit(store)
        self._now_ms = now_ms
        self._is_allowed_by_default = is_allowed_by_default
        self._failed_attempts = failed_attempts or FailedAttempts(AttemptRations())

    # -- devices ----------------------------------------------------------------------------------

    def offer(self, identity: Identity, request: ClaimRequest, done: Done[None]) -> None:
        """The device offers itself; the first offer stands until it is used or over. ClaimRefused."""
        if may(identity.role, Operation.CLAIM):
            self.offer_all(identity.tenant_id, [(identity.device_id, request)], done)
        else:
            done(NotAuthorized())

    def offer_all(self, tenant_id: int, offers: list[tuple[int, ClaimRequest]], done: Done[None]) -> None:
        """As `offer` for [(device number, request), …] that a gateway speaks for; the first refusal is the answer,
        the others are made all the same."""
        now_ms = self._now_ms()
        hashed = [
            (device_id, self._digest(request.secret), min(now_ms + request.duration_ms, _LAST_MS))
            for device_id, request in offers
        ]
        self._store.submit(_offer_all, (tenant_id, hashed, now_ms, self._is_allowed_by_default), done)

    # -- customers --------------------------------------------------------------------------------

    def claim(
        self, tenant_id: int, customer_id: int, device_name: str, secret: str,
        done: Done[tuple[ClaimOutcome, Device | None]], *, by: Who | None = None,
    ) -> None:  # fmt: skip
        """A customer's user shows a secret; on SUCCESS the device is theirs; failing ends the offer.

        NotFound; NotAuthorized for a customer that is gone; RateLimited after too many failures.
        """
        source, key = f"customer {customer_id}", device_name[:MAX_NAME_CHARS]
        wait_s = self._failed_attempts.wait_s(source, key, self._now_ms() / 1000)
        if wait_s > 0:
            done(RateLimited(retry_after_s=wait_s))
            return

        def decided(outcome: tuple[ClaimOutcome, Device | None] | PlatformError) -> None:
            is_failure = isinstance(outcome, NotFound) or (
                not isinstance(outcome, PlatformError) and outcome[0] is ClaimOutcome.FAILURE
            )
            if is_failure:
                self._failed_attempts.record(source, key, self._now_ms() / 1000)
            done(outcome)

        shown = _Shown(tenant_id, customer_id, device_name, secret, self._digest(secret))
        deed = Deed("CLAIMED", "DEVICE", _claimed)
        self._audit.submit(by, deed, _claim, (shown, self._now_ms()), decided)

    def give_back(
        self, tenant_id: int, customer_id: int | None, device_name: str, done: Done[None], *, by: Who | None = None
    ) -> None:
        """Ends the ownership; `customer_id` None is an operator, who may for everybody.

        Nothing happens to a device that has no owner. NotFound; NotAuthorized for somebody else's device.
        """
        deed = Deed("GIVEN_BACK", "DEVICE", lambda _: Subject(None, device_name))
        args = (tenant_id, customer_id, device_name, self._is_allowed_by_default, self._now_ms())
        self._audit.submit(by, deed, _give_back, args, done)

    def maintain(self) -> None:
        """Called once a minute: forgets offers that are over."""
        self._store.submit(_trim, (self._now_ms(),), _ignore)

    def _digest(self, secret: str) -> bytes:
        return self._store.digest("claim", secret)


@dataclass(frozen=True, slots=True, repr=False)
class _Shown:
    """What a customer's user shows; both forms of the secret, because an operator's offer is an attribute."""

    tenant_id: int
    customer_id: int
    device_name: str
    secret: str
    secret_hash: bytes


def _offer_all(
    tx: Tx, tenant_id: int, offers: list[tuple[int, bytes, int]], now_ms: int, is_allowed_by_default: bool
) -> ClaimRefused | None:
    refusal: ClaimRefused | None = None
    for device_id, secret_hash, expires_ms in offers:
        why_not = _why_not(tx, tenant_id, device_id, is_allowed_by_default)
        if why_not:
            refusal = refusal or ClaimRefused(why_not)
            continue
        standing = tx.claim_offer(device_id)
        if standing is None or standing[1] <= now_ms:
            tx.put_claim_offer(device_id, secret_hash=secret_hash, expires_ms=expires_ms)
    return refusal


def _why_not(tx: ReadTx, tenant_id: int, device_id: int, is_allowed_by_default: bool) -> str:
    """Why the device may not be offered; empty when it may."""
    device = tx.device_by_id(device_id)
    if device is None or device.tenant_id != tenant_id:
        return "the device does not exist"
    if device.customer_id is not None:
        return f"device '{device.name}' has an owner already"
    if not is_allowed_by_default and tx.attribute(device_id, Scope.SERVER, CLAIMING_ALLOWED) is not True:
        return f"claiming is not allowed; set the server attribute {CLAIMING_ALLOWED} of '{device.name}' to true"
    return ""


def _claimed(outcome: tuple[ClaimOutcome, Device | None]) -> Subject | None:
    device = outcome[1]
    return None if device is None else Subject(device.uuid, device.name)


def _claim(tx: Tx, shown: _Shown, now_ms: int) -> tuple[ClaimOutcome, Device | None]:
    customer = tx.customer_by_id(shown.customer_id)
    if customer is None or customer.tenant_id != shown.tenant_id:
        raise NotAuthorized  # its token has outlived it
    known = _device(tx, shown.tenant_id, shown.device_name)
    tx.lock_device(known.id)
    device = tx.device_by_id(known.id)
    if device is None or device.customer_id is not None:
        return ClaimOutcome.CLAIMED, None
    offer = tx.claim_offer(device.id)
    if offer is not None and offer[1] <= now_ms:
        offer = None
    if offer is not None:
        is_right = hmac.compare_digest(offer[0], shown.secret_hash)
    else:
        is_right = _matches_operators_offer(tx, device.id, shown.secret, now_ms)
    tx.delete_claim_offer(device.id)  # used, or lost by a failed attempt (section 6.3)
    if not is_right:
        return ClaimOutcome.FAILURE, None
    used = [entry.key for entry in tx.attributes(device.id, Scope.SERVER, (CLAIMING_DATA, CLAIMING_ALLOWED))]
    tx.delete_attributes(device.id, Scope.SERVER, used)
    tx.assign_device(device.id, customer.id)
    return ClaimOutcome.SUCCESS, tx.device_by_id(device.id)


class _OperatorsOffer(msgspec.Struct):
    """The server attribute `claimingData`, an object or its text."""

    secretKey: str
    expirationTime: int


def _matches_operators_offer(tx: ReadTx, device_id: int, secret: str, now_ms: int) -> bool:
    value = tx.attribute(device_id, Scope.SERVER, CLAIMING_DATA)
    text = value.text if isinstance(value, JsonValue) else value
    if not isinstance(text, str):
        return False
    try:
        offer = msgspec.json.decode(text, type=_OperatorsOffer)
    except msgspec.MsgspecError:
        return False
    return now_ms < offer.expirationTime and hmac.compare_digest(offer.secretKey.encode(), secret.encode())


def _give_back(
    tx: Tx, tenant_id: int, customer_id: int | None, device_name: str, is_allowed_by_default: bool, now_ms: int
) -> None:
    device = _device(tx, tenant_id, device_name)
    if device.customer_id is None:
        return
    if customer_id not in (None, device.customer_id):
        raise NotAuthorized
    tx.assign_device(device.id, None)
    if not is_allowed_by_default:  # so that its next owner can claim it
        tx.put_attributes(device.id, Scope.SERVER, {CLAIMING_ALLOWED: True}, now_ms=now_ms)


def _device(tx: ReadTx, tenant_id: int, name: str) -> Device:
    device = tx.device_by_name(tenant_id, name)
    if device is None:
        raise NotFound(f"Device with name [{name[:MAX_NAME_CHARS]}] is not found")
    return device


def _trim(tx: Tx, now_ms: int) -> None:
    tx.trim_claim_offers(now_ms)


def _ignore(_outcome: object) -> None:
    """A failure is logged by the store, and a minute later it is tried again."""
