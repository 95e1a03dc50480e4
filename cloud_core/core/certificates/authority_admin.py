"""The operators' door to the small CAs and to all certificates: `AdminApi.authorities`.

Revocation lists and the CAs' own certificates are for everybody, and so cost a stranger's request nothing much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from cloud_core.core.asking import Asking, to_the_end
from cloud_core.core.certificates import authorities, expiry, signing
from cloud_core.core.certificates.authorities import Issued, Which
from cloud_core.core.certificates.expiry import OtherCertificate, Overview
from cloud_core.core.downlinks import Ending
from cloud_core.core.people.audit import Audit, Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.model import Authority, KnownCertificate, Page
from cloud_core.storage.interface import Store, Tx
from shared import certificates
from shared.errors import PlatformError

log = Logger()
WARNED_EARLIER_MS = 120_000  # than a day: nodes look once a minute
CRL_FRESH_MS = 60_000  # then it is asked what other nodes have revoked since
DAY_MS = 86_400_000
CRL_KEPT_MS = DAY_MS  # long before its nextUpdate, and short enough for what has ended to go

# (name, notAfter in ms) of each certificate of the server itself.
ServerCertificates = Callable[[], Iterable[tuple[str, int]]]


@dataclass(frozen=True, slots=True)
class Crl:
    """A signed list: DER, when it was made and last found complete, and the revocations until then."""

    der: bytes
    made_ms: int
    checked_ms: int
    revocations: int


def _none() -> Iterable[tuple[str, int]]:
    return ()


def _nobody_minds() -> None:
    """What happens on a new CA where nobody verifies against it."""


class AuthoritiesApi(Asking):
    """Makes CAs, issues, revokes, and says what ends when.

    `device_changed` as in `DeviceApi`; `on_new_authority` runs when there is one more CA.
    """

    def __init__(
        self, *, store: Store, now_ms: Callable[[], int], device_changed: Callable[[int, Ending], None],
        on_new_authority: Callable[[], None] = _nobody_minds, public_url: str = "", audit: Audit | None = None,
    ) -> None:  # fmt: skip
        super().__init__(store, audit)
        self.now_ms = now_ms
        self._device_changed = device_changed
        self._on_new_authority = on_new_authority
        self.public_url = public_url
        self.server_certificates: ServerCertificates = _none  # set by whoever has them
        self.warn_days = expiry.WARN_DAYS
        self._crls: dict[UUID, Crl] = {}
        self._pems: dict[UUID, tuple[bytes, bytes]] = {}  # DER of the list, and its PEM
        self._making: dict[tuple[UUID, int], list[Deferred[Crl | PlatformError]]] = {}
        self._generation = 0  # of what is revoked
        self._warned_ms: int | None = None

    # -- authorities ------------------------------------------------------------------------------

    async def all(self, operator: Operator) -> list[Authority]:
        return await self._read(authorities.authorities, operator.tenant_id)

    async def find(self, operator: Operator, which: str) -> Authority:
        """By name or uuid. Raises: NotFound."""
        return await self._read(authorities.authority_named, operator.tenant_id, which)

    @to_the_end
    async def create(self, operator: Operator, name: str, curve: str, years: int) -> Authority:
        """A new self-signed CA. Raises: InvalidArgument."""
        return await self._add(operator, "CREATED", name, *authorities.make(name, curve, years, self.now_ms()))

    @to_the_end
    async def take_over(self, operator: Operator, name: str, chain_pem: str, key_pem: str) -> Authority:
        """A CA that exists. Raises: InvalidArgument."""
        made = await deferToThread(authorities.take_over, chain_pem, key_pem, self.now_ms())
        return await self._add(operator, "IMPORTED", name, *made)

    async def _add(self, operator: Operator, action: str, name: str, chain: tuple[bytes, ...], key: bytes) -> Authority:
        deed = Deed(action, "CERTIFICATE_AUTHORITY", lambda one: Subject(one.uuid, one.name))
        added = await self._decide_by(
            operator, deed, authorities.add, operator.tenant_id, name, chain, key, self.now_ms()
        )
        log.info("{who} added the CA {name}", who=operator.username, name=added.name)
        self._on_new_authority()
        return added

    # -- certificates -----------------------------------------------------------------------------

    async def issue(self, operator: Operator, which: str, csr_text: str, name: str, days: int) -> Issued:
        """Signs a request for a device that need not exist yet. Raises: NotFound, InvalidArgument."""
        deed = Deed(
            "ISSUED", "CERTIFICATE", lambda one: Subject(None, name, f"{one.serial} by CA '{one.authority_name}'")
        )
        issued = await self._decide_by(
            operator, deed, authorities.issue_for_operator, operator.tenant_id, which, csr_text, name, days,
            self.now_ms(), self.public_url,
        )  # fmt: skip
        log.info(
            "{who} had the CA {ca} issue certificate {serial} to {name}",
            who=operator.username, ca=issued.authority_name, serial=issued.serial, name=name,
        )  # fmt: skip
        return issued

    async def certificate(self, operator: Operator, fingerprint: bytes) -> KnownCertificate:
        """Raises: NotFound."""
        return await self._read(authorities.known, operator.tenant_id, fingerprint)

    @to_the_end
    async def revoke(self, operator: Operator, which: Which, reason: str) -> list[KnownCertificate]:
        """From now on nobody logs in with these; who is connected with one is disconnected.

        Raises: NotFound, InvalidArgument.
        """
        deed = Deed("REVOKED", "CERTIFICATE", lambda them: _of_revoked(them, reason))
        revoked = await self._decide_by(
            operator, deed, authorities.revoke, operator.tenant_id, which, reason, self.now_ms()
        )
        self.revocations_changed()
        for device_id in {one.device_id for one in revoked if one.device_id is not None}:
            self._device_changed(device_id, Ending.CREDENTIALS_CHANGED)
        for one in revoked:
            log.info(
                "{who} revoked certificate {serial} of {subject}: {reason}",
                who=operator.username, serial=one.serial, subject=one.subject, reason=one.revocation_reason,
            )  # fmt: skip
        return revoked

    def revocations_changed(self) -> None:
        """Something was revoked, here or by another node: the lists that are kept are over."""
        self._generation += 1
        self._crls.clear()
        self._pems.clear()

    # -- for everybody ----------------------------------------------------------------------------

    async def certificate_chain(self, uuid: UUID) -> str:
        """PEM of the CA's certificate, then of its issuers. Raises: NotFound."""
        authority = await self._read(authorities.authority_by_uuid, uuid)
        return chain_pem(authority)

    async def crl(self, uuid: UUID) -> Crl:
        """The CA's current revocation list; one is made for all who ask at a time, and kept until something is
        revoked or it grows old. Raises: NotFound."""
        kept = self._crls.get(uuid)
        if kept is not None and 0 <= self.now_ms() - kept.checked_ms < CRL_FRESH_MS:
            return kept
        place = (uuid, self._generation)
        waiting = self._making.get(place)
        if waiting is not None:
            deferred: Deferred[Crl | PlatformError] = Deferred()
            waiting.append(deferred)
            outcome = await deferred
            if isinstance(outcome, PlatformError):
                raise outcome
            return outcome
        waiting = self._making[place] = []
        try:
            made = await self._current_crl(uuid)
        except PlatformError as error:
            self._tell(place, error)
            raise
        if place[1] == self._generation:
            self._crls[uuid] = made
        self._tell(place, made)
        return made

    def _tell(self, place: tuple[UUID, int], outcome: Crl | PlatformError) -> None:
        for one in self._making.pop(place, ()):
            one.callback(outcome)

    async def _current_crl(self, uuid: UUID) -> Crl:
        """The one that is kept, where nothing has been revoked since, or a new one."""
        now_ms, kept = self.now_ms(), self._crls.get(uuid)
        count = await self._read(authorities.revocations, uuid)  # a uuid of nobody costs no write
        if kept is not None and kept.revocations == count and 0 <= now_ms - kept.made_ms < CRL_KEPT_MS:
            return replace(kept, checked_ms=now_ms)
        authority, number = await self._decide(authorities.count_crl, uuid)
        revoked = await self._read(authorities.revoked, authority, now_ms)
        der = await deferToThread(authorities.make_crl, authority, revoked, number, now_ms)
        return Crl(der, now_ms, now_ms, count)

    async def crl_pem(self, uuid: UUID) -> bytes:
        """As `crl`, for people and their tools. Raises: NotFound."""
        current = await self.crl(uuid)
        der, pem = self._pems.get(uuid, (b"", b""))
        if der is not current.der:
            pem = await deferToThread(signing.crl_pem, current.der)
            self._pems[uuid] = (current.der, pem)
        return pem

    # -- what ends when ---------------------------------------------------------------------------

    async def overview(self, operator: Operator, page: Page, within_days: int | None) -> Overview:
        """Every certificate that is known: a page of the devices', and all others. `within_days`: those alone that
        are in use and end in that time, or have ended."""
        before_ms = None if within_days is None else self.now_ms() + within_days * DAY_MS
        found = await self._read(expiry.overview, operator.tenant_id, page, before_ms)
        own = [
            OtherCertificate(kind=expiry.Kind.SERVER, name=name, not_after_ms=end_ms)
            for name, end_ms in self.server_certificates()
            if before_ms is None or end_ms < before_ms
        ]
        return replace(found, others=sorted([*found.others, *own], key=lambda one: one.not_after_ms))

    def warn_of_expiry(self) -> None:
        """Once a day a line for each kind of certificate that ends soon; called every minute."""
        now_ms = self.now_ms()
        if self._warned_ms is not None and now_ms - self._warned_ms < DAY_MS:
            return
        self._warned_ms = now_ms
        own = tuple(self.server_certificates())

        def due(outcome: bool | PlatformError) -> None:
            """The own certificate is of this node alone; of all others one node speaks."""
            self._store.survey(expiry.warnings, (own, now_ms, self.warn_days, outcome is not False), _say)

        if self._store.node is None:
            due(True)
        else:
            self._store.submit(_takes_warning, (now_ms,), due)


def _takes_warning(tx: Tx, now_ms: int) -> bool:
    return tx.take_lease("expiry warnings", now_ms=now_ms, for_ms=DAY_MS - WARNED_EARLIER_MS)


def _of_revoked(revoked: list[KnownCertificate], reason: str) -> Subject:
    names = sorted({one.device_name or one.subject for one in revoked})
    serials = ", ".join(one.serial for one in revoked)
    return Subject(None, ", ".join(names), f"{reason}: {serials}")


def _say(outcome: list[str] | PlatformError) -> None:
    if isinstance(outcome, PlatformError):
        log.error("Could not look for certificates that end soon: {error}", error=str(outcome))
        return
    for line in outcome:
        log.warn("{line}", line=line)


def chain_pem(authority: Authority) -> str:
    return "".join(certificates.pem(certificates.load(one)) for one in authority.chain)
