"""Requests that pass every check and wait for an operator's word, where the profile asks for one.

The device keeps asking in the ordinary way; once its request is accepted, the very same request succeeds. What is
accepted or rejected holds for a request with the same key, secret, name and credential members alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from cloud_core.core.asking import Asking
from cloud_core.core.inventory import found
from cloud_core.core.people.audit import Audit, Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.core.tokens import new_uuid
from cloud_core.model import (
    Approval,
    DeviceProfile,
    Page,
    Peer,
    PendingFilter,
    PendingRequest,
    ProvisionKey,
    RequestStatus,
)
from cloud_core.storage.interface import ReadTx, Store, Tx
from shared.errors import ApprovalPending, InvalidArgument, ProvisioningDisabled, QuotaExceeded
from shared.messages import ProvisionRequest

RETRY_S = 60.0  # told to the device
KEEP_MS = 7 * 86_400_000  # since the device asked last, or the operator decided
MAX_PENDING = 10_000  # of a profile
MAX_DECIDED_AT_ONCE = 1_000


# -- what devices meet ----------------------------------------------------------------------------


def check(tx: ReadTx, profile: DeviceProfile, digest: bytes, now_ms: int) -> None:
    """Behind all other checks. Raises: ApprovalPending, ProvisioningDisabled where it was rejected, QuotaExceeded."""
    if profile.provision.approval is not Approval.REQUIRED:
        return
    known = tx.pending_request(profile.id, digest)
    if known is None or known.until_ms < now_ms:
        if known is None and tx.pending_count(profile.id) >= MAX_PENDING:
            raise QuotaExceeded(f"{MAX_PENDING} requests of profile '{profile.name}' wait for approval already")
        raise ApprovalPending("the request waits for an operator", retry_after_s=RETRY_S)
    if known.status is RequestStatus.REJECTED:
        raise ProvisioningDisabled("an operator has rejected this request")
    if known.status is RequestStatus.PENDING:
        raise ApprovalPending("the request waits for an operator", retry_after_s=RETRY_S)


def wait(
    tx: Tx, profile: DeviceProfile, key: ProvisionKey | None, request: ProvisionRequest, digest: bytes, peer: Peer,
    now_ms: int,
) -> None:  # fmt: skip
    """Keeps the request and its evidence for the operator."""
    tx.put_pending(
        PendingRequest(
            uuid=new_uuid(now_ms), tenant_id=profile.tenant_id, profile_id=profile.id, digest=digest,
            name=request.device_name.strip(), source=peer.address, transport=peer.transport.value,
            key_name=key.name if key is not None else "", is_gateway=request.is_gateway, first_ms=now_ms,
            last_ms=now_ms, until_ms=now_ms + KEEP_MS,
        )
    )  # fmt: skip


def used(tx: Tx, profile: DeviceProfile, digest: bytes) -> None:
    """The accepted request has succeeded: it is good for one device."""
    if profile.provision.approval is Approval.REQUIRED:
        known = tx.pending_request(profile.id, digest)
        if known is not None:
            tx.delete_pending(known.id)


# -- what operators do ----------------------------------------------------------------------------


class ApprovalsApi(Asking):
    """What operators can do with requests that wait."""

    def __init__(self, *, store: Store, audit: Audit, now_ms: Callable[[], int]) -> None:
        super().__init__(store, audit)
        self._now_ms = now_ms

    async def page(self, operator: Operator, wanted: PendingFilter, page: Page) -> tuple[list[PendingRequest], int]:
        return await self._read(_page, operator.tenant_id, wanted, page)

    async def decide(
        self, operator: Operator, uuid: UUID, status: RequestStatus, *, why: str = ""
    ) -> PendingRequest:  # fmt: skip
        """What was decided before may be decided otherwise until the device has come in. NotFound; InvalidArgument
        for one that is over. `why` stands in the audit; the device is not told."""
        args = (operator.tenant_id, uuid, status, self._now_ms())
        deed = Deed(status.value, "PROVISION_REQUEST", lambda one: _with(_subject(one), why))
        return await self._decide_by(operator, deed, _decide_one, *args)

    async def decide_all(
        self, operator: Operator, wanted: PendingFilter, text_search: str, status: RequestStatus, *, why: str = ""
    ) -> list[str]:
        """All that wait and match, some at once: call again while it gives any. The names of those decided. `why`: as
        in `decide`."""
        args = (operator.tenant_id, wanted, text_search, status, self._now_ms())
        deed = Deed(status.value, "PROVISION_REQUEST", lambda names: _with(_of_names(names), why))
        return await self._decide_by(operator, deed, _decide_all, *args)

    def maintain(self) -> None:
        """Called once a minute: forgets what is over."""
        self._store.submit(_expire, (self._now_ms(),), _ignore)


def _page(tx: ReadTx, tenant_id: int, wanted: PendingFilter, page: Page) -> tuple[list[PendingRequest], int]:
    return tx.pending_requests(tenant_id, wanted, page)


def _decide_one(tx: Tx, tenant_id: int, uuid: UUID, status: RequestStatus, now_ms: int) -> PendingRequest:
    known = found(tx.pending_by_uuid(tenant_id, uuid), "Provision request", uuid)
    if known.until_ms < now_ms:
        raise InvalidArgument("This request is over; the device has to ask again")
    tx.decide_pending(known.id, status, until_ms=now_ms + KEEP_MS)
    return found(tx.pending_by_uuid(tenant_id, uuid), "Provision request", uuid)


def _decide_all(
    tx: Tx, tenant_id: int, wanted: PendingFilter, text_search: str, status: RequestStatus, now_ms: int
) -> list[str]:
    page = Page(MAX_DECIDED_AT_ONCE, text_search=text_search)
    waiting, _ = tx.pending_requests(tenant_id, wanted, page)
    for one in waiting:
        tx.decide_pending(one.id, status, until_ms=now_ms + KEEP_MS)
    return [one.name for one in waiting]


def _subject(request: PendingRequest) -> Subject:
    return Subject(request.uuid, request.name, f"profile '{request.profile_name}', from {request.source}")


def _with(subject: Subject | None, why: str) -> Subject | None:
    """The reason first: a long list of names may be cut short behind it."""
    return subject if subject is None or not why else replace(subject, detail=f"{why}; {subject.detail}")


def _of_names(names: list[str]) -> Subject | None:
    return Subject(None, f"{len(names)} requests", ", ".join(names)) if names else None


def _expire(tx: Tx, now_ms: int) -> None:
    tx.expire_pending(now_ms=now_ms)


def _ignore(_outcome: object) -> None:
    """Tried again in a minute; a failure is already logged by the store."""
