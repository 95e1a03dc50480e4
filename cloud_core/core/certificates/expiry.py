"""When certificates end: an overview of every one that is known, and what is worth a warning. Look-ups alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from cloud_core.model import Authority, DeviceProfile, KnownCertificate, Page
from cloud_core.storage.interface import ReadTx
from shared import certificates
from shared.certificates import MalformedCertificate

WARN_DAYS = 30
DAY_MS = 86_400_000


class Kind(StrEnum):
    """Whose certificate it is."""

    DEVICE = "DEVICE"
    AUTHORITY = "AUTHORITY"
    PROFILE = "PROFILE"
    """A CA that a profile admits by."""
    SERVER = "SERVER"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherCertificate:
    """A certificate of anybody but a device. `name`: of the CA, the profile or the server."""

    kind: Kind
    name: str
    not_after_ms: int
    subject: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """A page of the devices' certificates and the number of all; every other one, the next to end first."""

    devices: list[KnownCertificate]
    total: int
    others: list[OtherCertificate]


def overview(tx: ReadTx, tenant_id: int, page: Page, before_ms: int | None) -> Overview:
    """`before_ms`: those alone that are in use and end before it."""
    devices, total = tx.certificates(tenant_id, page, ends_before_ms=before_ms)
    profiles = [one for one in tx.chain_profiles() if one.tenant_id == tenant_id]
    others = _of_others(tx.authorities(tenant_id), profiles)
    return Overview(devices, total, [one for one in others if before_ms is None or one.not_after_ms < before_ms])


def _of_others(authorities: Iterable[Authority], profiles: Iterable[DeviceProfile]) -> list[OtherCertificate]:
    found = [_ending(Kind.AUTHORITY, one.name, der) for one in authorities for der in one.chain]
    for profile in profiles:
        try:
            shown = certificates.load_all(profile.provision.secret)
        except MalformedCertificate:
            continue  # kept from before profiles were checked; it admits nobody
        found += [_ending(Kind.PROFILE, profile.name, certificates.der(one)) for one in shown]
    return sorted(found, key=lambda one: one.not_after_ms)


def _ending(kind: Kind, name: str, der: bytes) -> OtherCertificate:
    loaded = certificates.load(der)
    return OtherCertificate(
        kind=kind, name=name, not_after_ms=certificates.not_after_ms(loaded),
        subject=certificates.name_text(loaded.subject), fingerprint=certificates.fingerprint(der).hex(),
    )  # fmt: skip


def soonest(tx: ReadTx, now_ms: int) -> dict[Kind, int]:
    """The next end, in ms since the epoch, of those in use of each kind that is stored, over all tenants."""
    found: dict[Kind, int] = {}
    _, first = tx.ending_certificates(from_ms=now_ms, before_ms=2**62)
    if first is not None:
        found[Kind.DEVICE] = first.not_after_ms
    for one in _of_others(tx.every_authority(), tx.chain_profiles()):
        found[one.kind] = min(one.not_after_ms, found.get(one.kind, one.not_after_ms))
    return found


def warnings(
    tx: ReadTx, server: Sequence[tuple[str, int]], now_ms: int, days: int, is_of_all: bool = True
) -> list[str]:
    """A sentence for each kind of which some end within `days` or are over, over all tenants; without `is_of_all`
    of the server's own alone."""
    before_ms = now_ms + days * DAY_MS
    lines = []
    count, first = tx.ending_certificates(from_ms=now_ms, before_ms=before_ms) if is_of_all else (0, None)
    if first is not None:
        lines.append(
            f"Certificates of devices that end within {days} days: {count}; the first is that of "
            f"'{first.device_name}', on {_date(first.not_after_ms)}; see: cloud-core certificates"
        )
    others = _of_others(tx.every_authority(), tx.chain_profiles()) if is_of_all else []
    own = [OtherCertificate(kind=Kind.SERVER, name=name, not_after_ms=end_ms) for name, end_ms in server]
    for kind, what in (
        (Kind.AUTHORITY, "CAs"),
        (Kind.PROFILE, "CAs that profiles admit by"),
        (Kind.SERVER, "the server itself"),
    ):
        ending = sorted(
            (one for one in (*others, *own) if one.kind is kind and one.not_after_ms < before_ms),
            key=lambda one: one.not_after_ms,
        )
        if ending:
            first_end = f"'{ending[0].name}', on {_date(ending[0].not_after_ms)}"
            lines.append(
                f"Certificates of {what} that end within {days} days or are over: {len(ending)}; the first is that of "
                f"{first_end}; see: cloud-core certificates"
            )
    return lines


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")
