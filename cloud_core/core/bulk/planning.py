"""What each row would do: set-based look-ups for some hundred rows, nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cloud_core.core.bulk.rows import Wish
from cloud_core.core.holders import holder
from cloud_core.core.inventory import DEFAULT_PROFILE
from cloud_core.core.quota import room
from cloud_core.model import Customer, Device, DeviceProfile
from cloud_core.storage.interface import ReadTx
from cloud_core.storage.interface.batches import Batch, BatchRow, RowStatus
from shared.credentials import X509Certificate, credentials_id


@dataclass(slots=True)
class Surroundings:
    """What is in the database already and concerns some rows."""

    devices: dict[str, Device]
    owners: dict[str, int]  # credentials id -> device number
    profiles: dict[str, DeviceProfile | None]  # by name; "" is the default one
    customers: dict[str, Customer | None]  # by title


@dataclass(slots=True)
class Verdict:
    """What a row would do, and to which device; `has_new_credentials`, where the row brings other ones."""

    status: RowStatus
    code: str = ""
    detail: str = ""
    device: Device | None = None
    has_new_credentials: bool = False


@dataclass(slots=True)
class Seen:
    """Names and credentials ids of a file so far, and the row that has them: hashes, for there are many."""

    names: dict[int, int] = field(default_factory=dict)
    ids: dict[int, int] = field(default_factory=dict)

    def clash(self, wish: Wish) -> Verdict | None:
        """The verdict on a row that repeats an earlier one; else it is remembered."""
        first = self.names.setdefault(hash(wish.name), wish.number)
        if first != wish.number:
            return _conflict(
                "DUPLICATE_NAME", f"The name '{wish.name}' is in row {first} already; remove one of the two"
            )
        if wish.credentials is None:
            return None
        first = self.ids.setdefault(hash(credentials_id(wish.credentials)), wish.number)
        if first != wish.number:
            return _conflict(
                "DUPLICATE_CREDENTIALS", f"Row {first} brings the same credentials; give each device its own"
            )
        return None


def surroundings(tx: ReadTx, tenant_id: int, wishes: Sequence[Wish]) -> Surroundings:
    ids = [credentials_id(wish.credentials) for wish in wishes if wish.credentials is not None]
    return Surroundings(
        devices=tx.devices_by_name(tenant_id, [wish.name for wish in wishes]),
        owners=tx.credentials_owners(ids) if ids else {},
        profiles={
            kind: tx.profile_by_name(tenant_id, kind or DEFAULT_PROFILE)
            if kind
            else tx.default_profile(tenant_id) or tx.profile_by_name(tenant_id, DEFAULT_PROFILE)
            for kind in {wish.type for wish in wishes}
        },
        customers={
            title: tx.customer_by_title(tenant_id, title) for title in {wish.customer for wish in wishes} if title
        },
    )


def verdict_on(tx: ReadTx, around: Surroundings, wish: Wish, now_ms: int, *, updates: bool) -> Verdict:
    """`updates`: attributes and time series of a device that is there already are written too."""
    if wish.customer and around.customers[wish.customer] is None:
        return Verdict(
            RowStatus.ERROR, "UNKNOWN_CUSTOMER",
            f"There is no customer '{wish.customer}'; create it, or leave the column empty",
        )  # fmt: skip
    stored = around.devices.get(wish.name)
    if wish.credentials is not None:
        owner = around.owners.get(credentials_id(wish.credentials))
        if owner is None and isinstance(wish.credentials, X509Certificate):
            owner = holder(tx, wish.credentials, now_ms)
        if owner is not None and (stored is None or owner != stored.id):
            return _conflict(
                "CREDENTIALS_IN_USE", "Specified credentials are already registered for another device; use other ones"
            )
    if stored is None:
        return Verdict(RowStatus.CREATE)
    return _verdict_on_update(tx, around, wish, stored, updates=updates)


def _verdict_on_update(tx: ReadTx, around: Surroundings, wish: Wish, stored: Device, *, updates: bool) -> Verdict:
    has_new_credentials = False
    if wish.credentials is not None:
        known = tx.credentials(stored.id)
        has_new_credentials = known is None or known.credentials != wish.credentials
    if has_new_credentials or _changes_device(around, wish, stored) or (updates and _changes_data(tx, wish, stored)):
        return Verdict(RowStatus.UPDATE, device=stored, has_new_credentials=has_new_credentials)
    return Verdict(RowStatus.UNCHANGED, device=stored)


def _changes_device(around: Surroundings, wish: Wish, stored: Device) -> bool:
    info = stored.document.get("additionalInfo")
    description = info.get("description", "") if isinstance(info, dict) else ""
    customer = around.customers.get(wish.customer)
    return (
        (bool(wish.type) and wish.type != stored.type)
        or (wish.label is not None and wish.label != stored.label)
        or (wish.description is not None and wish.description != description)
        or (wish.is_gateway is not None and wish.is_gateway != stored.is_gateway)
        or (customer is not None and customer.id != stored.customer_id)
    )


def _changes_data(tx: ReadTx, wish: Wish, stored: Device) -> bool:
    for scope, values in wish.attributes.items():
        known = {entry.key: entry.value for entry in tx.attributes(stored.id, scope, list(values))}
        if any(key not in known or not _is_same(known[key], value) for key, value in values.items()):
            return True
    return bool(wish.time_series)


def _is_same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def lack_of_room(tx: ReadTx, batch: Batch) -> str:
    """What the tenant's limit of devices says of the plan; empty where there is room for all."""
    left, wanted = room(tx, batch.tenant_id), batch.counts.get(RowStatus.CREATE, 0)
    if left is None or wanted <= left:
        return ""
    return (
        f"The tenant has room for {left} more devices, and the file would create {wanted}; delete devices, have the"
        " tenant's limit raised, or choose the mode partial"
    )


def within_room(tx: ReadTx, tenant_id: int, verdicts: list[Verdict]) -> list[Verdict]:
    """Devices above the tenant's limit are not created."""
    left = room(tx, tenant_id) if any(one.status is RowStatus.CREATE for one in verdicts) else None
    if left is None:
        return verdicts
    within = []
    for verdict in verdicts:
        if verdict.status is RowStatus.CREATE:
            left -= 1
        within.append(_no_room(tx, tenant_id) if verdict.status is RowStatus.CREATE and left < 0 else verdict)
    return within


def _no_room(tx: ReadTx, tenant_id: int) -> Verdict:
    text = f"The tenant may have {tx.max_devices(tenant_id)} devices; delete some, or have its limit raised"
    return Verdict(RowStatus.ERROR, "QUOTA_EXCEEDED", text)


def planned(row: BatchRow, verdict: Verdict) -> BatchRow:
    """The row with its verdict."""
    row.status, row.code, row.detail = verdict.status, verdict.code, verdict.detail
    row.device_uuid = verdict.device.uuid if verdict.device is not None else None
    return row


def _conflict(code: str, detail: str) -> Verdict:
    return Verdict(RowStatus.CONFLICT, code, detail)
