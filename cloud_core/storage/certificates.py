"""Certificates, authorities and trust anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from cloud_core.model import Authority, ChangeKind, DeviceProfile, KnownCertificate, Login, Page, ProvisionConfiguration
from cloud_core.model import ProvisionStrategy as Strategy
from cloud_core.storage import searches
from cloud_core.storage.changes import RecordsChanges
from cloud_core.storage.connected import FEW_MATCHES, FEW_OF_TABLE, Connected
from cloud_core.storage.schema import authority, certificate, device, device_profile, trust_anchor
from cloud_core.storage.statements import login_columns, profile_rows
from shared import certificates
from shared.certificates import MalformedCertificate
from shared.credentials import Credentials, X509Certificate

p = bindparam
_c = certificate.c
_a = authority.c
_ROWS = select(
    _c.id, _c.tenant_id, _c.device_id, _c.authority_id, _c.fingerprint, _c.serial, _c.subject, _c.issuer,
    _c.not_before_ms, _c.not_after_ms, _c.created_ms, _c.until_ms, _c.revoked_ms, _c.revocation_reason, device.c.name,
).outerjoin(device, _c.device_id == device.c.id)  # fmt: skip
_BY_FINGERPRINT = _ROWS.where(_c.fingerprint == p("fingerprint"))
_BY_SERIAL = _ROWS.where(_c.authority_id == p("authority_id"), _c.serial == p("serial"))
_OF_DEVICE = _ROWS.where(_c.device_id == p("device_id")).order_by(_c.id)
_IN_USE = (_c.until_ms.is_(None), _c.revoked_ms.is_(None), _c.device_id.is_not(None))
_ENDING = select(func.count(), func.min(_c.not_after_ms)).where(
    _c.not_after_ms >= p("from_ms"), _c.not_after_ms < p("before_ms"), *_IN_USE
)
_ENDING_FIRST = _ROWS.where(_c.not_after_ms == p("not_after_ms"), *_IN_USE).order_by(_c.id).limit(1)
_REVOKED = _ROWS.where(
    _c.authority_id == p("authority_id"), _c.revoked_ms.is_not(None), _c.not_after_ms > p("now_ms")
).order_by(_c.id)
_REVOCATIONS = (
    select(func.count())
    .select_from(certificate)
    .where(_c.authority_id == p("authority_id"), _c.revoked_ms.is_not(None))
)
_FORMER_LOGIN = (
    select(*login_columns)
    .select_from(certificate)
    .join(device, _c.device_id == device.c.id)
    .join(device_profile, device.c.profile_id == device_profile.c.id)
    .where(_c.fingerprint == p("fingerprint"), _c.until_ms > p("now_ms"), _c.revoked_ms.is_(None))
)
_CLOSE = (
    update(certificate)
    .where(_c.device_id == p("b_device_id"), or_(_c.until_ms.is_(None), _c.until_ms > p("b_until_ms")))
    .values(until_ms=p("until_ms"))
)
_NAME = (
    update(certificate)
    .where(_c.device_id == p("b_device_id"), _c.device_name != p("device_name"))
    .values(device_name=p("device_name"))
)
_REVOKE = (
    update(certificate)
    .where(_c.id == p("b_id"), _c.revoked_ms.is_(None))
    .values(revoked_ms=p("revoked_ms"), revocation_reason=p("revocation_reason"))
)
_DEVICE_OF = select(_c.device_id).where(_c.id == p("id"))
_AUTHORITIES = select(
    _a.id, _a.uuid, _a.tenant_id, _a.name, _a.chain, _a.key_sealed, _a.created_ms, _a.crl_number
).order_by(_a.id)
_AUTHORITY = _AUTHORITIES.where(_a.tenant_id == p("tenant_id"), _a.name == p("name"))
_AUTHORITY_BY_UUID = _AUTHORITIES.where(_a.uuid == p("uuid"))
_AUTHORITY_BY_ID = _AUTHORITIES.where(_a.id == p("id"))
_AUTHORITIES_OF = _AUTHORITIES.where(_a.tenant_id == p("tenant_id"))
_INSERT_AUTHORITY = (
    insert(authority)
    .values(
        {name: p(name) for name in ("uuid", "tenant_id", "name", "chain", "key_sealed", "created_ms", "crl_number")}
    )
    .returning(_a.id)
)
_NEXT_CRL = update(authority).where(_a.id == p("b_id")).values(crl_number=_a.crl_number + 1).returning(_a.crl_number)
_CHAIN_PROFILES = profile_rows.where(device_profile.c.id.in_(select(trust_anchor.c.profile_id).distinct())).order_by(
    device_profile.c.id
)
_BY_ISSUER = profile_rows.where(
    device_profile.c.id.in_(select(trust_anchor.c.profile_id).where(trust_anchor.c.name_hash == p("name_hash")))
)
_CALLED = (
    profile_rows.where(or_(device_profile.c.name == p("name"), device_profile.c.uuid == p("uuid")))
    .order_by(device_profile.c.id)
    .limit(2)
)
_FORGET_ANCHORS = delete(trust_anchor).where(trust_anchor.c.profile_id == p("b_profile_id"))
_KEY_CONTEXT = b"authority"


def _put_anchor(upsert: Any) -> Any:  # Any: the insert of either dialect
    names = ("name_hash", "fingerprint", "profile_id")
    return upsert(trust_anchor).values({name: p(name) for name in names}).on_conflict_do_nothing()


def _put_certificate(upsert: Any) -> Any:  # Any: the insert of either dialect
    # Locked against a new name that another node gives meanwhile; the device's number is of a foreign key besides.
    named = select(device.c.name).where(device.c.id == p("device_id")).with_for_update(read=True, key_share=True)
    values: dict[str, Any] = {one.name: p(one.name) for one in certificate.columns if one.name != "id"}
    put = upsert(certificate).values(values | {"device_name": func.coalesce(named.scalar_subquery(), "")})
    kept = {name: put.excluded[name] for name in ("device_id", "device_name", "tenant_id", "until_ms")}
    kept["authority_id"] = func.coalesce(put.excluded.authority_id, _c.authority_id)
    return put.on_conflict_do_update(index_elements=[_c.fingerprint], set_=kept)


class ReadsCertificates(Connected):
    """`ReadCertificates` of the interface."""

    def certificate(self, fingerprint: bytes) -> KnownCertificate | None:
        return _known(self._row(self._once(_BY_FINGERPRINT), fingerprint=fingerprint))

    def certificate_by_serial(self, authority_id: int, serial: str) -> KnownCertificate | None:
        return _known(self._row(self._once(_BY_SERIAL), authority_id=authority_id, serial=serial))

    def former_login(self, fingerprint: bytes, *, now_ms: int) -> Login | None:
        row = self._row(self._once(_FORMER_LOGIN), fingerprint=fingerprint, now_ms=now_ms)
        return None if row is None else self._former_login(row)

    def _former_login(self, row: Any) -> Login:
        raise NotImplementedError

    def certificates(
        self, tenant_id: int, page: Page, *, ends_before_ms: int | None = None, authority_id: int | None = None
    ) -> tuple[list[KnownCertificate], int]:
        wanted = [_c.tenant_id == tenant_id]
        if ends_before_ms is not None:
            wanted += [_c.not_after_ms < ends_before_ms, *_IN_USE]
        if authority_id is not None:
            wanted.append(_c.authority_id == authority_id)
        columns = {"createdTime": _c.not_after_ms, "notAfter": _c.not_after_ms, "subject": _c.subject}
        numbers = select(_c.id).where(*wanted)
        is_scanned = bool(page.text_search) or page.sort_property == "subject"
        plan, few = (searches.CERTIFICATES.plan, FEW_OF_TABLE) if is_scanned else (None, FEW_MATCHES)
        rows, total = self._page(
            numbers, page, columns, searches.CERTIFICATES, plan=plan, whole=_ROWS, few=few, is_scanned=is_scanned
        )
        return [one for row in rows if (one := _known(row))], total

    def revoked_certificates(self, authority_id: int, *, now_ms: int) -> list[KnownCertificate]:
        rows = self._rows(self._once(_REVOKED), authority_id=authority_id, now_ms=now_ms)
        return [one for row in rows if (one := _known(row))]

    def revocation_count(self, authority_id: int) -> int:
        count: int = self._row(self._once(_REVOCATIONS), authority_id=authority_id)[0]
        return count

    def certificates_of_device(self, device_id: int) -> list[KnownCertificate]:
        rows = self._rows(self._once(_OF_DEVICE), device_id=device_id)
        return [one for row in rows if (one := _known(row))]

    def ending_certificates(self, *, from_ms: int, before_ms: int) -> tuple[int, KnownCertificate | None]:
        count, first_ms = self._row(self._once(_ENDING), from_ms=from_ms, before_ms=before_ms)
        if not count:
            return 0, None
        return count, _known(self._row(self._once(_ENDING_FIRST), not_after_ms=first_ms))

    def authority(self, tenant_id: int, name: str) -> Authority | None:
        row = self._row(self._once(_AUTHORITY), tenant_id=tenant_id, name=name)
        return None if row is None else self._authority(row)

    def authority_by_uuid(self, uuid: UUID) -> Authority | None:
        row = self._row(self._once(_AUTHORITY_BY_UUID), uuid=uuid.bytes)
        return None if row is None else self._authority(row)

    def authority_by_id(self, authority_id: int) -> Authority | None:
        row = self._row(self._once(_AUTHORITY_BY_ID), id=authority_id)
        return None if row is None else self._authority(row)

    def authorities(self, tenant_id: int) -> list[Authority]:
        return [self._authority(row) for row in self._rows(self._once(_AUTHORITIES_OF), tenant_id=tenant_id)]

    def every_authority(self) -> list[Authority]:
        return [self._authority(row) for row in self._rows(self._once(_AUTHORITIES))]

    def _authority(self, row: Any) -> Authority:
        return Authority(
            id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], name=row[3],
            chain=tuple(msgspec.msgpack.decode(bytes(row[4]), type=list[bytes])),
            key=self._vault.unseal(bytes(row[5]), context=_KEY_CONTEXT), created_ms=row[6], crl_number=row[7],
        )  # fmt: skip

    def profiles_by_issuer(self, name_hashes: Sequence[bytes]) -> list[DeviceProfile]:
        found = (row for one in name_hashes for row in self._rows(self._once(_BY_ISSUER), name_hash=one))
        profiles = {profile.id: profile for profile in map(self._profile_of, found)}
        return [profiles[number] for number in sorted(profiles)]

    def chain_profiles(self) -> list[DeviceProfile]:
        return [self._profile_of(row) for row in self._rows(self._once(_CHAIN_PROFILES))]

    def profiles_called(self, name: str, uuid: UUID | None) -> list[DeviceProfile]:
        rows = self._rows(self._once(_CALLED), name=name, uuid=b"" if uuid is None else uuid.bytes)
        return [self._profile_of(row) for row in rows]

    def _profile_of(self, row: Any) -> DeviceProfile:
        raise NotImplementedError


class WritesCertificates(ReadsCertificates, RecordsChanges):
    """`WriteCertificates` of the interface."""

    def record_certificate(
        self, der: bytes, *, tenant_id: int, device_id: int | None, authority_id: int | None = None, now_ms: int
    ) -> None:
        known = certificates.load(der)
        self._write(
            self._once(_put_certificate), tenant_id=tenant_id, device_id=device_id, authority_id=authority_id,
            fingerprint=certificates.fingerprint(der), serial=f"{known.serial_number:x}",
            subject=certificates.name_text(known.subject), issuer=certificates.name_text(known.issuer),
            not_before_ms=certificates.not_before_ms(known), not_after_ms=certificates.not_after_ms(known),
            created_ms=now_ms, until_ms=None, revoked_ms=None, revocation_reason="",
        )  # fmt: skip

    def revoke_certificate(self, certificate_id: int, *, now_ms: int, reason: str) -> None:
        self._write(self._once(_REVOKE), b_id=certificate_id, revoked_ms=now_ms, revocation_reason=reason)
        if self.node is not None:
            row = self._row(self._once(_DEVICE_OF), id=certificate_id)
            self.record_change(ChangeKind.CREDENTIALS, None if row is None else row[0], True)

    def insert_authority(self, authority: Authority) -> int:
        self.writes += 1
        row = self._row(
            self._once(_INSERT_AUTHORITY), uuid=authority.uuid.bytes, tenant_id=authority.tenant_id,
            name=authority.name, chain=msgspec.msgpack.encode(list(authority.chain)),
            key_sealed=self._vault.seal(authority.key, context=_KEY_CONTEXT), created_ms=authority.created_ms,
            crl_number=authority.crl_number,
        )  # fmt: skip
        number: int = row[0]
        self.record_change(ChangeKind.PROFILE)
        return number

    def next_crl_number(self, authority_id: int) -> int:
        self.writes += 1
        number: int = self._row(self._once(_NEXT_CRL), b_id=authority_id)[0]
        return number

    def _close_certificates(self, device_id: int, until_ms: int) -> None:
        """Those of the device so far are former ones from now on."""
        self._write(self._once(_CLOSE), b_device_id=device_id, b_until_ms=until_ms, until_ms=until_ms)

    def _name_certificates(self, device_id: int, name: str) -> None:
        """Searches find them by what their device is called now; by nothing, where it goes."""
        self._write(self._once(_NAME), b_device_id=device_id, device_name=name)

    def _record_credentials(
        self, tenant_id: int, device_id: int, credentials: Credentials, authority_id: int | None, now_ms: int
    ) -> None:
        """What is known of a device's certificate, where it is one and no mere fingerprint."""
        if isinstance(credentials, X509Certificate):
            try:
                der = certificates.der_of(credentials.certificate)
                self.record_certificate(
                    der, tenant_id=tenant_id, device_id=device_id, authority_id=authority_id, now_ms=now_ms
                )
            except MalformedCertificate:
                return  # an opaque text, as the specification sends it

    def _put_anchors(self, profile_id: int, provision: ProvisionConfiguration) -> None:
        self._write(self._once(_FORGET_ANCHORS), b_profile_id=profile_id)
        if provision.strategy is not Strategy.X509_CERTIFICATE_CHAIN or not provision.secret:
            return
        for one in certificates.load_all(provision.secret):
            self._write(
                self._once(_put_anchor), name_hash=certificates.name_hash(one.subject),
                fingerprint=certificates.fingerprint(certificates.der(one)), profile_id=profile_id,
            )  # fmt: skip


def _known(row: Any) -> KnownCertificate | None:
    if row is None:
        return None
    return KnownCertificate(
        id=row[0], tenant_id=row[1], device_id=row[2], authority_id=row[3], fingerprint=bytes(row[4]), serial=row[5],
        subject=row[6], issuer=row[7], not_before_ms=row[8], not_after_ms=row[9], created_ms=row[10], until_ms=row[11],
        revoked_ms=row[12], revocation_reason=row[13], device_name=row[14] or "",
    )  # fmt: skip
