"""The audit: every decision of an operator, written in the same transaction, in a chain that shows what was changed.

Each tenant has a chain of its own. An entry's digest is SHA-256 over the digest before it and the entry's canonical
form; who alters, inserts or removes one has to compute all later ones anew, and the newest differs from any copy of
it that was kept elsewhere. Entries removed for their age leave the digest of the last one, where the chain begins.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar
from uuid import UUID

import msgspec

from cloud_core.model import DEFAULT_TENANT, NIL_UUID, AuditEntry, AuditFilter, AuditHead, Page
from cloud_core.storage.interface import Done, ReadTx, Store, Tx
from shared.errors import PlatformError

R = TypeVar("R")
MAX_NAME_CHARS = 255
MAX_DETAIL_CHARS = 1_000
ENTRIES_AT_ONCE = 2_000  # that are verified while others wait


class Who(Protocol):
    """Who decides: an `Operator`, or `Somebody`."""

    @property
    def username(self) -> str: ...
    @property
    def tenant_id(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Somebody:
    """Who has not logged in."""

    username: str
    tenant_id: int


@dataclass(frozen=True, slots=True)
class Subject:
    """What a decision was about. `detail` says what of it, never a secret."""

    uuid: UUID | None
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Deed:
    """A decision to be recorded; `subject` tells from its result what it was about. None: nothing was decided."""

    action: str
    entity_type: str
    subject: Callable[[Any], Subject | None]


def record(
    tx: Tx, operator: Who, action: str, entity_type: str, entity_uuid: UUID | None, name: str, detail: str = "",
    *, now_ms: int | None = None,
) -> AuditEntry:  # fmt: skip
    """Appends to the chain of the operator's tenant; the last write of a decision, for the chain is locked by it."""
    head = tx.lock_audit_head(operator.tenant_id)
    entry = AuditEntry(
        tenant_id=operator.tenant_id, number=head.number + 1,
        at_ms=int(time.time() * 1000) if now_ms is None else now_ms, actor=_text(operator.username, MAX_NAME_CHARS),
        action=action, entity_type=entity_type, entity_uuid=entity_uuid or NIL_UUID,
        name=_text(name, MAX_NAME_CHARS), detail=_text(detail, MAX_DETAIL_CHARS), digest=b"",
    )  # fmt: skip
    entry = replace(entry, digest=digest(entry, head.digest))
    tx.append_audit(entry)
    return entry


def record_failed_login(tx: Tx, username: str, address: str, now_ms: int, left_out: int = 0) -> AuditEntry:
    """In the chain of the user's tenant; of the first one where nobody has that name. `left_out`: not recorded, for
    there were too many."""
    user = tx.user_by_name(username)
    tenant_id = user.tenant_id if user is not None else tx.tenant_id(DEFAULT_TENANT)
    assert tenant_id is not None, "the store makes the default tenant"
    who = Somebody(username, tenant_id)
    uuid = user.uuid if user is not None else None
    detail = f"from {address}" + (f"; {left_out} more before it were left out" if left_out else "")
    return record(tx, who, "LOGIN_FAILED", "USER", uuid, username, detail, now_ms=now_ms)


def _text(value: str, limit: int) -> str:
    """As every database gives it back: the digest is over this."""
    return value[:limit].replace("\0", "\ufffd")


def digest(entry: AuditEntry, previous: bytes) -> bytes:
    """SHA-256 over the digest before it and the JSON array of the entry's members."""
    members = [
        entry.tenant_id, entry.number, entry.at_ms, entry.actor, entry.action, entry.entity_type,
        str(entry.entity_uuid), entry.name, entry.detail,
    ]  # fmt: skip
    return hashlib.sha256(previous + msgspec.json.encode(members)).digest()


class Audit:
    """Runs decisions of operators and records them; what nobody answers for runs as it is."""

    def __init__(self, store: Store, on_recorded: Callable[[AuditEntry], None] | None = None) -> None:
        self._store = store
        self._on_recorded = on_recorded

    def submit(self, by: Who | None, deed: Deed, work: Callable[..., R], args: tuple[Any, ...], done: Done[R]) -> None:
        """As `Store.submit`, with the record of `deed` in the same transaction."""
        if by is None:
            self._store.submit(work, args, done)
            return

        def decided(outcome: tuple[R, AuditEntry | None] | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                done(outcome)
                return
            result, entry = outcome
            if entry is not None and self._on_recorded is not None:
                self._on_recorded(entry)
            done(result)

        self._store.submit(_recorded, (by, deed, work, args), decided)


def _recorded(
    tx: Tx, by: Who, deed: Deed, work: Callable[..., R], args: tuple[Any, ...]
) -> tuple[R, AuditEntry | None]:
    result = work(tx, *args)
    subject = deed.subject(result)
    if subject is None:
        return result, None
    entry = record(tx, by, deed.action, deed.entity_type, subject.uuid, subject.name, subject.detail)
    return result, entry


# -- reading it -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is found of a chain: `fault` is empty where all of it holds."""

    first_number: int  # of the entries that are kept
    last_number: int
    digest: bytes  # of the last good entry
    fault: str = ""
    is_complete: bool = False


def entries(tx: ReadTx, tenant_id: int, wanted: AuditFilter, page: Page) -> tuple[list[AuditEntry], int]:
    return tx.audit_entries(tenant_id, wanted, page)


def verify(tx: ReadTx, tenant_id: int, so_far: Verdict | None) -> Verdict:
    """Goes on where the last call ended, some thousand entries at once; ends with `is_complete` or a fault."""
    head = tx.audit_head(tenant_id)
    number, previous = head.first_number, head.first_digest
    first = head.first_number + 1
    if so_far is not None and so_far.last_number >= number:
        number, previous, first = so_far.last_number, so_far.digest, max(first, so_far.first_number)
    found = tx.audit_after(tenant_id, number, head.number, ENTRIES_AT_ONCE)
    for entry in found:
        if entry.number != number + 1:
            return Verdict(first, number, previous, f"entry {number + 1} is missing")
        if not hmac.compare_digest(digest(entry, previous), entry.digest):
            return Verdict(first, number, previous, f"entry {entry.number} was changed, or one before it")
        number, previous = entry.number, entry.digest
    if len(found) == ENTRIES_AT_ONCE:
        return Verdict(first, number, previous)
    return Verdict(first, number, previous, _fault_at_end(head, number, previous), is_complete=True)


def _fault_at_end(head: AuditHead, number: int, last: bytes) -> str:
    if number != head.number:
        return f"entries {number + 1} to {head.number} are missing"
    return "" if hmac.compare_digest(last, head.digest) else f"the end of the chain is not that of entry {number}"


def trim(tx: Tx, keep: int, before_ms: int) -> int:
    """Retention; the rest of the chain can still be verified."""
    return sum(tx.trim_audit(tenant_id, keep=keep, before_ms=before_ms) for tenant_id in tx.audited_tenants())
